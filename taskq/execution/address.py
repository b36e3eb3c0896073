"""The address of a function: how one process tells another which function to import.

Addresses come from registered function objects, never from messages.
"""

from __future__ import annotations

import importlib
import inspect
import os
import runpy
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, cast

from taskq.core.errors import ConfigError, TaskDefinitionError

__all__ = [
    "FunctionAddress",
    "address_of",
    "load_function",
    "module_name",
    "refuse_unguarded_main",
]

_LOADED = "__taskq_loaded__"

MAIN: Final = "__main__"

CHILD_MAIN: Final = "__mp_main__"
"""The name that multiprocessing gives to a main module imported by a child, so scripts that guard
their entry point for multiprocessing are guarded for taskq too."""

_importing_main = threading.Event()


def module_name(function: Any) -> str:
    """The module of a function; for the main module, the name under which it can be imported.

    So `python tasks.py` enqueues tasks that `taskq worker tasks:q` knows, and `python -m pkg` those
    that `taskq worker pkg.__main__:q` knows: both call the module `pkg`.

    >>> module_name(os.path.join)
    'posixpath'
    """
    module = getattr(function, "__module__", None)
    if not isinstance(module, str):
        return "builtins"
    if module not in (MAIN, CHILD_MAIN):
        return module.removesuffix(f".{MAIN}")
    if (name := _main_module(function)) is not None:
        return name.removesuffix(f".{MAIN}")
    if (file := _main_file(function)) is None:
        return MAIN  # defined at a prompt, or read from stdin
    path = Path(os.path.abspath(file))
    # The main module of a folder or an archive is named after it.
    return path.parent.stem if path.stem == MAIN else path.stem


def _main_module(function: Any) -> str | None:
    """The module that was run with `python -m`, if the function is defined in it."""
    name = getattr(_globals_of(function).get("__spec__"), "name", None)
    return name if isinstance(name, str) and name not in (MAIN, CHILD_MAIN) else None


def _main_file(function: Any) -> str | None:
    """The file that was run, if the function is defined in it."""
    file = _globals_of(function).get("__file__")
    return file if isinstance(file, str) and not file.startswith("<") else None


def _globals_of(function: Any) -> Mapping[str, Any]:
    """The globals of the module in `function.__module__`."""
    module = getattr(function, "__module__", None)
    try:
        own: Any = getattr(inspect.unwrap(function), "__globals__", None)
    except Exception:  # it wraps itself, or is a proxy
        own = None
    # A wrapper without functools.wraps is in another module than the function it wraps.
    if isinstance(own, dict) and own.get("__name__") == module:  # pyright: ignore[reportUnknownMemberType]
        return cast("dict[str, Any]", own)
    return vars(sys.modules[module]) if module in sys.modules else {}


@dataclass(frozen=True, slots=True)
class FunctionAddress:
    """A function as its module and qualified name.

    A function of the main module has `module="__main__"`, and either `main_path`, the file that was
    run, or `main_name`, the module that was run with `python -m`.
    """

    module: str
    qualname: str
    main_path: str | None = None
    main_name: str | None = None

    def __str__(self) -> str:
        return f"{self.module}.{self.qualname}"


def address_of(fn: Callable[..., Any]) -> FunctionAddress:
    """The address of `fn`, for a process that will import it.

    Raises `TaskDefinitionError` for a function that another process cannot import: a lambda, a
    function inside another one, or one defined at a prompt.

    >>> str(address_of(os.path.join))
    'posixpath.join'
    """
    module: str | None = getattr(fn, "__module__", None)
    qualname: str | None = getattr(fn, "__qualname__", None)
    if not module or not qualname:
        raise TaskDefinitionError(
            f"{fn!r} has no importable name, and a task with executor='process' is imported by its "
            "own process: wrap it in a `def` at the top level of a module"
        )
    if "<lambda>" in qualname:
        raise TaskDefinitionError(
            f"a lambda in {module} has no name to import it by, and a task with executor='process' "
            "is imported by its own process: write it as a `def` at the top level of the module"
        )
    if "<locals>" in qualname:
        outer, _, name = qualname.rpartition(".<locals>.")
        raise TaskDefinitionError(
            f"{module}.{name} is defined inside {outer}, and a task with executor='process' is "
            f"imported by its own process: move `def {name}` to the top level of the module (a "
            "decorator's wrapper needs functools.wraps)"
        )
    if module in (MAIN, CHILD_MAIN):
        refuse_unguarded_main()
        return _address_in_main(fn, qualname)
    return FunctionAddress(module, qualname)


def _address_in_main(fn: Callable[..., Any], qualname: str) -> FunctionAddress:
    if (name := _main_module(fn)) is not None:
        return FunctionAddress(MAIN, qualname, main_name=name)
    path = _main_file(fn)
    if path and os.path.isfile(path):
        return FunctionAddress(MAIN, qualname, main_path=os.path.abspath(path))
    raise TaskDefinitionError(
        f"{qualname} is defined at a prompt, in a notebook or in an archive, and a task with "
        "executor='process' is imported by its own process: write it to a file, such as tasks.py, "
        f"and use `from tasks import {qualname.partition('.')[0]}`"
    )


def refuse_unguarded_main() -> None:
    """Raise `ConfigError` if this child runs the whole program while it imports the main module.

    Such a child would enqueue jobs again, or start children that do the same.
    """
    child_main = sys.modules.get(CHILD_MAIN)
    # The event is for taskq's own children; a program that imports multiprocessing changes modules.
    by_multiprocessing = child_main is not None and child_main is not sys.modules.get(MAIN)
    if by_multiprocessing or _importing_main.is_set():
        raise ConfigError(
            "a process that only imports the main module, to run one function of it, is running "
            "the whole program: put what starts it under `if __name__ == '__main__':`"
        )


def load_function(address: FunctionAddress) -> Callable[..., Any]:
    """Import the function at `address`; for a task, its plain function.

    Raises `ConfigError` if the module has no such function, and whatever the import raises.
    """
    module = _import_main(address) if address.module == MAIN else _import(address.module)
    found: Any = module
    for name in address.qualname.split("."):
        found = getattr(found, name, None)
    found = getattr(found, "function", found)
    if not callable(found):
        raise ConfigError(
            f"a new process finds no function {address}, only {found!r}: define it at the "
            "top level of its module, not under a condition such as `if __name__ == '__main__':`"
        )
    return found


def _import(name: str) -> ModuleType:
    return importlib.import_module(name)


def _import_main(address: FunctionAddress) -> ModuleType:
    # As multiprocessing's spawn does: the file runs under another name, so that code under
    # `if __name__ == "__main__":` does not run, and is then known as `__main__`.
    known = sys.modules.get(CHILD_MAIN)
    # After an import of multiprocessing, this is the process's own main module, not the program's.
    if known is not None and hasattr(known, _LOADED):
        return known
    module = ModuleType(CHILD_MAIN)
    _importing_main.set()
    try:
        if address.main_name is not None:
            content = runpy.run_module(address.main_name, run_name=CHILD_MAIN, alter_sys=True)
        else:
            content = runpy.run_path(str(address.main_path), run_name=CHILD_MAIN)
    finally:
        _importing_main.clear()
    module.__dict__.update(content)
    setattr(module, _LOADED, True)
    sys.modules[MAIN] = sys.modules[CHILD_MAIN] = module
    return module
