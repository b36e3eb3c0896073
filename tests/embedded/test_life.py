"""The embedded server from first use to last client."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskq.core.errors import ConfigError
from taskq.embedded import EmbeddedServer, wire
from taskq.embedded import files as layout
from tests.embedded.room import GRACE, ROOT, Room, holds, until


def test_it_starts_on_first_use_and_is_left_alone_after(room: Room, monkeypatch):
    server = room.server()
    start, started = EmbeddedServer._start_keeper, []
    monkeypatch.setattr(
        EmbeddedServer, "_start_keeper", lambda *args: (started.append(1), start(*args))
    )

    paths = {server.ensure() for _ in range(50)}

    assert paths == {room.socket}
    assert room.client().ping()
    assert len(started) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_keeper_and_server_are_given_no_secrets(room: Room, monkeypatch: pytest.MonkeyPatch):
    secrets = ("TASKQ_SIGNING_KEYS", "TASKQ_URL", "DATABASE_URL", "HOMEBREW_GITHUB_API_TOKEN")
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    room.server().ensure()

    pid = room.server_pid()
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    server, keeper = (Path(f"/proc/{process}/environ").read_bytes() for process in (pid, parent))
    assert b"hunter2" not in server + keeper
    assert {b"PATH", b"LC_ALL"} <= {line.partition(b"=")[0] for line in keeper.split(b"\0")}


def test_two_processes_share_one_server(room: Room):
    first, second = room.opener(), room.opener()

    assert first.server_pid() == second.server_pid()
    assert room.servers() == [room.server_pid()]


def test_ten_processes_that_open_at_once_get_one_server(room: Room):
    openers = [room.opener() for _ in range(10)]

    pids = {opener.server_pid() for opener in openers}

    assert pids == set(room.servers())
    assert len(pids) == 1
    assert (room.path / layout.LOG).read_text().count("Ready to accept connections") == 1


def test_it_stops_by_itself_after_the_last_client_and_leaves_nothing_running(room: Room):
    room.server(idle_grace=GRACE).ensure()
    client = room.client()
    client.set("kept", "yes")

    client.close()

    until(lambda: not room.processes(), "server and keeper gone")
    assert not room.socket.exists()
    assert not (room.path / layout.CLOSING).exists()
    room.server().ensure()
    assert room.client().get("kept") == b"yes"


def test_it_does_not_stop_under_a_silent_or_blocked_client(room: Room):
    # Given one client that says nothing and one that waits for data
    room.server(idle_grace=0.1).ensure()
    silent = room.client()
    pid = room.server_pid()
    blocked = threading.Thread(target=lambda: room.client().blpop(["nothing"], timeout=0.8))
    blocked.start()

    holds(lambda: room.servers() == [pid], "the same server runs", 0.8)

    blocked.join()
    assert silent.ping()


def test_it_outlives_a_killed_starter_while_another_is_connected(room: Room):
    starter = room.opener(idle_grace=GRACE)
    pid = starter.server_pid()
    other = room.opener()
    assert other.server_pid() == pid

    starter.kill()

    holds(lambda: room.servers() == [pid], "the same server runs", 2.5 * GRACE)
    other.leave()
    until(lambda: not room.processes(), "server and keeper gone")


def test_it_stops_when_its_starter_is_killed_and_nobody_else_is_there(room: Room):
    starter = room.opener(idle_grace=GRACE)
    starter.server_pid()

    starter.kill()

    until(lambda: not room.processes(), "server and keeper gone")


def test_a_ctrl_c_in_the_terminal_does_not_reach_it(room: Room):
    starter = room.opener(idle_grace=GRACE)
    pid = starter.server_pid()
    client = room.client()

    starter.interrupt_group()

    holds(lambda: room.servers() == [pid], "the same server runs", 2.5 * GRACE)
    assert client.ping()


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_a_signal_to_the_keeper_does_not_end_it(room: Room, signal_name: str):
    room.server().ensure()
    room.client()
    keeper = room.keeper()

    os.kill(keeper, getattr(signal, signal_name))

    holds(lambda: keeper in room.processes(), "the keeper runs", 0.1)


def test_asking_now_and_then_keeps_it_up(room: Room):
    server = room.server(idle_grace=GRACE)
    server.ensure()
    pid = server.pid()

    deadline = time.monotonic() + 3 * GRACE
    while time.monotonic() < deadline:
        server.ensure()
        time.sleep(GRACE / 4)

    assert server.pid() == pid


def test_whoever_is_told_that_it_is_up_gets_in(room: Room):
    # Given a server that wants to stop all the time, and openers that come just then
    server = room.server(idle_grace=0.05)
    pids: set[str] = set()
    failures: list[BaseException] = []

    def open_at_odd_times(seed: int) -> None:
        dice = random.Random(seed)
        deadline = time.monotonic() + 3
        try:
            while time.monotonic() < deadline:
                path = server.ensure()
                time.sleep(dice.uniform(0, 0.02))
                with wire.connect(str(path), 5.0) as connection:
                    pids.add(wire.info(connection)["process_id"])
                time.sleep(dice.uniform(0.04, 0.16))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_at_odd_times, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert len(pids) > 3, "it never stopped: the test shows nothing"


def test_it_does_not_close_while_somebody_asks_whether_it_is_up(room: Room):
    server = room.server(idle_grace=0.1)
    server.ensure()
    door = layout.try_lock(str(room.path / layout.DOOR_LOCK), shared=True)
    assert door is not None

    holds(room.socket.exists, "the door is open", 0.5)

    layout.release(door)
    until(lambda: not room.processes(), "server and keeper gone")


def test_nobody_is_told_that_it_is_up_while_it_closes(room: Room):
    server = room.server()
    server.ensure()
    door = layout.try_lock(str(room.path / layout.DOOR_LOCK))
    assert door is not None
    asking = threading.Thread(target=server.ensure)
    asking.start()

    holds(asking.is_alive, "nobody answers", 0.1)

    layout.release(door)
    asking.join(5)
    assert not asking.is_alive()


def test_who_came_in_at_the_last_moment_is_not_cut_off(room: Room):
    # Given a client that found the socket just before it was renamed; several tries, as the
    # moment is short
    closing = str(room.path / layout.CLOSING)

    def came_in() -> bool:
        room.server(idle_grace=0.05).ensure()
        pid = room.server_pid()
        with until(lambda: quiet(lambda: wire.connect(closing, 5.0)), "closing") as connection:
            until(lambda: room.socket.exists() or pid not in room.processes(), "decided")
            return quiet(lambda: wire.ask(connection, "PING")) == b"PONG"

    assert any(came_in() for _ in range(8))


def quiet(action: Callable[[], Any]) -> Any:
    """What `action` returns, or None when there is nobody."""
    with contextlib.suppress(OSError):
        return action()
    return None


def test_a_forked_child_shares_the_server(room: Room):
    script = (
        "import os, sys; from pathlib import Path; from taskq.embedded import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1])); server.ensure(); mine = server.pid()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if server.ensure() and server.pid() == mine else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )

    done = subprocess.run([sys.executable, "-c", script, str(room.path)], cwd=ROOT, check=False)

    assert done.returncode == 0
    assert len(room.servers()) == 1


def test_stop_ends_it_under_its_clients_and_keeps_the_data(room: Room):
    server = room.server()
    server.ensure()
    room.client().set("kept", "yes")

    server.stop()

    until(lambda: not room.processes(), "nothing left running")
    assert server.pid() is None
    server.stop()
    server.ensure()
    assert room.client().get("kept") == b"yes"


def test_stop_of_a_directory_that_does_not_exist_does_nothing(room: Room):
    room.server().stop()

    assert not room.path.exists()


def test_appendfsync_is_made_stricter_by_a_later_opener_never_laxer(room: Room):
    room.server().ensure()
    client = room.client()
    assert client.config_get("appendfsync") == {"appendfsync": "everysec"}

    room.server(appendfsync="always").ensure()
    room.server(appendfsync="everysec").ensure()

    assert client.config_get("appendfsync") == {"appendfsync": "always"}


def test_it_runs_with_the_safe_settings(room: Room):
    room.server(appendfsync="always").ensure()
    client = room.client()

    wanted = {
        "appendfsync": "always",
        "appendonly": "yes",
        "enable-debug-command": "no",
        "enable-module-command": "no",
        "enable-protected-configs": "no",
        "maxmemory-policy": "noeviction",
        "port": "0",
        "save": "",
    }
    assert {name: client.config_get(name)[name] for name in wanted} == wanted


def test_the_keeper_is_small(room: Room):
    room.server().ensure()

    lines = Path(f"/proc/{room.keeper()}/status").read_text().splitlines()

    resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    assert resident < 14 * 1024


def test_nothing_listens_on_tcp(room: Room):
    room.server().ensure()

    for pid in room.processes():
        descriptors = Path(f"/proc/{pid}/fd").iterdir()
        sockets = {os.readlink(d) for d in descriptors if os.readlink(d).startswith("socket:")}
        for table in ("tcp", "tcp6", "udp", "udp6"):
            rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
            assert not sockets & {f"socket:[{row.split()[9]}]" for row in rows}


@pytest.mark.parametrize(
    "what", ["the directory", "the directory at once", "its contents", "the socket"]
)
def test_a_server_whose_files_were_deleted_gives_way_to_a_new_one(room: Room, what: str):
    # Given a client that would work on in a server nobody else can find
    room.server(idle_grace=GRACE).ensure()
    old = room.server_pid()
    client = room.client()
    if what != "the directory at once":
        until(lambda: client.info("clients")["connected_clients"] == 2, "the keeper is connected")

    if what.startswith("the directory"):
        shutil.rmtree(room.path)
    elif what == "its contents":
        shutil.rmtree(room.path / "appendonlydir")
        for entry in room.path.iterdir():
            entry.unlink()
    else:
        room.socket.unlink()

    until(lambda: old not in room.processes(), "the old server gone")
    room.server().ensure()
    assert room.client().ping()
    holds(lambda: len(room.servers()) == 1, "one server", 0.3)


@pytest.mark.parametrize("options", [{"appendfsync": "no"}, {"idle_grace": 0}, {"idle_grace": -1}])
def test_an_option_out_of_range_is_refused(options: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(options))):
        EmbeddedServer(Path("unused"), **options)  # type: ignore[arg-type]


def test_a_relative_directory_is_taken_from_where_it_was_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    server = EmbeddedServer(Path(".taskq"))

    monkeypatch.chdir("/")

    assert server.directory == tmp_path / ".taskq"
