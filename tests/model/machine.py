"""Random lives of a queue: each step is done to the server and to the model, and both must agree.

The server is reached through the broker's own wrappers, whose replies get lost on demand. What is
compared is what they tell (jobs, overview, deliveries, answers) and who holds what in the streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from taskq.broker.broker import Upkeep
from taskq.broker.consumer import Consumer, DeclaredDead, handed_over
from taskq.broker.jobs import Jobs
from taskq.broker.leases import Leases, ReapPolicy
from taskq.broker.producer import Producer
from taskq.codec.envelope import pack_failure
from taskq.codec.payload import encode_value
from taskq.core.ids import new_id
from taskq.core.job import Delivery, NewJob
from taskq.core.outcome import Failed
from taskq.ops.overview import read_overview
from taskq.redis.connection import ConnectionLost
from taskq.redis.url import Address
from tests.model.protocol import MAX_CRASHES, Model, ModelJob
from tests.support.scripts import FAILURE_TTL, Listener, Scene, frame
from tests.support.waiting import eventually_sync

T = TypeVar("T")

QUEUES = ("alpha", "beta")
LANES = tuple(f"{queue}/{priority}" for queue in QUEUES for priority in (9, 5))
STEP = 60_000
"""The clock moves by minutes, and what is due lies half a minute from any of them."""
ENVELOPES = (b"envelope", b"e" * 2_500_000)
"""Two large ones fill a reply."""
FAILURE = pack_failure(Failed("E", "no", "", "error"))

waits = st.sampled_from([0, 0, 90_000, 210_000])
picks = st.integers(0, 50)
lost = st.booleans() | st.just(False)
rarely = st.sampled_from([False, False, False, True])


class Line:
    """A client whose next replies are lost: what was asked is done, and the caller never knows."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.lose = 0

    async def script(self, *call: Any) -> Any:
        reply = await self._client.script(*call)
        if self.lose:
            self.lose -= 1
            raise ConnectionLost("the reply was lost")
        return reply

    def send_nowait(self, *call: Any) -> bool:
        """Everything goes the way on which replies get lost."""
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class QueueMachine(RuleBasedStateMachine):
    """Enqueue, fetch, beat, die, reap, finish, promote, cancel, expire; replies get lost."""

    def __init__(self, look: redis.Redis, address: Address) -> None:
        super().__init__()
        self._look, self._address = look, address
        self.runner = asyncio.Runner()
        self.model = Model()
        self.elapsed = 0
        self.workers = 0
        self.steps = 0
        self.made = 0
        self.consumers: dict[str, Consumer] = {}
        self.listeners: dict[str, Listener] = {}
        """What a worker hears that can be pushed to."""
        self.mine: dict[str, list[Delivery]] = {}
        """What each worker knows that it was given, and has not ended."""
        self.late: list[tuple[str, Delivery, bool]] = []
        """What workers were given once, and is not theirs any more; and whether it ever started."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    @initialize()
    def open(self) -> None:
        async def make() -> None:
            self.scene = Scene(self._look, self._address, f"m{new_id()}")
            self.line: Any = Line(self.scene.client)
            shared = (self.line, self.scene.keys, self.scene.offset)
            self.producer = Producer(*shared, deadline=5.0, failure_ttl=FAILURE_TTL / 1000)
            self.leases, self.upkeep = Leases(*shared), Upkeep(*shared)
            self.jobs = Jobs(*shared, failure_ttl=FAILURE_TTL / 1000)
            self.policy = ReapPolicy(MAX_CRASHES, FAILURE_TTL / 1000, 1000)

        self.run(make())
        self.begin = self.scene.now()
        self.register(True)
        for own in ("a", "b"):
            self.enqueue(own, LANES[0], 0, 0, False)

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            self.run(self.scene.aclose())
        self.runner.close()

    @property
    def now(self) -> int:
        """The clock as the model has it: what passed by itself does not count."""
        return self.elapsed

    # ------------------------------------------------------------------------------ producers

    @rule(
        own=st.sampled_from(["", "", "", "a", "b", "c"]),
        lane=st.sampled_from(LANES),
        delay=waits,
        expires=st.sampled_from([0, 0, 0, 90_000, 210_000]),
        lose=lost,
        large=rarely,
    )
    def enqueue(
        self, own: str, lane: str, delay: int, expires: int, lose: bool, large: bool = False
    ) -> None:
        self.made += 1
        # The same life has the same names each time it is lived.
        job_id = own or f"j{self.made}"
        job = ModelJob(job_id, lane, due=self.now + delay)
        job.expires = self.now + expires if expires else None
        expected = self.model.enqueue(job, self.now)
        new = NewJob(
            job_id,
            ENVELOPES[large],
            lane,
            f"+{delay}" if delay else "",
            f"+{expires}" if expires else "",
            f"request {self.made}" if own else "",
        )
        parked = self._parked(lane)
        self.line.lose = int(lose)
        assert self.run(self.producer.add(new)) is expected
        if large:
            # Too large for a message: a worker is woken, and fetches it or not.
            self._parked(lane)
        else:
            self._handed_over(lane, parked if expected and job.state == "queued" else set())

    def _parked(self, lane: str) -> set[str]:
        """The workers that wait for a job of this lane, and hear from now on when there is one."""
        for listener in self.listeners.values():
            listener.messages()
        idle = self.scene.look.smembers(self.scene.keys.idle + lane.rpartition("/")[0])
        return {name.decode() for name in idle} & self.listeners.keys()

    def _handed_over(self, lane: str, parked: set[str]) -> None:
        """One of the parked workers was given the job behind the first entry, if there is one."""
        reported: dict[str, list[bytes]] = {}
        for name, listener in self.listeners.items():
            if heard := [text for _, text in listener.messages()]:
                reported[name] = heard
        if not parked:
            assert reported == {}
            return
        # Which of them is the server's choice.
        [(name, [text])] = reported.items()
        assert name in parked
        taken = self.model.take_first(name, lane, self.now)
        if taken:
            self._delivered(name, [handed_over(text.removeprefix(b"job "))], taken)
        else:
            assert text == b"work"

    @precondition(lambda self: self.model.jobs)
    @rule(pick=picks, lose=lost, wanted=rarely)
    def cancel(self, pick: int, lose: bool, wanted: bool) -> None:
        if not wanted:
            return
        ids = [*self.model.jobs, "nobody"]
        job_id = ids[pick % len(ids)]
        job = self.model.jobs.get(job_id)
        was_cancelled = job is not None and job.state == "cancelled"
        expected = self.model.cancel(job_id)
        self.line.lose = int(lose)
        answer = self.run(self.jobs.cancel(job_id))
        # After a lost reply it is unknown which call cancelled it.
        assert answer == (1 if lose and was_cancelled else expected)

    # -------------------------------------------------------------------------------- workers

    @precondition(lambda self: len(self.model.held) < 2)
    @rule(listens=st.sampled_from([True, True, False]))
    def register(self, listens: bool) -> None:
        self.workers += 1
        name = f"w{self.workers}"
        self.model.held[name], self.mine[name] = [], []
        self.consumers[name] = Consumer(
            self.line,
            self.scene.keys,
            self.scene.offset,
            name,
            failure_ttl=FAILURE_TTL / 1000,
            keep_failed=1000,
        )
        if listens:
            self.listeners[name] = self.scene.listen(f"wake:{name}")
        reply = self.run(self.leases.register(name, b"", 1, QUEUES))
        assert (reply.held, reply.cancels) == (0, ())  # type: ignore[union-attr]

    @rule(pick=picks)
    def beat(self, pick: int) -> None:
        name = self._any_worker(pick)
        reply = self.run(self.leases.beat(name, b""))
        if name not in self.model.held:
            assert reply is None
            return
        assert reply is not None
        assert reply.held == len(self.model.running_on(name))
        assert set(reply.cancels) == self.model.cancels_of(name)

    @rule(pick=picks, want=st.integers(1, 4), both=st.booleans(), lose=lost)
    def fetch(self, pick: int, want: int, both: bool, lose: bool) -> None:
        name = self._any_worker(pick)
        queues = QUEUES if both else QUEUES[:1]
        if name not in self.model.held:
            self._fetch_of_the_dead(name, queues)
            return
        expected = self.model.fetch(name, want, queues, self.now)
        self.line.lose = int(lose)
        try:
            got = self.run(self.consumers[name].fetch(want, queues))
        except ConnectionLost:
            assert lose
            return
        self._delivered(name, got, expected)
        waiting = any(self.model.suspects.get(lane) for lane in LANES if lane[:-2] in queues)
        if waiting:
            assert self.consumers[name].saw_suspects

    @precondition(lambda self: self.model.held and any(self.model.suspects.values()))
    @rule(pick=picks, want=st.integers(1, 4), lose=lost)
    def fetch_suspects(self, pick: int, want: int, lose: bool) -> None:
        names = list(self.model.held)
        name = names[pick % len(names)]
        expected = self.model.fetch_suspects(name, want, QUEUES, self.now)
        self.line.lose = int(lose)
        try:
            got = self.run(self.consumers[name].fetch(want, QUEUES, "s"))
        except ConnectionLost:
            assert lose
            return
        self._delivered(name, got, expected)

    @precondition(lambda self: any(delivery.crashes for _, delivery in self._held()))
    @rule(pick=picks)
    def begin(self, pick: int) -> None:
        held = [(name, delivery) for name, delivery in self._held() if delivery.crashes]
        name, delivery = held[pick % len(held)]
        self.model.begin(self.model.jobs[delivery.id])
        assert self.run(self.consumers[name].begin(delivery))

    def _any_worker(self, pick: int) -> str:
        """One that lives, or now and then the one that died last."""
        dead = [name for name in self.consumers if name not in self.model.held][-1:]
        names = [*self.model.held] * 3 + dead
        return names[pick % len(names)]

    def _fetch_of_the_dead(self, name: str, queues: tuple[str, ...]) -> None:
        try:
            self.run(self.consumers[name].fetch(1, queues))
        except DeclaredDead:
            return
        raise AssertionError(f"{name} is dead and was given jobs")

    @precondition(lambda self: self._strayed())
    @rule(pick=picks)
    def find_strays(self, pick: int) -> None:
        names = list(self.model.held)
        name = names[pick % len(names)]
        entries = {held.entry for held in self.run(self.leases.held(name))}
        assert len(entries) == len(self.model.running_on(name))
        known = {delivery.entry for delivery in self.mine[name]}
        strays = entries - known
        expected = [
            self.model.jobs[job_id]
            for job_id in self.model.running_on(name)
            if job_id not in {delivery.id for delivery in self.mine[name]}
        ]
        if strays:
            got = self.run(self.leases.redeliver(name, strays))
            self._delivered(name, got, expected)
        else:
            assert expected == []

    def _delivered(self, name: str, got: list[Delivery], expected: list[ModelJob]) -> None:
        reported = [
            (d.id, d.lane, d.fence, d.attempt, d.failures, d.crashes, d.unknown) for d in got
        ]
        wanted = [
            (job.id, job.lane, job.taken, job.attempt, job.failures, job.crashes, job.unknown)
            for job in expected
        ]
        assert sorted(reported) == sorted(wanted)
        self.mine[name] += got

    @precondition(lambda self: self._held())
    @rule(pick=picks, value=st.integers(1, 9))
    def progress(self, pick: int, value: int) -> None:
        held = self._held()
        name, delivery = held[pick % len(held)]
        report = b"\x93" + bytes([value, 10]) + b"\xa0"
        job = self.model.jobs[delivery.id]
        assert self.run(self.consumers[name].progress(delivery.id, delivery.fence, report))
        job.progress = value

    @precondition(lambda self: self._held())
    @rule(
        pick=picks,
        kind=st.sampled_from("SFRRBBC"),
        started=st.booleans(),
        delay=waits,
        keep=st.booleans(),
        lose=lost,
    )
    def finish(
        self, pick: int, kind: str, started: bool, delay: int, keep: bool, lose: bool
    ) -> None:
        held = self._held()
        name, delivery = held[pick % len(held)]
        job = self.model.jobs[delivery.id]
        started = started or kind != "B"
        assert self.model.verdict(kind, name, delivery, started=started) == 1
        self.model.finish(kind, job, self.now, started=started, delay=delay, keep=keep)
        answer = self._send(
            name, delivery, kind, started=started, delay=delay, keep=keep, lose=lose
        )
        gone = delivery.id not in self.model.jobs
        assert answer == ((3 if gone else 2) if lose else 1)
        self.mine[name].remove(delivery)
        self.late.append((name, delivery, started))
        job.result = delivery.attempt if kind == "S" else None

    @precondition(lambda self: self.late)
    @rule(pick=picks, kind=st.sampled_from("SFRBC"), started=st.booleans())
    def finish_late(self, pick: int, kind: str, started: bool) -> None:
        """The end of an attempt that has lost its job, or has ended, changes nothing."""
        late = self._late()
        name, delivery, did_start = late[pick % len(late)]
        if not did_start:
            # A job that was given back before it started cannot be finished as well.
            kind, started = "B", False
        started = started or kind != "B"
        expected = self.model.verdict(kind, name, delivery, started=started)
        answer = self._send(name, delivery, kind, started=started, delay=0, keep=True, lose=False)
        # The same worker may hold the same number of the same id again; that is not what it ends.
        assert answer == (2 if expected == 1 else expected)

    @precondition(lambda self: self.late)
    @rule(pick=picks)
    def progress_late(self, pick: int) -> None:
        late = self._late()
        name, delivery, _ = late[pick % len(late)]
        if self.model.verdict("S", name, delivery, started=True) == 1:
            # Progress names no entry: it is written to what has the number now.
            return
        report = b"\x93\x63\x63\xa0"
        reported = self.consumers[name].progress(delivery.id, delivery.fence, report)
        assert self.run(reported) is False

    def _send(
        self,
        name: str,
        delivery: Delivery,
        kind: str,
        *,
        started: bool,
        delay: int,
        keep: bool,
        lose: bool,
    ) -> int:
        payload = {
            "S": encode_value(delivery.attempt),
            "F": FAILURE,
            "R": b"error\nno",
            "B": b"released\n" if started else b"",
            "C": b"",
        }[kind]
        failures = delivery.failures + (kind in ("F", "R"))
        sent = frame(
            kind,
            delivery,
            payload,
            ttl=FAILURE_TTL if keep or kind != "S" else 0,
            delay=delay if kind in ("R", "B") else 0,
            count=delivery.unknown + 1 if kind == "B" else failures,
        )
        self.line.lose = int(lose)
        return self.run(self.consumers[name].finish([sent]))[0]

    def _late(self) -> list[tuple[str, Delivery, bool]]:
        """The last ones, and of ids that are used again more: they meet what follows them."""
        again = [late for late in self.late if late[1].id in ("a", "b", "c")]
        return self.late[-3:] + again[-3:]

    def _strayed(self) -> bool:
        return any(len(ids) > len(self.mine[name]) for name, ids in self.model.held.items())

    def _held(self) -> list[tuple[str, Delivery]]:
        return [(name, d) for name in self.model.held for d in self.mine[name]]

    # ------------------------------------------------------------------------- upkeep, by any

    @rule(minutes=st.integers(1, 4), promote=st.booleans())
    def time_passes(self, minutes: int, promote: bool) -> None:
        self.elapsed += minutes * STEP
        self.scene.offset.ms += minutes * STEP
        if promote:
            self.promote(False)

    @rule(lose=lost)
    def promote(self, lose: bool) -> None:
        expected = self.model.promote(self.now)
        self.line.lose = int(lose)
        try:
            moved, _ = self.run(self.upkeep.promote(1000, FAILURE_TTL / 1000))
        except ConnectionLost:
            moved, _ = self.run(self.upkeep.promote(1000, FAILURE_TTL / 1000))
            expected = 0
        assert moved == expected

    @precondition(lambda self: any(self.model.held.values()))
    @rule(pick=picks, died=st.booleans(), lose=lost)
    def reap(self, pick: int, died: bool, lose: bool) -> None:
        names = list(self.model.held)
        name = names[pick % len(names)]
        order = self._pending_order(name)
        assert sorted(order) == sorted(self.model.running_on(name))
        beat = self.run(self.leases.heartbeats())[name]
        expected = self.model.reap(name, order, died=died)
        if name in self.listeners:
            self.listeners.pop(name).close()
            channel = self.scene.keys.wake_channel + name
            eventually_sync(lambda: self.scene.look.pubsub_numsub(channel)[0][1] == 0)
        self.late += [(name, delivery, True) for delivery in self.mine.pop(name)]
        self.line.lose = int(lose)
        ask = lambda: self.leases.reap(name, self.policy, heartbeat=beat, died=died)  # noqa: E731
        try:
            reaped = self.run(ask())
        except ConnectionLost:
            reaped = self.run(ask())
            expected = (0, 0)
        assert reaped is not None
        assert (reaped.moved, reaped.poisoned) == expected

    @precondition(lambda self: any(self.model.held.values()))
    @rule(pick=picks)
    def reap_by_an_old_look(self, pick: int) -> None:
        names = list(self.model.held)
        name = names[pick % len(names)]
        beat = self.run(self.leases.heartbeats())[name]
        self.run(self.leases.beat(name, b""))
        assert self.run(self.leases.reap(name, self.policy, heartbeat=beat)) is None

    def _pending_order(self, worker: str) -> list[str]:
        return [job_id for lane in self.model.lanes for job_id in self._lane(lane).get(worker, [])]

    def _lane(self, lane: str) -> dict[str, list[str]]:
        return self.scene.lane(lane).held

    # ----------------------------------------------------------------------------- agreement

    @invariant()
    def the_clock_goes_on(self) -> None:
        """By a tenth of a second each step, so that what is scheduled first is due first.

        However slow the machine is: only one that is slower than that over a whole life counts.
        """
        if hasattr(self, "scene"):
            self.steps += 1
            now = self.scene.now()
            self.scene.offset.ms += max(2, self.begin + self.elapsed + self.steps * 100 - now)

    @invariant()
    def jobs_agree(self) -> None:
        if not hasattr(self, "scene"):
            return
        for job_id in {*self.model.jobs, "a", "b", "c"}:
            info, job = self.run(self.scene.jobs.info(job_id)), self.model.jobs.get(job_id)
            if job is None:
                assert info is None
                continue
            assert info is not None, f"{job} is gone"
            reported = (info.state, info.attempt, info.failures, info.crashes, info.result)
            assert reported == (job.state, job.attempt, job.failures, job.crashes, job.result), job
            if job.state == "running":
                assert info.worker == job.worker
            if job.progress is not None:
                assert info.progress is not None
                assert info.progress.done == job.progress
        states = self.run(self.scene.waiting.look(self.model.jobs))
        assert [ending.state for ending in states] == [
            job.state for job in self.model.jobs.values()
        ]

    @invariant()
    def streams_agree(self) -> None:
        if not hasattr(self, "scene"):
            return
        for lane, waiting in self.model.lanes.items():
            seen = self.scene.lane(lane)
            assert seen.waiting == _ids(waiting)
            assert seen.returned == _ids(self.model.returned.get(lane, ()))
            assert seen.suspects == _ids(self.model.suspects.get(lane, ()))
            held = {
                name: sorted(i for i in ids if self.model.jobs[i].lane == lane)
                for name, ids in self.model.held.items()
            }
            reported = {name: sorted(ids) for name, ids in seen.held.items()}
            assert reported == {name: ids for name, ids in held.items() if ids}
        due = {member.decode() for member in self.scene.look.zrange(self.scene.keys.due, 0, -1)}
        assert due == {job.id for job in self.model.jobs.values() if job.state == "scheduled"}

    @invariant()
    def the_overview_agrees(self) -> None:
        if not hasattr(self, "scene"):
            return
        scene = self.scene
        overview = self.run(
            read_overview(scene.client, scene.keys, scene.offset, failure_ttl=FAILURE_TTL / 1000)
        )
        jobs = self.model.jobs.values()
        assert {worker.name: worker.held for worker in overview.workers} == {
            name: len(ids) for name, ids in self.model.held.items()
        }
        assert overview.scheduled == sum(job.state == "scheduled" for job in jobs)
        assert overview.malformed == 0
        assert overview.partially_reaped == ()
        for queue in overview.queues:
            own = [job for job in jobs if job.lane.startswith(queue.name)]
            assert queue.running == sum(job.state == "running" for job in own)
            assert queue.failed == sum(job.state == "failed" for job in own)


def _ids(entries: Iterable[tuple[int, str]]) -> list[str]:
    return [job_id for _, job_id in entries]
