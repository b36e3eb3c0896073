"""`beat.lua` through `Leases`."""

from __future__ import annotations

from taskq.broker.leases import BeatReply
from tests.support.scripts import About, Kept, Scene

MINUTE = About(60_000)


async def test_a_worker_registers_with_its_first_beat(scene: Scene) -> None:
    assert await scene.leases.beat("w1", b"\xc0who", register=100) == BeatReply(0, ())

    assert scene.state() == {
        "workers": {"w1": 1},
        "slots": {"w1": 100},
        "worker:w1": Kept(b"\xc0who", MINUTE),
    }


async def test_a_name_that_is_registered_is_not_registered_again(scene: Scene) -> None:
    await scene.leases.beat("w1", b"first", register=100)

    assert await scene.leases.beat("w1", b"second", register=5) is None

    assert scene.state() == {
        "workers": {"w1": 1},
        "slots": {"w1": 100},
        "worker:w1": Kept(b"first", MINUTE),
    }
    # Once it is gone, the name is free
    await scene.leases.reap("w1", scene.policy)
    assert await scene.leases.beat("w1", b"second", register=5) == BeatReply(0, ())


async def test_each_beat_moves_the_counter_and_renews_the_description(scene: Scene) -> None:
    await scene.leases.beat("w1", b"before", register=True)
    scene.look.pexpire(scene.keys.worker_info + "w1", 1000)

    assert await scene.leases.beat("w1", b"after") == BeatReply(0, ())

    assert scene.state() == {
        "workers": {"w1": 2},
        "slots": {"w1": 1},
        "worker:w1": Kept(b"after", MINUTE),
    }
    assert await scene.leases.counters() == {"w1": "2"}


async def test_a_beat_tells_how_many_jobs_the_server_thinks_are_held(scene: Scene) -> None:
    scene.look.hset(scene.keys.workers, "w1", 1)
    scene.look.hset(scene.keys.held, mapping={"w1": 7, "w2": 9})

    reply = await scene.leases.beat("w1", b"who")

    assert reply == BeatReply(7, ())


async def test_a_beat_tells_which_jobs_are_to_be_cancelled(scene: Scene) -> None:
    scene.look.hset(scene.keys.workers, "w1", 1)
    scene.look.sadd(scene.keys.cancels + "w1", "a", "b")
    scene.look.sadd(scene.keys.cancels + "w2", "c")

    reply = await scene.leases.beat("w1", b"who")

    assert reply is not None
    assert sorted(reply.cancels) == ["a", "b"]
    assert scene.state()["cancels:w1"] == {"a", "b"}


async def test_a_worker_that_was_declared_dead_is_told_so_and_stays_dead(scene: Scene) -> None:
    await scene.leases.beat("w1", b"who", register=True)
    await scene.leases.reap("w1", scene.policy)

    assert await scene.leases.beat("w1", b"who") is None

    assert scene.state() == {}


async def test_other_workers_beats_are_their_own(scene: Scene) -> None:
    await scene.leases.beat("w1", b"one", register=True)
    await scene.leases.beat("w2", b"two", register=True)
    await scene.leases.beat("w2", b"two")

    assert await scene.leases.counters() == {"w1": "1", "w2": "2"}


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    await scene.leases.beat("w1", b"who", register=True)
    scene.look.script_flush()

    assert await scene.leases.beat("w1", b"who") == BeatReply(0, ())
    assert await scene.leases.counters() == {"w1": "2"}
