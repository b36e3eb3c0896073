"""What others wrote on the server costs one row, healed or set aside and said; no other one.


Each test puts a byte or a word where taskq expects something else, and then uses taskq as usual.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis

from taskq import JobState, Retention, TaskQ, every
from taskq.broker.keys import Keys
from taskq.ops.doctor import examine
from taskq.ops.overview import Overview, read_overview
from tests.support.scripts import About, Scene
from tests.support.waiting import eventually

BAD = b"\xff\xfe"


@pytest.fixture
def keys(namespace: str) -> Keys:
    return Keys(namespace)


async def overview(q: TaskQ) -> Overview:
    settings = q._settings
    return await read_overview(q._backend.current().client, settings.keys, settings.offset)


# ------------------------------------------------------------------------------------ schedules


@pytest.mark.leaves_jobs
async def test_names_that_no_schedule_has_are_removed_and_said(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    @q.task(name="tick")
    async def tick() -> None: ...

    for name in (BAD, b"two words", b"gone"):
        look.zadd(keys.schedules, {name: 1})
        look.hset(keys.schedule_prefix.encode() + name, "v", b"x")
    look.delete(keys.schedule_prefix + "gone")
    await q.schedules.add("s", every(seconds=0.2), tick.s())

    async with q.worker() as worker:
        await eventually(lambda: worker.tally.succeeded >= 2)

    assert look.zrange(keys.schedules, 0, -1) == [b"s"]
    messages = [
        record.getMessage() for record in caplog.records if "not schedules" in record.message
    ]
    assert messages == [
        f"3 members of {keys.schedules} were not schedules and were removed: another program "
        "writes to this key"
    ]


@pytest.mark.leaves_jobs
async def test_schedules_are_listed_whatever_stands_between_them(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys
) -> None:
    @q.task(name="tick")
    async def tick() -> None: ...

    # Given more than a page, with gaps
    for number in range(600):
        look.zadd(keys.schedules, {f"gap{number}": number})
    look.zadd(keys.schedules, {BAD: 700})
    await q.schedules.add("s", every(hours=1), tick.s())

    assert [info.id for info in await q.schedules.list()] == ["s"]


@pytest.mark.parametrize("field", ["n", "l", "c", "k", "x", "w", "j", "b", "a", "m"])
@pytest.mark.leaves_jobs
async def test_a_schedule_fires_whatever_is_written_into_its_fields(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys, field: str
) -> None:
    ran: list[str] = []

    @q.task(name="note")
    async def note(text: str) -> None:
        ran.append(text)

    values = [b"word", BAD, b"", b"9" * 400, b"-1", b"1e9", b"9" * 15]
    for number, value in enumerate(values):
        name = f"bad{number}"
        await q.schedules.add(name, every(seconds=0.2), note.s(name))
        look.hset(keys.schedule_prefix + name, field, value)
        look.zadd(keys.schedules, {name: 1})

    async with q.worker():
        await eventually(lambda: all(ran.count(f"bad{n}") >= 2 for n in range(len(values))))
    assert not [info.id for info in await q.schedules.list() if info.paused]


@pytest.mark.leaves_jobs
async def test_a_revision_of_any_bytes_may_be_changed_and_removed(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys
) -> None:
    @q.task(name="tick")
    async def tick() -> None: ...

    await q.schedules.add("s", every(hours=1), tick.s())
    look.hset(keys.schedule_prefix + "s", "v", BAD)

    assert (await q.schedules.pause("s", "why")).pause_reason == "why"
    look.hset(keys.schedule_prefix + "s", mapping={"v": BAD, "p": BAD})
    info = await q.schedules.get("s")
    assert info is not None
    assert info.pause_reason == r"\xff\xfe"
    await q.schedules.remove("s")


@pytest.mark.leaves_jobs
async def test_the_codes_schedules_take_the_place_of_what_is_not_one(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys, caplog: pytest.LogCaptureFixture
) -> None:
    @q.schedule(every(seconds=0.2), id="mine")
    @q.task(name="tick")
    async def tick() -> None: ...

    look.set(keys.schedule_prefix + "mine", "text")
    look.hset(keys.declared, mapping={BAD: "app", "other": BAD})

    async with q.worker() as worker:
        await eventually(lambda: worker.tally.succeeded >= 1)
    assert "was not a schedule and was replaced" in caplog.text


# --------------------------------------------------------------------------------------- leader


@pytest.mark.parametrize(
    "record",
    [
        {"o": BAD, "t": "1", "b": "1"},
        {"o": "a", "t": "word", "b": "1"},
        {"o": "a", "t": "1", "b": BAD},
        {"o": "a", "t": "9" * 400, "b": "1"},
        {"t": "-1"},
        {"t": "1", "s": "soon", "h": "late"},
        "text",
    ],
    ids=str,
)
async def test_what_is_not_a_record_of_the_leader_keeps_nobody_out_of_office(
    scene: Scene, record: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if isinstance(record, str):
        scene.look.set(scene.keys.leader, record)
    else:
        scene.look.hset(scene.keys.leader, mapping=record)

    seen = await scene.leadership.look()
    taken = await scene.leadership.take("me", seen)

    assert (seen.owner, taken.owner, taken.term) == (None, "me", 1)
    assert taken.heard is not None
    assert About(scene.now()) == taken.heard.timestamp() * 1000
    assert caplog.text.count("was not a leader record and was removed") == 1


@pytest.mark.leaves_jobs
async def test_a_leader_whose_record_is_overwritten_pauses_no_schedule(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys
) -> None:
    @q.task(name="tick")
    async def tick() -> None: ...

    await q.schedules.add("s", every(seconds=0.2), tick.s())
    async with q.worker() as worker:
        await eventually(lambda: worker.tally.succeeded >= 1)
        look.delete(keys.leader)
        look.set(keys.leader, "text")
        before = worker.tally.succeeded
        await eventually(lambda: worker.tally.succeeded >= before + 2)


# ------------------------------------------------------------------------- counters and statistics


@pytest.mark.leaves_jobs
async def test_counters_of_the_minute_that_are_words_stop_no_schedule(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys
) -> None:
    @q.task(name="tick")
    async def tick() -> None: ...

    await q.schedules.add("s", every(seconds=0.2), tick.s())
    minute = int(look.time()[0]) // 60
    look.hset(f"{keys.stats}{minute}", mapping={"default:fired": "many", BAD: "few"})
    look.set(f"{keys.stats}{minute + 1}", "text")

    async with q.worker() as worker:
        await eventually(lambda: worker.tally.succeeded >= 2)
    info = await q.schedules.get("s")
    assert info is not None
    assert not info.paused
    look.delete(f"{keys.stats}{minute + 1}")
    assert (await overview(q)).rates["succeeded"].last_five >= 0


@pytest.mark.leaves_jobs
async def test_the_doctor_and_status_look_at_what_they_can_read(
    q: TaskQ, clean: Any, look: redis.Redis, keys: Keys
) -> None:
    look.hset(
        keys.deferring,
        mapping={
            "a": "word",
            BAD: b"1 " + BAD,
            "b": "9" * 5000,
            "c": f"{int(look.time()[0])}000 x",
        },
    )
    look.pexpire(keys.deferring, 60_000)
    minute = int(look.time()[0]) // 60
    look.hset(f"{keys.stats}{minute}", mapping={"default:succeeded": "many", BAD: "9" * 5000})
    look.pexpire(f"{keys.stats}{minute}", 60_000)

    look.hset(keys.lanes, mapping={BAD: "?", "no lane": "?", "default": "5x"})
    look.xadd(keys.lane("default", 5), {"i": "text"})
    look.xgroup_create(keys.lane("default", 5), "g", "0")
    for key in (keys.job("text"), keys.failed + "default", keys.malformed):
        look.set(key, "text")
    look.zadd(keys.workers, {"w": 1, BAD: 2})
    look.hset(keys.held, "w", "many")

    seen = await overview(q)
    settings = q._settings
    verdicts = await examine(
        q._backend.current().client, settings.keys, settings.offset, signing=settings.signing
    )

    assert [process.name for process in seen.deferring] == ["c"]
    assert [(queue.name, queue.failed) for queue in seen.queues] == [("default", 0)]
    assert [(worker.name, worker.held) for worker in seen.workers] == [("\\xff\\xfe", 0), ("w", 0)]
    assert not [verdict for verdict in verdicts if verdict.level == "bad"]


async def test_what_processes_say_they_defer_is_kept_apart_from_what_is_not_such_a_record(
    q: TaskQ, look: redis.Redis, keys: Keys
) -> None:
    look.hset(keys.deferring, mapping={"a": "word", BAD: ""})

    await q._backend.current().durable_calls.show("mine", b"record")

    assert list(look.hgetall(keys.deferring)) == [b"mine"]


# ------------------------------------------------------------------------------------ single jobs


@pytest.mark.parametrize(
    "record",
    [
        {"s": "s", "f": "soon", "l": "long", "r": b"\x01"},
        {"s": "s", "f": "1", "r": b"\x01"},
        {"s": "nonsense", "f": "99999999999999", "l": "0"},
        {"s": BAD},
        "text",
    ],
    ids=str,
)
async def test_a_record_that_cannot_be_read_keeps_no_other_from_being_awaited(
    q: TaskQ, look: redis.Redis, keys: Keys, record: Any
) -> None:
    @q.task(name="one")
    async def one() -> int:
        return 1

    if isinstance(record, str):
        look.set(keys.job("bad"), record)
    else:
        look.hset(keys.job("bad"), mapping=record)
    look.pexpire(keys.job("bad"), 60_000)
    good = await one.options(delay=0.2).enqueue()

    bad, ending = await q._backend.current().waiting.look(["bad", good.id])
    assert bad.state in (None, JobState.SUCCEEDED)
    assert ending.state is JobState.SCHEDULED
    async with q.worker():
        assert await good.result(timeout=5) == 1


@pytest.mark.parametrize("progress", [b"\x93\xa1x\x80\x05", b"\x91\xa1x", b"\x90", BAD])
async def test_progress_that_is_none_hides_nothing_of_its_job(
    q: TaskQ, look: redis.Redis, keys: Keys, progress: bytes
) -> None:
    job = await q.remote("elsewhere").options(delay=60).enqueue()
    look.hset(keys.job(job.id), "p", progress)

    info = await job.info()

    assert (info.state, info.progress) == (JobState.SCHEDULED, None)
    await job.cancel()


@pytest.mark.parametrize("kind", ["list", "record"])
async def test_a_job_fails_whatever_the_list_of_failed_jobs_is(
    server: Any, namespace: str, q: TaskQ, look: redis.Redis, keys: Keys, kind: str
) -> None:
    app = TaskQ(server.url, namespace=namespace, retention=Retention(keep_failed=1))

    @app.task(name="fails")
    async def fails() -> None:
        raise ValueError("no")

    if kind == "list":
        look.set(keys.failed + "default", "text")
    else:
        look.zadd(keys.failed + "default", {BAD: 1, "other": 2})
        look.set(keys.jobs.encode() + BAD, "text")
        look.pexpire(keys.jobs.encode() + BAD, 60_000)
    job = await fails.enqueue()

    await app.run_until_empty()

    assert await job.status() is JobState.FAILED
    assert look.zrange(keys.failed + "default", 0, -1) == [job.id.encode()]
    look.delete(keys.jobs.encode() + BAD)
    await app.aclose()
