"""A seal holds for one message in one place, and for nothing else."""

from __future__ import annotations

import copy
import itertools
import pickle  # noqa: TID251, to show that keys do not leave by it
import traceback

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taskq import ConfigError, ForgedMessage, PayloadError, TaskQ, UnsignedMessage
from taskq.codec.signing import Signing, unsealed

OLD, NEW, OTHER = "old-" + "0" * 32, "new-" + "1" * 32, "other-" + "2" * 32
MESSAGE = b"\x93\x01\xa8app.task\xc4\x03\x92\x90\x80"

names = st.text(max_size=12)


def sealed(key: str = NEW) -> bytes:
    return Signing("shop", [key]).seal_job("id", "default/5", MESSAGE)


def test_what_was_sealed_opens() -> None:
    signing = Signing("shop", [NEW])

    assert signing.open_job("id", "default/5", sealed()) == MESSAGE
    # Priorities may be changed by whoever runs the server: only the queue says who may run it
    assert signing.open_job("id", "default/9", sealed()) == MESSAGE


@pytest.mark.parametrize("at", range(len(sealed())))
def test_no_byte_of_it_can_be_changed(at: int) -> None:
    data = bytearray(sealed())
    data[at] ^= 0x01

    with pytest.raises((ForgedMessage, UnsignedMessage)):
        Signing("shop", [NEW]).open_job("id", "default/5", bytes(data))


@pytest.mark.parametrize("keep", [0, 1, 2, 33, 34, len(sealed()) - 1])
def test_it_cannot_be_cut_short(keep: int) -> None:
    with pytest.raises((ForgedMessage, UnsignedMessage)):
        Signing("shop", [NEW]).open_job("id", "default/5", sealed()[:keep])


def test_it_cannot_be_made_longer() -> None:
    with pytest.raises(ForgedMessage):
        Signing("shop", [NEW]).open_job("id", "default/5", sealed() + b"\x00")


@pytest.mark.parametrize(
    ("namespace", "job_id", "lane"),
    [("test", "id", "default/5"), ("shop", "id2", "default/5"), ("shop", "id", "images/5")],
    ids=["namespace", "id", "queue"],
)
def test_it_holds_in_no_other_place(namespace: str, job_id: str, lane: str) -> None:
    with pytest.raises(ForgedMessage, match="made for another place"):
        Signing(namespace, [NEW]).open_job(job_id, lane, sealed())


def test_a_result_is_no_job() -> None:
    signing = Signing("shop", [NEW])

    with pytest.raises(ForgedMessage):
        signing.open(signing.seal(MESSAGE, "result", "id"), "schedule", "id")


def test_what_was_never_sealed_is_refused() -> None:
    with pytest.raises(UnsignedMessage, match=r"TaskQ\(signing_keys=\[\.\.\.\]\)"):
        Signing("shop", [NEW]).open_job("id", "default/5", MESSAGE)
    # Taking the seal off is no way round
    with pytest.raises(UnsignedMessage):
        Signing("shop", [NEW]).open_job("id", "default/5", unsealed(sealed()))


def test_a_message_too_long_for_any_is_not_even_looked_at() -> None:
    with pytest.raises(ForgedMessage, match="the limit is"):
        Signing("shop", [NEW]).open(b"\xc1\x01" + b"x" * 5_000_000, "result", "id")


def test_who_has_no_keys_reads_both_kinds_and_signs_nothing() -> None:
    none = Signing("shop")

    assert not none.enabled
    assert none.seal_job("id", "default/5", MESSAGE) is MESSAGE
    assert none.open_job("other", "other/5", sealed()) == MESSAGE
    assert none.open_job("id", "default/5", MESSAGE) == MESSAGE


def test_keys_change_without_a_gap() -> None:
    # Given the old key, both of them in either order, and the new one
    steps = [Signing("shop", keys) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW])]

    # Then neighbours read each other, whichever is deployed first
    for one, next_one in itertools.pairwise(steps):
        for reader, writer in ((one, next_one), (next_one, one)):
            data = writer.seal(MESSAGE, "result", "id")
            assert reader.open(data, "result", "id") == MESSAGE
    # And once the old key is gone, so is what it signed
    with pytest.raises(ForgedMessage, match="none of the 1 keys"):
        steps[3].open(steps[0].seal(MESSAGE, "result", "id"), "result", "id")


