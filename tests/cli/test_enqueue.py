"""`taskq enqueue`: from a shell to a job, and to its result."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import JobState, TaskQ
from tests.cli.typed import typed
from tests.support.server import TestServer

APP = """
import dataclasses, datetime, decimal
from taskq import TaskQ

q = TaskQ({url!r}, namespace={namespace!r})

@q.task(name="shop.add", queue="sums", priority=7)
async def add(a: int, b: int = 1) -> int:
    return a + b

@q.task(name="shop.fails")
async def fails() -> None:
    raise ValueError("out of paint")

@dataclasses.dataclass
class Found:
    at: datetime.datetime
    price: decimal.Decimal

@q.task(name="shop.rich")
async def rich() -> list[object]:
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    return [Found(now, decimal.Decimal("1.50")), {{1}}, b"ab", {{2: None}}]
"""


@pytest.fixture
def app(
    server: TestServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A target whose TaskQ is on the test's server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"shop_{namespace}"
    Path(f"{name}.py").write_text(APP.format(url=server.url, namespace=namespace))
    yield f"{name}:q"
    sys.modules.pop(name, None)


@pytest.fixture
def by_name(server: TestServer, namespace: str) -> tuple[str, ...]:
    return "--url", server.url, "--namespace", namespace


def serve(q: TaskQ) -> None:
    """What the application's worker runs."""

    @q.task(name="shop.add", queue="sums")
    async def add(a: int, b: int = 1) -> int:
        return a + b

    @q.task(name="shop.fails")
    async def fails() -> None:
        raise ValueError("out of paint")


async def test_it_prints_the_id_of_a_job_with_the_options_of_its_task(q: TaskQ, app: str) -> None:
    done = await typed("enqueue", app, "shop.add", "--args", "[1]", "--kwargs", '{"b": 2}')

    assert done.exit_code == 0, done.output
    job = q.job(done.stdout.strip())
    info = await job.info()
    assert (info.task, info.queue, info.priority) == ("shop.add", "sums", 7)
    assert (info.args, info.kwargs) == ((1,), {"b": 2})
    await job.cancel()
    await q.run_until_empty(["sums"])


async def test_options_of_the_job_can_be_typed(q: TaskQ, app: str) -> None:
    words = ("--delay", "5m", "-q", "other", "--priority", "9", "--id", "mine", "--json")
    done = await typed("enqueue", app, "shop.add", "--args", "[1]", *words)
    again = await typed("enqueue", app, "shop.add", "--args", "[1]", *words)

    assert json.loads(done.stdout) == {"id": "mine", "created": True}
    assert json.loads(again.stdout) == {"id": "mine", "created": False}
    assert "already exists" in again.stderr
    info = await q.job("mine").info()
    assert (info.state, info.queue, info.priority) == (JobState.SCHEDULED, "other", 9)
    assert info.due_at is not None
    assert info.enqueued_at is not None
    assert (info.due_at - info.enqueued_at).total_seconds() == 300
    await q.job("mine").cancel()


async def test_waiting_prints_the_result_as_json(q: TaskQ, app: str) -> None:
    serve(q)
    async with q.worker():
        plain = await typed("enqueue", app, "shop.add", "--args", "[40, 2]", "--wait")
        full = await typed("enqueue", app, "shop.add", "--args", "[1]", "--wait", "--json")

    assert (plain.exit_code, plain.stdout) == (0, "42\n"), plain.output
    told = json.loads(full.stdout)
    assert (told["state"], told["result"]) == ("succeeded", 2)
    assert full.stderr == f"job {told['id']}\n"


@pytest.mark.leaves_jobs
async def test_who_gives_up_waiting_knows_the_id(q: TaskQ, app: str) -> None:
    done = await typed(
        "enqueue", app, "shop.add", "--args", "[1]", "--id", "mine", "--wait", "--timeout", "200ms"
    )

    assert done.stderr.splitlines()[0] == "job mine"
    await q.job("mine").cancel()


async def test_the_help_says_what_may_be_left_out() -> None:
    done = await typed("enqueue", "--help")

    assert "[TARGET] [TASK]" in done.stdout
    assert "[required]" not in done.stdout
    nothing = await typed("enqueue")
    assert nothing.exit_code == 2
    assert "TASK is missing: use taskq enqueue [TARGET] TASK" in nothing.stderr


