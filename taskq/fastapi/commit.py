"""Enqueues jobs when a database transaction commits, and not at all when it is rolled back."""

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
"""The key in `session.info` for the jobs that wait for its transactions."""


class AnySession(Protocol):
    """The part of a SQLAlchemy session that is used."""

    info: dict[Any, Any]

    def begin(self) -> Any: ...

    def get_transaction(self) -> Any: ...

    def get_nested_transaction(self) -> Any: ...


class OnCommit(Generic[R]):
    """A job that is enqueued when its transaction commits.

    After the commit, `job` is its handle. Awaiting this object returns the same, and waits until
    the job is enqueued where the commit could not wait: a synchronous session in a coroutine.
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

        Raises the error that kept it from being enqueued, and `TaskqError` before the commit and
        after a rollback.
        """
        if self._job is not None:
            return self._job
        if self._failure is not None:
            raise self._failure
        if self._sending is not None:
            raise TaskqError(
                f"{self.task} is still being enqueued after the commit: await the object that "
                "enqueue_on_commit() returned"
            )
        raise TaskqError(f"{self.task} is not enqueued yet: its transaction has not committed")

    @property
    def backend(self) -> JobBackend:
        """Where the job is submitted."""
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
        """Enqueue it in the running loop, in a task that goes on if its waiter is cancelled.

        The task never raises: the transaction is committed, and the caller must go on.
        """
        self._sending = asyncio.get_running_loop().create_task(self._send())
        return self._sending

    async def _send(self) -> None:
        backend, spec = self.backend, task_spec_of(self._signature)
        try:
            if spec.middleware.enqueues:
                # Middleware runs with the context variables of the enqueue_on_commit() call.
                enqueueing = self._signature.enqueue()
                self._job = await asyncio.create_task(enqueueing, context=self._context)
                return
            self._job = cast("Job[R]", await self._request.submit(backend, spec))
        except asyncio.CancelledError:
            self._failed(TaskqError("the event loop ended before the server answered"))
            raise
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self._failure = error
        _log.error(
            "the transaction is committed, but its job %s of %s could not be enqueued: %s",
            self._request.job.id,
            self.task,
            error,
        )

    def drop(self) -> None:
        """Do not enqueue it: the transaction was rolled back."""
        self._failure = TaskqError(f"{self.task} was not enqueued: its transaction was rolled back")


def enqueue_on_commit(session: Any, signature: Signature[R]) -> OnCommit[R]:
    """Enqueue `signature` when the current transaction of `session` has committed.

    `session` is an `AsyncSession` or a `Session` of SQLAlchemy 2. The call is checked and
    serialised now; a transaction begins if there is none, as with `session.add()`. Nothing is sent
    if the transaction is rolled back or its session closed. A job added in a nested transaction (a
    savepoint) is rolled back with it, and otherwise waits for the outermost commit. When `await
    session.commit()` returns, the job is enqueued. If the server is unreachable then, the commit
    does not fail: the error is logged, and `OnCommit.job` raises it.

    Raises what `Signature.enqueue` raises, and `ConfigError` if `session` is not a session.

    >>> welcoming = enqueue_on_commit(session, welcome.s(user.id))
    >>> await session.commit()
    >>> welcoming.job.id
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
    """The jobs that wait for the transactions of one session."""

    def __init__(self, session: AnySession) -> None:
        # A session exists, so SQLAlchemy is installed.
        from sqlalchemy import event

        self._by_transaction: dict[Any, list[OnCommit[Any]]] = {}
        self._committed: list[OnCommit[Any]] = []
        listen: Callable[..., None] = event.listen
        listen(session, "after_commit", self._on_commit)
        listen(session, "after_transaction_end", self._on_end)
        self._session = session

    def add(self, entry: OnCommit[R]) -> OnCommit[R]:
        # As `session.add()` does: without a transaction there would be no rollback to notice.
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
        # What did not commit was rolled back, or closed, which is the same.
        for entry in self._by_transaction.pop(transaction, []):
            entry.drop()
        if transaction.parent is not None:
            return
        committed, self._committed = self._committed, []
        if committed:
            _send(committed)


def _send(entries: list[OnCommit[Any]]) -> None:
    """Enqueue jobs, and wait for that unless it would block an event loop."""

    async def together() -> None:
        # Shielded: committed jobs are enqueued even if the commit is cancelled meanwhile.
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
    """Await a coroutine below an AsyncSession, which can wait; false where there is none."""
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
        # In a `def` endpoint: on the application's loop and connection.
        from_thread.run(together)
    except RuntimeError:
        asyncio.run(alone())
