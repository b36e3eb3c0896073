"""The name of the module that a function is of, as other programs import it.

Python calls the module that is run `__main__`, and a launcher such as `python -m cProfile tasks.py`
puts itself there. The function's own globals tell which file or module it really is of.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

__all__ = ["CHILD_MAIN", "MAIN", "main_file", "main_module", "module_name"]

MAIN: Final = "__main__"

CHILD_MAIN: Final = "__mp_main__"
"""The name multiprocessing gives to a main module that is imported by a child: scripts that guard
their entry point for it are guarded for taskq as well."""


def module_name(function: Any) -> str:
    """The module of a function; of what was run, the name by which others import it.

    So `python tasks.py` enqueues what `taskq worker tasks:q` knows, and `python -m pkg` what
    `taskq worker pkg.__main__:q` knows: both call that module `pkg`.

    >>> module_name(os.path.join)
    'posixpath'
    """
    module = getattr(function, "__module__", None)
    if not isinstance(module, str):
        return "builtins"
    if module not in (MAIN, CHILD_MAIN):
        return module.removesuffix(f".{MAIN}")
    if (name := main_module(function)) is not None:
        return name.removesuffix(f".{MAIN}")
    if (file := main_file(function)) is None:
        return MAIN  # typed at a prompt, or read from stdin
    path = Path(os.path.abspath(file))
    # That of a folder or an archive is known by it.
    return path.parent.stem if path.stem == MAIN else path.stem


def main_module(function: Any) -> str | None:
    """The module that was run with `python -m`, and of which the function is."""
    name = getattr(_globals_of(function).get("__spec__"), "name", None)
    return name if isinstance(name, str) and name not in (MAIN, CHILD_MAIN) else None


def main_file(function: Any) -> str | None:
    """The file that was run, and of which the function is."""
    file = _globals_of(function).get("__file__")
    return file if isinstance(file, str) and not file.startswith("<") else None


def _globals_of(function: Any) -> Mapping[str, Any]:
    """The globals of the module that the function says it is of."""
    module = getattr(function, "__module__", None)
    try:
        own: Any = getattr(inspect.unwrap(function), "__globals__", None)
    except Exception:  # it wraps itself, or is a proxy that answers what it likes
        own = None
    # A decorator without functools.wraps is of another module than what it wraps.
    if isinstance(own, dict) and own.get("__name__") == module:  # pyright: ignore[reportUnknownMemberType]
        return cast("dict[str, Any]", own)
    return vars(sys.modules[module]) if module in sys.modules else {}
