"""`beat.lua` through `Leases`."""

from __future__ import annotations

from taskq.broker.leases import BeatReply, SilentWorker
from tests.support.scripts import About, Kept, Scene

MINUTE = About(60_000)


def answer(number: int, **others: object) -> BeatReply:
    """The reply to a worker that holds nothing and promotes."""
    given = {"held": 0, "cancels": (), "promotes": True, "silent": ()} | others
    return BeatReply(number, **given)  # type: ignore[arg-type]


async def test_a_worker_registers_with_its_first_heartbeat(scene: Scene) -> None:
    reply = await scene.leases.register("w1", b"\xc0who", 100, ["a", "default"])

    assert reply == answer(1)
    assert scene.state() == {
        "workers": {"w1": 1},
        "slots": {"w1": 100},
        "promoter": Kept(b"w1", MINUTE),
        "worker:w1": Kept(b"\xc0who", MINUTE),
    }
    assert scene.look.hget(scene.keys.serves, "w1") == b"a default"


async def test_a_name_that_is_registered_is_not_registered_again(scene: Scene) -> None:
    await scene.leases.register("w1", b"first", 100, ["default"])
    before = scene.state()

    assert await scene.leases.register("w1", b"second", 5, ["default"]) is None

    assert scene.state() == before
    # Once it is gone, the name is free
    await scene.leases.reap("w1", scene.policy)
    assert await scene.leases.register("w1", b"second", 5, ["default"]) == answer(1)


async def test_each_heartbeat_is_numbered_and_renews_the_description(scene: Scene) -> None:
    await scene.leases.register("w1", b"before", 1, ["default"])
    scene.look.pexpire(scene.keys.worker_info + "w1", 1000)

    assert await scene.leases.beat("w1", b"after") == answer(2)

    assert scene.state() == {
        "workers": {"w1": 2},
        "slots": {"w1": 1},
        "promoter": Kept(b"w1", MINUTE),
        "worker:w1": Kept(b"after", MINUTE),
    }
    assert await scene.leases.heartbeats() == {"w1": 2}
    assert await scene.leases.last_heartbeat("w1") == 2
    assert await scene.leases.last_heartbeat("nobody") is None


async def test_heartbeats_of_all_workers_are_numbered_in_one_order(scene: Scene) -> None:
    await scene.leases.register("w1", b"one", 1, ["default"])
    await scene.leases.register("w2", b"two", 1, ["default"])
    await scene.leases.beat("w2", b"two")
    await scene.leases.beat("w1", b"one")

    assert await scene.leases.heartbeats() == {"w1": 4, "w2": 3}


async def test_a_heartbeat_tells_how_many_jobs_the_server_thinks_are_held(scene: Scene) -> None:
    scene.put_worker("w1")
    scene.look.hset(scene.keys.held, mapping={"w1": 7, "w2": 9})

    assert await scene.leases.beat("w1", b"who") == answer(8, held=7)


async def test_a_heartbeat_tells_which_jobs_are_to_be_cancelled(scene: Scene) -> None:
    scene.put_worker("w1")
    scene.look.sadd(scene.keys.cancels + "w1", "a", "b")
    scene.look.sadd(scene.keys.cancels + "w2", "c")

    reply = await scene.leases.beat("w1", b"who")

    assert reply is not None
    assert sorted(reply.cancels) == ["a", "b"]
    assert scene.state()["cancels:w1"] == {"a", "b"}


async def test_a_worker_that_was_declared_dead_is_told_so_and_stays_dead(scene: Scene) -> None:
    await scene.leases.register("w1", b"who", 1, ["default"])
    await scene.leases.reap("w1", scene.policy)

    assert await scene.leases.beat("w1", b"who") is None

    assert scene.state() == {}
    assert not scene.look.exists(scene.keys.serves)


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    await scene.leases.register("w1", b"who", 1, ["default"])
    scene.look.script_flush()

    assert await scene.leases.beat("w1", b"who") == answer(2)


