"""The directory: private, ours, and refused otherwise."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from taskq import ServerRefused, TaskQ
from taskq.core import peer
from taskq.core.errors import EmbeddedServerError
from taskq.embedded import files as layout
from taskq.embedded.server import LONGEST_SOCKET_PATH
from taskq.redis.client import Client
from taskq.redis.url import Address
from tests.embedded.room import ROOT, Room, until

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


async def test_an_empty_variable_names_no_directory(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a working directory that is open to others, as most are
    room.base.chmod(0o755)
    monkeypatch.chdir(room.base)
    monkeypatch.delenv("TASKQ_URL", raising=False)
    monkeypatch.setenv("TASKQ_DIR", "")

    # When a server is needed, then it lies where it does without the variable
    address = await TaskQ()._settings.locate()

    assert address.path == str(room.socket)


def test_nothing_in_it_is_open_to_others(room: Room):
    # Given an opener with a careless umask, and every file the server makes
    before = os.umask(0)
    try:
        room.server().ensure()
    finally:
        os.umask(before)
    client = room.client()
    client.set("a", 1)
    client.bgrewriteaof()
    until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0, "rewritten")

    modes = {entry: stat.S_IMODE(entry.lstat().st_mode) for entry in room.path.rglob("*")}

    assert stat.S_IMODE(room.path.stat().st_mode) == 0o700
    assert room.socket in modes
    assert len(modes) > 6
    assert not {str(entry): oct(mode) for entry, mode in modes.items() if mode & 0o077}


def test_it_hides_from_version_control(room: Room):
    room.server().ensure()

    assert (room.path / ".gitignore").read_text() == "*\n"


@as_root
def test_another_user_cannot_connect(room: Room):
    room.server().ensure()
    room.base.chmod(0o755)
    script = (
        "import os, socket, sys; os.setuid(65534)\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(7)\n"
    )

    done = subprocess.run([sys.executable, "-c", script, str(room.socket)], check=False)

    assert done.returncode == 7


@as_root
def test_a_directory_of_somebody_else_is_refused(room: Room):
    room.path.mkdir(mode=0o700)
    os.chown(room.path, NOBODY, NOBODY)

    refused(room, "belongs to the user with uid 65534")

    assert room.path.stat().st_uid == NOBODY


def test_a_symbolic_link_is_refused(room: Room):
    (room.base / "real").mkdir(mode=0o700)
    room.path.symlink_to(room.base / "real")

    refused(room, "is a symbolic link")

    assert not list((room.base / "real").iterdir())


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
def test_a_directory_open_to_others_is_refused_and_not_repaired(room: Room, mode: int):
    room.path.mkdir()
    room.path.chmod(mode)

    refused(room, f'open to other users .mode {mode:04o}.*chmod 700 "{room.path}"')

    assert stat.S_IMODE(room.path.stat().st_mode) == mode


def test_a_file_in_its_place_is_refused(room: Room):
    room.path.write_text("mine")

    refused(room, "is not a directory")

    assert room.path.read_text() == "mine"


def test_a_directory_without_write_permission_is_refused(room: Room):
    room.path.mkdir()
    room.path.chmod(0o500)

    refused(room, "is read-only.*TASKQ_DIR.*TASKQ_URL")


def test_a_read_only_file_system_is_refused(room: Room):
    # A mount of its own, in a namespace of its own: the mode bits say nothing here
    room.path.mkdir(mode=0o700)
    mount = f'mount --bind "{room.path}" "{room.path}" && mount -o remount,ro,bind "{room.path}"'
    if shutil.which("unshare") is None or run_unshared(f"{mount} && true").returncode != 0:
        pytest.skip("no mount namespaces here")

    done = run_unshared(
        f'{mount} && exec "{sys.executable}" -m tests.embedded.opener "{room.path}" 1 leave'
    )

    assert "is read-only" in done.stderr
    assert done.returncode == 1
    assert not list(room.path.iterdir())


def run_unshared(script: str) -> subprocess.CompletedProcess[str]:
    flags = "-m" if os.geteuid() == 0 else "-rm"
    return subprocess.run(
        ["unshare", flags, "sh", "-c", script],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_missing_parent_is_an_error_that_names_it(room: Room):
    room.path = room.base / "missing" / ".taskq"

    refused(room, f"cannot be created.*Create {room.base / 'missing'}")

    assert not (room.base / "missing").exists()


def test_a_parent_that_is_a_file_is_refused(room: Room):
    (room.base / "file").write_text("")
    room.path = room.base / "file" / ".taskq"

    refused(room, "cannot be read: Not a directory")


@pytest.mark.parametrize("left", [0, 1])
def test_a_process_that_may_open_no_more_files_is_told_so(room: Room, left: int):
    room.server().ensure()
    program = (
        "import resource, sys, taskq.core.errors\n"
        "from pathlib import Path\n"
        "from taskq.embedded import EmbeddedServer\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "taken = []\n"
        "try:\n"
        "    while True: taken.append(open('/dev/null'))\n"
        "except OSError: del taken[len(taken) - int(sys.argv[2]):]\n"
        "try: EmbeddedServer(Path(sys.argv[1])).ensure()\n"
        "except taskq.core.errors.EmbeddedServerError as error: text = str(error)\n"
        "taken.clear()\n"
        "print(text)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(room.path), str(left)],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert "Too many open files. Close files and sockets" in done.stdout
    assert "ulimit -n" in done.stdout


def test_the_longest_path_works_and_one_byte_more_is_refused(room: Room):
    fixed = len(os.fsencode(room.base / layout.SOCKET)) + 1
    # The limit counts bytes, so the name has one character of two
    name = "é" + "d" * (LONGEST_SOCKET_PATH - fixed - 2)

    room.path = room.base / name
    room.server().ensure()
    assert room.client().ping()
    room.server().stop()

    room.path = room.base / (name + "d")
    refused(room, f"{LONGEST_SOCKET_PATH + 1} bytes.*{LONGEST_SOCKET_PATH}.*TASKQ_DIR")
    assert not room.path.exists()


def test_a_full_log_is_put_aside_once(room: Room):
    room.path.mkdir(mode=0o700)
    (room.path / layout.LOG).write_bytes(b"x" * (1 << 20) + b"y")

    room.server().ensure()

    assert (room.path / layout.OLD_LOG).stat().st_size == (1 << 20) + 1
    assert 0 < (room.path / layout.LOG).stat().st_size < 10_000


def refused(room: Room, pattern: str) -> None:
    before = Path(room.path).is_symlink()
    with pytest.raises(EmbeddedServerError, match=f"(?s){pattern}"):
        room.server().ensure()
    assert Path(room.path).is_symlink() == before
    until(lambda: not room.processes(), "nothing left running")


# ----------------------------------------------------------------- parents that others may rename


def test_a_socket_that_another_user_serves_is_not_used(room: Room, monkeypatch: pytest.MonkeyPatch):
    server = room.server()
    server.ensure()
    # Given somebody who put his own directory in place after ours was looked at
    monkeypatch.setattr(peer, "peer_uid", lambda _: os.geteuid() + 1)

    with pytest.raises(EmbeddedServerError, match=r"served by the user with uid .* Set TASKQ_DIR"):
        server.ensure()
    assert server.pid() is None


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_nothing_is_said_to_a_server_of_another_user(room: Room, runner: Callable[..., Any]):
    path = str(room.server().ensure())
    uid = os.geteuid()

    async def connect(wanted: int | None) -> None:
        async def locate() -> Address:
            return Address(path=path, uid=wanted)

        client = Client(locate)
        try:
            await client.command("PING")
        finally:
            await client.aclose()

    runner(connect(uid))
    # A server that is named by its address may be anybody's
    runner(connect(None))
    with pytest.raises(ServerRefused, match=f"not by yours \\({uid + 1}\\)"):
        runner(connect(uid + 1))


SERVE = """
import os, socket, sys
os.setuid(int(sys.argv[1]))
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[2])
server.listen()
print("ready", flush=True)
server.accept()[0].recv(1)
"""


@as_root
def test_the_other_end_of_a_socket_says_whose_it_is():
    folder = Path(tempfile.mkdtemp(prefix="tq"))
    folder.chmod(0o777)
    path = str(folder / "s")
    command = [sys.executable, "-c", SERVE, str(NOBODY), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            assert peer.peer_uid(connection) == NOBODY
            with pytest.raises(peer.ForeignPeer, match="uid 65534"):
                peer.check_peer(connection, os.geteuid(), path)
    shutil.rmtree(folder)


async def test_the_application_checks_who_serves_its_embedded_server(
    room: Room, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TASKQ_DIR", str(room.path))
    monkeypatch.delenv("TASKQ_URL", raising=False)

    address = await TaskQ()._settings.locate()

    assert (address.path, address.uid) == (str(room.socket), os.geteuid())
