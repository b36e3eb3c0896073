"""What the protocol promises, as a few lines of Python: the other half of the state machine.

Jobs move as the scripts move them, but on plain values, one at a time. Times are milliseconds of
the server's clock; the machine moves that in minutes, so what happens in between tells nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from taskq.core.job import Delivery

__all__ = ["MAX_CRASHES", "OVER", "Model", "ModelJob"]

MAX_CRASHES = 3
Entry = tuple[int, str]
"""Its place among all entries, and the job it leads to."""

OVER = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass
class ModelJob:
    """One job, as everybody must see it."""

    id: str
    lane: str
    state: str = "queued"
    taken: int = 0
    """How often: the fence."""
    unstarted: int = 0
    failures: int = 0
    crashes: int = 0
    unknown: int = 0
    worker: str | None = None
    """Of the last attempt: empty once the job was taken from it, None before any."""
    place: int = 0
    """Of the entry through which it was taken, among all entries."""
    together: int = 0
    """As a suspect: how many may run together with it."""
    began: tuple[int, int] = (0, 0)
    """The take that was said to begin, and when among all."""
    due: int = 0
    turn: int = 0
    """When it was scheduled: of jobs due at one time the first that was goes first."""
    expires: int | None = None
    expiry_listed: bool = False
    cancel_wanted: bool = False
    result: object = None
    progress: float | None = None

    @property
    def attempt(self) -> int:
        """How often it was started."""
        return self.taken - self.unstarted


@dataclass
class Model:
    """Everything in a namespace."""

    jobs: dict[str, ModelJob] = field(default_factory=dict[str, ModelJob])
    lanes: dict[str, list[Entry]] = field(default_factory=dict[str, list["Entry"]])
    """Entries that were not read yet, in order; some lead to jobs that are no longer queued."""
    returned: dict[str, list[Entry]] = field(default_factory=dict[str, list["Entry"]])
    """Entries of jobs that came back, in their old order; they go before the others."""
    suspects: dict[str, list[Entry]] = field(default_factory=dict[str, list["Entry"]])
    """Entries of jobs that brought down their workers, likewise."""
    held: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By registered worker: ids of the jobs it holds."""
    turns: int = 0
    places: int = 0

    def running_on(self, worker: str) -> list[str]:
        """The jobs a worker holds."""
        return self.held.get(worker, [])

    def cancels_of(self, worker: str) -> set[str]:
        """The jobs this worker is asked to cancel."""
        return {job_id for job_id in self.running_on(worker) if self.jobs[job_id].cancel_wanted}

    def queue(self, job: ModelJob) -> None:
        """Put a job at the end of its lane."""
        job.state = "queued"
        self.places += 1
        self.lanes.setdefault(job.lane, []).append((self.places, job.id))

    def put_back(self, job: ModelJob, entries: dict[str, list[Entry]]) -> None:
        """Let a job wait again, in the place that it had."""
        job.state = "queued"
        entries.setdefault(job.lane, []).append((job.place, job.id))
        entries[job.lane].sort()

    def schedule(self, job: ModelJob, due: int) -> None:
        """Let a job wait for its time."""
        self.turns += 1
        job.state, job.due, job.turn = "scheduled", due, self.turns

    def end(self, job: ModelJob, state: str) -> None:
        """A job is over: nothing of it waits anywhere."""
        job.state = state
        job.expiry_listed = False

    # ---------------------------------------------------------------------------- transitions

    def enqueue(self, job: ModelJob, now: int) -> bool:
        """False when the id is taken."""
        if job.id in self.jobs:
            return False
        self.jobs[job.id] = job
        job.expiry_listed = job.expires is not None
        if job.due > now:
            self.schedule(job, job.due)
        else:
            self.queue(job)
        return True

    def promote(self, now: int) -> int:
        """Expire what is late, then move what is due; how many moved."""
        moved = 0
        for job in self.jobs.values():
            if job.expiry_listed and job.expires is not None and job.expires <= now:
                job.expiry_listed = False
                if job.state in ("scheduled", "queued"):
                    self.end(job, "expired")
        for job in sorted(self.jobs.values(), key=lambda job: (job.due, job.turn)):
            if job.state == "scheduled" and job.due <= now:
                self.queue(job)
                moved += 1
        return moved

    def fetch(self, worker: str, want: int, queues: tuple[str, ...], now: int) -> list[ModelJob]:
        """The highest priority first, and in a lane who came first."""
        taken: list[ModelJob] = []
        for priority in range(9, -1, -1):
            for queue in queues:
                name = f"{queue}/{priority}"
                for entries in (self.returned, self.lanes):
                    while entries.get(name) and len(taken) < want:
                        taken += self.take_first(worker, name, now, entries)
        return taken

    def fetch_suspects(
        self, worker: str, want: int, queues: tuple[str, ...], now: int
    ) -> list[ModelJob]:
        """As many as may run together."""
        taken: list[ModelJob] = []
        for priority in range(9, -1, -1):
            for queue in queues:
                name = f"{queue}/{priority}"
                while self.suspects.get(name):
                    suspect = self.jobs.get(self.suspects[name][0][1])
                    most = suspect.together if suspect and suspect.together else want
                    if len(taken) >= min(want, most):
                        return taken
                    want = min(want, most)
                    taken += self.take_first(worker, name, now, self.suspects)
        return taken

    def take_first(
        self, worker: str, lane: str, now: int, entries: dict[str, list[Entry]] | None = None
    ) -> list[ModelJob]:
        """Give a worker the job behind the first entry of a lane; nothing when it leads to none."""
        place, job_id = (self.lanes if entries is None else entries)[lane].pop(0)
        job = self.jobs.get(job_id)
        if job is None or job.state != "queued":
            return []
        if job.expires is not None and job.expires <= now:
            self.end(job, "expired")
            return []
        job.state, job.worker, job.place = "running", worker, place
        job.taken += 1
        self.held[worker].append(job.id)
        return [job]

    def verdict(self, kind: str, worker: str, delivery: Delivery, *, started: bool) -> int:
        """What `finish` answers: 1 done, 2 done before, 0 refused, 3 unknown."""
        job = self.jobs.get(delivery.id)
        if job is None:
            return 3
        if job.taken != delivery.fence or job.worker != worker:
            given_back = job.worker == "" or job.taken > delivery.fence
            return 2 if kind == "B" and given_back else 0
        return 1 if job.state == "running" else 2

    def finish(
        self, kind: str, job: ModelJob, now: int, *, started: bool, delay: int, keep: bool
    ) -> None:
        """End the attempt of a running job."""
        assert job.worker is not None
        self.held[job.worker].remove(job.id)
        if kind in ("S", "F", "C") or job.cancel_wanted:
            ended = "C" if kind in ("R", "B") else kind
            self.end(job, {"S": "succeeded", "F": "failed", "C": "cancelled"}[ended])
            job.failures += ended == "F"
            if kind == "S" and not keep:
                del self.jobs[job.id]
            return
        if not started:
            job.unstarted, job.worker = job.unstarted + 1, ""
        elif kind == "R":
            job.failures += 1
        else:
            job.unknown += 1
        if delay:
            self.schedule(job, now + delay)
        elif kind == "R":
            self.queue(job)
        else:
            self.put_back(job, self.returned)

    def cancel(self, job_id: str) -> int:
        """1 done, 2 its worker was asked, 0 it was over, -1 there is none."""
        job = self.jobs.get(job_id)
        if job is None:
            return -1
        if job.state in OVER:
            return 0
        if job.state == "running":
            job.cancel_wanted = True
            return 2
        self.end(job, "cancelled")
        return 1

    def reap(self, worker: str, order: list[str], *, died: bool) -> tuple[int, int]:
        """Take everything from a worker, in this order; how many moved, and how many are poison."""
        moved = poisoned = 0
        suspected = self._suspected([self.jobs[job_id] for job_id in order]) if died else []
        # Of several jobs any may be the guilty one.
        alone = len(suspected) == 1
        begun = [job.began[1] for job in suspected if job.began[0] == job.taken]
        for job_id in order:
            job = self.jobs[job_id]
            counts = job in suspected
            job.crashes += counts
            if job.cancel_wanted:
                self.end(job, "cancelled")
                continue
            if counts and alone and job.crashes >= MAX_CRASHES:
                self.end(job, "failed")
                poisoned += 1
                continue
            job.worker = ""
            moved += 1
            if counts and job.crashes >= MAX_CRASHES - 1:
                last = job.began[0] == job.taken and job.began[1] == max(begun)
                job.together = 1 if last else max(1, len(suspected) // 2)
                self.put_back(job, self.suspects)
            else:
                self.put_back(job, self.returned)
        self.held.pop(worker, None)
        return moved, poisoned

    def begin(self, job: ModelJob) -> None:
        """A job that was in a crash is said to begin."""
        self.turns += 1
        job.began = job.taken, self.turns

    def _suspected(self, held: list[ModelJob]) -> list[ModelJob]:
        """Those of a dead worker's jobs that ran when it died, as far as that is known."""
        left = [job for job in held if not job.cancel_wanted]
        ran = [job for job in left if not job.crashes or job.began[0] == job.taken]
        return ran or left
