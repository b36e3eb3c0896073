"""The times of a schedule carry its zone: a report at 00:59 in Shanghai names the day there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import redis

from taskq import TaskQ, Trigger, all_of, any_of, at, calendar, cron, current_job, every
from taskq.codec.envelope import pack_envelope, unpack_envelope
from taskq.core.job import Fire
from taskq.schedules.planner import job_id
from taskq.schedules.spec import to_ms
from taskq.triggers.packing import pack_trigger, unpack_trigger
from tests.support.waiting import eventually

SHANGHAI = ZoneInfo("Asia/Shanghai")
BERLIN = ZoneInfo("Europe/Berlin")
OFFSET = timezone(timedelta(hours=-3, minutes=-30))
NIGHT = datetime(2099, 6, 2, 0, 59, tzinfo=SHANGHAI)
IN_SHANGHAI = cron("59 0 * * *", tz="Asia/Shanghai")

ZONED: dict[str, tuple[Trigger, Any]] = {
    "cron": (IN_SHANGHAI, SHANGHAI),
    "cron in UTC": (cron("59 0 * * *"), UTC),
    "calendar": (calendar(days=1, at="00:59", tz="Asia/Shanghai"), SHANGHAI),
    "every, from an anchor": (every(days=1, anchor=NIGHT), SHANGHAI),
    "every, from an anchor with an offset": (
        every(days=1, anchor=NIGHT.astimezone(OFFSET)),
        OFFSET,
    ),
    "every": (every(days=1), UTC),
    "at": (at(NIGHT), SHANGHAI),
    "at, with an offset": (at(NIGHT.astimezone(OFFSET)), OFFSET),
    "at, in UTC": (at(NIGHT.astimezone(UTC)), UTC),
    "all_of": (
        all_of(every(minutes=1, anchor=datetime(2026, 1, 1, tzinfo=UTC)), IN_SHANGHAI),
        SHANGHAI,
    ),
    "any_of": (any_of(every(days=400), IN_SHANGHAI), SHANGHAI),
}


@pytest.mark.parametrize(("trigger", "zone"), ZONED.values(), ids=ZONED)
async def test_a_fire_time_is_told_on_the_clock_of_its_schedules_zone(
    q: TaskQ, look: redis.Redis, trigger: Trigger, zone: Any
) -> None:
    # Given a schedule, and a job that tells what it is for
    @q.task(name="report")
    async def report() -> list[str]:
        fire = current_job().scheduled_for
        assert fire is not None
        return [fire.isoformat(), str(fire.tzinfo)]

    added = await q.schedules.add("s", trigger, report.s(), misfire=None)
    assert added.next_fire is not None
    [previewed] = await q.schedules.preview("s", 1)

    # When it fires
    job = q.job(job_id("s", to_ms(added.next_fire)))
    q._settings.offset.ms += to_ms(added.next_fire) - look.time()[0] * 1000
    async with q.worker():
        await eventually(lambda: _made(q, job.id))
        told = await job.result(timeout=10)

    # Then the job, what is known of it, and the schedule tell the same time
    assert told == [added.next_fire.astimezone(zone).isoformat(), str(zone)]
    info, schedule = await job.info(), await q.schedules.get("s")
    # One that has fired for the last time is gone
    last = added.next_fire if schedule is None else schedule.last_fire
    for time in (info.scheduled_for, added.next_fire, last, previewed):
        assert time is not None
        assert [time.isoformat(), str(time.tzinfo)] == told


async def _made(q: TaskQ, job: str) -> bool:
    return await q._backend.job_info(job) is not None


async def test_each_fire_of_any_of_has_the_zone_of_the_part_that_fires(q: TaskQ) -> None:
    both = any_of(IN_SHANGHAI, cron("30 12 * * *", tz="Europe/Berlin"))

    @q.task(name="report")
    async def report() -> None: ...

    await q.schedules.add("s", both, report.s())

    zones = {(time.hour, time.tzinfo) for time in await q.schedules.preview("s", 4)}
    assert zones == {(0, SHANGHAI), (12, BERLIN)}


async def test_a_run_by_hand_is_told_on_that_clock_too(q: TaskQ) -> None:
    @q.task(name="report")
    async def report() -> None: ...

    await q.schedules.add("s", IN_SHANGHAI, report.s())

    info = await (await q.schedules.run_now("s")).info()
    assert info.scheduled_for is not None
    assert info.scheduled_for.tzinfo is SHANGHAI


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "../../etc/passwd", "Europe", "+99:99", "-", "\0"]
)
def test_a_zone_that_is_not_known_here_is_read_as_utc(zone: str) -> None:
    fire = Fire("s", to_ms(NIGHT), zone=zone)

    read = unpack_envelope(pack_envelope("report", b"", fire=fire)).fire

    assert read == fire
    assert read.at == NIGHT
    assert read.at.tzinfo is UTC


def test_a_trigger_keeps_its_zone_where_it_is_stored() -> None:
    for trigger, _ in ZONED.values():
        read = unpack_trigger(pack_trigger(trigger))
        assert read == trigger
        assert read.zone(NIGHT) == trigger.zone(NIGHT)
    # And what needs none takes no more room than before
    assert pack_trigger(at(NIGHT.astimezone(UTC)))[1].keys() == {"instant"}
    assert len(pack_envelope("report", b"", fire=Fire("s", 1))) == len(
        pack_envelope("report", b"", fire=Fire("s", 1, zone="UTC"))
    ) - len(b"\xa3UTC")
