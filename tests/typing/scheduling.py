"""What type checkers know of schedules. Never run."""

# pyright: strict

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, assert_type

from taskq import Job, ScheduleInfo, Schedules, TaskQ, Trigger, cron, current_job, every
from taskq.execution.task import SyncTask

q = TaskQ()


@q.schedule(cron("0 8 * * mon-fri", tz="Asia/Shanghai"))
@q.schedule(every(hours=2), id="often", args=(7,), overlap="queue_one", misfire=None)
@q.task
async def report(days: int = 1) -> str:
    return f"{days}"


@q.schedule(every(minutes=5), overlap=3, jitter=timedelta(seconds=2), coalesce="all")
@q.task(queue="night")
def cleanup() -> None: ...


async def a_scheduled_task_stays_the_task_it_was() -> None:
    assert_type(cleanup, SyncTask[[], None])
    assert_type(await report(2), str)
    assert_type(await report.enqueue(2), Job[str])
    assert_type(await q.schedule(every(hours=1))(report)(2), str)

    await report.enqueue("two")  # refused
    q.schedule("0 8 * * *")  # refused
    q.schedule(every(hours=1), overlap="no")  # refused
    q.schedule(every(hours=1), missfire=3)  # refused, but not by ty
    q.schedule(every(hours=1))(print)  # refused


async def schedules_are_changed_at_run_time() -> None:
    assert_type(q.schedules, Schedules)
    assert_type(await q.schedules.add("a", every(hours=1), report.s(3)), ScheduleInfo)
    assert_type(await q.schedules.add("a", every(hours=1), cleanup, replace=True), ScheduleInfo)
    assert_type(await q.schedules.get("a"), ScheduleInfo | None)
    assert_type(await q.schedules.list(tag="x"), list[ScheduleInfo])
    assert_type(await q.schedules.preview("a", 3), list[datetime])
    assert_type(await q.schedules.run_now("a"), Job[Any])
    await q.schedules.remove("a")

    await q.schedules.add("a", "0 8 * * *", report.s())  # refused
    await q.schedules.add("a", every(hours=1), report.s(), overlap="no")  # refused
    await q.schedules.modify("a", missfire=3)  # refused, but not by ty


def what_a_scheduled_job_knows() -> None:
    assert_type(current_job().schedule_id, str | None)
    assert_type(current_job().scheduled_for, datetime | None)
    assert_type(current_job().lateness, timedelta | None)


def triggers_are_values(trigger: Trigger) -> None:
    assert_type(trigger.explain(), str)
