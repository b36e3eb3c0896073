"""Endpoints for jobs, to be mounted: state, result, progress, cancel, and server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from enum import Enum
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, HTTPException, Query, Response
from fastapi.responses import StreamingResponse

from taskq.app import TaskQ, backend_of
from taskq.codec.secret_arguments import without_passwords
from taskq.core.errors import (
    ConfigError,
    JobError,
    JobNotFound,
    ResultExpired,
    ResultNotKept,
    ResultTimeout,
    ServerError,
)
from taskq.execution.handle import Job
from taskq.fastapi.guard import guards
from taskq.fastapi.views import JobCancelling, JobOutcome, JobProblem, JobView

__all__ = ["HEADERS", "events", "job_router"]

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""Nobody on the way may keep events back."""

QUIET_SECONDS = 15.0
"""After so long a comment is sent: proxies close what is silent."""

STREAM_SECONDS = 60.0
"""A browser comes back by itself; a stream without end would keep its web server from stopping."""


async def events(
    q: TaskQ, first: JobView, *, seconds: float = STREAM_SECONDS
) -> AsyncGenerator[str, None]:
    """`progress` events with the job as JSON, and `end` with its last state."""
    deadline = time.monotonic() + seconds
    shown = first
    yield "retry: 1000\n" + _event(first)
    if first.finished:
        return
    async with aclosing(backend_of(q).watch(first.id)) as changes:
        coming = asyncio.ensure_future(anext(changes, None))
        try:
            while (left := deadline - time.monotonic()) > 0:
                done, _ = await asyncio.wait({coming}, timeout=min(left, QUIET_SECONDS))
                if not done:
                    yield ": nothing new\n\n"
                    continue
                if (info := coming.result()) is None:
                    return
                coming = asyncio.ensure_future(anext(changes, None))
                view = JobView.of(info)
                if view != shown:
                    yield _event(view)
                    shown = view
        except (ServerError, ConnectionError):
            # The browser asks again, and is answered with a status that tells.
            return
        finally:
            # Before the generator is closed, which may not be done while it runs.
            coming.cancel()
            await asyncio.wait({coming})
            _ = coming.cancelled() or coming.exception()


def _event(view: JobView) -> str:
    name = "end" if view.finished else "progress"
    return f"event: {name}\ndata: {view.model_dump_json()}\n\n"


T = TypeVar("T")

Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the job to end.")]
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    403: {"model": JobProblem, "description": "Who asks may not see jobs."},
    404: {"model": JobProblem, "description": "There is no such job."},
    503: {"model": JobProblem, "description": "The queue cannot be reached now."},
}
_UNFINISHED: dict[int | str, dict[str, Any]] = {
    202: {"model": JobOutcome, "description": "The job has not ended."},
    409: {"model": JobProblem, "description": "There will be no result: it failed, say."},
    410: {"model": JobProblem, "description": "The result is gone, or was never kept."},
}
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"text/event-stream": {}},
        "description": "`progress` events while it runs, then `end`; their data is a job.",
    }
}


def job_router(
    q: TaskQ,
    *,
    auth: Any = None,
    development: bool = False,
    origins: Sequence[str] = (),
    prefix: str = "/jobs",
    tags: Sequence[str | Enum] = ("jobs",),
) -> APIRouter:
    """Endpoints for the jobs of `q`: `app.include_router(job_router(q, auth=current_user))`.

    `auth` is a dependency that raises `HTTPException` for those who may not see jobs; it may take
    the path's `job_id: str`, to let everybody see only their own. With `development=True` instead,
    this machine alone is answered. What pages of other sites ask is answered 403, unless their
    origin is among `origins`. Arguments and tracebacks of jobs are not shown, nor secrets in
    results and passwords in errors.

    `GET {prefix}/{job_id}`, `.../result?wait=10` and `.../events` (server-sent), and `DELETE
    {prefix}/{job_id}` to cancel. Raises `ConfigError` where neither `auth` nor `development` says
    who may ask, and for an `auth` that is not a dependency.

    >>> app.include_router(job_router(q, auth=current_admin))  # doctest: +SKIP
    """
    router = APIRouter(
        prefix=prefix,
        tags=list(tags),
        dependencies=guards(auth, development, origins),
        responses=_PROBLEMS,
    )
    _add_looking(router, q)
    _add_result(router, q)
    return router


def _add_looking(router: APIRouter, q: TaskQ) -> None:
    async def job_state(job_id: str) -> JobView:
        return await _answer(lambda: _view(_job(q, job_id)))

    async def job_events(job_id: str) -> StreamingResponse:
        first = await _answer(lambda: _view(_job(q, job_id)))
        return StreamingResponse(events(q, first), media_type="text/event-stream", headers=HEADERS)

    async def cancel_job(job_id: str) -> JobCancelling:
        return JobCancelling(cancelled=await _answer(lambda: _job(q, job_id).cancel()))

    router.get("/{job_id}", summary="How a job stands")(job_state)
    router.get(
        "/{job_id}/events",
        summary="A job's progress, as server-sent events",
        response_class=StreamingResponse,
        responses=_STREAM,
    )(job_events)
    router.delete("/{job_id}", summary="Cancel a job")(cancel_job)


def _add_result(router: APIRouter, q: TaskQ) -> None:
    async def job_result(job_id: str, response: Response, wait: Wait = 0.0) -> JobOutcome:
        job = _job(q, job_id)
        over = (await _answer(job.status)).finished
        try:
            if not over and not wait:
                raise ResultTimeout("it has not ended", job_id=job_id)
            value = await _answer(lambda: job.result(timeout=None if over else wait))
        except ResultTimeout:
            response.status_code = 202
            return JobOutcome(id=job_id, state=await _answer(job.status))
        return JobOutcome.of(job_id, value)

    router.get("/{job_id}/result", summary="A job's result", responses=_UNFINISHED)(job_result)


def _job(q: TaskQ, job_id: str) -> Job[Any]:
    try:
        return q.job(job_id)
    except ConfigError as error:
        raise HTTPException(404, "there is no such job") from error


async def _view(job: Job[Any]) -> JobView:
    return JobView.of(await job.info())


async def _answer(ask: Callable[[], Awaitable[T]]) -> T:
    """What the queue answers, its errors as statuses."""
    try:
        return await ask()
    except ResultTimeout:
        raise
    except (ResultExpired, ResultNotKept) as error:
        raise HTTPException(410, "the job is over, and its result is gone") from error
    except JobNotFound as error:
        raise HTTPException(404, "there is no such job") from error
    except JobError as error:
        raise HTTPException(409, without_passwords(str(error.args[0]))) from error
    except (TimeoutError, ServerError) as error:
        raise HTTPException(
            503, "the queue cannot be reached now; ask again", headers={"Retry-After": "5"}
        ) from error
