"""`enqueue.lua` through `Producer`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq.broker.producer import Producer
from taskq.broker.scripts import script
from taskq.core.errors import ServerUnavailable
from taskq.redis.connection import ConnectionLost
from tests.support.scripts import LANE, REMEMBERED, Kept, Lane, Scene, job


def queued(scene: Scene, **fields: Any) -> dict[str, Any]:
    return {"e": b"envelope", "s": "q", "q": LANE, "t": scene.about_now()} | fields


def scheduled(scene: Scene, due_in: float, **fields: Any) -> dict[str, Any]:
    return queued(scene, s="d", d=scene.about_now(due_in)) | fields


# ------------------------------------------------------------------------------- what is written


async def test_a_job_due_now_is_a_hash_and_a_stream_entry(scene: Scene) -> None:
    created = await scene.producer.add(job("a"))

    assert created
    assert scene.state() == {
        "j:a": queued(scene),
        "q:default/5": Lane(waiting=["a"]),
        "lanes": {"default": "5"},
        "sent": Kept(1, REMEMBERED),
    }


async def test_a_job_due_later_is_in_the_due_set_and_in_no_lane(scene: Scene) -> None:
    await scene.producer.add(job("a", when="+30000"))

    assert scene.state() == {
        "j:a": scheduled(scene, 30),
        "due": {"a": scene.about_now(30)},
        "sent": Kept(1, REMEMBERED),
    }


async def test_an_eta_is_kept_as_it_was_given(scene: Scene) -> None:
    eta = scene.now() + 90_000

    await scene.producer.add(job("a", when=f"@{eta}"))

    assert scene.job("a")["d"] == eta
    assert scene.state()["due"] == {"a": eta}


@pytest.mark.parametrize("when", ["", "+0", "@1000"])
async def test_a_time_that_has_passed_means_now(scene: Scene, when: str) -> None:
    await scene.producer.add(job("a", when=when))

    assert scene.job("a") == queued(scene)
    assert scene.lane() == Lane(waiting=["a"])
    assert "due" not in scene.state()


@pytest.mark.parametrize("expires", ["+60000", "@"])
@pytest.mark.parametrize("when", ["", "+30000"])
async def test_expires_is_written_to_the_job_and_to_the_expiry_set(
    scene: Scene, when: str, expires: str
) -> None:
    at = scene.about_now(60)
    text = expires if expires != "@" else f"@{scene.now() + 60_000}"

    await scene.producer.add(job("a", when=when, expires=text))

    expected = queued(scene, x=at) if when == "" else scheduled(scene, 30, x=at)
    assert scene.job("a") == expected
    assert scene.state()["expiry"] == {"a": at}


async def test_the_clock_is_the_servers_moved_by_the_offset(scene: Scene) -> None:
    scene.later(86_400)

    await scene.producer.add(job("a", when="+1000"))

    assert scene.job("a")["t"] == scene.about_now()
    assert scene.job("a")["d"] == scene.about_now(1)


async def test_each_job_goes_to_its_own_lane_in_order(scene: Scene) -> None:
    jobs = [job("a"), job("b", lane="images/9"), job("c"), job("d", lane="default/0")]

    assert await scene.producer.add_many(jobs) == [True] * 4

    assert scene.lane("default/5") == Lane(waiting=["a", "c"])
    assert scene.lane("images/9") == Lane(waiting=["b"])
    assert scene.lane("default/0") == Lane(waiting=["d"])
    assert scene.state()["lanes"] == {"default": "50", "images": "9"}


async def test_envelopes_are_kept_byte_for_byte(scene: Scene) -> None:
    envelope = bytes(range(256)) * 3

    await scene.producer.add(job("a", envelope=envelope))

    assert scene.job("a")["e"] == envelope


# --------------------------------------------------------------------------------- sending again


async def test_a_batch_sent_again_under_its_number_changes_nothing(scene: Scene) -> None:
    jobs = [job("a"), job("b", when="+30000"), job("c", expires="+60000")]
    await scene.producer.add_many(jobs)
    before = scene.state()

    scene.producer._number = 0
    again = await scene.producer.add_many(jobs)

    assert again == [True, True, True]
    assert scene.state() == before


async def test_a_job_that_came_and_went_is_not_made_again(scene: Scene) -> None:
    """With `result_ttl=0` nothing of a finished job is left that could tell."""
    await scene.producer.add(job("a"))
    scene.look.delete(scene.keys.job("a"), scene.keys.lane("default", 5))
    before = scene.state()

    scene.producer._number = 0
    assert await scene.producer.add(job("a"))

    assert scene.state() == before


async def test_a_first_copy_that_arrives_after_its_repetition_is_not_done(scene: Scene) -> None:
    """A slow network may deliver what its sender gave up before what it sent again."""
    await scene.producer.add_many([job("a")])
    scene.producer._number = 0
    await scene.producer.add_many([job("a")])
    scene.producer._number = 0
    before = scene.state()

    await scene.producer.add_many([job("a")])

    assert scene.state() == before


async def test_a_batch_that_never_arrived_is_done_when_sent_again(scene: Scene) -> None:
    await scene.producer.add(job("a"))
    scene.producer._number = 1
    scene.client.script, send = lose_first_request(scene)
    scene.client.send_nowait = lambda *_: False

    assert await scene.producer.add(job("b"))

    assert send == ["lost", "sent"]
    assert scene.lane() == Lane(waiting=["a", "b"])


def lose_first_request(scene: Scene) -> tuple[Any, list[str]]:
    """A client whose first request is lost before it reaches the server."""
    sent: list[str] = []
    script_of = scene.client.script

    async def lossy(*args: Any) -> Any:
        if not sent:
            sent.append("lost")
            raise ConnectionLost("lost on the way")
        sent.append("sent")
        return await script_of(*args)

    return lossy, sent


async def test_another_producers_numbers_are_its_own(scene: Scene) -> None:
    other = Producer(scene.client, scene.keys, scene.offset)
    await scene.producer.add(job("a"))

    await other.add(job("b"))

    assert scene.lane() == Lane(waiting=["a", "b"])


# ------------------------------------------------------------------------ ids chosen by callers


async def test_an_id_chosen_by_the_caller_leaves_its_origin(scene: Scene) -> None:
    assert await scene.producer.add(job("img:a", origin="o1"))

    assert scene.job("img:a") == queued(scene, o="o1")


async def test_another_request_with_the_same_id_is_answered_that_it_exists(scene: Scene) -> None:
    await scene.producer.add(job("img:a", origin="o1"))
    before = scene.state()

    assert not await scene.producer.add(job("img:a", envelope=b"other", origin="o2"))

    assert scene.state() == before | {"sent": Kept(2, REMEMBERED)}


async def test_the_same_request_sent_again_is_answered_that_it_made_the_job(scene: Scene) -> None:
    await scene.producer.add(job("img:a", origin="o1"))
    before = scene.state()

    assert await scene.producer.add(job("img:a", origin="o1"))

    assert scene.state() == before | {"sent": Kept(2, REMEMBERED)}


async def test_a_taken_id_does_not_hold_up_the_rest_of_its_batch(scene: Scene) -> None:
    await scene.producer.add(job("img:a", origin="o1"))

    created = await scene.producer.add_many([job("b"), job("img:a", origin="o2"), job("c")])

    assert created == [True, False, True]
    assert scene.lane() == Lane(waiting=["img:a", "b", "c"])


async def test_the_same_id_twice_in_a_batch_is_one_job(scene: Scene) -> None:
    created = await scene.producer.add_many([job("x", origin="o1"), job("x", origin="o2")])

    assert created == [True, False]
    assert scene.lane() == Lane(waiting=["x"])


@pytest.mark.parametrize("state", ["d", "q", "r", "s", "f", "c", "x"])
async def test_a_job_in_any_state_keeps_its_id(scene: Scene, state: str) -> None:
    scene.put_job("x", state, o="o1")
    before = scene.state()

    assert not await scene.producer.add(job("x", origin="o2"))

    assert scene.state() == before | {"sent": Kept(1, REMEMBERED)}


# ----------------------------------------------------------------------------------- waking up


async def test_as_many_idle_workers_are_woken_as_there_are_jobs(scene: Scene) -> None:
    idle = {f"w{n}" for n in range(5)}
    scene.look.sadd(scene.keys.idle + "default", *idle)
    listener = scene.listen()

    await scene.producer.add_many([job("a"), job("b")])

    woken = {channel.removeprefix("wake:") for channel, message in listener.messages()}
    assert len(woken) == 2
    assert scene.state()["idle:default"] == idle - woken


async def test_workers_of_other_queues_sleep_on(scene: Scene) -> None:
    scene.look.sadd(scene.keys.idle + "images", "w1")
    listener = scene.listen()

    await scene.producer.add(job("a"))

    assert listener.messages() == []
    assert scene.state()["idle:images"] == {"w1"}


async def test_nobody_is_woken_for_a_job_that_is_due_later(scene: Scene) -> None:
    scene.look.sadd(scene.keys.idle + "default", "w1")
    listener = scene.listen()

    await scene.producer.add(job("a", when="+60000"))

    assert listener.messages() == [("next", b"due")]
    assert scene.state()["idle:default"] == {"w1"}


async def test_only_a_new_earliest_time_is_news(scene: Scene) -> None:
    listener = scene.listen()

    async def news(**fields: str) -> list[tuple[str, bytes]]:
        await scene.producer.add(job(f"job{scene.producer._number}", **fields))
        return listener.messages()

    assert await news(when="+60000") == [("next", b"due")]
    assert await news(when="+90000") == []
    assert await news(when="+30000") == [("next", b"due")]
    assert await news(when="+40000", expires="+35000") == [("next", b"due")]
    assert await news(expires="+20000") == [("next", b"due")]
    assert await news() == []


async def test_a_worker_that_is_gone_does_not_swallow_a_wake_up(scene: Scene) -> None:
    scene.look.sadd(scene.keys.idle + "default", "here", *(f"gone{n}" for n in range(9)))
    listener = scene.listen("wake:here")

    await scene.producer.add_many([job("a"), job("b")])

    assert listener.messages() == [("wake:here", b"work")]


# --------------------------------------------------------------------------------------- batches


async def test_what_is_enqueued_in_one_turn_of_the_loop_is_one_call(scene: Scene) -> None:
    await scene.client.command("PING")
    scene.look.config_resetstat()

    await asyncio.gather(*(scene.producer.add(job(f"j{n}")) for n in range(300)))

    stats = scene.look.info("commandstats")
    calls = sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))
    assert calls <= 2, "one call, and one more where the server did not know the script"
    assert len(scene.lane().waiting) == 300


async def test_many_jobs_travel_in_batches_in_order(scene: Scene) -> None:
    ids = [f"j{n}" for n in range(1300)]

    assert await scene.producer.add_many([job(name) for name in ids]) == [True] * 1300

    assert scene.lane().waiting == ids
    assert scene.state()["sent"].value == 3


@pytest.mark.parametrize("handed_in", ["together", "one by one"])
async def test_large_jobs_travel_in_calls_of_bounded_bytes(scene: Scene, handed_in: str) -> None:
    await scene.producer.add(job("first"))
    send_nowait, sent = scene.client.send_nowait, []

    def counting(on_reply: Any, script: Any, keys: tuple[str, ...], *args: Any) -> bool:
        sent.append(sum(len(arg) for arg in args if isinstance(arg, bytes)))
        return send_nowait(on_reply, script, keys, *args)

    sizes = [300_000] * 8 + [3_000_000] + [10] * 3
    jobs = [job(f"j{n}", envelope=b"x" * size) for n, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.client, "send_nowait", counting)
        if handed_in == "together":
            await scene.producer.add_many(jobs)
        else:
            await asyncio.gather(*map(scene.producer.add, jobs))

    # A mebibyte at most, but for a single job that is larger
    assert sent == [900_000, 900_000, 600_000, 3_000_000, 30]
    assert scene.lane().waiting == ["first", *(f"j{n}" for n in range(12))]


@pytest.mark.own_user
async def test_two_batches_travel_at_once(scene: Scene) -> None:
    """The server does one while the other is made."""
    await scene.producer.add(job("first"))
    await scene.client.command("CLIENT", "PAUSE", 200)

    calls = [asyncio.ensure_future(scene.producer.add(job(name))) for name in "abc"]
    for _ in range(5):
        await asyncio.sleep(0)
    calls += [asyncio.ensure_future(scene.producer.add(job(name))) for name in "de"]
    for _ in range(5):
        await asyncio.sleep(0)
    calls += [asyncio.ensure_future(scene.producer.add(job("f")))]
    await asyncio.gather(*calls)

    assert scene.state()["sent"].value == 4
    assert scene.lane() == Lane(waiting=["first", *"abcdef"])


async def test_a_batch_waits_for_the_fate_of_the_one_before_it(scene: Scene) -> None:
    """The first one was refused: what comes after it is not done in its place."""
    await scene.producer.add(job("first"))
    send, refused = scene.client.script, 0

    async def refusing(script: Any, keys: tuple[str, ...], *args: Any) -> Any:
        nonlocal refused
        if args[1] == 2 and refused < 3:
            refused += 1
            raise ServerUnavailable("the server loads its data")
        return await send(script, keys, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.client, "script", refusing)
        patch.setattr(scene.client, "send_nowait", lambda *_: False)
        first = scene.producer.add_many([job("a"), job("b")])
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.gather(first, scene.producer.add_many([job("c")]))

    assert refused == 3
    assert scene.lane() == Lane(waiting=["first", "a", "b", "c"])


async def test_a_whole_batch_leaves_before_the_turn_that_makes_it_ends(scene: Scene) -> None:
    """The server does it while the next one is made; what is left goes when the turn ends."""
    await scene.producer.add(job("first"))
    send_nowait, sent = scene.client.send_nowait, []

    def counting(on_reply: Any, script: Any, keys: tuple[str, ...], *args: Any) -> bool:
        sent.append(args[5])
        return send_nowait(on_reply, script, keys, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene.client, "send_nowait", counting)
        answers = [scene.producer.add_many([job(f"j{n}")]) for n in range(700)]
        assert sent == [500]
        await asyncio.gather(*answers)

    assert sent == [500, 200]
    assert scene.lane() == Lane(waiting=["first", *(f"j{n}" for n in range(700))])


async def test_a_batch_before_its_predecessor_changes_nothing(scene: Scene) -> None:
    await scene.producer.add(job("first"))
    before = scene.state()

    common = ("1", "default/5", "", "", "", "", "early", b"envelope")
    answer = await scene.client.script(
        script("enqueue"), scene.producer._keys, 0, 3, 1000, 2, *common
    )

    assert answer is None
    assert scene.state() == before


async def test_a_cancelled_caller_does_not_hold_up_the_others(scene: Scene) -> None:
    first, second = (asyncio.ensure_future(scene.producer.add(job(name))) for name in "ab")
    await asyncio.sleep(0)
    first.cancel()

    assert await second

    assert first.cancelled()
    assert scene.lane() == Lane(waiting=["a", "b"])


async def test_a_lane_whose_stream_was_deleted_works_on(scene: Scene) -> None:
    await scene.producer.add(job("a"))
    scene.look.delete(scene.keys.lane("default", 5))

    await scene.producer.add(job("b"))
    delivered = await (await scene.consumer()).fetch(10, ["default"])

    assert [delivery.id for delivery in delivered] == ["b"]


async def test_the_server_may_forget_its_scripts(scene: Scene) -> None:
    await scene.producer.add(job("a"))
    scene.look.script_flush()

    await scene.producer.add(job("b"))

    assert scene.look.script_exists(script("enqueue").sha) == [True]
    assert scene.lane() == Lane(waiting=["a", "b"])
