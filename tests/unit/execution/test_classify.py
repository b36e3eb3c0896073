"""From what an attempt raised to its outcome."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from taskq import CallError, EncodeError, Reject, Retry, RetryLater, TaskQ
from taskq.core.errors import DecodeError
from taskq.core.outcome import Cancelled, Failed, Released, RetryAsked
from taskq.execution.attempt import Attempt, Interruption
from taskq.execution.executors.reports import ProcessDied, RemoteError
from taskq.execution.runner import classify, interrupted, unfit_arguments, unfit_result

FAST = Retry(max_attempts=3, backoff=1, jitter=False)


def attempt(failures: int = 0, **options: Any) -> Attempt:
    q = TaskQ("redis://localhost")

    @q.task(name="work", **options)
    async def work() -> None: ...

    return Attempt(work, "01h", b"", failures=failures)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(("failures", "retry_in"), [(0, 1.0), (1, 2.0), (2, None), (7, None)])
def test_an_error_is_retried_as_long_as_the_policy_says(
    failures: int, retry_in: float | None
) -> None:
    outcome = classify(attempt(failures, retry=FAST), raised(OSError("no disk")))

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_text, outcome.kind) == ("OSError", "no disk", "error")
    assert outcome.retry_in == retry_in
    assert "in raised" in outcome.traceback


def test_reject_is_final() -> None:
    policy = Retry(max_attempts=9, on=(BaseException,))

    outcome = classify(attempt(retry=policy), Reject("no such product"))

    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.retry_in) == ("rejected", None)


def test_retry_later_is_no_failure() -> None:
    outcome = classify(attempt(), RetryLater(30, "not yet"))

    assert outcome == RetryAsked(30, "not yet")


def test_out_of_task_groups_they_are_the_same() -> None:
    policy = Retry(max_attempts=9, on=(BaseException,))
    reject = ExceptionGroup("outer", [ExceptionGroup("inner", [Reject("no such product")])])

    rejected = classify(attempt(retry=policy), raised(reject))
    asked = classify(attempt(), ExceptionGroup("group", [RetryLater(30, "not yet")]))

    assert isinstance(rejected, Failed)
    assert (rejected.kind, rejected.retry_in) == ("rejected", None)
    assert (rejected.error_type, rejected.error_text) == ("Reject", "no such product")
    assert "in raised" in rejected.traceback
    assert asked == RetryAsked(30, "not yet")


def test_beside_other_errors_they_say_nothing() -> None:
    group = ExceptionGroup("group", [Reject("no such product"), OSError("no disk")])

    outcome = classify(attempt(retry=FAST), group)

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.kind, outcome.retry_in) == ("ExceptionGroup", "error", 1.0)


def test_a_process_that_died_is_a_failure_like_others() -> None:
    outcome = classify(attempt(retry=FAST), ProcessDied("exit code 7"))

    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.retry_in) == ("process_died", 1.0)


def test_a_cancellation_nobody_asked_for_is_a_failure() -> None:
    outcome = classify(attempt(retry=FAST), asyncio.CancelledError("own"))

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.error_text) == ("CancelledError", "own")
    # And none that policies want by themselves: it is no Exception
    assert outcome.retry_in is None


@pytest.mark.parametrize(
    ("why", "expected"),
    [
        (Interruption.CANCEL, Cancelled()),
        (Interruption.RELEASE, Released()),
        (Interruption.LOST, Released()),
    ],
)
@pytest.mark.parametrize("error", [asyncio.CancelledError(), OSError("query cancelled")])
def test_what_ends_an_interrupted_attempt_is_its_interruption(
    why: Interruption, expected: object, error: BaseException
) -> None:
    stopped = attempt(retry=FAST)
    stopped.interrupt(why)

    assert classify(stopped, error) == expected


def test_a_timeout_names_its_limit() -> None:
    stopped = attempt(retry=FAST, timeout=1.5)
    stopped.interrupt(Interruption.TIMEOUT)

    outcome = classify(stopped, raised(asyncio.CancelledError()))

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.kind, outcome.retry_in) == ("TimeoutError", "timeout", 1.0)
    assert outcome.error_text == "the attempt ran longer than its timeout of 1.5 s"
    assert "in raised" in outcome.traceback


def test_an_error_after_the_timeout_is_shown_as_it_is() -> None:
    stopped = attempt(timeout=1.5)
    stopped.interrupt(Interruption.TIMEOUT)

    outcome = classify(stopped, OSError("half done"))

    assert isinstance(outcome, Failed)
    assert (outcome.error_type, outcome.kind) == ("OSError", "error")


def test_the_first_interruption_counts() -> None:
    stopped = attempt(timeout=1.5)
    stopped.interrupt(Interruption.CANCEL)
    stopped.interrupt(Interruption.RELEASE)

    assert stopped.interruption is Interruption.CANCEL
    assert interrupted(stopped, Interruption.CANCEL) == Cancelled()


def remote(kind: Any, *mro: str, delay: float | None = None) -> RemoteError:
    return RemoteError(mro[0], "text", "trace", kind, mro=mro, delay=delay)


@pytest.mark.parametrize(
    ("error", "kind", "retry_in"),
    [
        (remote("error", "KeyError", "LookupError", "Exception"), "error", 1.0),
        (remote("error", "SystemExit", "BaseException"), "error", None),
        (remote("reject", "Reject", "Exception"), "rejected", None),
        (remote("soft_timeout", "SoftTimeout", "Exception"), "timeout", 1.0),
        (remote("unfit_arguments", "CallError", "Exception"), "unfit_arguments", None),
        (remote("unfit_result", "EncodeError", "Exception"), "unfit_result", None),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_errors_of_another_process_are_judged_by_the_names_of_their_classes(
    error: RemoteError, kind: str, retry_in: float | None
) -> None:
    outcome = classify(attempt(retry=FAST), error)

    assert isinstance(outcome, Failed)
    assert (outcome.kind, outcome.retry_in) == (kind, retry_in)
    assert (outcome.error_text, outcome.traceback) == ("text", "trace")


def test_another_process_asks_for_another_attempt_too() -> None:
    error = remote("retry_later", "RetryLater", "Exception", delay=30)

    assert classify(attempt(), error) == RetryAsked(30, "text")


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (unfit_arguments(CallError("no such parameter")), "unfit_arguments"),
        (unfit_arguments(DecodeError("no msgpack")), "malformed"),
        (unfit_result(EncodeError("result[0]")), "unfit_result"),
    ],
    ids=["arguments", "payload", "result"],
)
def test_what_does_not_fit_is_not_tried_again(outcome: Failed, kind: str) -> None:
    assert (outcome.kind, outcome.retry_in) == (kind, None)
