"""`taskq status`: queues, workers and rates at a glance."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any

import typer

from taskq.app import settings_of
from taskq.broker.broker import BrokerSettings
from taskq.cli.exits import OK, UNHEALTHY
from taskq.cli.options import AsJson, duration
from taskq.cli.target import Choice, Namespace, OptionalTarget, Url, choose, explained
from taskq.cli.terminal import Grid, Note, Page
from taskq.core.errors import ServerUnavailable
from taskq.core.text import counted
from taskq.ops.as_json import status_json
from taskq.ops.overview import (
    Overview,
    QueueState,
    Rate,
    Trouble,
    WorkerState,
    in_words,
    read_overview,
)
from taskq.redis.client import Client

__all__ = ["status"]

_SHORTEST_PAUSE = 0.05


def _pause(text: str | float) -> float:
    seconds = duration(text)
    if seconds < _SHORTEST_PAUSE:
        raise typer.BadParameter(f"{text!r} would keep the server busy; use 50ms or more")
    return seconds


def status(
    target: OptionalTarget = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    every: Annotated[
        float,
        typer.Option(
            parser=_pause, metavar="TIME", help="With --watch: the interval.", envvar="TASKQ_EVERY"
        ),
    ] = 2.0,
) -> None:
    """Show queues, workers and rates; exit with 3 when no worker will run jobs that wait.

    Examples: taskq status, taskq status app:q --watch, taskq status --url redis://host --json
    """
    with explained():
        choice = choose(target, url, namespace)
        if watch:
            try:
                asyncio.run(_watch(choice, every, as_json))
            except KeyboardInterrupt:
                raise typer.Exit(OK) from None
        overview, where = asyncio.run(_read_once(settings_of(choice.app)))
        if as_json:
            print(json.dumps(_as_json(overview, where, choice), indent=2))
        else:
            _page(overview, where, choice).show()
    raise typer.Exit(OK if overview.healthy else UNHEALTHY)


@asynccontextmanager
async def _client(settings: BrokerSettings) -> AsyncGenerator[Client, None]:
    # Not through the server gate: the status of a server that taskq refuses to use is shown too.
    client = Client(settings.locate, name="taskq-status")
    try:
        yield client
    finally:
        await client.aclose()


async def _read_once(settings: BrokerSettings) -> tuple[Overview, str]:
    async with _client(settings) as client:
        return await _read(client, settings), client.where


async def _read(client: Client, settings: BrokerSettings) -> Overview:
    ttl = settings.retention.failure_seconds
    return await read_overview(client, settings.keys, settings.offset, failure_ttl=ttl)


# ----------------------------------------------------------------------------------- watching


async def _watch(choice: Choice, every: float, as_json: bool) -> None:
    """Refresh until interrupted. Only the first read may fail; later ones wait for the server."""
    settings = settings_of(choice.app)
    async with _client(settings) as client:
        overview = await _read(client, settings)
        if as_json or not sys.stdout.isatty():
            while True:
                if as_json:
                    print(json.dumps(_as_json(overview, client.where, choice)), flush=True)
                else:
                    print(_page(overview, client.where, choice).plain(), end="\n\n", flush=True)
                await asyncio.sleep(every)
                overview = await _read(client, settings)
        await _live(client, choice, every, _page(overview, client.where, choice))


async def _live(client: Client, choice: Choice, every: float, page: Page) -> None:
    from rich.live import Live

    with Live(page.rich(), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            await asyncio.sleep(every)
            try:
                overview = await _read(client, settings_of(choice.app))
                page = _page(overview, client.where, choice)
                live.update(page.rich(), refresh=True)
            except (ServerUnavailable, ConnectionError) as error:
                gone = Page(page.head, page.grids, (Note("bad", "bad", f"not refreshed: {error}"),))
                live.update(gone.rich(), refresh=True)


# ------------------------------------------------------------------------------------ tables


def _troubles(overview: Overview, choice: Choice) -> list[Trouble]:
    return [replace(trouble, fix=choice.aimed(trouble.fix)) for trouble in overview.troubles()]


def _as_json(overview: Overview, where: str, choice: Choice) -> dict[str, Any]:
    return status_json(overview, where, choice.namespace, _troubles(overview, choice))


def _page(overview: Overview, where: str, choice: Choice) -> Page:
    return Page(
        f"{where}, namespace {choice.namespace}\n{_summary(overview)}",
        (_queues(overview), _workers(overview), *_deferring(overview)),
        tuple(
            Note("bad", "bad", str(trouble))
            if trouble.serious
            else Note("warn", "warn", str(trouble))
            for trouble in _troubles(overview, choice)
        ),
    )


def _summary(overview: Overview) -> str:
    scheduled = f"{overview.scheduled:,} scheduled"
    if overview.next_due is not None and overview.next_due > 0:
        scheduled += f" (the next in {in_words(overview.next_due)})"
    counts = [
        f"{overview.waiting:,} waiting",
        f"{overview.running:,} running",
        scheduled,
        f"{overview.failed:,} failed",
    ]
    if overview.left_out:
        more = counted(overview.left_out, "worker", "workers")
        counts.append(f"{more} not shown")
    rates = [(word, overview.rates[outcome]) for outcome, word in _RATES]
    now = ", ".join(f"{_per_minute(rate.last_minute)} {word}" for word, rate in rates)
    before = ", ".join(_per_minute(rate.last_five) for _, rate in rates)
    schedules = _schedules(overview)
    return f"{', '.join(counts)}{schedules}\nper minute: {now} (over five minutes: {before})"


def _schedules(overview: Overview) -> str:
    scheduling = overview.scheduling
    if not scheduling.count and scheduling.leader is None:
        return ""
    schedules = counted(scheduling.count, "schedule", "schedules")
    inactive = scheduling.count - scheduling.active
    schedules += f" ({inactive:,} paused or finished)" if inactive else ""
    if scheduling.leader is None or scheduling.since is None:
        return f"\n{schedules}; no leader"
    if not scheduling.led:
        silent = in_words(scheduling.silent or 0.0)
        return f"\n{schedules}; no leader: {scheduling.leader} was last, silent for {silent}"
    span = in_words(max(0.0, (overview.taken_at - scheduling.since).total_seconds()))
    return f"\n{schedules}; {scheduling.leader} leads for {span}, term {scheduling.term}"


_RATES = (("succeeded", "done"), ("failed", "failed"), ("retried", "retried"))


def _queues(overview: Overview) -> Grid:
    columns = (
        *("queue", "waiting", "oldest", "running", "failed", "workers"),
        *("done/min", "fail/min", "by priority"),
    )
    return Grid(
        columns,
        tuple(_queue(queue) for queue in overview.queues),
        frozenset({"queue", "by priority"}),
    )


def _queue(queue: QueueState) -> tuple[str, ...]:
    done, failed = (queue.rates.get(outcome, Rate()) for outcome in ("succeeded", "failed"))
    return (
        queue.name,
        f"{queue.waiting:,}",
        "" if queue.oldest is None else in_words(queue.oldest),
        f"{queue.running:,}",
        f"{queue.failed:,}",
        str(queue.workers),
        _per_minute(done.last_minute),
        _per_minute(failed.last_minute),
        "  ".join(f"{priority}: {depth:,}" for priority, depth in queue.by_priority.items()),
    )


def _workers(overview: Overview) -> Grid:
    columns = (
        *("worker", "pid", "running", "of", "finished", "memory"),
        *("up", "heartbeat", "queues"),
    )
    rows = tuple(_worker(worker, overview.taken_at) for worker in overview.workers)
    return Grid(columns, rows, frozenset({"worker", "queues"}))


def _worker(worker: WorkerState, now: datetime) -> tuple[str, ...]:
    started = worker.started_at
    return (
        worker.name,
        str(worker.pid),
        f"{worker.held:,}",
        f"{worker.concurrency:,}",
        f"{worker.finished:,}",
        f"{worker.rss >> 20:,} MiB",
        "" if started is None else in_words(max(0.0, (now - started).total_seconds())),
        _last_heartbeat(worker),
        ", ".join(worker.queues),
    )


def _last_heartbeat(worker: WorkerState) -> str:
    age = "> 1 min ago" if worker.silent is None else f"{in_words(worker.silent)} ago"
    return f"{age}, stopping" if worker.stopping else age


def _deferring(overview: Overview) -> tuple[Grid, ...]:
    """A table of the processes that defer calls; none without such processes."""
    if not overview.deferring:
        return ()
    columns = (
        *("defers", "pid", "running", "waiting", "scheduled", "durable", "oldest"),
        *("done", "failed", "lost", "last seen"),
    )
    rows = tuple(
        (
            one.name,
            str(one.pid),
            *(f"{n:,}" for n in (one.running, one.waiting, one.scheduled, one.durable)),
            "" if one.oldest is None else in_words(one.oldest),
            *(f"{n:,}" for n in (one.succeeded, one.failed, one.lost)),
            f"{in_words(one.silent)} ago",
        )
        for one in overview.deferring
    )
    return (Grid(columns, rows, frozenset({"defers"})),)


def _per_minute(per_second: float) -> str:
    count = per_second * 60
    return "0" if count == 0 else f"{count:,.0f}" if count >= 10 else f"{count:.1f}"
