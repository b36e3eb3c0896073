"""Run one job with the installed taskq, away from its checkout.

Run by ``make wheel-test`` with the Python of an environment that holds the built wheel and the
extra ``embedded``, and nothing of the checkout. A file that was left out of the wheel fails it:
every file is compared with the checkout's, so that what the tests say of the checkout holds for the
wheel, then a job goes from enqueue to result.
"""

from __future__ import annotations

import os
import tempfile
from importlib.resources import files
from pathlib import Path

import taskq

CHECKOUT = Path(__file__).resolve().parent.parent / "taskq"


def check_files() -> int:
    """Compare the files with those of the checkout; return how many there are."""
    installed = files("taskq")
    if CHECKOUT.is_relative_to(Path(str(installed))):
        raise SystemExit("wheel: this Python imports the checkout, so it tests no wheel")
    names = _files(CHECKOUT)
    if surplus := _files(Path(str(installed))) - names:
        raise SystemExit(f"wheel: {sorted(surplus)[0]} is in the wheel and not in the checkout")
    for name in sorted(names):
        there = installed.joinpath(*name.parts)
        if not there.is_file() or there.read_bytes() != (CHECKOUT / name).read_bytes():
            raise SystemExit(f"wheel: {name} is missing from the wheel, or is not the checkout's")
    return len(names)


def _files(package: Path) -> set[Path]:
    return {
        path.relative_to(package)
        for path in package.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def run_one_job() -> None:
    """Start the embedded server in the current folder, enqueue a job, run it, read its result."""
    q = taskq.TaskQ()

    @q.task(name="wheel.add")
    async def add(left: int, right: int) -> int:
        return left + right

    async def enqueue_and_run() -> int:
        async with q:
            job = await add.enqueue(40, 2)
            await q.run_until_empty()
            return await job.result(timeout=20)

    answer = q.run(enqueue_and_run())
    if answer != 42:
        raise SystemExit(f"wheel: the job answered {answer!r}, not 42")


def main() -> None:
    """Check the files, then run a job in a folder of its own."""
    files_compared = check_files()
    os.environ.pop("TASKQ_URL", None)
    # The embedded server leaves by itself after its last client; it may still be writing then.
    with tempfile.TemporaryDirectory(prefix="taskq-wheel-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        run_one_job()
        os.chdir("/")
    print(f"wheel: taskq {taskq.__version__}, {files_compared} files, a job ran")


if __name__ == "__main__":
    main()
