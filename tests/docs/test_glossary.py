"""Public names and rooms use the words of the glossary, or words that every programmer knows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import taskq
from taskq import JobState

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "taskq"
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")

TERMS = re.findall(r"^([A-Z][\w -]+)\n:   ", GLOSSARY, re.M)
WORDS = {
    "Task",
    "Job",
    "Attempt",
    "Fence",
    "Queue",
    "Priority",
    "Worker",
    "Lease",
    "Heartbeat",
    "Outcome",
    "Schedule",
    "Trigger",
    "Signature",
    "Workflow",
    "Partition",
    "Limit",
    "Deferred call",
    "Dead letter",
    "Poison message",
}
STATES = re.findall(r"^\| `(\w+)` ", GLOSSARY, re.M)

# A new word of the public API belongs into the glossary, unless it is as plain as these.
PLAIN = {
    "all",
    "any",
    "at",
    "calendar",
    "cron",
    "every",
    "next",
    "draft",
    "info",
    "log",
    "filter",
    "progress",
    "record",
    "settings",
    "call",
    "context",
    "current",
    "error",
    "exists",
    "failed",
    "found",
    "full",
    "large",
    "later",
    "lost",
    "not",
    "kept",
    "result",
    "timeout",
    "too",
    "unavailable",
    "unknown",
    "unsigned",
    "untrusted",
    "forged",
    "message",
    "option",
    "payload",
    "server",
    "refused",
    "reject",
    "soft",
    "config",
    "decode",
    "encode",
    "definition",
    "of",
    "taskq",
    "q",
    "state",
    "embedded",
}
# What rooms are called after: the field's words for parts of a program.
ROOMS = {
    "app",
    "broker",
    "cli",
    "codec",
    "core",
    "definition",
    "execution",
    "location",
    "ops",
    "redis",
}
FRAMEWORKS = {"fastapi"}
# Private metaphors that a reader who knows Celery, asynq or Oban would have to look up.
METAPHORS = {
    "callee",
    "crew",
    "desk",
    "dial",
    "entrance",
    "floor",
    "heart",
    "holdings",
    "home",
    "latch",
    "lowering",
    "misfit",
    "notice",
    "refusal",
    "shift",
    "told",
}


def words_of(name: str) -> list[str]:
    """The lower-case words of an identifier: `JobNotFound` has job, not and found."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|Q", name)]


def known(word: str) -> bool:
    words = {part for term in TERMS for part in re.findall(r"\w+", term.lower())} | set(STATES)
    return bool({word, word.removesuffix("s"), word.removesuffix("r")} & (words | PLAIN))


def test_the_words_of_a_name_are_found() -> None:
    assert words_of("JobNotFound") == ["job", "not", "found"]
    assert words_of("current_job") == ["current", "job"]
    assert words_of("TaskQ") == ["task", "q"]


@pytest.mark.parametrize("name", sorted(taskq.__all__))
def test_a_public_name_uses_words_of_the_glossary(name: str) -> None:
    assert [word for word in words_of(name) if not known(word)] == []


def test_the_words_of_the_design_are_explained() -> None:
    assert set(TERMS) >= WORDS


def test_the_states_are_those_of_a_job() -> None:
    assert set(STATES) == {str(state) for state in JobState}


def test_terms_are_explained_once() -> None:
    assert len(set(TERMS)) == len(TERMS) > 20


def test_a_room_is_called_by_a_word_that_readers_know() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if not path.name.startswith(("_", "py"))}

    assert {room for room in rooms - ROOMS - FRAMEWORKS if not known(room)} == set()


@pytest.mark.parametrize(
    "module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_modules_and_classes_are_not_called_by_private_metaphors(module: Path) -> None:
    tree = ast.parse(module.read_text("utf-8"))
    names = [module.stem, *(item.name for item in ast.walk(tree) if isinstance(item, ast.ClassDef))]

    assert [name for name in names if METAPHORS & set(words_of(name))] == []
