"""The machine loses its power: what was not yet on the disk is gone.

A small library in the server notes how much of a file is on the disk whenever the server says
fdatasync; what came after the last such note is then cut off, as a power loss would.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import JobNotFound, TaskQ
from tests.support.server import TestServer

pytestmark = pytest.mark.faults

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void note(int fd) {
    char link[64], path[4096], line[4200];
    struct stat st;
    ssize_t n;
    int log;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n <= 0 || fstat(fd, &st) != 0) return;
    path[n] = 0;
    n = snprintf(line, sizeof line, "%lld %s\n", (long long)st.st_size, path);
    log = open(getenv("SYNC_LOG"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (log < 0) return;
    if (write(log, line, n) < 0) abort();
    close(log);
}

/* The size is taken before: what is written meanwhile is not promised. */
int fdatasync(int fd) { note(fd); return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }
int fsync(int fd) { note(fd); return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("shim")
    (directory / "shim.c").write_text(SHIM)
    library = directory / "shim.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", library, directory / "shim.c", "-ldl"], check=True
    )
    return library


class Machine:
    """A server whose disk forgets what was not synchronised."""

    def __init__(self, shim: Path, log: Path, policy: str) -> None:
        self._log = log
        self.server = TestServer(
            *("--appendfsync", policy),
            environment={"LD_PRELOAD": str(shim), "SYNC_LOG": str(log)},
        )

    def synced(self) -> dict[Path, int]:
        """By file, how much of it is on the disk for sure."""
        sizes: dict[Path, int] = {}
        for line in self._log.read_text().splitlines() if self._log.exists() else []:
            size, _, path = line.partition(" ")
            sizes[Path(path)] = int(size)
        return sizes

    def lose_power(self) -> int:
        """Kill the server and cut off what was not on the disk; gives how many bytes."""
        self.server.stop(signal.SIGKILL)
        cut, synced = 0, self.synced()
        for path in self.server.directory.rglob("*.aof"):
            there = path.stat().st_size
            kept = synced.get(path, 0)
            cut += there - kept
            with path.open("r+b") as file:
                file.truncate(kept)
        return cut


@pytest.fixture
def machines(shim: Path, tmp_path: Path) -> Iterator[dict[str, Machine]]:
    made = {name: Machine(shim, tmp_path / name, name) for name in ("always", "everysec")}
    yield made
    for machine in made.values():
        machine.server.close()


async def acknowledged_and_there(machine: Machine, seconds: float) -> tuple[int, int, float]:
    """Jobs acknowledged before the power went, jobs there after it, seconds of acks lost."""
    loop = asyncio.get_running_loop()
    q = TaskQ(machine.server.url, namespace="power")
    task = q.task(name="noted")(noted)
    acks: list[tuple[str, float]] = []
    began = loop.time()
    while loop.time() - began < seconds:
        job = await task.enqueue(len(acks))
        acks.append((job.id, loop.time()))
    cut_at = loop.time()
    await asyncio.to_thread(machine.lose_power)
    await asyncio.to_thread(machine.server.start)
    lost: list[float] = []
    for job_id, at in acks:
        try:
            await q.job(job_id).status()
        except JobNotFound:
            lost.append(cut_at - at)
    # What is there can be worked off: a command cut in two at the end is dropped.
    assert await q.run_until_empty() == len(acks) - len(lost)
    await q.aclose()
    return len(acks), len(lost), max(lost, default=0.0)


async def noted(number: int) -> int:
    return number


async def test_with_always_a_power_loss_takes_no_acknowledged_job(
    machines: dict[str, Machine], soak: int
) -> None:
    total, lost, _ = await acknowledged_and_there(machines["always"], 1.5 if soak == 1 else 10.0)

    print(f"always: {lost} of {total} acknowledged jobs lost")
    assert total > 20
    assert lost == 0


async def test_with_everysec_a_power_loss_takes_at_most_two_seconds_of_jobs(
    machines: dict[str, Machine], soak: int
) -> None:
    total, lost, span = await acknowledged_and_there(
        machines["everysec"], 2.6 if soak == 1 else 10.7
    )

    print(f"everysec: {lost} of {total} acknowledged jobs lost, of the last {span:.1f} s")
    # Given that the shim cuts: this is what `everysec` costs
    assert 0 < lost < total
    assert span < (2.0 if soak > 1 else 4.0)
