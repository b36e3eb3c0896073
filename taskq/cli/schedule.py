"""`taskq schedule`: lists schedules and fires; pauses, resumes, runs and removes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import typer

from taskq.app import TaskQ, backend_of, declarations_of
from taskq.cli.options import AsJson
from taskq.cli.target import (
    Choice,
    Namespace,
    OptionalTarget,
    Url,
    choose,
    explained,
    looks_like_target,
    refuse_lone_target,
    target_and,
)
from taskq.cli.terminal import Grid, Note, Page, printable
from taskq.core.errors import ConfigError, ScheduleNotFound
from taskq.core.text import counted
from taskq.ops.as_json import json_of
from taskq.ops.overview import in_words
from taskq.schedules.api import next_fires
from taskq.schedules.info import ScheduleInfo, schedule_json
from taskq.schedules.policy import Policy

__all__ = ["schedule_commands"]

T = TypeVar("T")

_Id = Annotated[
    str | None,
    typer.Argument(
        metavar="ID",
        show_default=False,
        help="The schedule, always the last word.",
    ),
]


def schedule_commands() -> typer.Typer:
    """The commands below `taskq schedule`."""
    commands = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        help="List schedules and their next fires; pause, resume, run and remove schedules.",
    )
    for command in (ls, next, show, pause, resume, run, rm):
        commands.command()(command)
    return commands


def ls(
    target: OptionalTarget = None,
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
        return infos, now, len(declarations_of(q))

    choice, (infos, now, declared) = _ask(target, url, namespace, look)
    if as_json:
        _print_json([schedule_json(info) for info in infos])
        return
    if not infos:
        print(choice.aimed(_none(tag, declared)))
        return
    columns = ("schedule", "state", "next fire", "task", "fired", "skipped", "when")
    rows = tuple(_row(info, now) for info in infos)
    left = frozenset({"schedule", "state", "next fire", "task", "when"})
    Page(_count(infos), (Grid(columns, rows, left),), tuple(_notes(infos))).show()


def next(
    target: OptionalTarget = None,
    schedule: Annotated[
        str | None,
        typer.Argument(metavar="ID", show_default=False, help="The schedule. Default: all."),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many fires.")] = 10,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """List the next fires of all schedules or of one, with the time until each.

    Example: taskq schedule next nightly -n 5
    """
    if target is not None and schedule is None and not looks_like_target(target):
        target, schedule = None, target
    fires, now = _ask(target, url, namespace, lambda q: _both(_next_fires(q, schedule, n), q))[1]
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
    target: OptionalTarget = None,
    schedule: _Id = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Show everything about a schedule, and its next five fires.

    Example: taskq schedule show nightly
    """

    target, name = _one("show", target, schedule)

    async def look(q: TaskQ) -> tuple[ScheduleInfo, list[datetime], datetime]:
        info = await q.schedules.get(name)
        if info is None:
            raise ScheduleNotFound(f"there is no schedule {name!r}: taskq schedule ls")
        info = replace(info, running=await _not_ended(q, info.running))
        fires: list[datetime] = []
        if info.trigger is not None:
            # A schedule that cannot be computed is shown too, with the reason for its pause.
            with contextlib.suppress(ConfigError):
                fires = await q.schedules.preview(name, 5)
        return info, fires, await _now(q)

    _, (info, fires, now) = _ask(target, url, namespace, look)
    if as_json:
        _print_json(schedule_json(info) | {"next_fires": fires})
        return
    width = 16
    for name, text in _facts(info, now):
        print(f"{name:<{width}}{printable(text)}")
    for number, fire in enumerate(fires):
        print(f"{'' if number else 'next fires':<{width}}{_instant(fire)}, {_until(fire, now)}")


