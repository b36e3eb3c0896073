"""Where and with what a run was made: it stands beside every figure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import taskq
from benchmarks.plan import Plan
from benchmarks.server import Server

__all__ = ["busy", "describe"]

_PACKAGES = ("redis", "hiredis", "uvloop", "msgpack")


def describe(plan: Plan) -> dict[str, Any]:
    """Versions, processors, load, date, command and seed. No name and no path of the machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "mode": plan.mode,
        "runs": plan.runs,
        "seed": plan.seed,
        "loop": plan.loop,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cpus": _cpus(),
        "load": round(os.getloadavg()[0], 2),
        "versions": {
            "taskq": taskq.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in _PACKAGES},
            **_server(),
        },
    }


def busy(machine: dict[str, Any]) -> str | None:
    """A warning when others use the machine: then only ratios mean something, and little."""
    if machine["load"] <= 0.3 * machine["cpus"]:
        return None
    return (
        f"the load was {machine['load']:g} on {machine['cpus']} processors before the start: "
        "others use this machine, and the figures are not to be kept"
    )


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _server() -> dict[str, str]:
    with closing(Server()) as server:
        facts = server.info("server")
    name = str(facts.get("server_name", "redis"))
    return {name: str(facts.get(f"{name}_version", facts["redis_version"]))}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
