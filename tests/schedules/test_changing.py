"""`q.schedules`: adding, reading, changing and removing, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from taskq import (
    CallError,
    ConfigError,
    EncodeError,
    Retry,
    ScheduleExists,
    ScheduleNotFound,
    TaskQ,
    UnknownOption,
    UnknownTask,
    at,
    cron,
    every,
)
from taskq.broker.keys import Keys
from tests.support.names import steady_name

Now = Callable[[], datetime]
PAST = datetime(2020, 1, 1, tzinfo=UTC)
FAR = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
def task(q: TaskQ) -> Any:
    @q.task(name="shop.clean", queue="night", priority=3, expires=60)
    async def clean(days: int = 30, *, deep: bool = False) -> None: ...

    return clean


def close(one: datetime | None, other: datetime) -> bool:
    return one is not None and abs(one - other) < timedelta(seconds=2)


async def test_what_was_added_is_read_again(q: TaskQ, task: Any, now: Now) -> None:
    added = await q.schedules.add(
        "clean", every(minutes=5), task.options(headers={"a": "b"}).s(7, deep=True),
        tags=["nightly"], metadata={"owner": "ops"}, overlap=2, misfire=timedelta(minutes=1),
    )  # fmt: skip

    assert added == await q.schedules.get("clean")
    assert (added.task, added.args, added.kwargs) == ("shop.clean", (7,), {"deep": True})
    assert (added.queue, added.priority, added.state) == ("night", 3, "active")
    assert (added.tags, added.metadata) == (("nightly",), {"owner": "ops"})
    assert (added.policy.overlap, added.policy.misfire) == (2, 60.0)
    assert close(added.next_fire, now() + timedelta(minutes=5))
    assert (added.fired, added.skipped, added.last_fire, added.declared) == (0, 0, None, None)
    assert added.explain().startswith("every 5 minutes of elapsed time")


async def test_adding_the_same_again_keeps_its_phase(
    q: TaskQ, task: Any, later: Callable[[float], None]
) -> None:
    first = await q.schedules.add("clean", every(minutes=5), task.s())
    later(100)

    assert await q.schedules.add("clean", every(minutes=5), task.s()) == first
    assert await q.schedules.add("clean", every(minutes=5), task, replace=True) == first


async def test_another_schedule_of_the_same_id_is_refused_unless_it_replaces(
    q: TaskQ, task: Any, now: Now
) -> None:
    first = await q.schedules.add("clean", every(minutes=5), task.s())

    with pytest.raises(ScheduleExists, match="replace=True"):
        await q.schedules.add("clean", every(minutes=6), task.s())
    assert await q.schedules.get("clean") == first

    second = await q.schedules.add("clean", every(minutes=6), task.s(), replace=True)
    assert close(second.next_fire, now() + timedelta(minutes=6))


@pytest.mark.parametrize(
    ("error", "match", "given"),
    [
        (ConfigError, "would never fire", {"trigger": every(days=1, end=PAST)}),
        (ConfigError, "would never fire", {"end": PAST}),
        (ConfigError, "is not a trigger", {"trigger": "0 8 * * *"}),
        (ConfigError, "is not a task", {"what": print}),
        (ConfigError, "cannot be part of a key", {"id": "no spaces"}),
        (ConfigError, "room|100", {"id": "x" * 101}),
        (ConfigError, "time zone", {"start": datetime(2030, 1, 1)}),
        (ConfigError, "start=", {"start": FAR, "end": FAR - timedelta(days=1)}),
        (ConfigError, "jitter", {"jitter": -1}),
        (ConfigError, "misfire", {"misfire": -1}),
        (ConfigError, "'latest', 'earliest', 'all'", {"coalesce": "last"}),
        (ConfigError, "'skip', 'queue_one'", {"overlap": "queue"}),
        (ConfigError, "from 1 to 1000", {"overlap": 0}),
        (ConfigError, "queue_one", {"overlap": "skip", "coalesce": "all"}),
        (ConfigError, "from 1 to 10,000", {"max_catchup": 0}),
        (ConfigError, "0 to 9", {"priority": 10}),
        (ConfigError, "duration from each fire", {"expires": FAR}),
        (ConfigError, "True or False", {"paused": "yes"}),
        (ConfigError, r"tags\[0\]=1 is not text", {"tags": [1]}),
        (ConfigError, r"tags\[1\] is not valid Unicode", {"tags": ["a", "\udc80"]}),
        (ConfigError, r"tags\[0\] has 201 characters", {"tags": ["x" * 201]}),
        (ConfigError, r"metadata\['a'\]=1: use strings", {"metadata": {"a": 1}}),
        (ConfigError, "metadata.* is not valid", {"metadata": {"\udc80": "a"}}),
        (ConfigError, "metadata.* bytes; use at most", {"metadata": {"a": "x" * 600_000}}),
        (ConfigError, "name classes", {"retry": Retry(3, on=(OSError,))}),
        (UnknownOption, "did you mean 'misfire'", {"misfires": 1}),
        (CallError, "cannot be called like this", {"args": (1, 2, 3)}),
        (CallError, "cannot be called like this", {"kwargs": {"dep": True}}),
        (EncodeError, "args", {"args": (object(),)}),
        (ConfigError, "tuple or a list", {"args": "abc"}),
    ],
    ids=steady_name,
)  # fmt: skip
async def test_what_cannot_be_is_refused_and_nothing_is_stored(
    q: TaskQ, task: Any, look: redis.Redis, namespace: str,
    error: type[Exception], match: str, given: dict[str, Any],
) -> None:  # fmt: skip
    options = {"id": "clean", "trigger": every(minutes=5), "what": task} | given

    with pytest.raises(error, match=match):
        await q.schedules.add(**options)

    assert list(look.scan_iter(match=f"{{{namespace}}}:sched*")) == []


def test_impossible_triggers_are_refused_where_they_are_made() -> None:
    with pytest.raises(ConfigError):
        every(seconds=0)
    with pytest.raises(ConfigError):
        cron("0 0 31 2 *")
    with pytest.raises(ConfigError):
        cron("0 0 * * *", tz="Mars/Olympus")
    with pytest.raises(ConfigError):
        at(datetime(2030, 1, 1))


async def test_an_end_may_be_the_fire_time_itself(q: TaskQ, task: Any, now: Now) -> None:
    # Given an instant between two milliseconds
    instant = now().replace(microsecond=1) + timedelta(hours=1)

    added = await q.schedules.add("clean", at(instant), task.s(), start=instant, end=instant)

    assert added.next_fire == instant.replace(microsecond=1000)


async def test_a_task_that_is_not_registered_is_refused(q: TaskQ, task: Any) -> None:
    with pytest.raises(UnknownTask, match=r"nearest registered name is 'shop.clean'"):
        await q.schedules.add("clean", every(minutes=5), q.remote("shop.cleans").s())


async def test_a_signature_with_a_time_of_its_own_is_refused(q: TaskQ, task: Any) -> None:
    with pytest.raises(ConfigError, match="delay= is for single jobs"):
        await q.schedules.add("clean", every(minutes=5), task.options(delay=5).s())
    with pytest.raises(ConfigError, match="already has arguments"):
        await q.schedules.add("clean", every(minutes=5), task.s(1), args=(2,))


async def test_unknown_schedules(q: TaskQ, task: Any) -> None:
    assert await q.schedules.get("nobody") is None
    for call in (
        q.schedules.pause("nobody"), q.schedules.resume("nobody"), q.schedules.remove("nobody"),
        q.schedules.run_now("nobody"), q.schedules.preview("nobody"),
        q.schedules.modify("nobody", jitter=1), q.schedules.reschedule("nobody", every(hours=1)),
    ):  # fmt: skip
        with pytest.raises(ScheduleNotFound, match="no schedule 'nobody'"):
            await call


async def test_a_paused_schedule_goes_on_after_now(
    q: TaskQ, task: Any, now: Now, later: Callable[[float], None]
) -> None:
    first = await q.schedules.add("clean", every(minutes=5), task.s())
    paused = await q.schedules.pause("clean", "too loud")
    assert (paused.state, paused.paused, paused.pause_reason) == ("paused", True, "too loud")
    later(620)

    resumed = await q.schedules.resume("clean")

    # On the grid it had
    assert first.next_fire is not None
    assert resumed.next_fire == first.next_fire + timedelta(minutes=10)
    assert resumed.state == "active"
    assert await q.schedules.resume("clean") == resumed


@pytest.mark.parametrize("reason", ["\udc80", "x" * 1001, 5])
async def test_a_reason_that_cannot_be_kept_is_refused(q: TaskQ, task: Any, reason: Any) -> None:
    await q.schedules.add("clean", every(minutes=5), task.s())

    with pytest.raises(ConfigError, match="reason"):
        await q.schedules.pause("clean", reason)

    assert not (await q.schedules.list())[0].paused


async def test_a_paused_schedule_may_go_on_where_it_was(
    q: TaskQ, task: Any, later: Callable[[float], None]
) -> None:
    first = await q.schedules.add("clean", every(minutes=5), task.s(), paused=True)
    assert first.paused
    later(620)

    assert (await q.schedules.resume("clean", catch_up=True)).next_fire == first.next_fire


async def test_a_schedule_without_a_fire_left_does_not_go_on_unnoticed(
    q: TaskQ, task: Any, now: Now, later: Callable[[float], None]
) -> None:
    await q.schedules.add("once", at(now() + timedelta(minutes=1)), task.s(), paused=True)
    later(120)

    with pytest.raises(ConfigError, match="catch_up=True"):
        await q.schedules.resume("once")
    assert (await q.schedules.resume("once", catch_up=True)).state == "active"


async def test_a_new_trigger_counts_from_now(
    q: TaskQ, task: Any, now: Now, later: Callable[[float], None]
) -> None:
    await q.schedules.add("clean", every(minutes=5), task.s(3))
    later(60)

    changed = await q.schedules.reschedule("clean", every(minutes=20))

    assert close(changed.next_fire, now() + timedelta(minutes=20))
    assert changed.args == (3,)
    with pytest.raises(ConfigError, match="would never fire"):
        await q.schedules.reschedule("clean", every(days=1, end=datetime(2020, 1, 1, tzinfo=UTC)))
    assert await q.schedules.get("clean") == changed


async def test_modifying_leaves_the_next_fire_and_the_other_options(q: TaskQ, task: Any) -> None:
    first = await q.schedules.add("clean", every(minutes=5), task.s(3), tags=["a"], jitter=2)

    changed = await q.schedules.modify("clean", args=(4,), overlap="allow", queue="other")

    assert changed.next_fire == first.next_fire
    assert (changed.args, changed.queue, changed.tags) == ((4,), "other", ("a",))
    assert (changed.policy.overlap, changed.policy.jitter) == ("allow", 2.0)
    # And None takes an option back
    assert (await q.schedules.modify("clean", queue=None)).queue == "night"


async def test_a_modification_that_is_wrong_changes_nothing(q: TaskQ, task: Any) -> None:
    first = await q.schedules.add("clean", every(minutes=5), task.s(3))

    for wrong in ({"jitter": 1, "priority": 11}, {"args": (1, 2, 3)}, {"paused": True}, {"x": 1}):
        with pytest.raises((ConfigError, CallError)):
            await q.schedules.modify("clean", **wrong)  # pyright: ignore[reportArgumentType]

    assert await q.schedules.get("clean") == first


async def test_schedules_are_listed_by_their_next_fire_paused_last(q: TaskQ, task: Any) -> None:
    await q.schedules.add("c", every(hours=3), task.s(), tags=["slow"])
    await q.schedules.add("a", every(hours=1), task.s(), paused=True)
    await q.schedules.add("b", every(hours=2), task.s())

    assert [info.id for info in await q.schedules.list()] == ["b", "c", "a"]
    assert [info.id for info in await q.schedules.list(tag="slow")] == ["c"]
    assert await q.schedules.list(task="other") == []


async def test_a_preview_tells_the_next_fires(q: TaskQ, task: Any, now: Now) -> None:
    trigger = cron("0 8 * * *", tz="Asia/Shanghai")
    await q.schedules.add("clean", trigger, task.s(), end=FAR)
    after = datetime(2030, 5, 1, tzinfo=UTC)

    assert await q.schedules.preview("clean", 3, after=after) == trigger.fires(after, 3)
    assert await q.schedules.preview(trigger, 3, after=after) == trigger.fires(after, 3)
    assert await q.schedules.preview("clean", 2) == trigger.fires(now(), 2)
    assert await q.schedules.preview("clean", 2, after=FAR) == []


async def test_a_preview_of_a_late_schedule_tells_the_fires_that_are_still_made(
    q: TaskQ, task: Any, now: Now, later: Callable[[float], None]
) -> None:
    trigger = every(minutes=10)
    for name, options in {"one": {}, "all": {"coalesce": "all", "max_catchup": 2}}.items():
        await q.schedules.add(name, trigger, task.s(), **options)
    await q.schedules.add("strict", trigger, task.s(), misfire=1)
    await q.schedules.add("paused", trigger, task.s())
    await q.schedules.pause("paused")
    infos = {info.id: info for info in await q.schedules.list()}
    later(35 * 60)

    for name, missed in {"one": [2], "all": [1, 2], "strict": [], "paused": []}.items():
        first = infos[name].next_fire
        assert first is not None
        fires = await q.schedules.preview(name, 4)
        numbers = [(fire - first) / timedelta(minutes=10) for fire in fires]
        assert numbers == [*missed, 3, 4, 5, 6][:4], name


async def test_a_removed_schedule_is_gone(
    q: TaskQ, task: Any, look: redis.Redis, keys: Keys
) -> None:
    await q.schedules.add("clean", every(minutes=5), task.s())

    await q.schedules.remove("clean")

    assert await q.schedules.list() == []
    assert look.exists(keys.schedules, keys.schedule_prefix + "clean") == 0


async def test_changes_of_several_at_once_are_all_made(
    q: TaskQ, task: Any, server: Any, namespace: str
) -> None:
    await q.schedules.add("clean", every(minutes=5), task.s())

    await asyncio.gather(
        *(q.schedules.modify("clean", metadata={"n": str(n)}) for n in range(5)),
        q.schedules.pause("clean"),
    )

    info = await q.schedules.get("clean")
    assert info is not None
    assert info.paused
    assert info.metadata["n"] in "01234"


async def test_what_cannot_be_read_is_shown_as_far_as_it_can(
    q: TaskQ, task: Any, look: redis.Redis, keys: Keys
) -> None:
    await q.schedules.add("clean", every(minutes=5), task.s())
    look.hset(keys.schedule_prefix + "clean", "s", b"rubbish")

    info = await q.schedules.get("clean")

    assert info is not None
    assert (info.id, info.task, info.trigger) == ("clean", "", None)
    assert info.explain() == "it cannot be read here"
    assert (await q.schedules.pause("clean")).paused
    await q.schedules.remove("clean")