def test_text_and_bytes_are_the_same_key_and_line_feeds_do_not_count() -> None:
    data = Signing("shop", [NEW + "\n"]).seal(MESSAGE, "result", "id")

    assert Signing("shop", [NEW.encode()]).open(data, "result", "id") == MESSAGE


@given(st.lists(names, max_size=4), st.binary(max_size=20), st.data())
@settings(deadline=None, max_examples=200)
def test_no_two_places_have_the_same_seal(
    whose: list[str], message: bytes, data: st.DataObject
) -> None:
    # Given the same text, cut elsewhere
    text = "".join(whose)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=3)))
    edges = [0, *cuts, len(text)]
    others = [text[a:b] for a, b in itertools.pairwise(edges)]
    assume(others != whose)
    signing = Signing("shop", [NEW])

    with pytest.raises(ForgedMessage):
        signing.open(signing.seal(message, "result", *whose), "result", *others)


# ------------------------------------------------------------------------------------- the keys


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["short"], r"signing_keys\[0\] has 5 bytes; a key needs at least 32.*token_urlsafe"),
        ([NEW, ""], r"signing_keys\[1\] has 0 bytes"),
        ([NEW, 7], r"signing_keys\[1\] is int; use text or bytes"),
        (NEW, r"a single string; use a list of keys: \[signing_key\]"),
        (b"x" * 40, "a single string"),
    ],
)
def test_a_key_that_is_none_is_refused_at_once(keys: list[str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        TaskQ("redis://localhost", signing_keys=keys)
    assert NEW not in str(caught.value)


def test_keys_come_from_the_environment_where_none_are_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given an application made before its environment was read from a file
    q = TaskQ("redis://localhost", namespace="shop")
    own = TaskQ("redis://localhost", namespace="shop", signing_keys=[OTHER])
    monkeypatch.setenv("TASKQ_SIGNING_KEYS", f" {NEW} ,{OLD},")

    assert q._settings.signing.open_job("id", "default/5", sealed()) == MESSAGE
    assert q._settings.signing.open_job("id", "default/5", sealed(OLD)) == MESSAGE
    with pytest.raises(ForgedMessage):
        own._settings.signing.open_job("id", "default/5", sealed())

    # Then they stay what they were: taking the variable away downgrades nothing
    monkeypatch.delenv("TASKQ_SIGNING_KEYS")
    with pytest.raises(UnsignedMessage):
        q._settings.signing.open_job("id", "default/5", MESSAGE)


def test_a_short_key_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKQ_SIGNING_KEYS", "hunter2")

    with pytest.raises(ConfigError, match=r"TASKQ_SIGNING_KEYS\[0\] has 7 bytes") as caught:
        _ = Signing("shop").enabled
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("value", ["", "  ", ",", " , ,\n"])
def test_a_key_variable_that_holds_no_key_does_not_turn_signing_off(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TASKQ_SIGNING_KEYS", value)
    signing = TaskQ("redis://localhost")._settings.signing

    for use in (
        lambda: signing.enabled,
        lambda: signing.open_job("id", "default/5", MESSAGE),
        lambda: signing.seal_job("id", "default/5", MESSAGE),
    ):
        with pytest.raises(ConfigError, match="TASKQ_SIGNING_KEYS is set but empty"):
            use()


def test_an_empty_list_of_keys_does_not_turn_signing_off() -> None:
    with pytest.raises(ConfigError, match="signing_keys is set but empty"):
        TaskQ("redis://localhost", signing_keys=[])


def test_keys_show_nowhere() -> None:
    q = TaskQ("redis://localhost", signing_keys=[NEW])
    try:
        q._settings.signing.open_job("id", "default/5", MESSAGE)
    except PayloadError:
        shown = traceback.format_exc()
    else:
        raise AssertionError("it was not refused")

    told = [repr(q), repr(q._settings), repr(q._settings.signing), str(q._settings.signing), shown]
    assert [text for text in told if NEW in text] == []
    assert repr(q._settings.signing) == "Signing('taskq', 1 keys)"


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy])
def test_keys_do_not_leave_their_process(leave: object) -> None:
    assert callable(leave)
    with pytest.raises(TypeError, match="cannot be pickled"):
        leave(Signing("shop", [NEW]))
