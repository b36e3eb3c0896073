"""Jobs as an API shows them: models with a schema for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from math import isfinite, isnan
from typing import Any, cast

from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python

from taskq.codec.secret_arguments import without_passwords
from taskq.core.job import JobInfo, JobState

__all__ = ["JobCancelling", "JobOutcome", "JobProblem", "JobProgress", "JobView"]


class JobProgress(BaseModel):
    """How far a job says it is."""

    done: int | float
    total: int | float | None = None
    text: str = ""


class JobView(BaseModel):
    """A job as it is now, without its arguments and its result."""

    id: str
    task: str
    state: JobState
    finished: bool = Field(description="Whether the state is final.")
    queue: str
    priority: int
    attempt: int
    failures: int
    progress: JobProgress | None = None
    error: str | None = Field(None, description="Why it failed: the error's type and text.")
    enqueued_at: datetime | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @classmethod
    def of(cls, info: JobInfo) -> JobView:
        """What may be shown of a job: its arguments and its traceback may not."""
        progress = info.progress
        return cls(
            id=info.id,
            task=info.task,
            state=info.state,
            finished=info.state.finished,
            queue=info.queue,
            priority=info.priority,
            attempt=info.attempt,
            failures=info.failures,
            progress=progress
            and JobProgress(done=progress.done, total=progress.total, text=progress.text),
            # Masked where it was raised too, but not by every version.
            error=info.error_type and without_passwords(f"{info.error_type}: {info.error}"),
            enqueued_at=info.enqueued_at,
            due_at=info.due_at,
            started_at=info.started_at,
            finished_at=info.finished_at,
        )


class JobOutcome(BaseModel):
    """The result of a job, once there is one.

    Bytes are written in base 64, a `Secret` as `********`, numbers that JSON does not have as
    "NaN", "Infinity" and "-Infinity".
    """

    id: str
    state: JobState
    result: Any = None

    @classmethod
    def of(cls, job_id: str, result: Any) -> JobOutcome:
        """The outcome of a job that succeeded."""
        plain = to_jsonable_python(result, bytes_mode="base64", fallback=str)
        return cls(id=job_id, state=JobState.SUCCEEDED, result=_named(plain))


def _named(plain: Any) -> Any:
    """`plain` with the names of numbers that JSON does not have: FastAPI would make them null."""
    match plain:
        case float() if not isfinite(plain):
            return "NaN" if isnan(plain) else "Infinity" if plain > 0 else "-Infinity"
        case list():
            return [_named(item) for item in cast("list[Any]", plain)]
        case dict():
            return {key: _named(item) for key, item in cast("dict[str, Any]", plain).items()}
        case _:
            return plain


class JobCancelling(BaseModel):
    """Whether there was something to cancel."""

    cancelled: bool = Field(description="False when the job was over.")


class JobProblem(BaseModel):
    """Why there is no answer."""

    detail: str
