"""The server gate: refuses a server that would lose jobs before anything is sent to it."""

from __future__ import annotations

import logging

from taskq.core.errors import ServerRefused
from taskq.redis.server_check import (
    Ask,
    Facts,
    judge_eviction,
    judge_persistence,
    judge_replication,
    judge_version,
    keeps_nothing,
    lenient,
    read_facts,
    read_settings,
)

__all__ = ["ServerGate"]

_log = logging.getLogger("taskq.broker")


class ServerGate:
    """Judges each server once, at the first connection to it; later ones cost nothing.

    Shared by all connections of one TaskQ.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    async def check(self, call: Ask, where: str) -> None:
        """Judge the server at `where`, asked through `call`, which gives error replies as values.

        Costs one round trip, or two when there is no append-only file. A server that does not let
        this user run INFO is let pass. Logs a warning for what may lose jobs some day.

        Raises `ServerRefused`, with what to type, for a server that would throw jobs away or is too
        old for the scripts.
        """
        if where in self._known:
            return
        ask = lenient(call)
        facts = await read_facts(ask)
        if facts is not None:
            for verdict in (judge_version(facts), judge_eviction(facts)):
                if verdict.level == "bad":
                    raise ServerRefused(f"{where}: {verdict.what}. {verdict.fix}")
            if facts.info.get("aof_enabled") == "0":
                facts = Facts(facts.info, await read_settings(ask, "save"))
            _warn(where, facts)
        self._known.add(where)


def _warn(where: str, facts: Facts) -> None:
    eviction, replication = judge_eviction(facts), judge_replication(facts)
    persistence = judge_persistence(facts)
    for verdict, worth in (
        (eviction, eviction.level == "warn"),
        (replication, replication.level == "bad"),
        (persistence, persistence.level == "bad" or keeps_nothing(facts)),
    ):
        if worth:
            _log.warning("%s: %s. What to do: %s", where, verdict.what, verdict.fix)
