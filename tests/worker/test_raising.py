"""Whatever a task raises or returns: its job fails with a useful text, and the worker goes on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import pytest

from taskq import JobFailed, JobState, Retry, RetryLater, TaskQ, current_job
from tests.execution.sample_functions import Anonymous
from tests.worker import sample_tasks


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class Unfriendly(BaseException):
    pass


class Lying(Exception):
    """Its str() returns what is no text."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value] # noqa: PLE0307


class Heavy(Exception):
    """Says something of itself that only this process understands."""

    def __init__(self) -> None:
        super().__init__(self, lambda: None)

    def __str__(self) -> str:
        return "heavy"


class Veiled(Exception):
    """Tells nothing of itself."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class Trap(str):
    """A text that bites whoever reads it."""

    __slots__ = ()

    def __len__(self) -> int:
        raise ValueError("no length")

    def encode(self, *_: Any) -> bytes:
        raise ValueError("no bytes")


class Trapped(Exception):
    def __str__(self) -> str:
        return Trap("trapped")


class Undecided(RetryLater):
    @property
    def delay(self) -> float:  # type: ignore[override]
        raise ValueError("no delay")

    @delay.setter
    def delay(self, value: float) -> None: ...


class Negative(RetryLater):
    def __init__(self) -> None:
        Exception.__init__(self, "not ready")
        self.delay = -1.0


def buried() -> BaseException:
    error: Exception = ValueError("deep down")
    for _ in range(3_000):
        error = ExceptionGroup("a layer", [error])
    return error


def grouped() -> BaseExceptionGroup[BaseException]:
    inner = ExceptionGroup("inner", [ValueError("a"), KeyError("b")])
    return BaseExceptionGroup("outer", [inner, SystemExit(2)])


def caused() -> Exception:
    error = RuntimeError("cannot resize")
    error.__cause__ = OSError("no disk")
    return error


def circular() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


RAISED: list[tuple[Callable[[], BaseException], str, str]] = [
    (lambda: SystemExit(3), "SystemExit", "3"),
    (lambda: KeyboardInterrupt(), "KeyboardInterrupt", ""),
    (lambda: asyncio.CancelledError("own"), "CancelledError", "own"),
    (lambda: GeneratorExit("out"), "", "GeneratorExit"),
    (lambda: Unfriendly("mean"), "Unfriendly", "mean"),
    (grouped, "BaseExceptionGroup", "outer"),
    (lambda: Mute(), "Mute", "str() of this Mute raised ValueError"),
    (lambda: Lying(), "Lying", "str() of this Lying raised TypeError"),
    (lambda: Heavy(), "Heavy", "heavy"),
    (lambda: ValueError("half a \ud800 pair"), "ValueError", "half a \\ud800 pair"),
    (lambda: ValueError("a\x00b\r\n{}"), "ValueError", "a\x00b\r\n{}"),
    (lambda: StopIteration("end"), "RuntimeError", "StopIteration"),
    (lambda: StopAsyncIteration("end"), "", "StopAsyncIteration"),
    (lambda: TimeoutError("slow"), "TimeoutError", "slow"),
    (lambda: MemoryError(), "MemoryError", ""),
    (caused, "RuntimeError", "cannot resize"),
    (circular, "ValueError", "first"),
    (lambda: AssertionError(), "AssertionError", ""),
]


def raising(make: Callable[[], BaseException], executor: str) -> Any:
    """A function that raises, for this executor."""

    def plain() -> NoReturn:
        raise make()

    async def coroutine() -> NoReturn:
        raise make()

    return {"loop": coroutine, "thread": plain}[executor]


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize(("make", "kind", "text"), RAISED, ids=[item[1] for item in RAISED])
async def test_anything_may_be_raised(
    q: TaskQ, executor: str, make: Callable[[], BaseException], kind: str, text: str
) -> None:
    @q.task(name="well")
    async def well() -> str:
        return "alive"

    broken = q.task(name="broken")(raising(make, executor))
    job, following = await broken.enqueue(), await well.enqueue()
    async with q.worker(concurrency=1) as worker:
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)

        # Then the worker runs on, under the same name and with all its slots
        assert await following.result(timeout=5) == "alive"
        assert (worker.in_flight.running, worker.tally.leaked) == (0, 0)

    if kind:
        assert caught.value.error_type == kind
    assert text in f"{caught.value.error_type}: {caught.value.error_text}"
    assert kind in caught.value.traceback
    if kind != "Mute":
        assert "test_raising.py" in caught.value.traceback
    assert (await job.info()).attempts[0].outcome == "error"


HOSTILE: list[tuple[Callable[[], BaseException], str, str]] = [
    (lambda: Veiled(), "Veiled", ""),
    (lambda: Anonymous("who"), "Anonymous", "who"),
    (lambda: Trapped(), "Trapped", "trapped"),
    (lambda: Undecided(1), "Undecided", "asked for another attempt in 1 (and its delay is no"),
    (lambda: Negative(), "Negative", "not ready (and its delay is not a number of seconds"),
    (buried, "ExceptionGroup", "a layer"),
]


@pytest.mark.parametrize("executor", ["loop", "thread"])
@pytest.mark.parametrize(("make", "kind", "text"), HOSTILE, ids=[item[1] for item in HOSTILE])
async def test_an_exception_that_fights_back_fails_its_job_and_frees_its_slot(
    q: TaskQ, executor: str, make: Callable[[], BaseException], kind: str, text: str
) -> None:
    broken = q.task(name="broken")(raising(make, executor))
    job = await broken.enqueue()
    async with q.worker(concurrency=1) as worker:
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)
        assert worker.in_flight.running == 0

    assert caught.value.error_type == kind
    assert caught.value.error_text.startswith(text)
    # Where it came from is told, whatever can be told of the error itself
    assert "test_raising.py" in caught.value.traceback


async def test_a_delay_beyond_all_numbers_is_a_long_one(q: TaskQ) -> None:
    class Never(RetryLater):
        def __init__(self) -> None:
            Exception.__init__(self, "never")
            self.delay = 10**400

    @q.task(name="wait")
    async def wait() -> None:
        raise Never

    job = await wait.enqueue()
    await q.run_until_empty()

    assert await job.status() is JobState.SCHEDULED
    await job.cancel()


async def test_a_class_that_refuses_to_be_asked_is_matched_as_in_except(q: TaskQ) -> None:
    class Silent(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise ValueError("do not ask")

    class Wanted(Exception, metaclass=Silent):
        pass

    @q.task(name="moody", retry=Retry(max_attempts=3, backoff=0, on=(Wanted,)))
    async def moody() -> NoReturn:
        if current_job().attempt == 1:
            raise Wanted
        raise LookupError("another")

    job = await moody.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert (info.attempt, info.error_type) == (2, "LookupError")


@pytest.mark.parametrize(
    "broken", ["taskq.worker.intake.Intake.attempt", "taskq.execution.runner.classify"]
)
async def test_an_error_of_taskq_fails_one_job_and_frees_its_slot(
    q: TaskQ, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise LookupError("a slip")

    @q.task(name="work")
    async def work() -> NoReturn:
        raise ValueError("no")

    job = await work.enqueue()
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        async with q.worker(concurrency=1) as worker:
            with pytest.raises(JobFailed, match="taskq itself failed: LookupError"):
                await job.result(timeout=5)
            assert worker.in_flight.running == 0

    assert f"job {job.id} failed because of an error in taskq" in caplog.text
    assert "a slip" in caplog.text


@pytest.mark.parametrize("name", ["SystemExit", "KeyboardInterrupt"])
async def test_the_end_of_a_program_is_the_end_of_a_job_in_a_process_too(
    q: TaskQ, name: str
) -> None:
    tasks = sample_tasks.register(q)

    job = await tasks.raise_named.enqueue(name)
    following = await tasks.pid.enqueue()
    await q.run_until_empty(processes=1)

    assert (await job.info()).error_type == name
    assert await following.result(timeout=5)


@pytest.mark.parametrize(
    ("how", "text"),
    [("exit", "exit code 7"), ("segfault", "SIGSEGV"), ("kill", "SIGKILL")],
)
async def test_a_process_that_dies_takes_its_job_only(q: TaskQ, how: str, text: str) -> None:
    tasks = sample_tasks.register(q)

    job = await tasks.die.enqueue(how)
    following = await tasks.pid.enqueue()
    await q.run_until_empty(processes=1)

    info = await job.info()
    assert info.state is JobState.FAILED
    assert text in (info.error or "")
    assert info.attempts[0].outcome == "process_died"
    assert await following.result(timeout=5)


async def test_a_process_that_died_is_a_failure_that_can_be_retried(q: TaskQ) -> None:
    tasks = sample_tasks.register(q, retry=Retry(max_attempts=3, backoff=0))

    job = await tasks.die.enqueue("exit")
    await q.run_until_empty()

    info = await job.info()
    assert (info.attempt, info.failures, info.crashes) == (3, 3, 0)


async def test_a_huge_text_is_cut_in_its_middle(q: TaskQ) -> None:
    @q.task(name="broken")
    async def broken() -> None:
        raise ValueError("begin " + "x" * 2_000_000 + " end")

    job = await broken.enqueue()
    await q.run_until_empty()

    error = (await job.info()).error or ""
    assert error.startswith("begin x")
    assert error.endswith("x end")
    assert "characters left out" in error
    assert len(error) < 10_000


async def test_endless_recursion_fails_the_job_with_a_short_traceback(q: TaskQ) -> None:
    @q.task(name="deep")
    async def deep() -> None:
        def down() -> None:
            down()

        down()

    job = await deep.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert info.error_type == "RecursionError"
    assert len(info.traceback or "") < 65_536


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda: {"sizes": [1, object()]}, r"result['sizes'][1]"),
        (lambda: (number for number in [1]), "generator"),
        (lambda: 2**100_000, "result"),
        (lambda: "x" * 2_000_000, "1,048,576"),
        (lambda: open, "result"),
    ],
    ids=["nested object", "generator", "huge number", "too large", "function"],
)
@pytest.mark.parametrize("executor", ["loop", "thread"])
async def test_a_result_that_cannot_travel_fails_the_job_with_its_path(
    q: TaskQ, executor: str, value: Callable[[], Any], text: str
) -> None:
    def plain() -> Any:
        return value()

    async def coroutine() -> Any:
        return value()

    functions: dict[str, Any] = {"loop": coroutine, "thread": plain}
    task = q.task(name="unfit", retry=3)(functions[executor])
    job = await task.enqueue()
    await q.run_until_empty()

    info = await job.info()
    # Running it again would do its work twice, for nothing
    assert (info.state, info.attempt) == (JobState.FAILED, 1)
    assert info.attempts[0].outcome == "unfit_result"
    assert text in (info.error or "")


async def test_a_result_of_a_process_that_cannot_travel(q: TaskQ) -> None:
    tasks = sample_tasks.register(q)

    job = await tasks.unfit.enqueue()
    await q.run_until_empty()

    info = await job.info()
    assert info.attempts[0].outcome == "unfit_result"
    assert "result['sizes'][1]" in (info.error or "")


async def test_a_result_that_contains_itself(q: TaskQ) -> None:
    @q.task(name="loop")
    async def loop() -> list[Any]:
        ring: list[Any] = []
        ring.append(ring)
        return ring

    job = await loop.enqueue()
    await q.run_until_empty()

    assert "again" in ((await job.info()).error or "")


async def test_returning_a_coroutine_says_that_an_await_is_missing(q: TaskQ) -> None:
    made: list[Coroutine[Any, Any, int]] = []

    async def answer() -> int:
        return 42

    @q.task(name="forgetful")
    async def forgetful() -> Any:
        made.append(answer())
        return made[-1]

    job = await forgetful.enqueue()
    await q.run_until_empty()
    made[0].close()

    error = (await job.info()).error or ""
    assert "coroutine" in error
    assert "await" in error


async def test_what_a_coroutine_waits_for_may_raise_anything(q: TaskQ) -> None:
    def leave() -> NoReturn:
        raise GeneratorExit("out")

    @q.task(name="delegate")
    async def delegate() -> None:
        await asyncio.to_thread(leave)

    job = await delegate.enqueue()
    await asyncio.wait_for(q.run_until_empty(), 10)

    # Such an error closes the coroutines that wait, instead of being raised in them
    info = await job.info()
    assert (info.state, info.error_type) == (JobState.FAILED, "GeneratorExit")


async def test_a_coroutine_that_cancels_itself_has_failed(q: TaskQ) -> None:
    @q.task(name="quitter")
    async def quitter() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    job = await quitter.enqueue()
    await q.run_until_empty()

    # Not cancelled: nobody asked taskq for that
    info = await job.info()
    assert (info.state, info.error_type) == (JobState.FAILED, "CancelledError")


async def test_warnings_on_the_way_do_not_end_the_worker(q: TaskQ) -> None:
    @q.task(name="noisy")
    def noisy() -> str:
        sys.stderr.write("")
        return "quiet"

    job = await noisy.enqueue()
    await q.run_until_empty()

    assert await job.result(timeout=5) == "quiet"
