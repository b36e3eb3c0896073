"""Loading the TaskQ a command works on: by its target, or from the usual files."""

from __future__ import annotations

import importlib
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from taskq.app import TaskQ
from taskq.core.errors import ConfigError
from taskq.execution.task import Task

__all__ = ["Loaded", "NothingFound", "load_app"]

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_USUAL = ("app.py", "main.py", "tasks.py")
_MOST_FRAMES = 5
_HOW = (
    "Name it: `app:q`, `app.py` or `shop.tasks:q`, as an argument, as TASKQ_APP, or as "
    '[tool.taskq] app = "shop.tasks:q" in pyproject.toml'
)


class NothingFound(ConfigError):
    """No target was given, and none of the usual files has a TaskQ."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A TaskQ, and the target (`module:attr`) that names it."""

    app: TaskQ
    target: str


def load_app(target: str | None = None) -> Loaded:
    """Import the TaskQ that `target` names, or find it.

    `target`: `module:attr`, `module`, `app.py` or `app.py:attr`. Without it: `[tool.taskq] app` in
    the current folder's pyproject.toml, else the one TaskQ in app.py, main.py, tasks.py or
    PACKAGE/tasks.py there. The current folder comes first on `sys.path`.

    Raises `ConfigError` when the target does not import (with the end of its own traceback), has no
    such attribute, or is not a TaskQ; and `NothingFound` when no target is given or found.

    >>> load_app("shop.tasks:q").app
    """
    _look_first_in(Path.cwd())
    target = target or _from_pyproject(Path("pyproject.toml"))
    return _by_target(target) if target else _found(Path.cwd())


def _look_first_in(folder: Path) -> None:
    # First: modules of earlier entries would hide those of the folder.
    sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]


def _from_pyproject(path: Path) -> str | None:
    try:
        settings = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.absolute()} cannot be read: {error}") from None
    target: Any = settings.get("tool", {}).get("taskq", {}).get("app")
    if target is not None and not isinstance(target, str):
        raise ConfigError(f'[tool.taskq] app = {target!r} in {path}: use "module:attr"')
    return target


def _by_target(target: str) -> Loaded:
    place, _, attribute = target.partition(":")
    if place.endswith(".py") or os.sep in place:
        module = _import_file(Path(place))
    elif _MODULE.fullmatch(place):
        module = _import(place, target)
    else:
        raise ConfigError(f"{target!r} does not name a module. {_HOW}")
    if attribute:
        return _attribute(module, attribute)
    return _only(module)


# ---------------------------------------------------------------------------------- importing


def _import_file(path: Path) -> ModuleType:
    """Import a file under the name that the rest of the program imports it by."""
    if not path.is_file():
        raise ConfigError(f"there is no file {str(path)!r} in {Path.cwd()}. {_HOW}")
    path = path.absolute()
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts[-1] == "__init__":
        parts.pop()
    name = ".".join(parts)
    if not _MODULE.fullmatch(name):
        raise ConfigError(
            f"{path.name} cannot be imported: {name!r} is not a module name; rename it"
        )
    _look_first_in(folder)
    module = _import(name, name)
    if module.__file__ is None or not path.samefile(module.__file__):
        raise ConfigError(
            f"{path} cannot be imported as {name!r}: that is {module.__file__ or 'a folder'}; "
            "rename the file"
        )
    return module


