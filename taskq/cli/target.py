"""The TaskQ a command works on: one that code defines, or a server and a namespace by name."""

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
        help="The TaskQ whose server and namespace to use: module:attr or app.py. Default, without "
        "--url: the one found here, else TASKQ_URL or ./.taskq. "
        "\\[env var: TASKQ_APP]",
    ),
]

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        show_default=False,
        metavar="URL",
        help="A server instead of a TARGET: redis://host:6379/0, rediss://…, unix:///path. "
        "\\[env var: TASKQ_URL]",
    ),
]

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        show_default=False,
        metavar="NAME",
        help="The namespace on that server. Default: taskq. \\[env var: TASKQ_NAMESPACE]",
    ),
]


_SERVER = "--url redis://host:6379/0"
_TAKES_TARGET = re.compile(r"\btaskq (?:worker|scheduler|status|doctor|schedule \w+)\b")


@dataclass(frozen=True, slots=True)
class Choice:
    """A TaskQ, and the target it was loaded from; None when no user code was loaded.

    `typed` is the target as given on the command line, None when it was found.
    """

    app: TaskQ
    target: str | None = None
    typed: str | None = None

    @property
    def namespace(self) -> str:
        """The chosen namespace."""
        return settings_of(self.app).keys.namespace

    def aimed(self, advice: str) -> str:
        """`advice` with the given target added to each of its commands."""
        if self.typed is None:
            return advice
        target = shlex.quote(self.typed)
        return _TAKES_TARGET.sub(lambda found: f"{found[0]} {target}", advice)


def choose(target: str | None, url: str | None, namespace: str | None) -> Choice:
    """The TaskQ that the target and options name.

    Raises `ConfigError` for both a target and a server, and for a target that cannot be loaded.
    """
    if target and (url or namespace):
        raise ConfigError(
            f"{target} defines its own server and namespace; use either a target, or "
            "--url and --namespace"
        )
    if url or namespace:
        return _by_name(url, namespace)
    if named := target or os.environ.get("TASKQ_APP"):
        loaded = load_app(named)
        return Choice(loaded.app, loaded.target, typed=target)
    return _found_here()


def target_and(
    what: str, command: str, first: str | None, second: str | None
) -> tuple[str | None, str]:
    """The target and the word after it, of `[TARGET] WHAT`; a single word is not the target.

    Raises `ConfigError` when both are missing.
    """
    if second is not None:
        return first, second
    if first is None:
        raise ConfigError(f"{what} is missing: use taskq {command} [TARGET] {what}")
    return None, first


def looks_like_target(word: str) -> bool:
    """Whether a single word looks more like a target than a name."""
    return ":" in word or word.endswith(".py") or os.sep in word


def refuse_lone_target(what: str, word: str, command: str, names: Callable[[TaskQ], str]) -> None:
    """Raise `ConfigError` when the only word loads a TaskQ (some tasks have such names too)."""
    if not looks_like_target(word):
        return
    try:
        app = load_app(word).app
    except ConfigError:
        return
    raise ConfigError(f"{what} is missing: use taskq {command} {word} {what}{names(app)}")


def _by_name(url: str | None, namespace: str | None) -> Choice:
    return Choice(TaskQ(url, namespace=namespace or os.environ.get("TASKQ_NAMESPACE") or "taskq"))


def _found_here() -> Choice:
    try:
        loaded = load_app()
    except NothingFound as error:
        # These commands must not start a server: without a URL, the folder of one must exist.
        if not os.environ.get("TASKQ_URL") and not server_directory(Path()).is_dir():
            raise ConfigError(f"{error}. Or name a server: {_SERVER}") from None
        return _by_name(None, None)
    except ConfigError as error:
        # The code here defines the server and namespace; any other would be the wrong one.
        raise ConfigError(f"{error}\n\nWithout this code, name the server: {_SERVER}") from None
    return Choice(loaded.app, loaded.target)


@contextmanager
def explained() -> Generator[None, None, None]:
    """End the command with the message and the exit code of an error of taskq."""
    try:
        yield
    except (ConfigError, CallError, PayloadError, UnknownTask) as error:
        _end(error, USAGE)
    except BrokenPipeError:
        # Not an error of the server: the reader of the output has gone.
        raise
    except (TaskqError, ConnectionError) as error:
        _end(error, ERROR)


def _end(error: Exception, code: int) -> None:
    print(f"taskq: {printable(str(error), lines=True)}", file=sys.stderr)
    raise typer.Exit(code) from None
