"""A secret travels as its value and is shown nowhere."""

from __future__ import annotations

import base64
import copy
import dataclasses
import html
import json
import logging
import shlex
import traceback
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from taskq import CallError, DecodeError, EncodeError, PayloadTooLarge, Secret, TaskQ
from taskq.codec.extensions import pack
from taskq.codec.payload import PayloadLimits, decode_call, decode_value, encode_call, encode_value
from taskq.codec.rebuild import CallRebuilder, compile_rebuilder
from taskq.codec.secret import MASK
from taskq.codec.secret_arguments import SecretWrapper, mask_passwords, secret_texts
from taskq.core.job import Progress
from taskq.core.outcome import Failed, RetryAsked
from taskq.deferred.call import Call
from taskq.execution.attempt import Attempt, masked, masked_progress
from taskq.execution.request import PLAIN

CANARY = "canary-7f3a91"


@dataclasses.dataclass
class Login:
    user: str
    password: Secret[str]


def test_it_is_shown_as_stars(caplog: pytest.LogCaptureFixture) -> None:
    secret = Secret(CANARY)
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("app").warning("%s %r %s", secret, secret, {"token": [secret]})

    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        repr([secret, {"a": secret}, Login("ada", secret)]),
        str(dataclasses.asdict(Login("ada", secret))),
        json.dumps({"token": secret}, default=str),
        repr(copy.deepcopy(secret)),
        caplog.text,
    ]
    assert [text for text in shown if CANARY in text] == []
    assert secret.reveal() == copy.deepcopy(secret).reveal() == CANARY


def test_it_is_no_text_and_has_no_attributes_to_look_through() -> None:
    with pytest.raises(TypeError):
        "token=" + Secret(CANARY)  # type: ignore[operator]
    with pytest.raises(TypeError):
        json.dumps(Secret(CANARY))
    with pytest.raises(TypeError):
        vars(Secret(CANARY))


def test_secrets_compare_and_hash_by_their_values() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert {Secret("a"), Secret("a")} == {Secret("a")}


# ------------------------------------------------------------------------------------ travelling


