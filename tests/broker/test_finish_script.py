"""`finish.lua` through `Consumer`: how attempts end, and who may end them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq.broker.consumer import Consumer, Frame
from taskq.core.job import NewJob
from tests.support.scripts import (
    GRACE,
    LANE,
    About,
    Kept,
    Lane,
    Scene,
    entry_name,
    frame,
    without,
)

HOUR = 3_600_000
MINUTE = 60_000


@pytest.fixture
async def consumer(scene: Scene) -> Consumer:
    return await scene.consumer()


def fields(scene: Scene, state: str, **more: Any) -> dict[str, Any]:
    given = {"e": b"envelope", "s": state, "q": LANE, "t": 1000, "a": 1, "w": "w1", "b": 2000}
    return given | more


def over(scene: Scene, state: str, **more: Any) -> Kept:
    """The record of a job that is over, with the ttl of `frame`."""
    given = fields(scene, state, f=scene.about_now(), l=HOUR)
    return Kept(given | more, About(HOUR + GRACE))


def counted(scene: Scene, **counts: int) -> dict[str, Any]:
    """The counters of this minute; the keywords are outcomes in the default queue."""
    value = {f"default:{name}": count for name, count in counts.items()}
    return {f"stats:{scene.now() // 60_000}": Kept(value, About(10 * MINUTE))}


async def say(scene: Scene, consumer: Consumer, *frames: Frame, again: int = 2) -> None:
    """End attempts twice, as after a lost reply: the second time must change nothing."""
    assert await consumer.finish(frames) == [1] * len(frames)
    state = scene.state()
    assert await consumer.finish(frames) == [again] * len(frames)
    assert scene.state() == state


# ------------------------------------------------------------------------------------ succeeded


async def test_a_result_is_kept_for_its_ttl(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a")
    before = scene.state()

    await say(scene, consumer, frame("S", job, b"\xc0result"))

    assert scene.state() == before | counted(scene, succeeded=1) | {
        "j:a": over(scene, "s", r=b"\xc0result"),
        "q:default/5": Lane(),
        "held": {"w1": 0},
    }


async def test_a_job_whose_result_nobody_keeps_leaves_nothing(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    before = scene.state()

    await say(scene, consumer, frame("S", job, b"result", ttl=0), again=3)

    assert scene.state() == without(before, "j:a") | counted(scene, succeeded=1) | {
        "q:default/5": Lane(),
        "held": {"w1": 0},
    }


@pytest.mark.parametrize(
    ("ttl", "record"), [(1_000, 31_000), (300_000, 600_000), (HOUR, HOUR + GRACE)]
)
async def test_a_record_outlives_its_result_so_that_late_readers_learn_why(
    scene: Scene, consumer: Consumer, ttl: int, record: int
) -> None:
    await consumer.finish([frame("S", scene.put_running("a"), b"r", ttl=ttl)])

    assert scene.state()["j:a"].ms == About(record)


async def test_a_job_that_ended_no_longer_expires(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a")
    scene.put_expiry("a", scene.now() + 60_000)

    await consumer.finish([frame("S", job, b"r")])

    assert "expiry" not in scene.state()


# --------------------------------------------------------------------------------------- failed


async def test_a_failed_job_is_listed_with_its_error(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a", c=2)
    before = scene.state()

    await say(scene, consumer, frame("F", job, b"error", count=3))

    assert scene.state() == before | counted(scene, failed=1) | {
        "j:a": over(scene, "f", E=b"error", c=3),
        "q:default/5": Lane(),
        "held": {"w1": 0},
        "failed:default": Kept({"a": scene.about_now()}, About(HOUR + GRACE)),
    }


async def test_a_failed_job_nobody_keeps_leaves_nothing(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a")

    await say(scene, consumer, frame("F", job, b"error", ttl=0), again=3)

    assert without(scene.state(), *counted(scene)) == {
        "q:default/5": Lane(),
        "lanes": {"default": "5"},
        "held": {"w1": 0},
        "workers": {"w1": 7},
    }


async def test_of_too_many_failed_jobs_the_oldest_go(scene: Scene) -> None:
    consumer = await scene.consumer(keep_failed=3)
    for n in range(5):
        await consumer.finish([frame("F", scene.put_running(f"j{n}"), b"error")])
        scene.later(1)

    assert set(scene.state()["failed:default"].value) == {"j2", "j3", "j4"}
    assert scene.job("j1") == {}
    assert scene.job("j2")["s"] == "f"


async def test_each_queue_keeps_its_own_number_of_failed_jobs(scene: Scene) -> None:
    consumer = await scene.consumer(keep_failed=1)
    jobs = [scene.put_running("a", lane="a/5"), scene.put_running("b", lane="b/5")]

    await consumer.finish([frame("F", job, b"error") for job in jobs])

    assert set(scene.state()["failed:a"].value) == {"a"}
    assert set(scene.state()["failed:b"].value) == {"b"}


async def test_a_job_that_has_the_id_of_an_old_failure_is_not_removed_with_it(
    scene: Scene,
) -> None:
    """Callers may choose an id again once nothing is known of the job that had it."""
    consumer = await scene.consumer(keep_failed=1)
    scene.look.zadd(scene.keys.failed + "default", {"report": 1})
    scene.put_queued("report")

    await consumer.finish([frame("F", scene.put_running("b"), b"error")])

    assert set(scene.state()["failed:default"].value) == {"b"}
    assert scene.job("report")["s"] == "q"


async def test_a_job_whose_id_is_a_number_is_not_mistaken_for_a_time(scene: Scene) -> None:
    consumer = await scene.consumer(keep_failed=1)
    scene.look.zadd(scene.keys.failed + "default", {"old": 1700000000000})
    scene.put_job("1700000000000", "f")

    await consumer.finish([frame("F", scene.put_running("b"), b"error")])

    assert scene.job("1700000000000")["s"] == "f"


# ---------------------------------------------------------------------------------------- retry


async def test_a_retry_without_a_pause_is_queued_behind_the_others(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    scene.put_queued("b")
    before = scene.state()

    await say(scene, consumer, frame("R", job, b"error\nOSError: x", count=1))

    record = ["2000", scene.about_now(), "w1", "error\nOSError: x"]
    assert scene.state() == before | counted(scene, retried=1) | {
        "j:a": fields(scene, "q", c=1, h1=record),
        "q:default/5": Lane(waiting=["b", "a"]),
        "held": {"w1": 0},
    }


async def test_a_retry_after_a_pause_is_scheduled(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a", a=3, c=1)
    before = scene.state()

    await say(scene, consumer, frame("R", job, b"timeout", delay=90_000, count=2))

    record = ["2000", scene.about_now(), "w1", "timeout"]
    due = scene.about_now(90)
    assert scene.state() == before | counted(scene, retried=1) | {
        "j:a": fields(scene, "d", a=3, c=2, d=due, h3=record),
        "q:default/5": Lane(),
        "held": {"w1": 0},
        "due": {"a": due},
    }


async def test_the_next_attempt_has_the_next_number(scene: Scene, consumer: Consumer) -> None:
    await consumer.finish([frame("R", scene.put_running("a"), b"error", count=1)])

    [delivery] = await consumer.fetch(1, ["default"])

    assert (delivery.attempt, delivery.failures) == (2, 1)


async def test_a_retry_keeps_the_expiry(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a")
    at = scene.now() + 60_000
    scene.put_expiry("a", at)

    await consumer.finish([frame("R", job, b"error", count=1)])

    assert scene.state()["expiry"] == {"a": at}


async def test_a_retry_wakes_an_idle_worker_and_a_scheduled_one_the_promoters(
    scene: Scene, consumer: Consumer
) -> None:
    jobs = [scene.put_running(name) for name in "ab"]
    scene.look.sadd(scene.keys.idle + "default", "w2")
    listener = scene.listen()

    await consumer.finish([frame("R", jobs[0], b"error", count=1)])
    await consumer.finish([frame("R", jobs[1], b"error", count=1, delay=1000)])

    assert listener.messages() == [("wake:w2", b"work"), ("next", b"due")]
    assert "idle:default" not in scene.state()


async def test_a_retry_that_is_not_the_next_to_be_due_is_no_news(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    scene.put_due("b", scene.now() + 1000)
    listener = scene.listen()

    await consumer.finish([frame("R", job, b"error", count=1, delay=60_000)])

    assert listener.messages() == []


# ----------------------------------------------------------------------------------- given back


async def test_a_release_of_a_started_attempt_counts_it(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a", c=1)
    before = scene.state()

    await say(scene, consumer, frame("B", job, b"released", delay=2000, count=4))

    due = scene.about_now(2)
    assert scene.state() == before | counted(scene, released=1) | {
        "j:a": fields(
            scene, "d", c=1, u=4, d=due, h1=["2000", scene.about_now(), "w1", "released"]
        ),
        "q:default/5": Lane(),
        "held": {"w1": 0},
        "due": {"a": due},
    }


async def test_a_release_of_an_attempt_that_never_started_does_not_count_it(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a", a=3, c=1)
    before = scene.state()

    await say(scene, consumer, frame("B", job))

    assert scene.state() == before | counted(scene, released=1) | {
        "j:a": fields(scene, "q", a=3, c=1, m=1, w=""),
        "lanes": {"default": "5r"},
        "q:default/5": Lane(returned=["a"]),
        "held": {"w1": 0},
    }


async def test_a_released_job_is_run_under_the_same_number_and_another_fence(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    other = await scene.consumer("w2")
    await consumer.finish([frame("B", job)])

    [delivery] = await other.fetch(1, ["default"])

    assert (delivery.attempt, delivery.fence) == (1, 2)
    assert await consumer.finish([frame("S", job, b"too late")]) == [0]
    assert scene.job("a")["s"] == "r"


async def test_what_is_released_is_run_before_what_was_enqueued_after_it(
    scene: Scene, consumer: Consumer
) -> None:
    jobs = [scene.put_running(f"first{n}") for n in range(3)]
    scene.put_queued("later")

    await consumer.finish([frame("B", job) for job in reversed(jobs)])

    assert scene.lane() == Lane(waiting=["later"], returned=["first0", "first1", "first2"])
    delivered = await consumer.fetch(9, ["default"])
    assert [job.id for job in delivered] == ["first0", "first1", "first2", "later"]
    assert scene.look.hget(scene.keys.lanes, "default") == b"5"
    consumers = scene.look.xinfo_consumers(scene.keys.lane("default", 5), "g")
    assert [found["name"] for found in consumers] == [b"w1"]


async def test_a_release_keeps_its_place_again_and_again(scene: Scene, consumer: Consumer) -> None:
    first = scene.put_running("first")
    scene.put_queued("later")
    await consumer.finish([frame("B", first)])
    for fence in (2, 3, 4):
        [again] = await consumer.fetch(1, ["default"])
        assert (again.id, again.attempt, again.fence) == ("first", 1, fence)
        assert again.entry == first.entry

        await consumer.finish([frame("B", again)])

    assert scene.lane() == Lane(waiting=["later"], returned=["first"])


async def test_a_release_that_is_said_again_does_not_end_the_next_take(
    scene: Scene, consumer: Consumer
) -> None:
    """The same worker may hold the same entry again before the reply to the first is given up."""
    release = frame("B", scene.put_running("a"))
    await consumer.finish([release])
    await consumer.fetch(1, ["default"])
    before = scene.state()

    assert await consumer.finish([release]) == [2]

    assert scene.state() == before


async def test_a_job_of_which_nothing_is_left_takes_only_its_own_workers_entry_along(
    scene: Scene, consumer: Consumer
) -> None:
    """Ids of entries repeat in a stream that was deleted and made again."""
    mine = scene.put_running("gone", "w1")
    other = scene.put_running("other", "w2")
    scene.look.delete(scene.keys.job("gone"))
    before = scene.state()

    assert await consumer.finish([frame("S", mine._replace(entry=other.entry), b"r")]) == [3]

    assert scene.state() == before


async def test_between_a_release_and_the_next_fetch_nobody_may_write(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    await consumer.finish([frame("B", job)])
    before = scene.state()

    for kind in "SFCR":
        assert await consumer.finish([frame(kind, job, b"x", count=1)]) == [0]

    assert scene.state() == before


# ------------------------------------------------------------------------------------ cancelled


async def test_a_cancelled_attempt_ends_the_job(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a", z=1)
    scene.look.sadd(scene.keys.cancels + "w1", "a", "b")
    before = scene.state()

    await say(scene, consumer, frame("C", job))

    assert scene.state() == before | counted(scene, cancelled=1) | {
        "j:a": over(scene, "c", E=b"", z=1),
        "q:default/5": Lane(),
        "held": {"w1": 0},
        "cancels:w1": {"b"},
    }


@pytest.mark.parametrize(
    ("kind", "payload"), [("R", b"error\nOSError: x"), ("B", b"released"), ("B", b"")]
)
async def test_a_job_that_was_cancelled_while_it_ran_has_no_next_attempt(
    scene: Scene, consumer: Consumer, kind: str, payload: bytes
) -> None:
    job = scene.put_running("a", z=1, n="c1")
    before = scene.state()
    listener = scene.listen()

    await say(scene, consumer, frame(kind, job, payload, count=1))

    assert scene.state() == before | counted(scene, cancelled=1) | {
        "j:a": over(scene, "c", E=b"", z=1, n="c1"),
        "q:default/5": Lane(),
        "held": {"w1": 0},
    }
    assert listener.messages() == [("done:c1", b"a\nc\n")]


@pytest.mark.parametrize(("kind", "state"), [("S", "s"), ("F", "f")])
async def test_a_job_that_ended_before_it_could_be_interrupted_has_ended_so(
    scene: Scene, consumer: Consumer, kind: str, state: str
) -> None:
    job = scene.put_running("a", z=1)

    await consumer.finish([frame(kind, job, b"x")])

    assert scene.job("a")["s"] == state


# -------------------------------------------------------------------------------------- fences


@pytest.mark.parametrize("kind", "SFCRB")
async def test_a_stale_attempt_changes_nothing(scene: Scene, consumer: Consumer, kind: str) -> None:
    job = scene.put_running("a", a=2)
    before = scene.state()

    stale = job._replace(fence=1)
    # What is given back is another's already: so it was.
    answer = 2 if kind == "B" else 0
    assert await consumer.finish([frame(kind, stale, b"x", count=1)]) == [answer]

    assert scene.state() == before


@pytest.mark.parametrize("kind", "SFCRB")
async def test_another_worker_changes_nothing(scene: Scene, consumer: Consumer, kind: str) -> None:
    job = scene.put_running("a", "w2")
    before = scene.state()

    assert await consumer.finish([frame(kind, job, b"x", count=1)]) == [0]

    assert scene.state() == before


@pytest.mark.parametrize("kind", "SFCRB")
async def test_a_job_that_is_over_is_not_ended_again(
    scene: Scene, consumer: Consumer, kind: str
) -> None:
    job = scene.put_running("a")
    await consumer.finish([frame("S", job, b"first")])
    before = scene.state()

    assert await consumer.finish([frame(kind, job, b"second", count=1)]) == [2]

    assert scene.state() == before


async def test_a_worker_that_was_reaped_meets_the_fence(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a")
    assert await scene.leases.reap("w1", scene.policy) is not None
    before = scene.state()

    assert await consumer.finish([frame("S", job, b"too late")]) == [0]

    assert scene.state() == before


@pytest.mark.parametrize("kind", "SFCRB")
@pytest.mark.parametrize("old_lane", [LANE, "other/9"])
async def test_what_is_said_again_of_a_job_that_left_nothing_does_not_end_the_next_of_its_id(
    scene: Scene, consumer: Consumer, kind: str, old_lane: str
) -> None:
    # given: the reply to the end of an attempt is lost, and meanwhile the id goes to another job
    first = NewJob("chosen", b"envelope", old_lane, "", "", "request 1")
    await scene.producer.add(first)
    [old] = await consumer.fetch(1, ["default", "other"])
    said = frame(kind, old, b"old", ttl=0, count=1)
    await consumer.finish([frame("S", old, b"old", ttl=0)])
    await scene.producer.add(NewJob("chosen", b"envelope", LANE, "", "", "request 2"))
    [new] = await consumer.fetch(1, ["default"])
    assert (new.attempt, new.id) == (old.attempt, old.id)
    before = scene.state()

    # when
    assert await consumer.finish([said]) == [2]

    # then
    assert scene.state() == before
    assert await consumer.finish([frame("S", new, b"new")]) == [1]
    assert scene.job("chosen")["r"] == b"new"
    assert scene.lane() == Lane()
    assert scene.state()["held"] == {"w1": 0}


async def test_a_release_that_is_said_again_does_not_release_the_next_attempt_of_its_number(
    scene: Scene, consumer: Consumer
) -> None:
    # given
    old = scene.put_running("a")
    await consumer.finish([frame("B", old)])
    [new] = await consumer.fetch(1, ["default"])
    assert new.attempt == old.attempt
    before = scene.state()

    # when
    assert await consumer.finish([frame("B", old)]) == [2]

    # then
    assert scene.state() == before
    assert await consumer.finish([frame("B", new)]) == [1]


async def test_a_job_of_a_chosen_id_ends_though_its_stream_was_deleted(
    scene: Scene, consumer: Consumer
) -> None:
    running = scene.put_running("a", o="request 1")
    scene.look.delete(scene.keys.lane("default", 5))

    assert await consumer.finish([frame("S", running, b"result")]) == [1]

    assert scene.job("a")["s"] == "s"


async def test_of_many_frames_each_is_judged_for_itself(scene: Scene, consumer: Consumer) -> None:
    good, stale, foreign = (
        scene.put_running("good"),
        scene.put_running("stale", a=2)._replace(fence=1),
        scene.put_running("foreign", "w2"),
    )
    gone = good._replace(id="gone", entry=entry_name(LANE, b"9-9"))

    answers = await consumer.finish([frame("S", job, b"r") for job in (stale, good, gone, foreign)])

    assert answers == [0, 1, 3, 0]
    assert scene.lane() == Lane(held={"w1": ["stale"], "w2": ["foreign"]})
    assert scene.state()["held"] == {"w1": 1, "w2": 1}


# -------------------------------------------------------------------------------- unknown jobs


async def test_a_job_nobody_knows_is_answered_so_and_its_entry_goes(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    scene.look.delete(scene.keys.job("a"))
    before = scene.state()

    assert await consumer.finish([frame("S", job, b"r")]) == [3]
    assert await consumer.finish([frame("S", job, b"r")]) == [3]

    assert scene.state() == before | {"q:default/5": Lane(), "held": {"w1": 0}}


async def test_after_the_server_lost_its_data_nothing_comes_back(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a")
    scene.clear()  # what FLUSHALL does to this namespace

    for kind in "SFCRB":
        assert await consumer.finish([frame(kind, job, b"x", count=1)]) == [3]

    assert scene.state() == {}


# ------------------------------------------------------------------------------ telling waiters


@pytest.mark.parametrize(
    ("kind", "payload", "message"),
    [
        ("S", b"a\nresult\n", b"a\ns\na\nresult\n"),
        ("F", b"error", b"a\nf\nerror"),
        ("C", b"", b"a\nc\n"),
    ],
)
async def test_everybody_who_waits_is_told_how_it_ended(
    scene: Scene, consumer: Consumer, kind: str, payload: bytes, message: bytes
) -> None:
    job = scene.put_running("a", n="c1 c2 c3")
    listener = scene.listen()

    await say(scene, consumer, frame(kind, job, payload))

    assert listener.messages() == [(f"done:c{n}", message) for n in (1, 2, 3)]


async def test_those_who_wait_are_told_even_if_nothing_is_kept(
    scene: Scene, consumer: Consumer
) -> None:
    job = scene.put_running("a", n="c1")
    listener = scene.listen()

    await consumer.finish([frame("S", job, b"r", ttl=0)])

    assert listener.messages() == [("done:c1", b"a\ns\nr")]


@pytest.mark.parametrize(("size", "travels"), [(65_536, True), (65_537, False)])
async def test_a_large_result_stays_in_the_job(
    scene: Scene, consumer: Consumer, size: int, travels: bool
) -> None:
    job = scene.put_running("a", n="c1")
    result = b"x" * size
    listener = scene.listen()

    await consumer.finish([frame("S", job, result)])

    assert listener.messages() == [("done:c1", b"a\ns\n" + result if travels else b"a\ns")]
    assert scene.job("a")["r"] == result


async def test_a_retry_tells_nobody(scene: Scene, consumer: Consumer) -> None:
    job = scene.put_running("a", n="c1")
    listener = scene.listen()

    await consumer.finish([frame("R", job, b"error", count=1)])

    assert listener.messages() == []
    assert scene.job("a")["n"] == "c1"


# -------------------------------------------------------------------------------------- batches


async def test_outcomes_of_all_kinds_travel_together(scene: Scene, consumer: Consumer) -> None:
    jobs = {kind: scene.put_running(kind, lane=f"q{kind}/3") for kind in "SFCRB"}

    frames = [frame(kind, job, b"x", count=1) for kind, job in jobs.items()]
    assert await consumer.finish(frames) == [1] * 5

    assert {kind: scene.job(kind)["s"] for kind in jobs} == {
        "S": "s",
        "F": "f",
        "C": "c",
        "R": "q",
        "B": "q",
    }
    assert scene.state()[f"stats:{scene.now() // 60_000}"].value == {
        "qS:succeeded": 1,
        "qF:failed": 1,
        "qC:cancelled": 1,
        "qR:retried": 1,
        "qB:released": 1,
    }
    assert scene.state()["held"] == {"w1": 0}


async def test_as_many_jobs_as_a_worker_can_hold_may_end_at_once(
    scene: Scene, consumer: Consumer
) -> None:
    """Lua passes no more than some 8,000 arguments to a command."""
    with scene.look.pipeline(transaction=False) as pipeline:
        for n in range(9_000):
            pipeline.hset(scene.keys.job(f"j{n}"), mapping={"e": b"e", "s": "q", "q": LANE, "t": 1})
        pipeline.execute()
    scene.put_entry("j0")
    with scene.look.pipeline(transaction=False) as pipeline:
        for n in range(1, 9_000):
            pipeline.xadd(scene.keys.lane("default", 5), {"i": f"j{n}"})
        pipeline.execute()
    jobs = await consumer.fetch(9_000, ["default"])

    answers = await consumer.finish([frame("S", job, b"r", ttl=0) for job in jobs])

    assert answers == [1] * 9_000
    assert scene.lane() == Lane()
    assert scene.state()["held"] == {"w1": 0}


async def test_the_server_may_forget_its_scripts(scene: Scene, consumer: Consumer) -> None:
    jobs = [scene.put_running(name) for name in "ab"]
    await consumer.finish([frame("S", jobs[0], b"r")])
    scene.look.script_flush()

    assert await consumer.finish([frame("S", jobs[1], b"r")]) == [1]

    assert scene.state()["held"] == {"w1": 0}


async def test_minutes_are_counted_apart(scene: Scene, consumer: Consumer) -> None:
    jobs = [scene.put_running(name) for name in "abc"]
    for job in jobs:
        await consumer.finish([frame("S", job, b"r")])
        scene.later(60)

    counters = [value for name, value in scene.state().items() if name.startswith("stats:")]

    assert len(counters) == 3
    assert all(counter.value == {"default:succeeded": 1} for counter in counters)


async def test_ends_of_different_turns_may_overlap(scene: Scene, consumer: Consumer) -> None:
    jobs = [scene.put_running(f"j{n}") for n in range(20)]

    answers = await asyncio.gather(*(consumer.finish([frame("S", job, b"r")]) for job in jobs))

    assert answers == [[1]] * 20
    assert scene.state()["held"] == {"w1": 0}


async def test_a_job_that_is_no_hash_any_more_takes_no_other_along(scene: Scene) -> None:
    consumer = await scene.consumer()
    deliveries = [scene.put_running(name) for name in ("a", "b")]
    scene.look.delete(scene.keys.job("a"))
    scene.look.set(scene.keys.job("a"), "garbage")

    assert await consumer.finish([frame("S", delivery) for delivery in deliveries]) == [3, 1]
