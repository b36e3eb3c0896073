"""Envelopes and stored failures: what is written can be read, and garbage is called garbage."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taskq.broker.consumer import handed_over
from taskq.codec.envelope import (
    VERSION,
    Envelope,
    FailureRecord,
    pack_envelope,
    pack_failure,
    unpack_envelope,
    unpack_failure,
)
from taskq.codec.payload import PayloadLimits
from taskq.core.errors import ConfigError, DecodeError
from taskq.core.options import JobOptions
from taskq.core.outcome import Failed
from taskq.core.retry import Retry
from taskq.core.text import cut

ANY_TIME = settings(deadline=None, max_examples=300)

tasks = st.text(st.characters(codec="utf-8"), max_size=100)
policies = st.builds(
    Retry,
    max_attempts=st.integers(1, 1000),
    backoff=st.floats(0, 1e6),
    max_delay=st.floats(0, 1e6),
    jitter=st.booleans(),
)
extras = st.fixed_dictionaries(
    {},
    optional={
        "timeout": st.floats(0.001, 1e9),
        "result_ttl": st.floats(0, 1e9),
        "retry": policies,
        "headers": st.dictionaries(tasks, tasks, min_size=1, max_size=5),
    },
)


# ------------------------------------------------------------------------------------ round trips


@given(tasks, st.binary(max_size=500), extras)
@ANY_TIME
def test_what_was_packed_is_unpacked(task: str, payload: bytes, given: dict[str, Any]) -> None:
    envelope = unpack_envelope(pack_envelope(task, payload, **given))

    assert envelope == Envelope(task, payload, **given)
    assert envelope.version == VERSION


def test_an_envelope_without_extras_is_small() -> None:
    assert len(pack_envelope("app.add", b"\x92\x92\x01\x02\x80")) == 17


def test_zero_is_a_value_and_none_takes_no_room() -> None:
    plain = pack_envelope("t", b"", timeout=None, result_ttl=None, retry=None, headers={})

    assert plain == pack_envelope("t", b"")
    assert unpack_envelope(pack_envelope("t", b"", result_ttl=0.0)).result_ttl == 0.0


def test_durations_of_a_policy_travel_as_seconds() -> None:
    policy = Retry(3, timedelta(seconds=5), timedelta(minutes=1), False)

    retry = unpack_envelope(pack_envelope("t", b"", retry=policy)).retry

    assert retry == Retry(3, 5.0, 60.0, False)


@pytest.mark.parametrize("policy", [Retry(on=(OSError,)), Retry(never=(OSError,))])
def test_exception_classes_cannot_travel_with_one_job(policy: Retry) -> None:
    with pytest.raises(ConfigError, match=r"set them on the task: @q\.task\(retry=Retry\(on="):
        pack_envelope("t", b"", retry=policy)


# ------------------------------------------------------------------------------- other versions


def test_extras_of_a_newer_producer_are_ignored() -> None:
    data = msgpack.packb((VERSION, "t", b"p", {"t": 3.0, "zz": [1, 2], "new": {"a": b"b"}}, "more"))

    assert unpack_envelope(data) == Envelope("t", b"p", timeout=3.0)


@given(st.integers(VERSION + 1, 2**32))
@ANY_TIME
def test_a_version_above_ours_is_kept_for_a_newer_worker(version: int) -> None:
    assert unpack_envelope(msgpack.packb((version, "t", b"p"))).version == version


def test_more_of_a_policy_than_we_know_is_ignored() -> None:
    data = msgpack.packb((VERSION, "t", b"p", {"r": [3, 5.0, 60.0, False, "newer"]}))

    assert unpack_envelope(data).retry == Retry(3, 5.0, 60.0, False)


# ---------------------------------------------------------------------------------------- garbage

ARRAYS = b"\xdc\x00\x10" + (b"\xdc\x00\x10" + (b"\x9f" + b"\x90" * 15) * 16) * 16
"""A thousand bytes for each of which an empty list would be made, sixty times as large."""


@pytest.mark.parametrize("read", [unpack_envelope, unpack_failure, handed_over])
def test_records_of_empty_containers_are_refused_before_they_take_memory(
    read: Callable[[bytes], Any],
) -> None:
    bomb = b"\x94\x01\xa1t\xc4\x00\xdc\x00\x10" + (b"\xdc\x00\x10" + ARRAYS * 16) * 16
    assert len(bomb) > 1_000_000
    tracemalloc.start()
    try:
        with contextlib.suppress(DecodeError):
            read(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 1_000_000


def test_an_envelope_of_the_most_headers_and_arguments_is_read() -> None:
    headers = {str(number): "x" * 400 for number in range(1024)}
    data = pack_envelope("t", b"\x90" * 1_000_000, headers=headers, timeout=5.0)

    assert unpack_envelope(data).headers == headers


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xc1")
@example(msgpack.packb([VERSION, "t"]))
@example(msgpack.packb([VERSION, "t", b"p"]) + b"x")
@settings(deadline=None, max_examples=1000)
def test_any_bytes_are_an_envelope_or_a_decode_error(data: bytes) -> None:
    try:
        envelope = unpack_envelope(data)
    except DecodeError:
        return
    assert type(envelope.task) is str
    assert type(envelope.payload) is bytes
    assert type(envelope.version) is int


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats()
        | st.binary()
        | st.text(st.characters(codec="utf-8")),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("trlh"), inner),
        max_leaves=12,
    )
)
@ANY_TIME
def test_any_value_is_an_envelope_or_a_decode_error(value: Any) -> None:
    for data in (value, [VERSION, "t", b"p", value]):
        try:
            envelope = unpack_envelope(msgpack.packb(data))
        except DecodeError:
            continue
        assert isinstance(envelope.headers, dict | None)


@pytest.mark.parametrize(
    "parts",
    [
        [VERSION, b"bytes", b"p"],
        [VERSION, "t", "text"],
        [True, "t", b"p"],
        ["1", "t", b"p"],
        [VERSION, "t", b"p", 3],
        [VERSION, "t", b"p", {"r": [0, 1.0, 1.0, True]}],
        [VERSION, "t", b"p", {"r": 3}],
        {"task": "t"},
        None,
    ],
)
def test_fields_of_another_type_are_a_decode_error(parts: Any) -> None:
    with pytest.raises(DecodeError, match="not a taskq envelope"):
        unpack_envelope(msgpack.packb(parts))


@pytest.mark.parametrize(
    "extra", [{"t": "60"}, {"t": [1]}, {"l": "x"}, {"h": "trace"}, {"h": {"a": 1}}, {"h": [1]}]
)
def test_extras_of_another_type_are_a_decode_error(extra: dict[str, Any]) -> None:
    """A worker that believed them would fall over where it does not expect to."""
    with pytest.raises(DecodeError):
        unpack_envelope(msgpack.packb([VERSION, "t", b"p", extra]))


def test_the_most_that_may_be_sent_is_read() -> None:
    texts = {f"{number:04}": "x" * 508 for number in range(1024)}
    headers = JobOptions().with_changes(headers=texts).headers

    sent = pack_envelope("t" * 128, b"x" * PayloadLimits().max_bytes, headers=headers, timeout=1)

    assert unpack_envelope(sent).headers == texts


def test_an_envelope_over_the_limit_is_not_read() -> None:
    with pytest.raises(DecodeError, match="2,100,000 bytes; at most 2,097,152"):
        unpack_envelope(b"\x91" * 2_100_000)


@pytest.mark.parametrize(
    "bomb", [b"\xdd\x00\x0f\x42\x40" + b"\x90" * 1_000_000, b"\x91" * 1_000_000]
)
def test_a_bomb_is_refused_before_it_is_built(bomb: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            unpack_envelope(b"\x93\x01\xa1t" + bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 8_000_000


# --------------------------------------------------------------------------------------- failures


@given(tasks, tasks, tasks, st.sampled_from(["error", "timeout", "poison"]))
@ANY_TIME
def test_a_failure_that_was_packed_is_unpacked(kind: str, text: str, trace: str, why: Any) -> None:
    record = unpack_failure(pack_failure(Failed(kind, text, trace, why)))

    assert record == FailureRecord(kind, text, trace, why)


@given(st.text(st.characters()), st.text(st.characters(categories=["Cs"]), min_size=1))
@ANY_TIME
def test_text_that_is_no_text_is_stored_all_the_same(text: str, surrogates: str) -> None:
    record = unpack_failure(pack_failure(Failed("E", text + surrogates, surrogates)))

    assert record.error_type == "E"
    assert record.kind == "error"


def test_what_is_too_long_is_cut_in_the_middle() -> None:
    failure = Failed("T" * 500, "m" * 50_000, "first line" + "t" * 500_000 + "last line")

    data = pack_failure(failure)
    record = unpack_failure(data)

    assert len(data) < 80_000
    assert len(record.error_type) <= 200
    assert len(record.error_text) <= 8_192
    assert record.traceback.startswith("first line")
    assert record.traceback.endswith("last line")
    assert "characters left out" in record.traceback


@given(st.text(max_size=300), st.integers(80, 300))
@ANY_TIME
def test_a_cut_text_is_within_the_limit_and_a_short_one_untouched(text: str, limit: int) -> None:
    result = cut(text, limit)

    assert len(result) <= limit
    if len(text) <= limit:
        assert result == text
    else:
        assert result[:20] == text[:20]
        assert result[-20:] == text[-20:]


@given(st.binary(max_size=200))
@example(b"")
@settings(deadline=None, max_examples=500)
def test_any_bytes_give_a_failure_that_can_be_shown(data: bytes) -> None:
    record = unpack_failure(data)

    assert record.error_type is not None


def test_a_failure_that_cannot_be_read_says_so() -> None:
    record = unpack_failure(b"garbage")

    assert record == FailureRecord(
        "UnreadableError", "the stored error cannot be read", "", "malformed"
    )