def pause(
    target: OptionalTarget = None,
    schedule: _Id = None,
    reason: Annotated[str, typer.Option(help="Shown with the schedule.")] = "paused by hand",
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Pause a schedule until it is resumed.

    Example: taskq schedule pause nightly --reason "the warehouse moves"
    """
    target, name = _one("pause", target, schedule)
    choice, _ = _ask(target, url, namespace, lambda q: q.schedules.pause(name, reason))
    print(choice.aimed(f"{name} is paused; resume it with: taskq schedule resume {name}"))


def resume(
    target: OptionalTarget = None,
    schedule: _Id = None,
    catch_up: Annotated[
        bool, typer.Option("--catch-up", help="Make missed fires, by its own policy.")
    ] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Resume a paused schedule from its next fire after now.

    Example: taskq schedule resume nightly
    """

    target, name = _one("resume", target, schedule)

    def resumed(q: TaskQ) -> Awaitable[tuple[ScheduleInfo, datetime]]:
        return _both(q.schedules.resume(name, catch_up=catch_up), q)

    _, (info, now) = _ask(target, url, namespace, resumed)
    if info.next_fire is not None:
        print(f"{name} fires next {_instant(info.next_fire)}, {_until(info.next_fire, now)}")


def run(
    target: OptionalTarget = None,
    schedule: _Id = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Run a schedule once now and print the id of the job; its next fire stays.

    Example: taskq schedule run nightly
    """
    target, name = _one("run", target, schedule)
    print(_ask(target, url, namespace, lambda q: q.schedules.run_now(name))[1].id)


def rm(
    target: OptionalTarget = None,
    schedule: _Id = None,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Remove a schedule; one that the code declares comes back when a worker starts.

    Example: taskq schedule rm nightly
    """
    target, name = _one("rm", target, schedule)
    _ask(target, url, namespace, lambda q: q.schedules.remove(name))
    print(f"{name} is removed")


# ------------------------------------------------------------------------------------- requests


def _one(command: str, first: str | None, second: str | None) -> tuple[str | None, str]:
    """The target and the id of the schedule."""
    with explained():
        target, name = target_and("ID", f"schedule {command}", first, second)
        if target is None:
            refuse_lone_target("ID", name, f"schedule {command}", lambda _: "")
        return target, name


def _ask(
    target: str | None, url: str | None, namespace: str | None, ask: Callable[[TaskQ], Awaitable[T]]
) -> tuple[Choice, T]:
    """Call `ask` with the connected TaskQ; an error ends the command."""
    with explained():
        choice = choose(target, url, namespace)

        async def connected() -> T:
            # Connects first: a wrong URL must fail at once, not at the deadline.
            async with choice.app as app:
                return await ask(app)

        try:
            return choice, asyncio.run(connected())
        except ScheduleNotFound as error:
            raise ScheduleNotFound(choice.aimed(str(error))) from None


async def _both(one: Awaitable[T], q: TaskQ) -> tuple[T, datetime]:
    return await one, await _now(q)


async def _now(q: TaskQ) -> datetime:
    milliseconds = (await backend_of(q).current().schedules.count()).now
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


async def _not_ended(q: TaskQ, jobs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `jobs` that have not ended."""
    endings = await backend_of(q).current().waiting.look(jobs)
    return tuple(job for job, ending in zip(jobs, endings, strict=True) if not ending.final)


async def _next_fires(q: TaskQ, schedule: str | None, n: int) -> list[tuple[datetime, str]]:
    if schedule is not None:
        return [(fire, schedule) for fire in await q.schedules.preview(schedule, n)]
    return await next_fires(q.schedules, n)


# --------------------------------------------------------------------------------------- output


def _none(tag: str | None, declared: int) -> str:
    """The message, with a command to use, when there is nothing to list."""
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
    total = counted(len(infos), "schedule", "schedules")
    counts = [
        f"{states.count(state)} {state}" for state in ("paused", "finished") if state in states
    ]
    return ", ".join([total, *counts])


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


def _print_json(value: Any) -> None:
    print(json_of(value, indent=2))