@pytest.mark.parametrize(
    "value",
    [
        Secret(CANARY),
        Secret(b"bytes"),
        Secret(None),
        Secret({"user": "ada", "keys": [1, 2]}),
        Secret(datetime(2026, 1, 2, tzinfo=UTC)),
        Secret(Secret("twice")),
        [Secret(1), {"a": (Secret(2), {Secret(3)})}],
        {Secret("key"): 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_travels_and_arrives_as_a_secret(value: Any) -> None:
    assert decode_value(encode_value(value)) == value
    assert decode_call(encode_call((value,), {"x": value})) == ([value], {"x": value})


def test_a_value_that_cannot_travel_is_named_and_not_shown() -> None:
    with pytest.raises(EncodeError, match=r"token\.reveal\(\) is an object") as caught:
        encode_call((), {"token": Secret(object())})
    assert "0x" not in str(caught.value)
    with pytest.raises(EncodeError) as caught:
        encode_call((), {"token": Secret({"a": CANARY + "\ud800"})})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_it_counts_as_a_container() -> None:
    limits = PayloadLimits(max_depth=2, max_nodes=100)
    encode_value(Secret([1]), limits=limits)

    with pytest.raises(PayloadTooLarge):
        encode_value(Secret([[1]]), limits=limits)
    deep = encode_value(Secret([[1]]))
    with pytest.raises(PayloadTooLarge):
        decode_value(deep + b"", limits=PayloadLimits(max_depth=2))


@pytest.mark.parametrize("items", [[], [1, 2]], ids=["none", "two"])
def test_bytes_that_hold_no_one_secret_are_refused(items: list[int]) -> None:
    body = pack(items)
    data = b"\xc7" + bytes([len(body), 11]) + body

    with pytest.raises(DecodeError, match="a secret holds"):
        decode_value(data)


# --------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize(
    ("annotation", "arrived", "made"),
    [
        (Secret, CANARY, Secret(CANARY)),
        (Secret[str], CANARY, Secret(CANARY)),
        (Secret[str], Secret(CANARY), Secret(CANARY)),
        (Secret[str] | None, None, None),
        (Secret[str] | None, Secret(CANARY), Secret(CANARY)),
        (list[Secret[str]], [CANARY], [Secret(CANARY)]),
        (Login, {"user": "ada", "password": Secret("p")}, Login("ada", Secret("p"))),
        (Secret[Login], Secret({"user": "a", "password": "p"}), Secret(Login("a", Secret("p")))),
    ],
)
def test_an_annotation_makes_a_secret_of_what_arrived(
    annotation: Any, arrived: Any, made: Any
) -> None:
    rebuild = compile_rebuilder(annotation)

    assert rebuild is not None
    assert rebuild(arrived) == made


def test_what_does_not_fit_is_not_quoted() -> None:
    def login(who: Secret[Login]) -> None: ...

    rebuilder = CallRebuilder(login)
    with pytest.raises(CallError, match="who is a secret whose value does not fit") as caught:
        rebuilder.apply([Secret({"user": CANARY, CANARY: 1})], {})
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_what_an_annotation_calls_secret_is_wrapped_before_it_travels() -> None:
    def login(user: str, token: Secret[str], *, pin: Secret | None = None) -> None: ...  # type: ignore[type-arg]

    conceal = SecretWrapper.of(login)

    assert conceal is not None
    assert conceal(("ada", CANARY), {}) == (("ada", Secret(CANARY)), {})
    assert conceal(("ada",), {"token": Secret("t"), "pin": 7}) == (
        ("ada",),
        {"token": Secret("t"), "pin": Secret(7)},
    )
    assert conceal((), {"pin": None}) == ((), {"pin": None})


def test_surplus_arguments_are_concealed_as_well() -> None:
    def login(
        user: str, /, *tokens: Secret[str], deep: bool = False, **pins: Secret[int] | None
    ) -> None: ...

    conceal = SecretWrapper.of(login)

    assert conceal is not None
    assert conceal(("ada", "one", "two"), {"deep": True, "user": 7, "pin": 8, "none": None}) == (
        ("ada", Secret("one"), Secret("two")),
        {"deep": True, "user": Secret(7), "pin": Secret(8), "none": None},
    )


def test_parameters_without_an_argument_take_no_place() -> None:
    def login(session: Any, token: Secret[str], port: int) -> None: ...

    conceal = SecretWrapper.of(login, without=frozenset({"session"}))

    assert conceal is not None
    assert conceal((CANARY, 22), {}) == ((Secret(CANARY), 22), {})


def test_other_functions_have_nothing_to_conceal() -> None:
    def plain(user: str, token: str) -> Secret[str]: ...

    assert SecretWrapper.of(plain) is None


def attempt_of(argument: Any) -> Attempt:
    """An attempt of a call with this argument."""
    q = TaskQ("redis://localhost")

    @q.task(name="work")
    async def work() -> None: ...

    attempt = Attempt(work, "01h", b"")
    attempt.local = Call(work, PLAIN, (argument,), {}, lambda _: False)
    return attempt


def test_texts_are_found_wherever_secrets_lie() -> None:
    value = ["shown", {"a": Secret(["one", {"two": b"three", "n": 4}]), "b": {Secret("five")}}]

    assert sorted(map(str, secret_texts(value))) == ["4", "b'three'", "five", "n", "one", "two"]


TOKEN = 'Zoë\'s "tök/en"\\ & <7> ~?¿'
DATA = TOKEN.encode()


@pytest.mark.parametrize(
    "written",
    [
        TOKEN,
        repr(TOKEN),
        repr([TOKEN]),
        ascii(TOKEN),
        repr(DATA),
        json.dumps({"token": TOKEN}),
        json.dumps({"token": TOKEN}, ensure_ascii=False),
        quote(TOKEN),
        quote(TOKEN, safe=""),
        urlencode({"token": TOKEN}),
        html.escape(TOKEN),
        shlex.quote(TOKEN),
        DATA.hex(),
        DATA.hex().upper(),
        base64.b64encode(DATA).decode(),
        base64.urlsafe_b64encode(DATA).decode(),
        # Wherever it stands in what was encoded
        "Basic " + base64.b64encode(b"ada:" + DATA).decode(),
        base64.b64encode(b"user:" + DATA + b":more").decode(),
        base64.urlsafe_b64encode(b"a:" + DATA + b"x").decode(),
    ],
    ids=lambda text: text[:20],
)
@pytest.mark.parametrize("kind", [str, bytes])
def test_a_secret_is_masked_however_it_is_written(written: str, kind: type) -> None:
    secret: Any = Secret(TOKEN if kind is str else DATA)
    outcome = masked(Failed("OSError", f"401 for {written}!", f"in {written}"), attempt_of(secret))

    assert isinstance(outcome, Failed)
    for text in (outcome.error_text, outcome.traceback):
        assert MASK in text
        assert "tök" not in text
        left = text.replace(MASK, "")
        # Of base 64 there may be left what holds bits of its neighbours
        assert len(left) <= len("401 for !") + 16, left


def test_the_lines_of_a_key_are_masked_one_by_one() -> None:
    key = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\n-----END KEY-----"

    outcome = masked(Failed("E", "bad line MIIEowIBAAKCAQEA", ""), attempt_of(Secret(key)))

    assert isinstance(outcome, Failed)
    assert outcome.error_text == f"bad line {MASK}"


def test_progress_is_masked_as_failures_are() -> None:
    progress = Progress(1, 2, f"with {TOKEN} at amqp://me:hunter2@host/")

    told = masked_progress(progress, attempt_of(Secret(TOKEN)))

    assert told == Progress(1, 2, f"with {MASK} at amqp://me:{MASK}@host/")


def test_with_too_many_secrets_to_look_for_nothing_is_told() -> None:
    attempt = attempt_of([Secret(f"secret number {n}") for n in range(50_000)])

    assert masked(RetryAsked(1.0, "x" * 60_000), attempt) == RetryAsked(1.0, MASK)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://app:hunter2@db:5432/shop", "postgresql://app:********@db:5432/shop"),
        ("redis://:hun/ter2@h", "redis://:********@h"),
        ("'https://u:p@ss@h/x?y=1' failed", "'https://u:********@h/x?y=1' failed"),
        ("host=db password=hunter2 user=a", "host=db password=******** user=a"),
        ("Server=db;Pwd='hun ter2';User=a", "Server=db;Pwd=********;User=a"),
        ("?user=a&password=hunter2&b=c", "?user=a&password=********&b=c"),
        # Nothing to hide
        ("https://host:8080/path, mail a@b.example", "https://host:8080/path, mail a@b.example"),
        ("the password is wrong", "the password is wrong"),
    ],
)
def test_passwords_of_connections_are_masked(text: str, shown: str) -> None:
    assert mask_passwords(text) == shown


@pytest.mark.parametrize("text", ["://:" * 16_000, "://a:" + "b" * 64_000, "pwd='" + "b" * 64_000])
def test_a_text_of_anybody_is_searched_in_no_time(text: str) -> None:
    assert mask_passwords(text) == text


def test_where_a_secret_cannot_be_read_nothing_of_the_failure_is_told() -> None:
    class Unreadable:
        def __str__(self) -> str:
            raise ValueError("no words")

    attempt = attempt_of(Secret(Unreadable()))

    failed = masked(Failed("OSError", "401 for canary", "in canary", retry_in=1.0), attempt)
    asked = masked(RetryAsked(3.0, "canary"), attempt)

    # Why it failed may quote the secret; when it runs again does not
    assert failed == Failed("OSError", MASK, "", retry_in=1.0)
    assert asked == RetryAsked(3.0, MASK)
