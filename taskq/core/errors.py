"""Every error taskq raises, in one tree.

::

    TaskqError
    ├── ConfigError               a wrong option, URL, name or target (also a ValueError)
    │   ├── UnknownOption         an option that does not exist (also a TypeError)
    │   ├── TaskDefinitionError   a function that cannot be a task
    │   └── ScheduleExists        another schedule has this id
    ├── CallError                 a call that does not fit the task's signature (also a TypeError)
    ├── PayloadError              a value that cannot travel through the queue (also a ValueError)
    │   ├── EncodeError           this value, at this path
    │   ├── DecodeError           bytes that taskq did not write
    │   ├── PayloadTooLarge       over the limit of size, depth or nodes
    │   └── UntrustedMessage      not sealed with one of this application's signing keys
    │       ├── UnsignedMessage   it has no seal
    │       └── ForgedMessage     its seal is broken
    ├── UnknownTask               no task registered under this name (also a LookupError)
    ├── ScheduleNotFound          no schedule has this id (also a LookupError)
    ├── ServerError               the server cannot serve (also a ConnectionError)
    │   ├── ServerUnavailable     it did not answer in time
    │   ├── ServerRefused         it answered, and refused; waiting does not help
    │   ├── QueueFull             it has no memory left for another job
    │   └── EmbeddedServerError   the embedded server could not be started or reached
    ├── JobError                  why `Job.result()` has no value to return
    │   ├── JobFailed             the last attempt failed
    │   ├── JobCancelled          it was cancelled
    │   ├── JobExpired            its `expires` passed before it ran
    │   ├── JobNotFound           the server has no such job
    │   │   ├── ResultExpired     it has ended, and its `result_ttl` is over
    │   │   └── ResultNotKept     it has ended, and its task keeps no results
    │   └── ResultTimeout         it did not end within the timeout (also a TimeoutError)
    ├── AttemptLost               this attempt was given to another worker
    ├── BacklogFull               the deferred runner has no room for another call
    └── Injected                  raised by a failpoint (tests of taskq itself)

    RetryLater, Reject            raised by tasks to steer their own job; not errors
    SoftTimeout                   raised inside a process task when its soft limit passes
"""

from __future__ import annotations

from datetime import timedelta

__all__ = [
    "AttemptLost",
    "BacklogFull",
    "CallError",
    "ConfigError",
    "DecodeError",
    "EmbeddedServerError",
    "EncodeError",
    "ForgedMessage",
    "Injected",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobNotFound",
    "PayloadError",
    "PayloadTooLarge",
    "QueueFull",
    "Reject",
    "ResultExpired",
    "ResultNotKept",
    "ResultTimeout",
    "RetryLater",
    "ScheduleExists",
    "ScheduleNotFound",
    "ServerError",
    "ServerRefused",
    "ServerUnavailable",
    "SoftTimeout",
    "TaskDefinitionError",
    "TaskqError",
    "UnknownOption",
    "UnknownTask",
    "UnsignedMessage",
    "UntrustedMessage",
]


class TaskqError(Exception):
    """Base of every error raised by taskq."""


class ConfigError(TaskqError, ValueError):
    """An option, URL, name or target that taskq cannot work with."""


class UnknownOption(ConfigError, TypeError):
    """An option that does not exist; the message names the nearest one that does."""


class TaskDefinitionError(ConfigError):
    """A function that cannot be registered as a task."""


class ScheduleExists(ConfigError):
    """Another schedule has this id; nothing was changed."""


class CallError(TaskqError, TypeError):
    """A call that does not fit the task's signature; nothing was enqueued."""


class PayloadError(TaskqError, ValueError):
    """A value that cannot travel through the queue."""


class EncodeError(PayloadError):
    """A value that cannot be serialised; the message carries its path."""


class DecodeError(PayloadError):
    """Bytes that taskq did not write, or wrote in a newer format."""


class PayloadTooLarge(PayloadError):
    """A payload over the limit of size, depth or number of nodes."""


class UntrustedMessage(PayloadError):
    """A message that is not sealed with one of this application's signing keys."""


class UnsignedMessage(UntrustedMessage):
    """A message without a seal, where signing keys are configured."""


class ForgedMessage(UntrustedMessage):
    """A message whose seal is broken: changed, moved, or signed with another key."""


class UnknownTask(TaskqError, LookupError):
    """No task is registered under this name."""


class ScheduleNotFound(TaskqError, LookupError):
    """No schedule has this id."""


class ServerError(TaskqError, ConnectionError):
    """The server cannot serve the request."""


class ServerUnavailable(ServerError):
    """The server did not answer within the deadline; the request may have taken effect."""


class ServerRefused(ServerError):
    """The server answered and refused; waiting will not help."""


class QueueFull(ServerError):
    """The server is at `maxmemory`: nothing was enqueued; workers still drain it."""


class EmbeddedServerError(ServerError):
    """The embedded server could not be started or reached."""


class JobError(TaskqError):
    """Why `Job.result()` has no value to return."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobFailed(JobError):
    """The job's last attempt failed.

    `error_type` is the name of the exception's type, `error_text` its text and `traceback` the
    worker's traceback. They are text only: the exception itself is never rebuilt.
    """

    def __init__(
        self, message: str, *, job_id: str, error_type: str, error_text: str, traceback: str
    ) -> None:
        super().__init__(message, job_id=job_id)
        self.error_type = error_type
        self.error_text = error_text
        self.traceback = traceback

    def __str__(self) -> str:
        text = super().__str__()
        if not self.traceback or self.__cause__ is not None:
            return text
        return f"{text}\n\nOn the worker:\n{self.traceback}"


class JobCancelled(JobError):
    """The job was cancelled before or while it ran."""


class JobExpired(JobError):
    """The job's `expires` passed before an attempt started."""


class JobNotFound(JobError):
    """The server has no job with this id: it never existed, or every trace of it is gone.

    Whether it has run is unknown then: the server may have lost its data.
    """


class ResultExpired(JobNotFound):
    """The job has ended, and its result is older than its `result_ttl`: its record says so.

    Once the record is gone too, it is `JobNotFound`: a server that lost its data looks the same.
    """


class ResultNotKept(JobNotFound):
    """The job has ended and its task keeps no results (`result_ttl=0`), or the data was lost."""


class ResultTimeout(JobError, TimeoutError):
    """The job did not end within the timeout; it keeps running."""


class AttemptLost(TaskqError):
    """This attempt lost its job, which was given to another worker."""


class BacklogFull(TaskqError):
    """The deferred runner has the maximum number of calls waiting; this one was rejected."""


class Injected(TaskqError):
    """Raised by a failpoint: see `redis/failpoints.py`."""


class RetryLater(Exception):
    """Raise it in a task to ask for another attempt after `delay` (seconds or timedelta).

    It does not count against the retry budget. Raises `ConfigError` for a delay that is negative or
    not a number: the job would run again at once, for ever.
    """

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or f"asked for another attempt in {delay}")
        try:
            wanted = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        except (TypeError, ValueError, OverflowError):
            wanted = float("nan")
        # A century, as for all durations.
        if not 0 <= wanted < 3e9:
            raise ConfigError(
                f"RetryLater({delay!r}) is not a valid delay; use seconds from 0 on, such as "
                "RetryLater(30), or a timedelta"
            )
        self.delay = wanted


class Reject(Exception):
    """Raise it in a task to fail the job at once, whatever its retry policy."""

    def __init__(self, reason: str = "rejected by the task") -> None:
        super().__init__(reason)


class SoftTimeout(Exception):
    """Raised inside a process task when its soft time limit passes; the hard one kills it."""
