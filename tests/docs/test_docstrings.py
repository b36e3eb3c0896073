"""The examples in docstrings give what they show; those that need a server are only parsed."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "taskq").rglob("*.py"))
    if ">>>" in path.read_text("utf-8") and path.name not in {"launch.py", "__main__.py"}
]


# Examples that need a server, a framework or another process: shown as they are, and not run.
SHOWN_ONLY = {
    "AfterResponse",
    "BackgroundTasks",
    "Declarations.declare",
    "Deferred",
    "Deferred.cancel",
    "DeferredRunner.defer",
    "DeferredRunner.on_error",
    "Job.result",
    "JobContext.progress",
    "ProcessExecutor",
    "Schedules.add",
    "Supervisor",
    "Task.defer",
    "Task.enqueue",
    "Task.job",
    "Task.options",
    "TaskQ.defer",
    "TaskQ.enqueue_many",
    "TaskQ.middleware",
    "TaskQ.run",
    "TaskQ.schedule",
    "TaskQ.send",
    "TaskQ.task",
    "ThreadExecutor",
    "call_signature",
    "current_job",
    "enqueue_on_commit",
    "job_router",
    "lifespan",
    "load_app",
}


def examples_of(module: str) -> list[doctest.DocTest]:
    """The docstrings of a module that have examples."""
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module))
    return [test for test in found if test.examples]


def place(test: doctest.DocTest, module: str) -> str:
    """The name of what a docstring describes, without its module: `TaskQ.task`."""
    return test.name.removeprefix(module).lstrip(".") or module


@pytest.mark.parametrize("module", MODULES)
def test_an_example_gives_what_it_shows(module: str) -> None:
    for test in examples_of(module):
        if place(test, module) in SHOWN_ONLY:
            for example in test.examples:
                compile(example.source, test.name, "single", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        else:
            reports: list[str] = []
            failed = doctest.DocTestRunner(verbose=False).run(test, out=reports.append).failed
            assert failed == 0, "".join(reports)


def test_no_example_has_a_flag_that_users_would_see() -> None:
    sources = (ROOT / "taskq").rglob("*.py")

    assert [path for path in sources if "# doctest:" in path.read_text("utf-8")] == []


def test_every_example_that_is_only_shown_exists() -> None:
    places = {place(test, module) for module in MODULES for test in examples_of(module)}

    assert SHOWN_ONLY - places == set()
