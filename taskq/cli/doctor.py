"""`taskq doctor`: checks the server and the namespace, and prints how to fix what is wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Annotated

import typer

from taskq.app import settings_of
from taskq.broker.broker import BrokerSettings
from taskq.cli.exits import OK, UNHEALTHY
from taskq.cli.options import AsJson
from taskq.cli.target import Namespace, OptionalTarget, Url, choose, explained
from taskq.cli.terminal import Note, Page
from taskq.ops.acl import acl_rule
from taskq.ops.as_json import doctor_json
from taskq.ops.doctor import examine
from taskq.redis.client import Client
from taskq.redis.server_check import Verdict

__all__ = ["doctor"]


def doctor(
    target: OptionalTarget = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
    acl: Annotated[
        bool,
        typer.Option(
            "--acl", help="Print an ACL rule for a user with exactly the rights that taskq needs."
        ),
    ] = False,
) -> None:
    """Check server, queues and workers, and print fixes; exit with 3 when something is bad.

    Examples: taskq doctor, taskq doctor --url redis://host:6379/0, taskq doctor app:q --acl
    """
    with explained():
        choice = choose(target, url, namespace)
        if acl:
            database = asyncio.run(_database(settings_of(choice.app)))
            print(acl_rule(choice.namespace, database=database))
            raise typer.Exit(OK)
        where, found = asyncio.run(_examine(settings_of(choice.app)))
    verdicts = [replace(verdict, fix=choice.aimed(verdict.fix)) for verdict in found]
    examined = doctor_json(verdicts, where, choice.namespace)
    if as_json:
        print(json.dumps(examined, indent=2))
    else:
        _page(f"{where}, namespace {choice.namespace}", verdicts).show()
    raise typer.Exit(OK if examined["healthy"] else UNHEALTHY)


async def _database(settings: BrokerSettings) -> int:
    # Without a URL it is 0, and no embedded server must be started for this.
    return (await settings.locate()).database if settings.configured() else 0


async def _examine(settings: BrokerSettings) -> tuple[str, list[Verdict]]:
    # Not through the server gate: the doctor must reach servers that taskq refuses to use.
    client = Client(settings.locate, name="taskq-doctor")
    try:
        verdicts = await examine(
            client,
            settings.keys,
            settings.offset,
            signing=settings.signing,
            failure_ttl=settings.retention.failure_seconds,
        )
        return client.where, verdicts
    finally:
        await client.aclose()


def _page(head: str, verdicts: list[Verdict]) -> Page:
    width = max(len(verdict.name) for verdict in verdicts) + 2
    return Page(
        head,
        notes=tuple(
            Note(
                verdict.level,
                verdict.level,
                f"{verdict.name:<{width}}{verdict.what}",
                f"{'':<{width}}fix: {verdict.fix}" if verdict.fix else "",
            )
            for verdict in verdicts
        ),
    )
