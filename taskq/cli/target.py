"""Which TaskQ a command works on: one that code defines, or a server and a namespace by name."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from taskq.app import TaskQ, settings_of
from taskq.cli.exits import ERROR, USAGE
from taskq.cli.loading import NothingFound, load_app
from taskq.cli.terminal import printable
from taskq.core.errors import (
    CallError,
    ConfigError,
    PayloadError,
    TaskqError,
    UnknownTask,
)
from taskq.location import server_directory

__all__ = [
    "Choice",
    "Namespace",
    "OptionalTarget",
    "Url",
    "choose",
    "explained",
    "looks_like_target",
    "refuse_lone_target",
    "target_and",
]

OptionalTarget = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET",
        show_default=False,
        help="The TaskQ whose server and namespace are meant: module:attr or app.py. Without it "
        "and without --url: the one found here, else TASKQ_URL or ./.taskq. "
        "\\[env var: TASKQ_APP]",
    ),
]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        show_default=False,
        metavar="URL",
        help="A server, instead of a TARGET: redis://host:6379/0, rediss://…, unix:///path. "
        "\\[env var: TASKQ_URL]",
    ),
]

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        show_default=False,
        metavar="NAME",
        help="The namespace on it, `taskq` when not given. \\[env var: TASKQ_NAMESPACE]",
    ),
]


_SERVER = "--url redis://host:6379/0"
_TAKES_TARGET = re.compile(r"\btaskq (?:worker|scheduler|status|doctor|schedule \w+)\b")


@dataclass(frozen=True, slots=True)
class Choice:
    """A TaskQ, and the target it was loaded from; None when no code of users was loaded.

    `typed` is the target as it was typed, None when it was found without that.
    """

    app: TaskQ
    target: str | None = None
    typed: str | None = None

    @property
    def namespace(self) -> str:
        """The namespace that is meant."""
        return settings_of(self.app).keys.namespace

    def aimed(self, advice: str) -> str:
        """`advice` with the target that was typed in each of its commands."""
        if self.typed is None:
            return advice
        target = shlex.quote(self.typed)
        return _TAKES_TARGET.sub(lambda found: f"{found[0]} {target}", advice)


def choose(target: str | None, url: str | None, namespace: str | None) -> Choice:
    """The TaskQ that is meant by what was typed.

    Raises `ConfigError` for both a target and a server, and for a target that cannot be loaded.
    """
    if target and (url or namespace):
        raise ConfigError(
            f"{target} says itself which server and namespace it uses; type either a target, or "
            "--url and --namespace"
        )
    if url or namespace:
        return _by_name(url, namespace)
    if named := target or os.environ.get("TASKQ_APP"):
        loaded = load_app(named)
        return Choice(loaded.app, loaded.target, typed=target)
    return _whatever_is_here()


def target_and(
    what: str, command: str, first: str | None, second: str | None
) -> tuple[str | None, str]:
    """The target and the word after it, of `[TARGET] WHAT`: one word alone is not the target.

    Raises `ConfigError` where there is no word at all.
    """
    if second is not None:
        return first, second
    if first is None:
        raise ConfigError(f"{what} is missing: type taskq {command} [TARGET] {what}")
    return None, first


def looks_like_target(word: str) -> bool:
    """Whether a word alone is more like a target than like a name."""
    return ":" in word or word.endswith(".py") or os.sep in word


def refuse_lone_target(what: str, word: str, command: str, names: Callable[[TaskQ], str]) -> None:
    """Raise `ConfigError` where the only word is a TaskQ: some tasks have such names too."""
    if not looks_like_target(word):
        return
    try:
        app = load_app(word).app
    except ConfigError:
        return
    raise ConfigError(f"{what} is missing: type taskq {command} {word} {what}{names(app)}")


def _by_name(url: str | None, namespace: str | None) -> Choice:
    return Choice(TaskQ(url, namespace=namespace or os.environ.get("TASKQ_NAMESPACE") or "taskq"))


def _whatever_is_here() -> Choice:
    try:
        loaded = load_app()
    except NothingFound as error:
        # Looking must not start a server: without a URL there must be one that was started before.
        if not os.environ.get("TASKQ_URL") and not server_directory(Path()).is_dir():
            raise ConfigError(f"{error}. Or name a server: {_SERVER}") from None
        return _by_name(None, None)
    except ConfigError as error:
        # The code here says which server and namespace are meant: another would be a wrong one.
        raise ConfigError(f"{error}\n\nWithout this code, name the server: {_SERVER}") from None
    return Choice(loaded.app, loaded.target)


@contextmanager
def explained() -> Generator[None, None, None]:
    """End the command with the text of an error of taskq, and the exit code that belongs to it."""
    try:
        yield
    except (ConfigError, CallError, PayloadError, UnknownTask) as error:
        _end(error, USAGE)
    except BrokenPipeError:
        # No error of the server's: whoever read the output has gone.
        raise
    except (TaskqError, ConnectionError) as error:
        _end(error, ERROR)


def _end(error: Exception, code: int) -> None:
    print(f"taskq: {printable(str(error), lines=True)}", file=sys.stderr)
    raise typer.Exit(code) from None
