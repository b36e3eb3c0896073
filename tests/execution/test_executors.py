"""Executors: threads of taskq's own, and processes of their own."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

import pytest
import uvloop

from taskq.codec.payload import decode_value, encode_call
from taskq.core.errors import ConfigError, Reject, RetryLater, SoftTimeout, TaskDefinitionError
from taskq.execution.executors.frames import pack_frame
from taskq.execution.executors.process import (
    FunctionAddress,
    ProcessDied,
    ProcessExecutor,
    RemoteError,
    address_of,
)
from taskq.execution.executors.thread import ThreadExecutor
from tests.execution import sample_functions as sample
from tests.execution.sample_functions import FACTS
from tests.support.waiting import eventually, eventually_sync

ROOT = Path(__file__).parents[2]


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("taskq-thread")]


def program(path: Path, text: str, *arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    """Start a Python program that can import taskq and the samples."""
    path.write_text(textwrap.dedent(text))
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(path), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class TestThreads:
    @pytest.fixture(autouse=True)
    async def _no_threads_of_other_tests(self) -> None:
        await eventually(lambda: not own_threads())

    async def test_a_function_runs_in_a_daemon_thread_of_its_own(self) -> None:
        executor = ThreadExecutor(limit=2)

        thread = await executor.run(threading.current_thread)

        assert thread.daemon
        assert thread.name.startswith("taskq-thread")
        assert thread is not threading.main_thread()
        await executor.aclose(1)

    async def test_arguments_arrive_and_the_value_comes_back(self) -> None:
        executor = ThreadExecutor(limit=2)

        assert await executor.run(sample.add, (1,), {"b": 2}) == 3

        await executor.aclose(1)

    async def test_threads_are_used_again(self) -> None:
        executor = ThreadExecutor(limit=5)

        threads = {await executor.run(threading.get_ident) for _ in range(20)}

        assert len(threads) == 1
        await executor.aclose(1)

    async def test_the_callers_context_is_seen_but_not_changed(self) -> None:
        executor = ThreadExecutor(limit=1)
        flavour: ContextVar[str] = ContextVar("flavour")
        flavour.set("mint")

        def change() -> str:
            before = flavour.get()
            flavour.set("rose")
            return before

        assert await executor.run(change) == "mint"
        assert await executor.run(flavour.get) == "mint"
        assert flavour.get() == "mint"
        await executor.aclose(1)

    @pytest.mark.parametrize(
        "error",
        [ValueError("x"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError("own")],
        ids=lambda error: type(error).__name__,
    )
    async def test_what_the_function_raises_comes_back_as_it_is(self, error: BaseException) -> None:
        executor = ThreadExecutor(limit=1)

        def fail() -> NoReturn:
            raise error

        with pytest.raises(type(error)) as caught:
            await executor.run(fail)

        assert caught.value is error
        assert [entry.name for entry in caught.traceback][-1] == "fail"
        assert executor.running == executor.leaked == 0
        assert await executor.run(sample.add, (1,)) == 1
        await executor.aclose(1)

    async def test_stop_iteration_comes_back_as_the_cause_of_a_runtime_error(self) -> None:
        executor = ThreadExecutor(limit=1)

        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await executor.run(next, (iter(()),))

        assert isinstance(caught.value.__cause__, StopIteration)
        await executor.aclose(1)

    async def test_calls_beyond_the_limit_wait_their_turn(self) -> None:
        executor = ThreadExecutor(limit=2)
        gate = threading.Event()
        lock = threading.Lock()
        order: list[int] = []
        at_once: list[int] = []
        inside = 0

        def note(number: int) -> None:
            nonlocal inside
            with lock:
                order.append(number)
                inside += 1
                at_once.append(inside)
            gate.wait(10)
            with lock:
                inside -= 1

        calls = [asyncio.create_task(executor.run(note, (number,))) for number in range(8)]
        await eventually(lambda: len(order) == 2)
        assert executor.running == 2
        gate.set()
        await asyncio.gather(*calls)

        assert sorted(order[:2]) == [0, 1]
        assert sorted(order) == list(range(8))
        assert max(at_once) == 2
        assert len(own_threads()) == 2
        await executor.aclose(1)

    async def test_with_one_thread_calls_run_in_the_order_they_came(self) -> None:
        executor = ThreadExecutor(limit=1)
        order: list[int] = []

        await asyncio.gather(*(executor.run(order.append, (number,)) for number in range(50)))

        assert order == list(range(50))
        await executor.aclose(1)

    async def test_a_cancelled_waiter_gives_up_its_place(self) -> None:
        executor = ThreadExecutor(limit=1)
        gate = threading.Event()
        ran: list[str] = []
        first = asyncio.create_task(executor.run(gate.wait, (10,)))
        second = asyncio.create_task(executor.run(ran.append, ("second",)))
        third = asyncio.create_task(executor.run(ran.append, ("third",)))
        await eventually(lambda: executor.running == 1)

        second.cancel()
        gate.set()
        await asyncio.gather(first, second, third, return_exceptions=True)

        assert second.cancelled()
        assert ran == ["third"]
        assert executor.leaked == 0
        await executor.aclose(1)

    async def test_on_start_comes_when_a_thread_is_free(self) -> None:
        executor = ThreadExecutor(limit=1)
        gate = threading.Event()
        started: list[str] = []
        first = asyncio.create_task(
            executor.run(gate.wait, (10,), on_start=lambda: started.append("first"))
        )
        second = asyncio.create_task(
            executor.run(sample.add, (1,), on_start=lambda: started.append("second"))
        )
        await eventually(lambda: executor.running == 1)
        assert started == ["first"]

        gate.set()
        await asyncio.gather(first, second)

        assert started == ["first", "second"]
        await executor.aclose(1)

    async def test_a_cancelled_caller_leaks_its_thread_and_starves_nobody(self) -> None:
        executor = ThreadExecutor(limit=2)
        gate, began = threading.Event(), threading.Semaphore(0)

        def hang() -> None:
            began.release()
            gate.wait(10)

        for leaked in (1, 2, 3):
            call = asyncio.create_task(executor.run(hang))
            await eventually(lambda: began.acquire(blocking=False))
            call.cancel()
            before = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert time.monotonic() - before < 5
            assert (executor.running, executor.leaked) == (0, leaked)

        assert await asyncio.gather(
            *(executor.run(sample.add, (number,)) for number in range(10))
        ) == list(range(10))

        gate.set()
        await eventually(lambda: executor.leaked == 0)
        # No more threads are kept than may run at once.
        await eventually(lambda: len(own_threads()) <= 2)
        await executor.aclose(1)

    async def test_a_call_cancelled_before_a_thread_took_it_never_runs(self) -> None:
        executor = ThreadExecutor(limit=1)
        await executor.run(sample.add, (1,))
        ran: list[int] = []
        interval = sys.getswitchinterval()
        sys.setswitchinterval(5)  # the thread gets no chance before the cancellation
        try:
            call = executor.run(ran.append, (1,))
            call.send(None)
            with pytest.raises(asyncio.CancelledError):
                call.throw(asyncio.CancelledError())
        finally:
            sys.setswitchinterval(interval)
        assert executor.leaked == 1

        assert await executor.run(sample.add, (2,)) == 2
        assert ran == []
        await eventually(lambda: executor.leaked == 0)
        await executor.aclose(1)

    async def test_slow_calls_leave_asyncios_own_threads_alone(self) -> None:
        executor = ThreadExecutor(limit=50)
        gate = threading.Event()
        calls = [asyncio.create_task(executor.run(gate.wait, (10,))) for _ in range(50)]
        await eventually(lambda: executor.running == 50)

        async with asyncio.timeout(5):
            assert await asyncio.to_thread(sample.add, 1, 2) == 3

        gate.set()
        await asyncio.gather(*calls)
        await executor.aclose(1)

    async def test_an_idle_thread_holds_on_to_nothing(self) -> None:
        class Cargo:
            pass

        def fail(cargo: Cargo) -> NoReturn:
            kept = cargo
            raise ValueError(kept)

        executor = ThreadExecutor(limit=1)
        cargo, failed = Cargo(), Cargo()
        gone = weakref.ref(cargo), weakref.ref(failed)
        gc.disable()
        try:
            assert await executor.run(lambda cargo: 1, (cargo,)) == 1
            with suppress(ValueError):  # pytest.raises would keep the traceback
                await executor.run(fail, (failed,))
            del cargo, failed
            await eventually(lambda: gone[0]() is None and gone[1]() is None)
        finally:
            gc.enable()
        await executor.aclose(1)

    async def test_closing_waits_for_what_runs_and_ends_the_threads(self) -> None:
        executor = ThreadExecutor(limit=3)
        gate = threading.Event()
        call = asyncio.create_task(executor.run(gate.wait, (10,)))
        await eventually(lambda: executor.running == 1)

        closing = asyncio.create_task(executor.aclose(60))
        await asyncio.sleep(0)
        assert not closing.done()
        gate.set()
        async with asyncio.timeout(10):
            await closing

        assert await call
        with pytest.raises(RuntimeError, match="closed"):
            await executor.run(sample.add, (1,))
        await executor.aclose(1)

    async def test_closing_gives_up_after_the_grace_and_never_waits_for_leaked_threads(
        self,
    ) -> None:
        executor = ThreadExecutor(limit=2)
        gate = threading.Event()
        leaking = asyncio.create_task(executor.run(gate.wait, (10,)))
        running = asyncio.create_task(executor.run(gate.wait, (10,)))
        await eventually(lambda: executor.running == 2)
        leaking.cancel()
        await asyncio.gather(leaking, return_exceptions=True)

        before = time.monotonic()
        await executor.aclose(0.05)
        assert 0.04 < time.monotonic() - before < 5
        assert not running.done()

        gate.set()
        assert await running

    async def test_an_executor_belongs_to_one_loop(self) -> None:
        executor = ThreadExecutor(limit=1)
        await executor.run(sample.add, (1,))

        def elsewhere() -> None:
            asyncio.run(executor.run(sample.add, (1,)))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)
        await executor.aclose(1)

    async def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="use 1 or more"):
            ThreadExecutor(limit=0)

    def test_a_leaked_thread_keeps_neither_the_process_nor_makes_noise(
        self, tmp_path: Path
    ) -> None:
        # Two functions outlive the loop that awaited them: one returns after the loop was closed,
        # the other never.
        child = program(
            tmp_path / "main.py",
            """
            import asyncio, threading, time
            from taskq.execution.executors.thread import ThreadExecutor

            gate = threading.Event()

            async def main():
                executor = ThreadExecutor(limit=2)
                never = threading.Event()
                begun = []
                def hang(event):
                    begun.append(event)
                    event.wait()
                calls = [asyncio.create_task(executor.run(hang, (e,))) for e in (gate, never)]
                while len(begun) < 2:
                    await asyncio.sleep(0.01)
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)
                await executor.aclose(1)

            asyncio.run(main())
            gate.set()
            deadline = time.monotonic() + 5
            while threading.active_count() > 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            print(threading.active_count())
            """,
        )

        out, err = child.communicate(timeout=20)

        assert (out, err, child.returncode) == ("2\n", "", 0)

    def test_threads_serve_uvloop_as_well(self) -> None:
        async def scenario() -> list[int]:
            executor = ThreadExecutor(limit=3)
            try:
                return await asyncio.gather(
                    *(executor.run(sample.add, (number, 1)) for number in range(100))
                )
            finally:
                await executor.aclose(1)

        assert uvloop.run(scenario()) == list(range(1, 101))


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def known_to_the_system(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@pytest.fixture
async def processes() -> AsyncIterator[ProcessExecutor]:
    executor = ProcessExecutor(limit=1)
    yield executor
    await executor.aclose()


async def call(
    executor: ProcessExecutor, fn: Callable[..., Any], *args: Any, **options: Any
) -> Any:
    options.setdefault("context", FACTS)
    return decode_value(await executor.run(address_of(fn), encode_call(args, {}), **options))


async def failure(executor: ProcessExecutor, fn: Callable[..., Any], *args: Any) -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        await call(executor, fn, *args)
    return caught.value


async def begin(executor: ProcessExecutor, note: Path, fn: Any, *args: Any) -> asyncio.Task[Any]:
    """Start a job, and wait until its function runs."""
    job = asyncio.create_task(call(executor, fn, str(note), *args))
    await eventually(lambda: note.exists() or job.done())
    return job


class TestProcessJobs:
    async def test_functions_and_coroutines_run_in_another_process(
        self, processes: ProcessExecutor
    ) -> None:
        assert await call(processes, sample.add, 1, 2) == 3
        assert await call(processes, sample.add_slowly, 1, 2) == 3
        assert await call(processes, sample.pid) != os.getpid()

    async def test_arguments_are_rebuilt_from_the_annotations(
        self, processes: ProcessExecutor
    ) -> None:
        described = await call(processes, sample.describe, sample.Point(1, 2), sample.Shade.DARK)

        assert described == ["Point", 3, "DARK"]

    async def test_a_child_is_kept_for_the_next_job(self, processes: ProcessExecutor) -> None:
        assert len({await call(processes, sample.pid) for _ in range(5)}) == 1
        assert len({await call(processes, sample.running_loop_identity) for _ in range(5)}) == 1

    async def test_at_most_limit_jobs_run_at_once_each_in_a_child_of_its_own(
        self, tmp_path: Path
    ) -> None:
        executor = ProcessExecutor(limit=2)
        notes = [tmp_path / f"note{number}" for number in range(3)]
        gate = tmp_path / "gate"
        jobs = [
            asyncio.create_task(call(executor, sample.note_and_wait, str(note), str(gate)))
            for note in notes
        ]
        await eventually(lambda: notes[0].exists() and notes[1].exists())

        assert executor.running == 2
        assert not notes[2].exists()
        gate.touch()
        assert await asyncio.gather(*jobs) == ["finished"] * 3
        assert len({json.loads(note.read_text()) for note in notes}) == 2
        await executor.aclose()

    async def test_on_start_comes_when_the_function_is_about_to_run(self, tmp_path: Path) -> None:
        executor = ProcessExecutor(limit=1)
        started: list[str] = []
        gate = tmp_path / "gate"
        first = await begin(executor, tmp_path / "a", sample.note_and_wait, str(gate))
        second = asyncio.create_task(
            call(executor, sample.add, 1, on_start=lambda: started.append("second"))
        )
        await asyncio.sleep(0)
        assert started == []

        gate.touch()
        await asyncio.gather(first, second)

        assert started == ["second"]
        await executor.aclose()

    async def test_what_a_job_leaves_behind_does_not_reach_the_next(
        self, processes: ProcessExecutor
    ) -> None:
        assert await call(processes, sample.set_flavour, "mint") == "none"
        assert await call(processes, sample.set_flavour_async, "rose") == "none"
        assert await call(processes, sample.set_flavour_async, "rose") == "none"

        await call(processes, sample.leave_task)
        assert await call(processes, sample.left_tasks) == [True]

    async def test_the_child_sees_the_parents_surroundings_and_no_input(
        self, processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SAMPLE", "here")
        monkeypatch.syspath_prepend("/nowhere/in/particular")

        assert await call(processes, sample.ambient) == ["here", os.getcwd(), sample.__name__]
        assert await call(processes, sample.search_path) == sys.path
        assert await call(processes, sample.standard_input) == ""

    async def test_what_imports_pass_over_is_passed_over(
        self, processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        known = list(sys.path)
        monkeypatch.setattr(sys, "path", [Path("/of/pathlib"), *known])

        assert await call(processes, sample.search_path) == known

    async def test_a_job_larger_than_any_pipe_buffer(self, processes: ProcessExecutor) -> None:
        assert len(await call(processes, sample.big_result, 1_000_000)) == 1_000_000

    async def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="use 1 or more"):
            ProcessExecutor(limit=0)

    @pytest.mark.parametrize("missing", [None, ""])
    async def test_without_an_interpreter_to_start_it_says_so(
        self, monkeypatch: pytest.MonkeyPatch, missing: str | None
    ) -> None:
        monkeypatch.setattr(sys, "executable", missing)

        with pytest.raises(ConfigError, match=r"sys\.executable"):
            ProcessExecutor(limit=1)


class TestProcessFiles:
    @pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test_the_child_inherits_no_files(
        self, runner: Callable[[Coroutine[Any, Any, Any]], Any], tmp_path: Path
    ) -> None:
        async def scenario() -> list[str]:
            executor = ProcessExecutor(limit=2)
            try:
                with (tmp_path / "secret").open("w") as secret:
                    os.set_inheritable(secret.fileno(), True)
                    # The second child must not hold the first one's pipe.
                    await asyncio.gather(*(call(executor, sample.take_time, 0.1) for _ in "ab"))
                    return await call(executor, sample.open_files)
            finally:
                await executor.aclose()

        opened = runner(scenario())

        assert len([name for name in opened if name.startswith("socket:")]) == 1
        assert not [name for name in opened if "secret" in name]


class TestProcessFailures:
    async def test_a_failure_comes_back_as_text(self, processes: ProcessExecutor) -> None:
        for fn in (sample.fail, sample.fail_async):
            error = await failure(processes, fn, "no such shelf")

            assert (error.type_name, error.text, error.kind) == ("Gone", "no such shelf", "error")
            assert error.mro == ("Gone", "LookupError", "Exception", "BaseException", "object")
            lines = error.traceback_text.splitlines()
            assert "sample_functions.py" in lines[1]
            assert lines[-1] == "tests.execution.sample_functions.Gone: no such shelf"
            assert "executors" not in error.traceback_text
            assert error.control() is None

    async def test_no_exception_ends_the_child(self, processes: ProcessExecutor) -> None:
        pid = await call(processes, sample.pid)
        names = ["SystemExit", "KeyboardInterrupt", "CancelledError", "GeneratorExit"]

        for fn in (sample.raise_named, sample.raise_named_async):
            for name in [*names, "ExceptionGroup"]:
                error = await failure(processes, fn, name)
                assert (error.type_name, error.kind) == (name, "error")

        assert await call(processes, sample.pid) == pid
        assert await call(processes, sample.add_slowly, 1, 2) == 3

    @pytest.mark.parametrize("how", ["stop", "exit"])
    async def test_a_job_that_ends_the_loop_leaves_it_to_the_next(
        self, processes: ProcessExecutor, how: str
    ) -> None:
        pid = await call(processes, sample.pid)

        assert await call(processes, sample.end_the_loop, how) == "went on"

        assert await call(processes, sample.add_slowly, 1, 2) == 3
        assert await call(processes, sample.pid) == pid

    async def test_stop_iteration_is_a_failure_like_others(
        self, processes: ProcessExecutor
    ) -> None:
        assert (await failure(processes, sample.raise_named, "StopIteration")).text == "1"
        error = await failure(processes, sample.raise_named_async, "StopIteration")
        assert error.type_name == "RuntimeError"

    async def test_taskqs_own_signals_are_told_apart(self, processes: ProcessExecutor) -> None:
        later = await failure(processes, sample.raise_named, "RetryLater")
        never = await failure(processes, sample.raise_named_async, "Reject")

        assert (later.kind, later.delay, never.kind) == ("retry_later", 30.0, "reject")
        signals = later.control(), never.control()
        assert isinstance(signals[0], RetryLater)
        assert (signals[0].delay, str(signals[0])) == (30.0, "not yet")
        assert isinstance(signals[1], Reject)
        assert str(signals[1]) == "never"

    async def test_a_result_that_cannot_travel_is_a_failure_that_names_it(
        self, processes: ProcessExecutor
    ) -> None:
        error = await failure(processes, sample.unfit_result)

        assert error.kind == "unfit_result"
        assert "result['sizes'][1]" in error.text

    async def test_arguments_that_cannot_be_read_are_a_failure(
        self, processes: ProcessExecutor
    ) -> None:
        with pytest.raises(RemoteError) as caught:
            await processes.run(address_of(sample.add), b"\xc1", context=FACTS)
        assert (caught.value.type_name, caught.value.kind) == ("DecodeError", "unfit_arguments")

        error = await failure(processes, sample.describe, {"x": 1}, "dark")
        assert error.kind == "unfit_arguments"

    async def test_an_exception_that_cannot_be_shown_is_still_told(
        self, processes: ProcessExecutor
    ) -> None:
        mute = await failure(processes, sample.fail_mutely)
        broken = await failure(processes, sample.fail_badly_encoded)
        long = await failure(processes, sample.fail_at_length)
        nameless = await failure(processes, sample.fail_anonymously)

        assert mute.type_name == "Mute"
        assert "ValueError" in mute.text
        assert "fail_mutely" in mute.traceback_text
        assert (nameless.type_name, nameless.text) == ("Anonymous", "who")
        assert broken.text == "half a \\ud800 pair"
        assert len(long.text) < 70_000
        assert "characters left out" in long.text

    async def test_a_dying_child_fails_its_own_job_only(self, tmp_path: Path) -> None:
        executor = ProcessExecutor(limit=2)
        gate = tmp_path / "gate"
        other = await begin(executor, tmp_path / "note", sample.note_and_wait, str(gate))
        deaths: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
            (sample.segfault, (), "killed by SIGSEGV"),
            (sample.leave, (3,), "exit code 3"),
            (sample.leave, (0,), "exit code 0"),
            (sample.kill_oneself, (), "killed by SIGKILL"),
            (sample.close_everything, (), "exit code 1"),
            (sample.babble, (), "wrote to the pipe"),
        ]

        for fn, args, told in deaths:
            with pytest.raises(ProcessDied, match=told):
                await call(executor, fn, *args)

        assert await call(executor, sample.add, 1, 2) == 3
        gate.touch()
        assert await other == "finished"
        await executor.aclose()

    async def test_a_child_that_died_idle_is_replaced_unnoticed(
        self, processes: ProcessExecutor
    ) -> None:
        pid = await call(processes, sample.pid)
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not known_to_the_system(pid))

        assert await call(processes, sample.pid) != pid

    async def test_a_fork_that_holds_the_pipe_does_not_hide_the_death(
        self, processes: ProcessExecutor, tmp_path: Path
    ) -> None:
        note = tmp_path / "note"
        try:
            async with asyncio.timeout(5):
                with pytest.raises(ProcessDied, match="exit code 5"):
                    await call(processes, sample.fork_and_die, str(note))
        finally:
            os.kill(int(note.read_text()), signal.SIGKILL)


class TestForks:
    @pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 3), ("raise", 1)])
    @pytest.mark.parametrize("function", [sample.fork, sample.fork_in_loop])
    async def test_a_copy_of_the_child_ends_where_the_function_does(
        self, processes: ProcessExecutor, function: Callable[..., Any], how: str, code: int
    ) -> None:
        arrived: list[Any] = []

        first = await call(processes, function, how, on_message=arrived.append)

        # What the copy returned, raised or reported is nobody's answer, now or later
        assert (first, arrived) == (code, [])
        assert [await call(processes, sample.add, n, n) for n in range(3)] == [0, 2, 4]


class TestProcessInterruptions:
    async def test_a_cancelled_job_is_killed_with_what_it_started(
        self, processes: ProcessExecutor, tmp_path: Path
    ) -> None:
        first = await call(processes, sample.pid)
        job = await begin(processes, tmp_path / "note", sample.start_and_sleep)
        helper = json.loads((tmp_path / "note").read_text())

        before = time.monotonic()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

        assert time.monotonic() - before < 4
        assert not known_to_the_system(first), "the child runs or was left as a zombie"
        await eventually(lambda: not alive(helper))
        assert processes.running == 0
        assert await call(processes, sample.pid) != first

    async def test_a_cancelled_waiter_gives_up_its_place(
        self, processes: ProcessExecutor, tmp_path: Path
    ) -> None:
        gate = tmp_path / "gate"
        first = await begin(processes, tmp_path / "note", sample.note_and_wait, str(gate))
        second = asyncio.create_task(call(processes, sample.add, 1))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.touch()

        assert await first == "finished"
        assert await call(processes, sample.add, 1, 2) == 3

    async def test_a_job_cancelled_while_its_child_imports_leaves_the_child_to_the_next(
        self, processes: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate, note = tmp_path / "gate", tmp_path / "note"
        (tmp_path / "slow_import.py").write_text(
            "import os, pathlib, time\n"
            f"pathlib.Path({str(note)!r}).write_text(str(os.getpid()))\n"
            f"while not os.path.exists({str(gate)!r}):\n    time.sleep(0.01)\n"
            "def pid() -> int:\n    return os.getpid()\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        address = FunctionAddress("slow_import", "pid")
        job = asyncio.create_task(processes.run(address, encode_call((), {}), context=FACTS))
        await eventually(note.exists)

        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        gate.touch()

        pid = decode_value(await processes.run(address, encode_call((), {}), context=FACTS))
        assert pid == int(note.read_text())

    async def test_an_import_that_never_ends_is_ended(self, tmp_path: Path) -> None:
        executor = ProcessExecutor(limit=1, start_timeout=0.5)
        (tmp_path / "endless_import.py").write_text("import time\ntime.sleep(60)\n")
        sys.path.insert(0, str(tmp_path))
        try:
            with pytest.raises(ProcessDied, match=r"endless_import\.f within 0\.5 s"):
                await executor.run(
                    FunctionAddress("endless_import", "f"), encode_call((), {}), context=FACTS
                )
        finally:
            sys.path.remove(str(tmp_path))
        await executor.aclose()

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    async def test_signals_to_every_process_of_a_worker_leave_its_jobs_alone(
        self, processes: ProcessExecutor, tmp_path: Path, signum: signal.Signals
    ) -> None:
        gate = tmp_path / "gate"
        job = await begin(processes, tmp_path / "note", sample.note_and_wait, str(gate))

        os.kill(json.loads((tmp_path / "note").read_text()), signum)
        gate.touch()

        assert await job == "finished"
        assert await call(processes, sample.session) != os.getsid(0)

    async def test_closing_ends_idle_and_busy_children(self, tmp_path: Path) -> None:
        executor = ProcessExecutor(limit=2)
        busy = await begin(executor, tmp_path / "note", sample.note_and_sleep)
        idle = await call(executor, sample.pid)

        before = time.monotonic()
        await executor.aclose()

        assert time.monotonic() - before < 5
        with pytest.raises(ProcessDied, match="closed"):
            await busy
        for pid in (idle, json.loads((tmp_path / "note").read_text())):
            assert not known_to_the_system(pid)
        with pytest.raises(RuntimeError, match="closed"):
            await call(executor, sample.add, 1)
        await executor.aclose()

    @pytest.mark.faults
    async def test_children_die_with_a_killed_parent(self, tmp_path: Path) -> None:
        notes = [tmp_path / f"note{number}" for number in range(2)]
        parent = program(
            tmp_path / "main.py",
            """
            import asyncio, sys
            from taskq.codec.payload import encode_call
            from taskq.execution.executors.process import ProcessExecutor, address_of
            from tests.execution import sample_functions as sample
            from tests.execution.sample_functions import FACTS

            async def main():
                executor = ProcessExecutor(limit=2)
                fns = sample.note_and_sleep, sample.note_and_compute
                await asyncio.gather(*(
                    executor.run(address_of(fn), encode_call((note,), {}), context=FACTS)
                    for fn, note in zip(fns, sys.argv[1:])
                ))

            asyncio.run(main())
            """,
            *map(str, notes),
        )
        try:
            await eventually(lambda: all(note.exists() for note in notes))
            pids = [json.loads(note.read_text()) for note in notes]
            assert all(map(alive, pids))

            parent.kill()

            await eventually(lambda: not any(map(alive, pids)), within=5)
        finally:
            parent.kill()
            parent.communicate()

    @pytest.mark.faults
    def test_where_the_kernel_does_not_tell_them_children_watch_the_pipe(
        self, tmp_path: Path
    ) -> None:
        note = tmp_path / "note"
        ours, theirs = socket.socketpair()
        address = [sample.__name__, "note_and_sleep", None, None]
        payload = encode_call((str(note),), {})
        with theirs:
            orphan = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "import os, socket, sys\n"
                    "from taskq.execution.executors import child\n"
                    "child._signalled_by_kernel = lambda: False\n"
                    "child.main(socket.socket(fileno=int(sys.argv[1])), os.getppid())",
                    str(theirs.fileno()),
                ],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )
        with ours:
            ours.sendall(pack_frame({"load": address, "argv": [], "levels": {}}))
            ours.sendall(
                pack_frame({"call": address, "payload": payload, "context": FACTS, "soft": None})
            )
            eventually_sync(note.exists)
            assert orphan.poll() is None

        assert orphan.wait(5) == 1

    async def test_where_processes_have_no_file_descriptor_a_thread_waits_for_them(
        self, processes: ProcessExecutor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.delattr(os, "pidfd_open")

        with pytest.raises(ProcessDied, match="exit code 3"):
            await call(processes, sample.leave, 3)
        job = await begin(processes, tmp_path / "note", sample.note_and_sleep)
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)

        assert not known_to_the_system(json.loads((tmp_path / "note").read_text()))
        assert await call(processes, sample.add, 1, 2) == 3


class TestSoftTimeouts:
    async def test_a_function_may_catch_it_and_return(self, processes: ProcessExecutor) -> None:
        for fn in (sample.sleep_until_told, sample.compute_until_told, sample.block_until_told):
            before = time.monotonic()

            value = await call(processes, fn, soft_timeout=0.1)

            assert value.startswith("tidied up")
            assert 0.09 < time.monotonic() - before < 5

    async def test_a_coroutine_may_catch_it_and_go_on_awaiting(
        self, processes: ProcessExecutor
    ) -> None:
        assert await call(processes, sample.await_until_told, soft_timeout=0.1) == ["tidied up", 0]

    async def test_what_a_coroutine_awaits_is_cancelled(self, processes: ProcessExecutor) -> None:
        assert await call(processes, sample.await_in_part, [], soft_timeout=0.1) == ["a", "b"]

    async def test_out_of_a_task_group_it_is_still_a_soft_timeout(
        self, processes: ProcessExecutor
    ) -> None:
        with pytest.raises(RemoteError) as caught:
            await call(processes, sample.block_in_group, soft_timeout=0.1)

        assert (caught.value.type_name, caught.value.kind) == ("ExceptionGroup", "soft_timeout")

    async def test_it_waits_where_an_error_would_be_swallowed(
        self, processes: ProcessExecutor
    ) -> None:
        async with asyncio.timeout(10):
            assert await call(processes, sample.finalise_slowly, soft_timeout=0.02) == "tidied up"

    async def test_it_is_heard_though_it_rang_just_before_a_long_wait(
        self, processes: ProcessExecutor
    ) -> None:
        async with asyncio.timeout(20):
            told = await call(processes, sample.wait_with_alarm_just_before, soft_timeout=0.1)
        assert told == "tidied up"

    async def test_it_leaves_the_event_loop_whole(self, processes: ProcessExecutor) -> None:
        # Alarms at any moment of a coroutine's life: before it began, in the loop, between steps.
        for number in range(150):
            try:
                await call(processes, sample.work_in_group, soft_timeout=number * 0.000_02)
            except RemoteError as error:
                assert error.kind == "soft_timeout", error.traceback_text  # noqa: PT017

        assert await call(processes, sample.add_slowly, 1, 2) == 3

    async def test_uncaught_it_fails_the_job_and_keeps_the_child(
        self, processes: ProcessExecutor
    ) -> None:
        pid = await call(processes, sample.pid)

        for fn in (sample.sleep_deaf, sample.await_deaf):
            for limit in (0.1, 0):
                with pytest.raises(RemoteError) as caught:
                    await call(processes, fn, soft_timeout=limit)

                assert caught.value.kind == "soft_timeout"
                assert isinstance(caught.value.control(), SoftTimeout)
                assert limit == 0 or fn.__name__ in caught.value.traceback_text

        assert await call(processes, sample.pid) == pid

    async def test_a_limit_that_is_not_reached_changes_nothing(
        self, processes: ProcessExecutor
    ) -> None:
        # The clock of the first job must not ring in the second.
        assert await call(processes, sample.add, 1, 2, soft_timeout=0.2) == 3
        assert await call(processes, sample.time_on_the_alarm) == 0
        assert await call(processes, sample.take_time, 0.4) == "done"
        assert await call(processes, sample.add_slowly, 1, 2, soft_timeout=5) == 3

    async def test_the_alarm_is_the_users_again_when_it_is_over(
        self, processes: ProcessExecutor
    ) -> None:
        await call(processes, sample.hear_alarms)

        await call(processes, sample.add, 1, 2, soft_timeout=5)
        assert await call(processes, sample.ring_the_alarm) == ["rang"]
        with pytest.raises(RemoteError, match="SoftTimeout"):
            await call(processes, sample.await_deaf, soft_timeout=0.01)
        assert await call(processes, sample.ring_the_alarm) == ["rang"]

    async def test_an_alarm_that_the_function_sets_is_left_to_it(
        self, processes: ProcessExecutor
    ) -> None:
        await call(processes, sample.hear_alarms, soft_timeout=5)

        assert await call(processes, sample.ring_the_alarm) == ["rang"]
        assert "hear_alarms" in await call(processes, sample.hear_alarms_no_more)

    async def test_it_cuts_no_message_in_two(self, processes: ProcessExecutor) -> None:
        for _ in range(5):
            lengths: set[int] = set()

            value = await call(
                processes,
                sample.report_until_told,
                soft_timeout=0.1,
                on_message=lambda message, lengths=lengths: lengths.add(len(message[2])),
            )

            assert value == "tidied up"
            assert lengths == {1_000_000}


class TestMessages:
    async def test_what_a_job_reports_arrives_in_order(self, processes: ProcessExecutor) -> None:
        for fn in (sample.report, sample.report_async):
            arrived: list[Any] = []

            facts = await call(processes, fn, ["cut", "glue"], on_message=arrived.append)

            assert arrived == [[0, 2, "cut"], [1, 2, "glue"]]
            assert facts == {"id": "j1", "fence": 2, "queue": "images"}

    async def test_nobody_need_listen(self, processes: ProcessExecutor) -> None:
        assert (await call(processes, sample.report, ["cut"]))["id"] == "j1"

    async def test_what_cannot_travel_is_refused_in_the_job(
        self, processes: ProcessExecutor
    ) -> None:
        error = await failure(processes, sample.report_unfit)

        assert error.type_name == "ConfigError"
        assert await call(processes, sample.add, 1, 2) == 3

    async def test_a_report_after_the_job_reaches_no_other_job(
        self, processes: ProcessExecutor
    ) -> None:
        arrived: list[Any] = []

        await call(processes, sample.report_late, 0.05)
        await call(processes, sample.take_time, 0.2, on_message=arrived.append)

        assert arrived == []

    async def test_a_listener_that_fails_ends_the_job(self, processes: ProcessExecutor) -> None:
        pid = await call(processes, sample.pid)

        def fail(_: Any) -> NoReturn:
            raise LookupError("nobody home")

        with pytest.raises(LookupError, match="nobody home"):
            await call(processes, sample.report, ["cut"], on_message=fail)

        assert await call(processes, sample.pid) != pid


class TestAddresses:
    def test_a_function_is_known_by_module_and_name(self) -> None:
        address = address_of(sample.add)

        assert address == FunctionAddress(sample.__name__, "add")
        assert str(address) == "tests.execution.sample_functions.add"
        assert address_of(sample.Nested.double).qualname == "Nested.double"

    @pytest.mark.parametrize(
        ("fn", "advice"),
        [
            (sample.triple.function, "write it as a `def`"),
            (sample.make_local(), "move `def local` to the top level"),
            (sample.triple, "wrap it in a `def`"),
        ],
    )
    def test_what_cannot_be_imported_is_refused(self, fn: Any, advice: str) -> None:
        with pytest.raises(TaskDefinitionError, match=advice):
            address_of(fn)

    def test_a_function_typed_at_a_prompt_is_refused(self) -> None:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from taskq.execution.executors.process import address_of\n"
                "def resize(): ...\n"
                "address_of(resize)",
            ],
            cwd=ROOT,
            text=True,
            capture_output=True,
        )

        assert "TaskDefinitionError: resize is defined at a prompt" in done.stderr
        assert "`from tasks import resize`" in done.stderr


class TestAddressesInChildren:
    @pytest.mark.parametrize("first", [True, False], ids=["on the path", "not on the path"])
    async def test_nothing_in_the_current_folder_is_imported_in_place_of_a_library(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
    ) -> None:
        # Given an application's folder, which comes first where `taskq worker` has loaded it
        names = ("socket", "asyncio", "logging", "inspect", "msgpack", "hiredis", "taskq")
        for name in names:
            text = f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n"
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "own.py").write_text("def where():\n    return __file__\n")
        monkeypatch.chdir(tmp_path)
        if first:
            monkeypatch.syspath_prepend(str(tmp_path))
        executor = ProcessExecutor(1)

        try:
            assert await call(executor, sample.add, 1, 2) == 3
            if first:
                found = await executor.run(
                    FunctionAddress("own", "where"), encode_call((), {}), context=FACTS
                )
                assert decode_value(found) == str(tmp_path / "own.py")
        finally:
            await executor.aclose()

        assert not (tmp_path / "ran").exists()

    async def test_a_name_that_carries_a_task_means_its_function(
        self, processes: ProcessExecutor
    ) -> None:
        address = FunctionAddress(sample.__name__, "triple")

        result = await processes.run(address, encode_call((2,), {}), context=FACTS)

        assert decode_value(result) == 6
        assert await call(processes, sample.Nested.double, 4) == 8

    async def test_an_address_that_leads_nowhere_fails_the_job(
        self, processes: ProcessExecutor
    ) -> None:
        for module, name, told in (
            ("no.such.module", "f", "No module named 'no'"),
            (sample.__name__, "nothing", "define it at the top level"),
            (sample.__name__, "Nested.nothing", "define it at the top level"),
        ):
            with pytest.raises(RemoteError, match=told):
                await processes.run(FunctionAddress(module, name), b"", context=FACTS)

        assert await call(processes, sample.add, 1, 2) == 3

    async def test_a_module_that_dies_when_imported_fails_the_job(
        self, processes: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "exits.py").write_text("raise SystemExit(4)\n")
        (tmp_path / "dies.py").write_text("import os\nos._exit(4)\n")
        monkeypatch.syspath_prepend(str(tmp_path))

        with pytest.raises(RemoteError, match="SystemExit: 4"):
            await processes.run(FunctionAddress("exits", "f"), encode_call((), {}), context=FACTS)
        with pytest.raises(ProcessDied, match="exit code 4"):
            await processes.run(FunctionAddress("dies", "f"), encode_call((), {}), context=FACTS)


MAIN = """
    import asyncio, sys
    from dataclasses import dataclass
    from taskq.codec.payload import decode_value, encode_call
    from taskq.execution.executors.process import ProcessExecutor, address_of
    from tests.execution.sample_functions import FACTS

    print("imported as", __name__, flush=True)

    @dataclass
    class Point:
        x: int

    def answer(point: Point) -> list:
        return [__name__, type(point).__name__, sys.argv[1:]]

    async def main():
        executor = ProcessExecutor(limit=1)
        for _ in range(2):
            call = encode_call((Point(1),), {})
            print(decode_value(await executor.run(address_of(answer), call, context=FACTS)))
        await executor.aclose()

    {guard}
    asyncio.run(main())
    """


class TestMainModules:
    def test_a_function_of_the_file_that_was_run(self, tmp_path: Path) -> None:
        text = textwrap.dedent(MAIN).replace(
            "{guard}\nasyncio", 'if __name__ == "__main__":\n    asyncio'
        )

        out, err = program(tmp_path / "main.py", text, "--flag").communicate(timeout=20)

        assert (out.splitlines(), err) == (
            [
                "imported as __main__",
                "imported as __mp_main__",
                "['__mp_main__', 'Point', ['--flag']]",
                "['__mp_main__', 'Point', ['--flag']]",
            ],
            "",
        )

    @pytest.mark.parametrize("launcher", ["cProfile -o profile", "trace --count -C counts"])
    def test_a_function_of_the_file_that_a_launcher_runs(
        self, tmp_path: Path, launcher: str
    ) -> None:
        text = textwrap.dedent(MAIN).replace(
            "{guard}\nasyncio", 'if __name__ == "__main__":\n    asyncio'
        )
        (tmp_path / "main.py").write_text(text)

        done = subprocess.run(
            [sys.executable, "-m", *launcher.split(), "main.py", "--flag"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
            timeout=20,
        )

        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "['__mp_main__', 'Point', ['--flag']]"

    @pytest.mark.parametrize("module", ["pack.tool", "pack"])
    def test_a_function_of_the_module_that_was_run(self, tmp_path: Path, module: str) -> None:
        text = textwrap.dedent(MAIN).replace(
            "{guard}\nasyncio", 'if __name__ == "__main__":\n    asyncio'
        )
        (tmp_path / "pack").mkdir()
        for name, content in (("__init__", ""), ("tool", text), ("__main__", text)):
            (tmp_path / "pack" / f"{name}.py").write_text(content)

        done = subprocess.run(
            [sys.executable, "-m", module],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
            timeout=20,
        )

        assert done.stderr == ""
        assert done.stdout.splitlines()[-1] == "['__mp_main__', 'Point', []]"

    def test_a_main_module_without_a_guard_is_told_so(self, tmp_path: Path) -> None:
        text = textwrap.dedent(MAIN).replace("{guard}\n", "")

        child = program(tmp_path / "main.py", text)
        _, err = child.communicate(timeout=20)

        assert child.returncode != 0
        assert "ConfigError" in err
        assert "under `if __name__ == '__main__':`" in err
