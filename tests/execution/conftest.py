"""One attempt of a task with dependencies, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from taskq import TaskQ
from taskq.codec.payload import encode_call
from taskq.core.outcome import Outcome
from taskq.execution.attempt import Attempt
from taskq.execution.executors.set import ExecutorSet
from taskq.execution.runner import run_attempt
from tests.execution.attempts import Run


@pytest.fixture
def local() -> TaskQ:
    """A TaskQ that never meets its server."""
    return TaskQ("redis://localhost")


@pytest.fixture
async def run(local: TaskQ) -> AsyncIterator[Run]:
    """Register a function, run one attempt of it with these arguments, and give its outcome."""
    executors = ExecutorSet(threads=2, processes=1)

    async def run(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Outcome:
        task = local._registry.find(function.__name__)
        if task is None:
            task = local.task(name=function.__name__)(function)
        attempt = Attempt(task, "01h", encode_call(args, kwargs))
        return await run_attempt(attempt, executors)

    yield run
    await executors.aclose()
