"""Enqueue when a database transaction commits, and not at all when it is rolled back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Generic, Protocol, TypeVar, cast

from anyio import from_thread

from taskq.core.errors import ConfigError, TaskqError
from taskq.execution.handle import Job
from taskq.execution.ports import JobBackend
from taskq.execution.request import Request
from taskq.execution.task import Signature, backend_of, request_of, task_spec_of

__all__ = ["OnCommit", "enqueue_on_commit"]

_log = logging.getLogger("taskq.fastapi")

R = TypeVar("R")

_KEY = "taskq.on_commit"
"""Where a session keeps what waits for its transactions."""


class AnySession(Protocol):
    """What is used of a session of SQLAlchemy."""

    info: dict[Any, Any]

    def begin(self) -> Any: ...

    def get_transaction(self) -> Any: ...

    def get_nested_transaction(self) -> Any: ...


class OnCommit(Generic[R]):
    """A job that will be enqueued with a commit.

    `job` is its handle after the commit. Awaiting it gives the same, and waits for the enqueueing
    where the commit itself could not: a synchronous session in a coroutine.
    """

    def __init__(self, signature: Signature[R]) -> None:
        self._signature = signature
        self._request: Request = request_of(signature)
        self._context = copy_context()
        self._job: Job[R] | None = None
        self._failure: BaseException | None = None
        self._sending: asyncio.Task[None] | None = None

    @property
    def job(self) -> Job[R]:
        """The handle of the job.

        Raises what kept it from being enqueued, and `TaskqError` before the commit and after a
        rollback.
        """
        if self._job is not None:
            return self._job
        if self._failure is not None:
            raise self._failure
        if self._sending is not None:
            raise TaskqError(
                f"{self.task} is being enqueued, since its transaction has committed: await what "
                "enqueue_on_commit() gave"
            )
        raise TaskqError(f"{self.task} is not enqueued yet: its transaction has not committed")

    @property
    def backend(self) -> JobBackend:
        """Where it is handed in."""
        return backend_of(self._signature)

    @property
    def task(self) -> str:
        """The name of the task."""
        return task_spec_of(self._signature).name

    def __await__(self) -> Generator[Any, None, Job[R]]:
        if self._sending is not None:
            yield from asyncio.shield(self._sending).__await__()
        return self.job

    def send(self) -> asyncio.Task[None]:
        """Enqueue it in the running loop, whoever waits for that and for how long.

        The task never raises: the transaction is over, and its caller must go on.
        """
        self._sending = asyncio.get_running_loop().create_task(self._send())
        return self._sending

    async def _send(self) -> None:
        backend, spec = self.backend, task_spec_of(self._signature)
        try:
            if spec.middleware.enqueues:
                # It sees the call as it was made, in the context in which it was.
                enqueueing = self._signature.enqueue()
                self._job = await asyncio.create_task(enqueueing, context=self._context)
                return
            self._job = cast("Job[R]", await self._request.submit(backend, spec))
        except asyncio.CancelledError:
            self._failed(TaskqError("the event loop ended before the server had answered"))
            raise
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._failure = error
        _log.error(
            "the transaction is committed, and its job %s of %s could not be enqueued: %s",
            self._request.job.id,
            self.task,
            error,
        )

    def drop(self) -> None:
        """Forget it: the transaction came to nothing."""
        self._failure = TaskqError(
            f"{self.task} was not enqueued: the transaction it waited for was rolled back"
        )


def enqueue_on_commit(session: Any, signature: Signature[R]) -> OnCommit[R]:
    """Enqueue `signature` when the current transaction of `session` has committed.

    `session` is an `AsyncSession` or a `Session` of SQLAlchemy 2. The call is checked and
    serialised now; a transaction begins if there is none, as with `session.add()`. Nothing is sent
    when the transaction is rolled back or its session closed; what was asked for in a nested
    transaction (a savepoint) goes with it, and waits for the outermost commit. When `await
    session.commit()` returns, the job is enqueued. If the server cannot be reached then, the commit
    does not fail: the error is logged, and `OnCommit.job` raises it.

    Raises as `Signature.enqueue`, and `ConfigError` for what is no session.

    >>> welcoming = enqueue_on_commit(session, welcome.s(user.id))  # doctest: +SKIP
    >>> await session.commit()  # doctest: +SKIP
    >>> welcoming.job.id  # doctest: +SKIP
    """
    inner: Any = getattr(session, "sync_session", session)
    if not hasattr(inner, "get_nested_transaction"):
        raise ConfigError(
            f"enqueue_on_commit() takes a Session or an AsyncSession of SQLAlchemy, not "
            f"{type(session).__name__}"
        )
    return _waiting_of(inner).add(OnCommit(signature))


def _waiting_of(session: AnySession) -> _Waiting:
    waiting = session.info.get(_KEY)
    if waiting is None:
        waiting = session.info[_KEY] = _Waiting(session)
    return waiting


class _Waiting:
    """What waits for the transactions of one session."""

    def __init__(self, session: AnySession) -> None:
        # Whoever has a session has SQLAlchemy.
        from sqlalchemy import event

        self._by_transaction: dict[Any, list[OnCommit[Any]]] = {}
        self._committed: list[OnCommit[Any]] = []
        listen: Callable[..., None] = event.listen
        listen(session, "after_commit", self._on_commit)
        listen(session, "after_transaction_end", self._on_end)
        self._session = session

    def add(self, entry: OnCommit[R]) -> OnCommit[R]:
        # As `session.add()` does. Without a transaction a rollback would go unnoticed.
        transaction = self._current() or self._session.begin()
        self._by_transaction.setdefault(transaction, []).append(entry)
        return entry

    def _current(self) -> Any:
        return self._session.get_nested_transaction() or self._session.get_transaction()

    def _on_commit(self, _: AnySession) -> None:
        transaction = self._current()
        entries = self._by_transaction.pop(transaction, [])
        if transaction is not None and transaction.nested:
            self._by_transaction.setdefault(transaction.parent, []).extend(entries)
        else:
            self._committed += entries

    def _on_end(self, _: AnySession, transaction: Any) -> None:
        # Whatever did not commit was rolled back, or closed, which is the same.
        for entry in self._by_transaction.pop(transaction, []):
            entry.drop()
        if transaction.parent is not None:
            return
        committed, self._committed = self._committed, []
        if committed:
            _send(committed)


def _send(entries: list[OnCommit[Any]]) -> None:
    """Enqueue, and wait for it where that blocks nobody else."""

    async def together() -> None:
        # What is committed is enqueued, though the commit is cancelled while it waits for that.
        await asyncio.shield(asyncio.gather(*(entry.send() for entry in entries)))

    async def alone() -> None:
        await together()
        for backend in {id(entry.backend): entry.backend for entry in entries}.values():
            await backend.aclose()

    if _awaited_in_greenlet(together()):
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _run_from_thread(together, alone)
    else:
        for entry in entries:
            entry.send()


def _awaited_in_greenlet(coroutine: Coroutine[Any, Any, None]) -> bool:
    """Whether this is below an AsyncSession, which can wait; the coroutine is over then."""
    from sqlalchemy.exc import MissingGreenlet
    from sqlalchemy.util import concurrency

    wait: Any = getattr(concurrency, "await_", None) or concurrency.await_only
    try:
        wait(coroutine)
    except (MissingGreenlet, ImportError):
        coroutine.close()
        return False
    return True


def _run_from_thread(
    together: Callable[[], Coroutine[Any, Any, None]],
    alone: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    try:
        # In a `def` endpoint: on the application's loop, over the connection it has.
        from_thread.run(together)
    except RuntimeError:
        asyncio.run(alone())