async def test_results_json_does_not_know_become_text_and_arrays(
    q: TaskQ, app: str, by_name: tuple[str, ...]
) -> None:
    del q
    queued = await typed("enqueue", app, "shop.rich", "--id", "rich")
    # Run by a worker of the very code that the command has loaded.
    shop = sys.modules[app.partition(":")[0]].q
    await shop.run_until_empty()

    done = await typed("enqueue", *by_name, "shop.rich", "--id", "rich", "--wait")
    await shop.aclose()

    assert queued.exit_code == 0, queued.output
    found, numbers, data, keyed = json.loads(done.stdout)
    assert found == {"at": "2026-01-02T00:00:00+00:00", "price": "1.50"}
    assert (numbers, data, keyed) == ([1], "YWI=", {"2": None})


async def test_a_failed_job_ends_it_with_1_and_what_its_worker_saw(q: TaskQ, app: str) -> None:
    serve(q)
    async with q.worker():
        plain = await typed("enqueue", app, "shop.fails", "--wait")
        full = await typed("enqueue", app, "shop.fails", "--wait", "--json")

    assert plain.exit_code == full.exit_code == 1
    assert "ValueError: out of paint" in plain.stderr
    assert "Traceback" in plain.stderr
    assert plain.stdout == ""
    told = json.loads(full.stdout)
    assert (told["state"], told["error_type"], told["error"]) == (
        "failed",
        "ValueError",
        "out of paint",
    )


async def test_waiting_ends_with_its_timeout_and_says_why(q: TaskQ, app: str) -> None:
    done = await typed(
        "enqueue", app, "shop.add", "--args", "[1]", "--id", "mine", "--wait", "--timeout", "200ms"
    )

    assert done.exit_code == 1
    assert "did not end within 0.2 s" in done.stderr
    assert f"taskq worker {app} -q sums" in done.stderr
    words = ("enqueue", app, "shop.add", "--args", "[1]", "--id", "mine", "--wait", "--json")
    late = json.loads((await typed(*words, "--timeout", "1ms")).stdout)
    await q.job("mine").cancel()
    cancelled = json.loads((await typed(*words)).stdout)
    assert (late["state"], late["error_type"]) == ("queued", "ResultTimeout")
    assert (cancelled["state"], cancelled["error_type"]) == ("cancelled", "JobCancelled")
    await q.run_until_empty(["sums"])


async def test_a_task_can_be_known_by_its_name_alone(q: TaskQ, by_name: tuple[str, ...]) -> None:
    serve(q)
    async with q.worker():
        done = await typed("enqueue", *by_name, "shop.fails", "--wait")
        summed = await typed(
            "enqueue", *by_name, "shop.add", "-q", "sums", "--args", "[1, 2]", "--wait"
        )

    assert done.exit_code == 1
    assert "out of paint" in done.stderr
    assert (summed.exit_code, summed.stdout) == (0, "3\n"), summed.output


async def test_an_unknown_task_is_a_usage_error_with_the_nearest_name(app: str) -> None:
    done = await typed("enqueue", app, "shop.ad", "--args", "[1]")

    assert done.exit_code == 2
    assert f"{app} has no task 'shop.ad'; did you mean 'shop.add'?" in done.stderr


async def test_a_target_alone_is_a_usage_error_that_names_its_tasks(app: str) -> None:
    done = await typed("enqueue", app)

    assert done.exit_code == 2
    assert f"TASK is missing: use taskq enqueue {app} TASK, one of shop.add, " in done.stderr


async def test_a_call_that_does_not_fit_is_a_usage_error_with_the_signature(app: str) -> None:
    done = await typed("enqueue", app, "shop.add", "--kwargs", '{"c": 1}')

    assert done.exit_code == 2
    assert "shop.add(a: int, b: int = 1) -> int cannot be called like this" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--args", "[1"), "--args '[1' is not JSON"),
        (("--args", '{"a": 1}'), "is not a JSON array; use --args '[\"a.png\", 2]'"),
        (("--kwargs", "[1]"), "is not a JSON object; use --kwargs '{\"width\": 400}'"),
        (("--args", "[1]", "--priority", "10"), "use a whole number from 0 to 9"),
        (("--args", "[1]", "--delay", "soon"), "'soon' is not a duration; use 30s, 5m"),
        (("--args", "[1]", "--id", "a b"), "cannot be part of a key"),
    ],
)
async def test_what_cannot_be_meant_is_a_usage_error(
    app: str, words: tuple[str, ...], message: str
) -> None:
    done = await typed("enqueue", app, "shop.add", *words)

    assert done.exit_code == 2
    assert message in done.stderr


async def test_an_unreachable_server_ends_it_with_1_at_once(tmp_path: Path) -> None:
    began = time.monotonic()

    done = await typed("enqueue", "--url", f"unix://{tmp_path}/none", "shop.add")

    assert done.exit_code == 1
    assert time.monotonic() - began < 5
    assert "cannot reach" in done.stderr
