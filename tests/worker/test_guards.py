"""Programs with process tasks, whose main module is imported by each process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from taskq import JobState, TaskQ
from tests.support.server import TestServer

PROGRAM = """
import asyncio
from taskq import TaskQ
{imports}

q = TaskQ({url!r}, namespace={namespace!r})

@q.task(name="double", executor="process")
def double(n: int) -> int:
    return 2 * n

async def main() -> None:
    async with q:
        await double.options(id="asynchronous").enqueue(3)
        async with q.worker():
            await asyncio.sleep(0)

{start}
"""

SYNCHRONOUS = """\
q.run(double.options(id="first").enqueue(3))
q.run(double.enqueue(3))
q.run(q.run_until_empty(processes=1))
"""
ASYNCHRONOUS = """\
asyncio.run(main())
q.run(q.run_until_empty(processes=1))
"""
WORKER = """\
if __name__ == "__main__":
    q.run(double.options(id="first").enqueue(3))
asyncio.run(q.run_until_empty(processes=1))
"""


@pytest.mark.parametrize("imports", ["", "import multiprocessing"], ids=["plain", "multi"])
@pytest.mark.parametrize(
    ("start", "jobs"),
    [(SYNCHRONOUS, 2), (ASYNCHRONOUS, 1), (WORKER, 1)],
    ids=["synchronous", "asynchronous", "worker"],
)
async def test_a_program_without_a_guard_does_its_work_once_and_says_what_is_missing(
    q: TaskQ,
    server: TestServer,
    namespace: str,
    tmp_path: Path,
    start: str,
    jobs: int,
    imports: str,
) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        PROGRAM.format(url=server.url, namespace=namespace, start=start, imports=imports)
    )

    done = run(script)

    assert done.returncode == 0, done.stderr
    # In the line of the failure, and again in its traceback
    told = "failed: ConfigError: a process that only imports the main module"
    assert done.stderr.count(told) == jobs, done.stderr
    assert "put what starts it under" in done.stderr
    info = await q.job("asynchronous" if start is ASYNCHRONOUS else "first").info()
    assert (info.state, info.error_type) == (JobState.FAILED, "ConfigError")
    assert "under `if __name__ == '__main__':`" in (info.error or "")


def run(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
