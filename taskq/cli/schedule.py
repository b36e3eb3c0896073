"""`taskq schedule`: what fires next, and pausing, running and removing it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from taskq.app import TaskQ
from taskq.broker.overview import in_words
from taskq.cli.choice import Choice, Namespace, Url, choose, explained
from taskq.cli.options import AsJson
from taskq.cli.page import Grid, Note, Page
from taskq.cli.plain import json_of
from taskq.cli.printable import printable
from taskq.core.counting import counted
from taskq.core.errors import ConfigError, ScheduleNotFound
from taskq.scheduler.info import ScheduleInfo
from taskq.scheduler.policy import Policy

__all__ = ["schedule_commands"]

T = TypeVar("T")

_App = Annotated[
    str | None,
    typer.Option(
        "--app",
        "-a",
        metavar="TARGET",
        show_default=False,
        help="The TaskQ whose server and namespace are meant: module:attr or app.py. Without it "
        "and without --url: the one found here, else TASKQ_URL or ./.taskq. "
        "\\[env var: TASKQ_APP]",
    ),
]
_Id = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The schedule.")]


def schedule_commands() -> typer.Typer:
    """The commands below `taskq schedule`."""
    commands = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="List schedules and their next fires; pause, resume, run and remove them.",
    )
    for command in (ls, next, show, pause, resume, run, rm):
        commands.command()(command)
    return commands


def ls(
    app: _App = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List all schedules by their next fire.

    Example: taskq schedule ls
    """

    async def look(q: TaskQ) -> tuple[list[ScheduleInfo], datetime, int]:
        infos, now = await _both(q.schedules.list(tag=tag), q)
        return infos, now, len(q.declarations)

    choice, (infos, now, declared) = _ask(app, url, namespace, look)
    if as_json:
        _print_json([_told(info) for info in infos])
        return
    if not infos:
        print(choice.aimed(_none(tag, declared)))
        return
    columns = ("schedule", "state", "next fire", "task", "fired", "skipped", "when")
    rows = tuple(_row(info, now) for info in infos)
    left = frozenset({"schedule", "state", "next fire", "task", "when"})
    Page(_count(infos), (Grid(columns, rows, left),), tuple(_notes(infos))).show()


