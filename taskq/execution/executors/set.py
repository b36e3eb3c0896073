"""The executors of one event loop; threads and processes start when first needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskq.core.job import Progress
from taskq.execution.attempt import Attempt
from taskq.execution.context import job_facts
from taskq.execution.executors.process import ProcessExecutor, address_of, current_directory
from taskq.execution.executors.thread import ThreadExecutor

__all__ = ["ExecutorSet"]

CLOSING_THREADS = 1000
"""More than ever release resources at the same time; they start as needed."""


class ExecutorSet:
    """Up to `threads` threads and `processes` processes, for tasks that do not run in the loop.

    Processes start in `directory`; None means the current directory at this moment.
    """

    def __init__(
        self, *, threads: int, processes: int, directory: str | Path | None = None
    ) -> None:
        self.threads = ThreadExecutor(threads)
        self._directory = directory or current_directory()
        self._process_limit = processes
        self._processes: ProcessExecutor | None = None
        self._closing: ThreadExecutor | None = None

    async def in_thread(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` in a thread."""
        return await self.threads.run(fn, args, kwargs)

    async def closing(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call `fn`, which releases a resource, in a thread.

        Not in a thread for tasks: if all of those wait for a connection, none could be returned.
        """
        if self._closing is None:
            self._closing = ThreadExecutor(CLOSING_THREADS)
        return await self._closing.run(fn, args)

    async def run_in_process(self, attempt: Attempt, on_start: Callable[[], None]) -> bytes:
        """Run an attempt in a process of its own; returns its serialised result."""
        if self._processes is None:
            self._processes = ProcessExecutor(self._process_limit, directory=self._directory)

        def forward(message: Any) -> None:
            if attempt.report is not None:
                attempt.report(attempt, Progress(*message))

        return await self._processes.run(
            address_of(attempt.task.function),
            attempt.payload,
            context=job_facts(attempt),
            soft_timeout=attempt.task.task_options.soft_timeout,
            on_message=forward,
            on_start=on_start,
        )

    async def aclose(self) -> None:
        """Stop threads and processes; threads that never return end with this process."""
        await self.threads.aclose()
        if self._closing is not None:
            await self._closing.aclose()
        if self._processes is not None:
            with contextlib.suppress(ProcessLookupError):
                await self._processes.aclose()
