"""What happens to the processes, the server and the lines of a chaos run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import redis

from tests.faults.chaos.fleet import Fleet, Member, children_of
from tests.support.proxy import Proxy
from tests.support.server import TestServer

__all__ = ["EVENTS", "Stage"]


@dataclass
class Stage:
    """Everything an event may touch, and what has happened so far."""

    fleet: Fleet
    server: TestServer
    proxies: list[Proxy]
    longest_stop: float
    happened: Counter[str] = field(default_factory=Counter[str])
    beside: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[assignment]
        self.beside.add(task)
        task.add_done_callback(self.beside.discard)

    def tell(self, *command: Any) -> None:
        """One command to the server, from an administrator's connection."""
        client = redis.Redis(unix_socket_path=str(self.server.socket), socket_timeout=20)
        with contextlib.suppress(redis.RedisError):
            client.execute_command(*command)
        client.close()


async def kill_a_lone_worker(stage: Stage) -> bool:
    return await _kill(stage, stage.fleet.pick("lone"))


async def kill_a_supervised_worker(stage: Stage) -> bool:
    supervisor = stage.fleet.pick("supervisor")
    pids = children_of(supervisor.process.pid) if supervisor else []
    if not pids:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(stage.fleet.draw.choice(pids), signal.SIGKILL)
    return True


async def kill_a_producer(stage: Stage) -> bool:
    return await _kill(stage, stage.fleet.pick("producer"))


async def stop_a_worker_for_a_while(stage: Stage) -> bool:
    member = stage.fleet.pick("lone")
    if member is None:
        return False
    stage.spawn(_stand_still(member, stage.fleet.draw.uniform(0.5, stage.longest_stop)))
    return True


async def a_worker_leaves(stage: Stage) -> bool:
    member = stage.fleet.pick("lone")
    if member is None:
        return False
    stage.fleet.members.remove(member)
    stage.fleet.add("lone")
    stage.spawn(stage.fleet.leave(member, within=30))
    return True


async def kill_the_server(stage: Stage) -> bool:
    await asyncio.to_thread(stage.server.stop, signal.SIGKILL)
    await asyncio.sleep(stage.fleet.draw.uniform(0.0, 1.0))
    await asyncio.to_thread(stage.server.start)
    return True


async def restart_the_server(stage: Stage) -> bool:
    await asyncio.to_thread(stage.server.stop, signal.SIGTERM)
    await asyncio.to_thread(stage.server.start)
    return True


async def hang_the_server(stage: Stage) -> bool:
    seconds = stage.fleet.draw.uniform(0.2, stage.longest_stop / 2)
    await asyncio.to_thread(stage.tell, "DEBUG", "SLEEP", f"{seconds:.2f}")
    return True


async def pause_the_clients(stage: Stage) -> bool:
    milliseconds = int(1000 * stage.fleet.draw.uniform(0.2, stage.longest_stop / 2))
    await asyncio.to_thread(stage.tell, "CLIENT", "PAUSE", milliseconds)
    return True


async def forget_the_scripts(stage: Stage) -> bool:
    await asyncio.to_thread(stage.tell, "SCRIPT", "FLUSH")
    return True


async def kill_the_connections(stage: Stage) -> bool:
    await asyncio.to_thread(stage.tell, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.to_thread(stage.tell, "CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")
    return True


async def cut_the_lines(stage: Stage) -> bool:
    stage.fleet.draw.choice(stage.proxies).cut()
    return True


async def lose_replies(stage: Stage) -> bool:
    proxy = stage.fleet.draw.choice(stage.proxies)
    proxy.lose_reply(b"EVALSHA", times=stage.fleet.draw.randint(1, 5))
    return True


async def mute_the_server(stage: Stage) -> bool:
    proxy = stage.fleet.draw.choice(stage.proxies)
    proxy.mute()
    stage.spawn(_heal(proxy, stage.fleet.draw.uniform(0.2, 3.0)))
    return True


async def slow_the_lines(stage: Stage) -> bool:
    proxy = stage.fleet.draw.choice(stage.proxies)
    proxy.delay = stage.fleet.draw.uniform(0.01, 0.2)
    stage.spawn(_heal(proxy, stage.fleet.draw.uniform(1.0, 5.0)))
    return True


async def half_open_the_lines(stage: Stage) -> bool:
    proxy = stage.fleet.draw.choice(stage.proxies)
    proxy.half_open()
    stage.spawn(_heal(proxy, stage.fleet.draw.uniform(1.0, 12.0)))
    return True


async def half_open_the_heartbeats(stage: Stage) -> bool:
    """One silent line of two: it costs no worker its lease."""
    proxy = stage.fleet.draw.choice(stage.proxies)
    if not proxy.half_open(b"taskq-heart"):
        return False
    stage.spawn(_heal(proxy, stage.fleet.draw.uniform(1.0, 12.0)))
    return True


Event = Callable[[Stage], Awaitable[bool]]
EVENTS: dict[Event, int] = {
    kill_a_lone_worker: 30,
    kill_a_supervised_worker: 15,
    kill_a_producer: 3,
    stop_a_worker_for_a_while: 8,
    a_worker_leaves: 5,
    kill_the_server: 5,
    restart_the_server: 2,
    hang_the_server: 3,
    pause_the_clients: 2,
    forget_the_scripts: 2,
    kill_the_connections: 3,
    cut_the_lines: 6,
    lose_replies: 8,
    mute_the_server: 3,
    slow_the_lines: 3,
    half_open_the_lines: 2,
    half_open_the_heartbeats: 3,
}
"""What may happen, and how often in relation to the rest. An event gives False when there was
nothing for it to happen to."""


async def _kill(stage: Stage, member: Member | None) -> bool:
    if member is None:
        return False
    member.process.kill()
    await asyncio.to_thread(stage.fleet.replace, member)
    return True


async def _stand_still(member: Member, seconds: float) -> None:
    member.stopped = True
    with contextlib.suppress(ProcessLookupError):
        member.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        member.process.send_signal(signal.SIGCONT)
    member.stopped = False


async def _heal(proxy: Proxy, seconds: float) -> None:
    await asyncio.sleep(seconds)
    proxy.heal()
