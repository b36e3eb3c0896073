"""What each crash leaves behind, and who puts it right."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time

import pytest

from taskq.core.errors import EmbeddedServerError
from taskq.embedded import files as layout
from taskq.embedded import find_binary
from taskq.embedded import server as server_module
from taskq.embedded.files import BINARY_VARIABLE
from tests.embedded.room import GRACE, Room, holds, until


def test_a_server_that_lost_its_keeper_serves_on_and_is_adopted(room: Room):
    room.server().ensure()
    client = room.client()
    pid = room.server_pid()
    room.kill(room.keeper())
    assert client.ping()
    assert room.servers() == [pid]

    room.server(idle_grace=GRACE).ensure()

    assert room.keeper() != pid
    assert room.server_pid() == pid
    client.close()
    until(lambda: not room.processes(), "server and keeper gone")
    assert not room.socket.exists()


def test_a_keeper_killed_while_closing_leaves_a_server_that_is_adopted(room: Room):
    # Given the state between the rename and the shutdown
    room.server().ensure()
    room.client().set("kept", "yes")
    pid = room.server_pid()
    room.kill(room.keeper())
    room.socket.rename(room.path / layout.CLOSING)

    room.server().ensure()

    assert room.server_pid() == pid
    assert room.client().get("kept") == b"yes"
    assert not (room.path / layout.CLOSING).exists()


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_an_adopted_server_that_ends_takes_its_keeper_with_it(room: Room, end: str):
    room.server().ensure()
    pid = room.server_pid()
    room.kill(room.keeper())
    room.server().ensure()
    until(lambda: "adopting a server" in (room.path / layout.LOG).read_text(), "adopted")

    if end == "stopped":
        room.server().stop()
    else:
        room.kill(pid)

    until(lambda: not room.processes(), "server and keeper gone")
    assert not room.socket.exists()


def test_an_orphan_can_be_stopped(room: Room):
    room.server().ensure()
    room.kill(room.keeper())

    room.server().stop()

    until(lambda: not room.processes(), "nothing left running")


def test_with_always_every_acknowledged_write_survives_a_killed_server(room: Room):
    room.server(appendfsync="always").ensure()
    client = room.client()
    pid = room.server_pid()
    for number in range(1000):
        client.rpush("written", number)

    room.kill(pid)
    room.server().ensure()

    assert room.server_pid() != pid
    assert room.client().lrange("written", 0, -1) == [b"%d" % n for n in range(1000)]


def test_with_everysec_what_was_written_survives_a_killed_server(room: Room):
    # Given a moment without a sync: during one, the server answers before it writes
    room.server().ensure()
    client = room.client()
    for number in range(1000):
        client.rpush("written", number)
    room.until_written()

    room.kill(room.server_pid())
    room.server().ensure()

    assert room.client().llen("written") == 1000


def test_a_killed_server_takes_its_keeper_with_it_and_leaves_no_socket(room: Room):
    room.server().ensure()

    room.kill(*room.servers())

    until(lambda: not room.processes(), "the keeper gone")
    assert not room.socket.exists()


def test_stale_files_of_a_crashed_machine_do_no_harm(room: Room):
    # Given what is left when everything ends at once, with a pid that is now somebody else's
    room.server().ensure()
    room.client().set("kept", "yes")
    room.until_written()
    room.kill(room.keeper(), *room.servers())
    assert room.socket.exists()
    (room.path / layout.PID).write_text(f"{os.getpid()}\n")
    os.link(room.socket, room.path / layout.CLOSING)

    room.server().ensure()

    assert room.client().get("kept") == b"yes"
    assert not (room.path / layout.CLOSING).exists()


def test_a_command_cut_in_two_at_the_end_of_the_data_is_dropped(room: Room):
    room.server().ensure()
    client = room.client()
    client.set("whole", "1")
    client.set("cut", "2")
    room.server().stop()
    data = next((room.path / "appendonlydir").glob("*.incr.aof"))
    os.truncate(data, data.stat().st_size - 5)

    room.server().ensure()

    assert room.client().mget("whole", "cut") == [b"1", None]


def test_data_damaged_in_the_middle_is_an_error_that_says_why_and_changes_nothing(room: Room):
    room.server().ensure()
    room.client().set("a", "x" * 1000)
    room.server().stop()
    data = next((room.path / "appendonlydir").glob("*.incr.aof"))
    damaged = data.read_bytes().replace(b"$1000\r\n", b"!1000\r\n")
    data.write_bytes(damaged)

    with pytest.raises(EmbeddedServerError, match="did not start") as caught:
        room.server().ensure()

    assert "Bad file format" in str(caught.value)
    assert str(room.path) in str(caught.value)
    assert data.read_bytes() == damaged
    until(lambda: not room.processes(), "nothing left running")


def test_a_rewrite_that_outlives_its_killed_server_holds_the_next_one_back(room: Room):
    # Given a child of the server that was writing the data anew
    room.server().ensure()
    client = room.client()
    client.mset({f"key:{number}": number for number in range(300)})
    client.config_set("rdb-key-save-delay", 2_000)
    client.bgrewriteaof()
    until(lambda: len(room.servers()) == 2, "it writes")
    pid = room.server_pid()
    (rewriting,) = set(room.servers()) - {pid}
    os.kill(rewriting, signal.SIGSTOP)
    room.until_written()
    room.kill(pid)

    opening = threading.Thread(target=room.server().ensure)
    opening.start()
    holds(lambda: room.servers() == [rewriting], "no other server", 0.3)
    os.kill(rewriting, signal.SIGCONT)
    opening.join(5)

    assert not opening.is_alive()
    assert room.client().dbsize() == 300
    assert room.servers() == [room.server_pid()]


def test_a_server_that_still_reads_its_data_is_waited_for(room: Room, monkeypatch):
    # Given more data than can be read in the time a server has to come up
    room.server().ensure()
    room.client().mset({f"key:{number}": number for number in range(500)})
    room.client().bgrewriteaof()
    until(lambda: not room.client().info("persistence")["aof_rewrite_in_progress"], "rewritten")
    room.server().stop()
    options = "--key-load-delay 2000 --loading-process-events-interval-bytes 1024"
    slow = room.program(f'exec "{find_binary()}" "$@" {options}')
    monkeypatch.setenv(BINARY_VARIABLE, str(slow))
    monkeypatch.setattr(server_module, "EMBEDDED_START_SECONDS", 0.5)

    began = time.monotonic()
    room.server(idle_grace=0.2).ensure()

    assert time.monotonic() - began > 0.8
    assert room.client().dbsize() == 500
    assert (room.path / layout.LOG).read_text().count("Ready to accept connections") == 2


def test_a_directory_emptied_before_the_keeper_could_connect_is_not_served_on(
    room: Room, monkeypatch
):
    # Given a keeper that is held up while its server starts
    mark = room.base / "mark"
    slow = room.program(f'touch "{mark}"; sleep 0.2; exec "{find_binary()}" "$@"')
    monkeypatch.setenv(BINARY_VARIABLE, str(slow))
    opener = room.opener()
    until(mark.exists, "the server starts")
    keeper = room.keeper()
    os.kill(keeper, signal.SIGSTOP)
    pid = opener.server_pid()

    for name in (layout.SOCKET, layout.KEEPER_LOCK):
        (room.path / name).unlink()
    os.kill(keeper, signal.SIGCONT)

    until(lambda: not {keeper, pid} & room.processes().keys(), "both gone", timeout=4)


def test_a_server_that_hangs_is_never_doubled(room: Room, monkeypatch):
    # Given a stopped server without a keeper: the worst moment to start another one
    monkeypatch.setattr(server_module, "EMBEDDED_START_SECONDS", 1.5)
    room.server().ensure()
    pid = room.server_pid()
    room.kill(room.keeper())
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(EmbeddedServerError, match=r"did not answer within 1\.5 s"):
        room.server().ensure()
    assert room.servers() == [pid]

    os.kill(pid, signal.SIGCONT)
    room.server().ensure()
    assert room.server_pid() == pid


def test_a_paused_server_is_not_stopped_for_being_silent(room: Room):
    room.server(idle_grace=GRACE).ensure()
    client = room.client()
    pid = room.server_pid()

    os.kill(pid, signal.SIGSTOP)
    holds(lambda: room.servers() == [pid], "the same server", 2 * GRACE)
    os.kill(pid, signal.SIGCONT)

    assert client.ping()


def test_a_server_that_somebody_else_started_there_is_used_but_not_doubled(room: Room):
    room.path.mkdir(mode=0o700)
    words = ["--port", "0", "--unixsocket", layout.SOCKET, "--save", ""]
    foreign = subprocess.Popen(
        [find_binary(), *words], cwd=room.path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: room.server().pid(), "the foreign server is up")

        room.server().ensure()

        assert room.server_pid() == foreign.pid
        until(lambda: room.servers() == list(room.processes()) == [foreign.pid], "no keeper left")
    finally:
        foreign.terminate()
        foreign.wait(10)


def test_an_opener_that_dies_while_starting_leaves_a_server_that_stops_by_itself(room: Room):
    for delay_steps in range(4):
        opener = room.opener(idle_grace=GRACE / 2)
        # Killed in the middle of it: when the lock, the keeper or the server has just appeared
        marks = (
            lambda: (room.path / layout.KEEPER_LOCK).exists(),
            lambda: bool(room.processes()),
            lambda: bool(room.servers()),
            lambda: room.socket.exists(),
        )
        until(marks[delay_steps], "it has begun to start")
        opener.kill()

        room.server(idle_grace=GRACE / 2).ensure()
        assert len(room.servers()) == 1
        until(lambda: not room.processes(), "server and keeper gone")
