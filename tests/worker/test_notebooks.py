"""At a prompt and in a notebook, what is typed again takes the place of what it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.server import TestServer

ROOT = Path(__file__).resolve().parents[2]

CELL = """
@q.schedule(every(hours={number}), args=("",))
@q.task
def note(text):
    return f"{number} {{text}}"

@q.middleware
async def around(job, call_next):
    return f"{number}({{await call_next()}})"

@q.middleware("enqueue")
async def on_the_way(job, call_next):
    ways.append({number})
    return await call_next()

@q.deferred.on_error
def hook(failure):
    pass

"""


def run(lines: str, server: TestServer, namespace: str, *options: str) -> str:
    """What Python says to these lines, typed at its prompt."""
    done = subprocess.run(
        [sys.executable, *options],
        input=f"from taskq import *\nways = []\nq = TaskQ(namespace={namespace!r})\n{lines}",
        env=os.environ | {"TASKQ_URL": server.url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
    )
    return done.stdout + done.stderr


def test_a_cell_that_is_run_again_replaces_its_task_and_what_stands_around_it(
    server: TestServer, namespace: str
) -> None:
    cells = CELL.format(number=1) + CELL.format(number=2)
    output = run(
        cells
        + """
job = q.run(note.enqueue("a"))
print("attempts", q.run(q.run_until_empty()))
print("result", q.run(job.result(timeout=5)), "ways", ways)
print("schedules", [d.spec.trigger.period.total_seconds() / 3600 for d in q._declarations])
print("tasks", len(q._registry), "hooks", len(q.deferred._report.hooks))
""",
        server,
        namespace,
        "-i",
        "-q",
    )

    assert "Error" not in output, output
    for expected in (
        "attempts 1",
        "result 2(2 a) ways [2]",
        "schedules [2.0]",
        "tasks 1 hooks 1",
    ):
        assert expected in output, output


def test_a_program_that_gives_two_tasks_one_name_is_refused_still(
    server: TestServer, namespace: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    lines = CELL.format(number=1) + CELL.format(number=2)
    program.write_text(f"from taskq import *\nways = []\nq = TaskQ()\n{lines}")

    output = run("", server, namespace, str(program))

    assert "two tasks are called 'program.note'" in output, output
