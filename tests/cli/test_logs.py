"""How log lines look."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest

from taskq.cli.logs import JsonFormatter, TextFormatter, wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(level: int = logging.INFO, message: str = "%d jobs", **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("taskq.worker", level, "worker.py", 1, message, (3,), None)
    vars(made).update(extra)
    return made


def raised() -> Any:
    try:
        raise KeyError("gone")
    except KeyError:
        return sys.exc_info()


def test_text_has_time_level_logger_and_message() -> None:
    line = TextFormatter(colour=False, with_pid=False).format(record())

    assert line[4] + line[7] + line[10] + line[19] == "-- ."
    assert line.endswith(" INFO    taskq.worker: 3 jobs")


def test_text_of_several_processes_tells_them_apart() -> None:
    made = record()

    line = TextFormatter(colour=False, with_pid=True).format(made)

    assert f" [{made.process}] INFO " in line


FORGED = "x\n2030-01-01 00:00:00.000 ERROR taskq.worker: all is lost\r\x1b[2J\x9b1m\u202e\ud800"


def test_a_line_that_is_quoted_cannot_pass_for_a_record() -> None:
    made = record(message=f"job failed: %s: {FORGED}")
    made.exc_text = f"Traceback (most recent call last):\nValueError: {FORGED}"

    text = TextFormatter(colour=False, with_pid=False).format(made)

    lines = text.split("\n")
    # Of taskq's own messages each is one line
    assert lines[0].endswith(
        r"x\n2030-01-01 00:00:00.000 ERROR taskq.worker: all is lost\r\x1b[2J\x9b1m\u202e\ud800"
    )
    assert lines[1] == "  Traceback (most recent call last):"
    assert [line for line in lines[1:] if not line.startswith("  ")] == []
    assert [
        character for character in text if character != "\n" and not character.isprintable()
    ] == []
    text.encode()


def test_messages_of_the_application_keep_their_lines() -> None:
    made = record(message="a table:\n1\t2 (%s)")
    made.name = "shop"

    text = TextFormatter(colour=False, with_pid=False).format(made)

    assert text.endswith("shop: a table:\n  1\t2 (3)")


def test_json_of_controls_is_read_back_as_it_was() -> None:
    made = record(message=f"%s {FORGED}")

    text = JsonFormatter().format(made)

    assert [character for character in text if not character.isprintable()] == []
    assert json.loads(text)["message"] == f"3 {FORGED}"


def test_json_is_one_object_on_one_line() -> None:
    made = record(job="01abc", held={1: object()}, exc_info=raised())

    text = JsonFormatter().format(made)

    assert "\n" not in text
    line = json.loads(text)
    assert line["ts"].endswith("Z")
    assert (line["level"], line["logger"]) == ("info", "taskq.worker")
    assert line["message"] == "3 jobs"
    assert line["job"] == "01abc"
    assert line["held"]["1"].startswith("<object object")
    assert "KeyError: 'gone'" in line["exception"]


def test_json_is_written_whatever_it_was_given() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    endless: list[Any] = []
    endless.append(endless)

    line = json.loads(
        JsonFormatter().format(record(mute=Mute(), endless=endless, pairs={(1, 2): 3}))
    )

    assert line["mute"] == "<Mute without text>"
    assert line["endless"] == "[[...]]"
    assert line["pairs"] == "{(1, 2): 3}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"deep": [float("-inf")]}])
def test_json_lines_have_no_value_that_json_does_not_have(value: Any) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    made = record(ratio=value, size=3, half=0.5, none=None)

    line = json.loads(JsonFormatter().format(made), parse_constant=refuse)

    assert line["ratio"] == str(value)
    # The others stay what they are
    assert (line["size"], line["half"], line["none"]) == (3, 0.5, None)
    assert line["pid"] == made.process


def test_what_is_given_as_extra_replaces_nothing() -> None:
    made = record(ts="mine", logger="mine")

    line = json.loads(JsonFormatter().format(made))

    assert line["logger"] == "taskq.worker"
    assert line["ts"] != "mine"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_whose_user_does_not_object(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert wants_colour(Terminal()) is wanted
    assert wants_colour(io.StringIO()) is False


def test_colour_is_that_of_the_level() -> None:
    formatter = TextFormatter(colour=True, with_pid=False)

    assert formatter.format(record(logging.ERROR)).startswith("\x1b[31m")
    assert "\x1b" not in formatter.format(record(logging.INFO))
