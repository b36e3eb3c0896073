"""taskq: run functions later, on any worker, with the signature they have.

>>> from taskq import TaskQ
>>> q = TaskQ()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from taskq.app import TaskQ
from taskq.codec.secret import Secret
from taskq.core.errors import (
    AttemptLost,
    BacklogFull,
    CallError,
    ConfigError,
    DecodeError,
    EmbeddedServerError,
    EncodeError,
    ForgedMessage,
    JobCancelled,
    JobError,
    JobExpired,
    JobFailed,
    JobNotFound,
    PayloadError,
    PayloadTooLarge,
    QueueFull,
    Reject,
    ResultExpired,
    ResultNotKept,
    ResultTimeout,
    RetryLater,
    ScheduleExists,
    ScheduleNotFound,
    ServerError,
    ServerRefused,
    ServerUnavailable,
    SoftTimeout,
    TaskDefinitionError,
    TaskqError,
    UnknownOption,
    UnknownTask,
    UnsignedMessage,
    UntrustedMessage,
)
from taskq.core.job import AttemptRecord, JobInfo, JobState, Progress
from taskq.core.options import Retention
from taskq.core.retry import Retry
from taskq.deferred.report import DeferredSettings
from taskq.execution.context import JobContext, current_job
from taskq.execution.handle import Deferred, Job
from taskq.execution.job_log import JobLogFilter
from taskq.execution.middleware import CallNext, JobDraft
from taskq.execution.task import Signature, Task

if TYPE_CHECKING:
    from taskq.schedules.api import Schedules
    from taskq.schedules.info import ScheduleInfo
    from taskq.triggers.calendar import calendar
    from taskq.triggers.combined import all_of, any_of, at
    from taskq.triggers.cron import cron
    from taskq.triggers.interval import every
    from taskq.triggers.trigger import Trigger

__version__ = "0.1.0"

__all__ = [
    "AttemptLost",
    "AttemptRecord",
    "BacklogFull",
    "CallError",
    "CallNext",
    "ConfigError",
    "DecodeError",
    "Deferred",
    "DeferredSettings",
    "EmbeddedServerError",
    "EncodeError",
    "ForgedMessage",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobDraft",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobInfo",
    "JobLogFilter",
    "JobNotFound",
    "JobState",
    "PayloadError",
    "PayloadTooLarge",
    "Progress",
    "QueueFull",
    "Reject",
    "ResultExpired",
    "ResultNotKept",
    "ResultTimeout",
    "Retention",
    "Retry",
    "RetryLater",
    "ScheduleExists",
    "ScheduleInfo",
    "ScheduleNotFound",
    "Schedules",
    "Secret",
    "ServerError",
    "ServerRefused",
    "ServerUnavailable",
    "Signature",
    "SoftTimeout",
    "Task",
    "TaskDefinitionError",
    "TaskQ",
    "TaskqError",
    "Trigger",
    "UnknownOption",
    "UnknownTask",
    "UnsignedMessage",
    "UntrustedMessage",
    "all_of",
    "any_of",
    "at",
    "calendar",
    "cron",
    "current_job",
    "every",
]

# Schedules take a fifth of the import time, and most processes only enqueue.
_LAZY: Final = {
    "ScheduleInfo": "taskq.schedules.info",
    "Schedules": "taskq.schedules.api",
    "Trigger": "taskq.triggers.trigger",
    "all_of": "taskq.triggers.combined",
    "any_of": "taskq.triggers.combined",
    "at": "taskq.triggers.combined",
    "calendar": "taskq.triggers.calendar",
    "cron": "taskq.triggers.cron",
    "every": "taskq.triggers.interval",
}


def __getattr__(name: str) -> Any:
    """Import a lazy name when it is first used (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
