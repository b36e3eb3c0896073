"""All scenarios, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from benchmarks.measuring import Findings
from benchmarks.plan import Mode, Plan
from benchmarks.scenarios.codec import codec
from benchmarks.scenarios.curve import delayed, depth
from benchmarks.scenarios.defer import defer
from benchmarks.scenarios.drain import drain, drain_on_asyncio, nap
from benchmarks.scenarios.endpoint import endpoint
from benchmarks.scenarios.enqueue import enqueue
from benchmarks.scenarios.idle import idle
from benchmarks.scenarios.latency import latency
from benchmarks.scenarios.memory import memory
from benchmarks.scenarios.schedules import schedules
from benchmarks.scenarios.start import imports, start

__all__ = ["SCENARIOS", "Scenario"]

_ALWAYS: tuple[Mode, ...] = ("short", "full", "long")
_NOT_SHORT: tuple[Mode, ...] = ("full", "long")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One question, and how it is answered. `modes`: when it is part of a run. `loop`: its own."""

    name: str
    text: str
    run: Callable[[Plan], Coroutine[Any, Any, Findings]]
    modes: tuple[Mode, ...] = _ALWAYS
    loop: str | None = None


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("drain", "no-op jobs through one worker process, beside the same by hand", drain),
        Scenario(
            "drain-asyncio",
            "the same on asyncio's own loop, on all sides",
            drain_on_asyncio,
            _NOT_SHORT,
            "asyncio",
        ),
        Scenario("enqueue", "one by one, gathered, together, beside the same by hand", enqueue),
        Scenario("codec", "the smallest call to bytes and back, beside msgpack alone", codec),
        Scenario("nap", "jobs that sleep 100 ms, 500 at once", nap, _NOT_SHORT),
        Scenario(
            "defer",
            "calls in this process, beside bare asyncio tasks on asyncio's own loop",
            defer,
            loop="asyncio",
        ),
        Scenario("endpoint", "what background tasks cost a FastAPI endpoint", endpoint),
        Scenario("latency", "enqueue to result on an idle worker, in round trips", latency),
        Scenario("memory", "server memory per queued job, keys left by finished ones", memory),
        Scenario("depth", "cost of a job by depth of the queue", depth),
        Scenario("delayed", "cost of a job by number of delayed others", delayed),
        Scenario("schedules", "late fires, schedules at rest, cost of adding one", schedules),
        Scenario("idle", "what idle workers cost the server, by their number", idle),
        Scenario("import", "import times", imports),
        Scenario("start", "a worker process from spawn to its first job done, and its RSS", start),
    )
}
