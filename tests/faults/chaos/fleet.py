"""The processes of a chaos run: workers alone, workers under a supervisor, producers."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.chaos import program

__all__ = ["Fleet", "Member", "children_of"]

ROOT = Path(__file__).resolve().parents[3]


@dataclass(eq=False)
class Member:
    """One process; `kind` is `lone`, `supervisor` or `producer`."""

    kind: str
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    stopped: bool = False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None


@dataclass
class Fleet:
    """Keeps as many processes of each kind as it was told to start."""

    directory: Path
    urls: list[str]
    namespace: str
    draw: random.Random
    concurrency: int = 20
    rate: float = 50.0
    longest: float = 15.0
    members: list[Member] = field(default_factory=list[Member])
    started: int = 0
    wrong: list[str] = field(default_factory=list[str])

    def add(self, kind: str) -> Member:
        """Start one process of a kind."""
        self.started += 1
        name = f"{kind}-{self.started}"
        environment = os.environ | {
            "CHAOS_URL": self.urls[self.started % len(self.urls)],
            "CHAOS_NAMESPACE": self.namespace,
            "CHAOS_LEDGER": str(self.directory / "ledger"),
        }
        path = self.directory / f"{name}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                self._command(kind, name), cwd=ROOT, env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        member = Member(kind, name, process, path)
        self.members.append(member)
        return member

    def of(self, *kinds: str) -> list[Member]:
        """Those that run and are not stopped."""
        return [
            member
            for member in self.members
            if member.kind in kinds and member.alive and not member.stopped
        ]

    def pick(self, *kinds: str) -> Member | None:
        """One of them by chance."""
        found = self.of(*kinds)
        return self.draw.choice(found) if found else None

    def replace(self, member: Member) -> None:
        """Start another process in the place of one that was killed or left."""
        member.process.wait()
        self.members.remove(member)
        self.add(member.kind)

    async def leave(self, member: Member, within: float) -> None:
        """SIGTERM, and an exit code of 0 in time; else it is written down as wrong."""
        member.process.send_signal(signal.SIGTERM)
        try:
            code = await asyncio.to_thread(member.process.wait, within)
        except subprocess.TimeoutExpired:
            self.wrong.append(f"{member.name} did not leave within {within:g} s of SIGTERM")
            member.process.kill()
            await asyncio.to_thread(member.process.wait, 10)
            return
        text = member.log.read_text(errors="replace")[-1500:]
        # One that was still starting, and had said nothing yet, ends as any process does.
        if code != 0 and not (code == -signal.SIGTERM and not text):
            self.wrong.append(f"{member.name} left with exit code {code}: {text}")

    def look_for_deaths(self) -> None:
        """A process that ended though nobody ended it is wrong; it is replaced."""
        for member in list(self.members):
            if not member.alive:
                text = member.log.read_text(errors="replace")[-1500:]
                code = member.process.returncode
                self.wrong.append(f"{member.name} ended by itself with {code}: {text}")
                self.replace(member)

    def kill_all(self) -> None:
        """End whatever still runs."""
        for member in self.members:
            if member.alive:
                for pid in children_of(member.process.pid):
                    _signal(pid, signal.SIGKILL)
                member.process.kill()
                member.process.wait(10)

    def _command(self, kind: str, name: str) -> list[str]:
        if kind == "producer":
            seed = f"{self.draw.randrange(10**6)}-{name}"
            module = "tests.faults.chaos.producer"
            return [sys.executable, "-m", module, seed, str(self.rate), str(self.longest)]
        queues = [part for queue in program.QUEUES for part in ("-q", queue)]
        command = [
            sys.executable, "-m", "taskq", "worker", "tests.faults.chaos.program:q", *queues,
            "-c", str(self.concurrency), "--processes", "1", "--grace", "3s",
        ]  # fmt: skip
        return [*command, "-w", "2"] if kind == "supervisor" else command


def children_of(pid: int) -> list[int]:
    """Pids of a process's children."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(pid: int, which: signal.Signals) -> None:
    try:
        os.kill(pid, which)
    except ProcessLookupError:
        return
