"""What completion shows on the objects that users hold."""

from __future__ import annotations

import pydoc
import re

import pytest

from taskq import Deferred, TaskQ

q = TaskQ("redis://localhost:6379/0")


@q.task
async def resize(path: str, width: int = 800) -> str:
    return f"{path}-{width}"


NAMES_FOR_TASKQ = (
    "aclose defer deferred dependency_overrides enqueue_many job lifespan middleware remote run "
    "run_until_empty schedule scheduler schedules send state task worker"
)
NAMES_FOR_TASKS = "defer enqueue function job name options s task_options"
OF_JOBS = "cancel created id info result status"


@pytest.mark.parametrize(
    ("thing", "names"),
    [
        (q, NAMES_FOR_TASKQ),
        (resize, NAMES_FOR_TASKS),
        (resize.options(delay=1), "defer enqueue options s"),
        (resize.s("a.png"), "args enqueue kwargs options"),
        (resize.job("a"), OF_JOBS),
        (Deferred, "accepted cancel id job result status"),
    ],
    ids=["TaskQ", "Task", "ConfiguredTask", "Signature", "Job", "Deferred"],
)
def test_completion_shows_the_public_names_only(thing: object, names: str) -> None:
    assert [name for name in dir(thing) if not name.startswith("_")] == names.split()


def test_help_describes_the_public_names_of_taskq() -> None:
    page = pydoc.plain(pydoc.render_doc(TaskQ))
    members = re.findall(r"^ \|  (?:async )?([a-z]\w*)(?:\(| =|$)", page, re.MULTILINE)
    assert sorted(members) == NAMES_FOR_TASKQ.split()