def _import(name: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may raise anything, SystemExit too
        if isinstance(error, ModuleNotFoundError) and _is_missing(name, error.name):
            raise ConfigError(_no_module(name, target)) from None
        raise ConfigError(f"{name} cannot be imported:\n\n{_own_traceback(error)}") from None


def _is_missing(name: str, missing: str | None) -> bool:
    """Whether the module itself was not found, rather than one that it imports."""
    return missing is not None and (name == missing or name.startswith(f"{missing}."))


def _no_module(name: str, target: str) -> str:
    parent, _, last = name.rpartition(".")
    dotted = f" Did you mean {parent}:{last}?" if parent and ":" not in target else ""
    return (
        f"there is no module {name!r} in {Path.cwd()} or among the installed packages.{dotted} "
        f"{_HOW}"
    )


def _own_traceback(error: BaseException) -> str:
    """The end of a traceback, without the frames of the import system."""
    report = traceback.TracebackException.from_exception(error)
    own = [
        frame
        for frame in report.stack
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith("<frozen importlib")
    ]
    report.stack = traceback.StackSummary.from_list(own[-_MOST_FRAMES:])
    return "".join(report.format(chain=False)).rstrip()


# ---------------------------------------------------------------------------- what is in there


def _taskqs(module: ModuleType) -> dict[str, TaskQ]:
    """The TaskQ objects of a module, each under the first of its names."""
    found: dict[str, TaskQ] = {}
    for name, value in vars(module).items():
        if isinstance(value, TaskQ) and not any(value is known for known in found.values()):
            found[name] = value
    return found


def _attribute(module: ModuleType, attribute: str) -> Loaded:
    value: Any = module
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise ConfigError(
                f"{module.__name__} has no attribute {attribute!r}; {_candidates(module)}"
            ) from None
    if not isinstance(value, TaskQ):
        raise ConfigError(
            f"{module.__name__}:{attribute} is {_kind(value)}, not a TaskQ; {_candidates(module)}"
        )
    return Loaded(value, f"{module.__name__}:{attribute}")


def _only(module: ModuleType) -> Loaded:
    found = _taskqs(module)
    if len(found) != 1:
        raise ConfigError(f"{module.__name__} does not name a single TaskQ: {_candidates(module)}")
    name, app = found.popitem()
    return Loaded(app, f"{module.__name__}:{name}")


def _candidates(module: ModuleType) -> str:
    """A sentence that names the TaskQs to choose from."""
    found = [f"{module.__name__}:{name}" for name in _taskqs(module)]
    if not found:
        return f"it has no TaskQ, such as q = TaskQ(). {_HOW}"
    if len(found) == 1:
        return f"its TaskQ is {found[0]}: use that"
    return f"it has {', '.join(found)}: use one of them"


def _kind(value: object) -> str:
    kind = type(value)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, Task):
        return f"the task {cast('Task[..., Any]', value).name}"
    if kind.__module__.partition(".")[0] in ("fastapi", "starlette"):
        return f"a {kind.__name__} application, which uvicorn runs"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}()"
    return f"a {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")


# ------------------------------------------------------------------------------------ looking


def _found(folder: Path) -> Loaded:
    """The only TaskQ in the usual files of the folder, else in those of its packages."""
    looked: list[str] = []
    for group in _places(folder):
        by_app: dict[int, Loaded] = {}
        for path in group:
            looked.append(str(path.relative_to(folder)))
            module = _import_file(path)
            for name, app in _taskqs(module).items():
                by_app.setdefault(id(app), Loaded(app, f"{module.__name__}:{name}"))
        if len(by_app) > 1:
            names = ", ".join(loaded.target for loaded in by_app.values())
            raise ConfigError(f"there are several TaskQs here: {names}. Use one of them")
        if by_app:
            return by_app.popitem()[1]
    seen = f"; {', '.join(looked)} have none" if looked else ""
    raise NothingFound(
        f"found no TaskQ in app.py, main.py, tasks.py or PACKAGE/tasks.py of {folder}{seen}. {_HOW}"
    )


def _places(folder: Path) -> Iterator[list[Path]]:
    """The usual files, group by group; packages are one group, as they may share a TaskQ."""
    for name in _USUAL:
        if _mentions_taskq(folder / name):
            yield [folder / name]
    packages = sorted(path.parent for path in folder.glob("*/__init__.py"))
    yield [path / "tasks.py" for path in packages if _mentions_taskq(path / "tasks.py")]


def _mentions_taskq(path: Path) -> bool:
    """Importing a file runs it, so files that do not mention taskq are left alone."""
    try:
        return b"taskq" in path.read_bytes().lower()
    except OSError:
        return False
