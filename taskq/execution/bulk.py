"""Enqueue many jobs: check all calls first, then send chunks while preparing the next ones."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Final, TypeVar, cast

from taskq.core.errors import CallError, ConfigError
from taskq.execution.handle import Job
from taskq.execution.ports import JobBackend
from taskq.execution.request import Request
from taskq.execution.task import Signature, Task, backend_of, job_options_of, task_spec_of

__all__ = ["enqueue_all"]

CHUNK: Final = 500
"""How many jobs are sent in one batch."""

R = TypeVar("R")


async def enqueue_all(backend: JobBackend, given: Iterable[Signature[R]]) -> list[Job[R]]:
    """Enqueue jobs in few round trips; their handles, in order.

    Invalid calls and signatures of another TaskQ are refused before anything is sent; middleware
    may refuse a job later.
    """
    signatures = _checked(backend, given)
    specs = [task_spec_of(signature) for signature in signatures]
    if any(spec.middleware.enqueues for spec in specs):
        return await asyncio.gather(*(signature.enqueue() for signature in signatures))
    options = [job_options_of(signature).for_the_queue() for signature in signatures]
    envelopes = [
        spec.envelope(chosen, signature.args, signature.kwargs)
        for spec, chosen, signature in zip(specs, options, signatures, strict=True)
    ]
    requests: list[Request] = []
    sent: list[Awaitable[list[bool]]] = []
    for at in range(0, len(signatures), CHUNK):
        chunk = [
            Request.around(*call)
            for call in zip(
                specs[at : at + CHUNK],
                options[at : at + CHUNK],
                envelopes[at : at + CHUNK],
                strict=True,
            )
        ]
        requests += chunk
        sent.append(backend.submit([request.job for request in chunk]))
        # Let it go out now; the server works on it while the next chunk is prepared.
        await asyncio.sleep(0)
    answers = await asyncio.gather(*sent)
    created = (new for answer in answers for new in answer)
    return [
        request.handle(backend, spec, new)
        for request, spec, new in zip(requests, specs, created, strict=True)
    ]


def _checked(backend: JobBackend, given: Iterable[Signature[R]]) -> Sequence[Signature[R]]:
    """The signatures; raises `CallError` for other values, `ConfigError` for another TaskQ's."""
    if isinstance(given, (Signature, Task)) or not isinstance(given, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise CallError(f"enqueue_many() takes a list, but got {_described(given)}; {_USE}")
    signatures = list(given)
    wrong = [item for item in signatures if not isinstance(item, Signature)]  # pyright: ignore[reportUnnecessaryIsInstance]
    if wrong:
        for item in cast("list[Any]", wrong):
            if inspect.iscoroutine(item):
                # Otherwise Python warns that it was never awaited.
                item.close()
        raise CallError(f"enqueue_many() takes signatures, but got {_described(wrong[0])}; {_USE}")
    foreign = next((item for item in signatures if backend_of(item) is not backend), None)
    if foreign is not None:
        name = task_spec_of(foreign).name
        raise ConfigError(
            f"the task {name} belongs to another TaskQ, whose workers would never see this job: "
            "use that one's enqueue_many, or enqueue the task here by name: "
            f"q.remote({name!r}).s(...)"
        )
    return signatures


_USE: Final = "use enqueue_many([add.s(1, 2), add.s(3, 4)])"


def _described(item: object) -> str:
    if isinstance(item, Signature):
        return "a single one"
    if isinstance(item, Task):
        return f"the task {cast('Task[..., Any]', item).name} without arguments"
    if inspect.iscoroutine(item):
        return "a coroutine, as returned by add(1, 2) and add.enqueue(1, 2)"
    return repr(item)