# ------------------------------------------------------------------------------- who is silent


async def test_who_was_not_heard_since_an_own_heartbeat_is_silent(scene: Scene) -> None:
    await scene.leases.register("lives", b"who", 1, ["default"])
    await scene.leases.register("silent", b"who", 1, ["default"])
    mine = await scene.leases.register("me", b"who", 1, ["default"])
    assert mine is not None
    await scene.leases.beat("lives", b"who")

    reply = await scene.leases.beat("me", b"who", since=mine.heartbeat)

    assert reply is not None
    assert reply.silent == (SilentWorker("silent", 2),)


async def test_who_names_no_heartbeat_hears_of_nobody(scene: Scene) -> None:
    await scene.leases.register("other", b"who", 1, ["default"])
    await scene.leases.register("me", b"who", 1, ["default"])

    assert await scene.leases.beat("me", b"who") == answer(3, promotes=False)


async def test_what_a_heartbeat_tells_does_not_grow_with_those_who_live(scene: Scene) -> None:
    mine = await scene.leases.register("me", b"who", 1, ["default"])
    assert mine is not None
    scene.look.zadd(scene.keys.workers, {f"w{n}": 10 + n for n in range(5_000)})

    reply = await scene.leases.beat("me", b"who", since=mine.heartbeat)

    assert reply is not None
    assert (reply.heartbeat, reply.silent) == (5_010, ())


async def test_a_stranger_among_the_workers_hides_nobody(scene: Scene) -> None:
    """Another program may have written a name that is not text."""
    await scene.leases.register("silent", b"who", 1, ["default"])
    mine = await scene.leases.register("me", b"who", 1, ["default"])
    assert mine is not None
    scene.look.zadd(scene.keys.workers, {b"\xff": 1})

    reply = await scene.leases.beat("me", b"who", since=mine.heartbeat)

    assert reply is not None
    assert reply.silent == (SilentWorker("silent", 1), SilentWorker("\\xff", 1))
    assert await scene.leases.reap("\\xff", scene.policy) is not None


# ------------------------------------------------------------------------------ who promotes


async def test_one_of_many_workers_promotes(scene: Scene) -> None:
    one = await scene.leases.register("w1", b"who", 1, ["default"])
    two = await scene.leases.register("w2", b"who", 1, ["default"])
    again = [await scene.leases.beat(name, b"who") for name in ("w2", "w1")]

    assert [reply and reply.promotes for reply in (one, two, *again)] == [True, False, False, True]


async def test_who_is_silent_no_longer_promotes(scene: Scene) -> None:
    await scene.leases.register("w1", b"who", 1, ["default"])
    mine = await scene.leases.register("w2", b"who", 1, ["default"])
    assert mine is not None

    reply = await scene.leases.beat("w2", b"who", since=mine.heartbeat)

    assert reply is not None
    assert reply.promotes
    late = await scene.leases.beat("w1", b"who")
    assert late is not None
    assert not late.promotes


async def test_who_cannot_promote_gives_it_up_at_once(scene: Scene) -> None:
    await scene.leases.register("w1", b"who", 1, ["default"])
    await scene.leases.register("w2", b"who", 1, ["default"])

    stalled = await scene.leases.beat("w1", b"who", promotes=False)
    other = await scene.leases.beat("w2", b"who")

    assert stalled is not None
    assert other is not None
    assert (stalled.promotes, other.promotes) == (False, True)


async def test_who_leaves_is_followed_by_the_next_that_is_heard(scene: Scene) -> None:
    await scene.leases.register("w1", b"who", 1, ["default"])
    await scene.leases.register("w2", b"who", 1, ["default"])
    await scene.leases.reap("w1", scene.policy, died=False)

    reply = await scene.leases.beat("w2", b"who")

    assert reply is not None
    assert reply.promotes