def next(
    schedule: Annotated[
        str | None,
        typer.Argument(metavar="ID", show_default=False, help="Only this one; default: all."),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many fires.")] = 10,
    app: _App = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Tell the next fires, of all schedules or of one, each with how long it is until then.

    Example: taskq schedule next nightly -n 5
    """
    _, (fires, now) = _ask(app, url, namespace, lambda q: _both(_next_fires(q, schedule, n), q))
    if as_json:
        _print_json([{"schedule": name, "fire": at} for at, name in fires])
        return
    rows = tuple((name, _instant(at), _until(at, now)) for at, name in fires)
    columns = ("schedule", "fire", "in")
    print(
        Page(
            counted(len(rows), "fire", "fires"), (Grid(columns, rows, frozenset(columns)),)
        ).plain()
    )


def show(
    schedule: _Id,
    app: _App = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show everything about a schedule, and its next five fires.

    Example: taskq schedule show nightly
    """

    async def look(q: TaskQ) -> tuple[ScheduleInfo, list[datetime], datetime]:
        info = await q.schedules.get(schedule)
        if info is None:
            raise ScheduleNotFound(f"there is no schedule {schedule!r}: taskq schedule ls")
        info = replace(info, running=await _not_ended(q, info.running))
        fires: list[datetime] = []
        if info.trigger is not None:
            # One that cannot be computed is shown all the same, with the reason of its pause.
            with contextlib.suppress(ConfigError):
                fires = await q.schedules.preview(schedule, 5)
        return info, fires, await _now(q)

    _, (info, fires, now) = _ask(app, url, namespace, look)
    if as_json:
        _print_json(_told(info) | {"next_fires": fires})
        return
    width = 16
    for name, text in _facts(info, now):
        print(f"{name:<{width}}{printable(text)}")
    for number, fire in enumerate(fires):
        print(f"{'' if number else 'next fires':<{width}}{_instant(fire)}, {_until(fire, now)}")


def pause(
    schedule: _Id,
    reason: Annotated[str, typer.Option(help="Kept, and shown.")] = "paused by hand",
    app: _App = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Make no more fires of a schedule, until it is resumed.

    Example: taskq schedule pause nightly --reason "the warehouse moves"
    """
    choice, _ = _ask(app, url, namespace, lambda q: q.schedules.pause(schedule, reason))
    print(choice.aimed(f"{schedule} is paused; go on with: taskq schedule resume {schedule}"))


def resume(
    schedule: _Id,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="Make up for what it missed, as it says itself.")
    ] = False,
    app: _App = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Let a paused schedule fire again, from its next fire after now on.

    Example: taskq schedule resume nightly
    """

    def go_on(q: TaskQ) -> Awaitable[tuple[ScheduleInfo, datetime]]:
        return _both(q.schedules.resume(schedule, catch_up=catch_up), q)

    _, (info, now) = _ask(app, url, namespace, go_on)
    if info.next_fire is not None:
        print(f"{schedule} fires next {_instant(info.next_fire)}, {_until(info.next_fire, now)}")


def run(schedule: _Id, app: _App = None, url: Url = None, namespace: Namespace = None) -> None:
    """Run a schedule now, once, and print the id of the job; its next fire stays as it is.

    Example: taskq schedule run nightly
    """
    print(_ask(app, url, namespace, lambda q: q.schedules.run_now(schedule))[1].id)


def rm(schedule: _Id, app: _App = None, url: Url = None, namespace: Namespace = None) -> None:
    """Remove a schedule; one that the code declares comes back when a worker starts.

    Example: taskq schedule rm nightly
    """
    _ask(app, url, namespace, lambda q: q.schedules.remove(schedule))
    print(f"{schedule} is removed")


# --------------------------------------------------------------------------------------- asking


def _ask(
    target: str | None, url: str | None, namespace: str | None, ask: Callable[[TaskQ], Awaitable[T]]
) -> tuple[Choice, T]:
    """Ask the TaskQ that is meant; ends the command when it cannot be asked."""
    with explained():
        choice = choose(target, url, namespace)

        async def connected() -> T:
            # Connects first: whoever types a wrong URL shall not wait for the deadline.
            async with choice.app as app:
                return await ask(app)

        try:
            return choice, asyncio.run(connected())
        except ScheduleNotFound as error:
            raise ScheduleNotFound(choice.aimed(str(error))) from None


async def _both(one: Awaitable[T], q: TaskQ) -> tuple[T, datetime]:
    return await one, await _now(q)


async def _now(q: TaskQ) -> datetime:
    milliseconds = (await q.desk.current().schedules.count()).now
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


async def _not_ended(q: TaskQ, jobs: tuple[str, ...]) -> tuple[str, ...]:
    """Of the jobs that had not ended at the last fire, those that have not ended since."""
    endings = await q.desk.current().waiting.look(jobs)
    return tuple(job for job, ending in zip(jobs, endings, strict=True) if not ending.final)


async def _next_fires(q: TaskQ, schedule: str | None, n: int) -> list[tuple[datetime, str]]:
    if schedule is not None:
        return [(fire, schedule) for fire in await q.schedules.preview(schedule, n)]
    active = [info for info in await q.schedules.list() if info.state == "active"]
    # Listed by their next fire: those behind the first n cannot be among the first n fires.
    fires = [
        (fire, info.id)
        for info in active[:n]
        if info.trigger is not None
        for fire in await q.schedules.preview(info.id, n)
    ]
    return sorted(fires)[:n]


# -------------------------------------------------------------------------------------- telling


def _none(tag: str | None, declared: int) -> str:
    """What is said, and what can be typed, where there is nothing to list."""
    if tag is not None:
        return f"no schedule has the tag {tag!r}; all of them: taskq schedule ls"
    if declared:
        those = counted(declared, "schedule, which is", "schedules, which are")
        return (
            f"nothing is stored yet: the code declares {those} stored when a worker or a scheduler "
            "starts: taskq worker, or taskq scheduler"
        )
    return "no schedules; declare one: @q.schedule(cron('0 8 * * *')) above @q.task"


def _row(info: ScheduleInfo, now: datetime) -> tuple[str, ...]:
    return (
        info.id,
        "waiting" if info.waiting else info.state,
        _until(info.next_fire, now) if info.next_fire and not info.paused else "",
        info.task,
        f"{info.fired:,}",
        f"{info.skipped:,}",
        info.explain(),
    )


def _count(infos: list[ScheduleInfo]) -> str:
    states = [info.state for info in infos]
    told = counted(len(infos), "schedule", "schedules")
    counts = [
        f"{states.count(state)} {state}" for state in ("paused", "finished") if state in states
    ]
    return ", ".join([told, *counts])


def _notes(infos: list[ScheduleInfo]) -> list[Note]:
    return [
        Note("warn", "paused", f"{info.id}: {info.pause_reason}") for info in infos if info.paused
    ]


def _facts(info: ScheduleInfo, now: datetime) -> list[tuple[str, str]]:
    call = ", ".join([*map(repr, info.args), *(f"{k}={v!r}" for k, v in info.kwargs.items())])
    default = Policy()
    policy = [
        f"{item.name} {getattr(info.policy, item.name)}"
        for item in fields(Policy)
        if getattr(info.policy, item.name) != getattr(default, item.name)
    ]
    facts = {
        "schedule": info.id,
        "state": info.state + (f": {info.pause_reason}" if info.paused else ""),
        "task": f"{info.task}({call})",
        "when": info.explain(),
        "options": ", ".join(policy),
        "queue": f"{info.queue}, priority {info.priority}",
        "declared in": info.declared or "",
        "tags": ", ".join(info.tags),
        "metadata": ", ".join(f"{k}={v}" for k, v in info.metadata.items()),
        "fired": f"{counted(info.fired, 'time', 'times')}, skipped {info.skipped:,}",
        "last fire": _instant(info.last_fire) if info.last_fire else "",
        "last skip": f"{_instant(info.last_skip)}: {info.skip_reason}" if info.last_skip else "",
        "running": ", ".join(info.running),
        "added": _instant(info.added_at) if info.added_at else "",
    }
    return [(name, text) for name, text in facts.items() if text]


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%a %Y-%m-%d %H:%M:%S} UTC"


def _until(at: datetime, now: datetime) -> str:
    seconds = (at - now).total_seconds()
    return f"in {in_words(seconds)}" if seconds >= 0 else f"late by {in_words(-seconds)}"


def _told(info: ScheduleInfo) -> dict[str, Any]:
    told = {item.name: getattr(info, item.name) for item in fields(ScheduleInfo)}
    del told["trigger"]
    return {"explained": info.explain(), **told}


def _print_json(told: Any) -> None:
    print(json_of(told, indent=2))
