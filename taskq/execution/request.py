"""From a call to a job: check the arguments, serialise them and resolve the options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from taskq.codec.envelope import pack_envelope
from taskq.codec.payload import encode_call
from taskq.codec.rebuild import CallRebuilder
from taskq.codec.secret_arguments import SecretWrapper
from taskq.core.durations import Duration, instant_ms, seconds
from taskq.core.ids import new_id
from taskq.core.job import NewJob, lane_of
from taskq.core.options import JobOptions, TaskOptions
from taskq.execution.handle import Job
from taskq.execution.middleware import NO_MIDDLEWARE, Middleware
from taskq.execution.ports import Injector, JobBackend

__all__ = ["PLAIN", "Request", "TaskSpec"]

AWAITED_JOBS: Final = 8
"""How many of the next jobs are enqueued as awaited after a result of their task was awaited."""

PLAIN: Final = JobOptions()
"""No options, as used by `Task.enqueue` and recognised by identity."""

Check = Callable[[tuple[Any, ...], dict[str, Any]], None]


@dataclass(slots=True, eq=False)
class TaskSpec:
    """What enqueueing and running need to know of a task.

    `check` raises `CallError` for arguments that do not fit the signature, and `arrives` refuses
    those that would arrive as other values. `conceal` conceals secret arguments. `rebuild` converts
    results to the return annotation, and `call_rebuilder` returns what converts arguments.
    `injector` fills dependencies. A task that is known only by its name has none of these.
    """

    name: str
    options: TaskOptions
    check: Check | None = None
    rebuild: Callable[[Any], Any] | None = None
    conceal: SecretWrapper | None = None
    arrives: Callable[[bytes, tuple[Any, ...], dict[str, Any]], None] | None = None
    call_rebuilder: Callable[[], CallRebuilder | None] = lambda: None
    injector: Injector | None = None
    middleware: Middleware = NO_MIDDLEWARE
    lane: str = field(init=False)
    expires: str = field(init=False)
    patience: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        options = self.options
        self.lane = lane_of(options.queue, options.priority, options.executor)
        self.expires = "" if options.expires is None else _from_now(options.expires)

    def waited_for(self) -> None:
        """Note that a result is awaited, so that the next jobs are enqueued as awaited."""
        self.patience = AWAITED_JOBS

    def payload(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """The arguments as they are sent: checked, and concealed where an annotation says so.

        Raises `CallError`, `EncodeError` and `PayloadTooLarge`.
        """
        if self.check is not None:
            self.check(args, kwargs)
        if self.conceal is not None:
            args, kwargs = self.conceal(args, kwargs)
        return encode_call(args, kwargs, check=self.arrives)

    def envelope(
        self,
        options: JobOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        before: tuple[int, int] = (0, 0),
    ) -> bytes:
        """A call as it is sent; everything that is invalid about it is refused here.

        `before`: attempts and failures that it had in this process.

        Raises `CallError`, `EncodeError`, `PayloadTooLarge` and `ConfigError`.
        """
        payload = self.payload(args, kwargs)
        if options is PLAIN and not before[0]:
            return pack_envelope(self.name, payload)
        return pack_envelope(
            self.name,
            payload,
            timeout=options.timeout,
            result_ttl=options.result_ttl,
            retry=options.retry,
            headers=options.headers,
            before=before,
        )


@dataclass(slots=True)
class Request:
    """A job to submit, and whether its result will be kept."""

    job: NewJob
    keeps_result: bool

    @classmethod
    def of(
        cls,
        spec: TaskSpec,
        options: JobOptions,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        before: tuple[int, int] = (0, 0),
    ) -> Request:
        """Check the call and serialise it.

        `before`: attempts and failures that it had in this process.

        Raises `CallError`, `EncodeError` and `PayloadTooLarge`.
        """
        return cls.around(spec, options, spec.envelope(options, args, kwargs, before))

    @classmethod
    def around(cls, spec: TaskSpec, options: JobOptions, envelope: bytes) -> Request:
        """The request for a checked envelope."""
        keeps_result = spec.options.result_ttl > 0
        if options is PLAIN:
            return cls(NewJob(new_id(), envelope, spec.lane, "", spec.expires), keeps_result)
        if options.result_ttl is not None:
            keeps_result = options.result_ttl > 0
        return cls(_placed(spec, options, envelope), keeps_result)

    def handle(self, backend: JobBackend, spec: TaskSpec, created: bool) -> Job[Any]:
        """The handle of the job, once it was submitted."""
        return Job(
            backend,
            self.job.id,
            created=created,
            keeps_result=self.keeps_result,
            rebuild=spec.rebuild,
            on_wait=spec.waited_for,
        )

    async def submit(self, backend: JobBackend, spec: TaskSpec) -> Job[Any]:
        """Enqueue this one job.

        If a result of this task was awaited lately, the enqueue also registers the wait.
        """
        awaited = spec.patience > 0 and not self.job.origin
        if awaited:
            spec.patience -= 1
        [created] = await backend.submit((self.job,), awaited=awaited)
        return self.handle(backend, spec, created)


def _placed(spec: TaskSpec, options: JobOptions, envelope: bytes) -> NewJob:
    defaults = spec.options
    queue = defaults.queue if options.queue is None else options.queue
    priority = defaults.priority if options.priority is None else options.priority
    when = ""
    if options.delay is not None:
        when = _from_now(options.delay)
    elif options.eta is not None:
        when = f"@{instant_ms('eta', options.eta)}"
    return NewJob(
        options.id or new_id(),
        envelope,
        lane_of(queue, priority, defaults.executor),
        when,
        spec.expires if options.expires is None else _expires(options.expires),
        new_id() if options.id else "",
    )


def _expires(value: Duration | datetime) -> str:
    if isinstance(value, datetime):
        return f"@{instant_ms('expires', value)}"
    return _from_now(value)


def _from_now(duration: Duration) -> str:
    return f"+{int(seconds('duration', duration) * 1000)}"
