"""Every key and channel taskq uses, built here and nowhere else.

All keys of one partition share one hash tag, so that any script may use any of them, also on a
cluster. Scripts receive whole keys, or a prefix to which they append an id found in the data.

===================== ====== ======================================= =============================
key                   type   holds                                   lives
===================== ====== ======================================= =============================
``{ns}:j:<id>``       hash   one job (fields below)                  until finished, then its ttl
``{ns}:q:<lane>``     stream ids of queued jobs, one group ``g``      with the queue
``{ns}:lanes``        hash   queue -> digits of the priorities that    while not swept
                             have a stream, ``r`` when jobs were
                             returned, ``s`` when suspects wait
``{ns}:due``          zset   ids of scheduled jobs by due time (ms)   while any waits
``{ns}:expiry``       zset   ids of jobs with ``expires`` (ms)        while any waits
``{ns}:idle:<queue>`` set    workers that wait for a job              1 minute after the last fetch
``{ns}:workers``      zset   worker id by number of its last          live workers
                             heartbeat; -1 while its jobs are taken
                             back
``{ns}:held``         hash   worker id -> number of jobs it holds     live workers
``{ns}:slots``        hash   worker id -> how many it runs at once    live workers
``{ns}:serves``       hash   worker id -> its queues, with spaces     live workers
``{ns}:promoter``     string the worker that promotes due jobs        1 minute after its heartbeat
``{ns}:swept``        hash   lane -> how far the sweep has come       1 day after the last
``{ns}:worker:<id>``  string description of a worker                  1 minute after its heartbeat
``{ns}:cancels:<id>`` set    cancel requests for a worker's jobs      1 day after the last
``{ns}:failed:<q>``   zset   ids of failed jobs by time, bounded      failure ttl after the last
``{ns}:stats:<min>``  hash   ``<queue>:<outcome>`` -> count           10 minutes
``{ns}:sent:<client>``string number of a producer's last batch        1 hour after the last
``{ns}:deferring``    hash   process -> time and its deferred calls   1 minute after the last
``{ns}:malformed``    list   raw stream entries that are not jobs     1 week after the last
``{ns}:schedules``    zset   ids of schedules by next fire (ms); inf  with the schedules
                             where there is none
``{ns}:schedule:<id>`` hash  one schedule (fields: see leadership)    until removed or exhausted
``{ns}:declared``     hash   declared schedule -> module of its code  until the code drops it
``{ns}:leader``       hash   leader, its term and heartbeat           1 day after the heartbeat
===================== ====== ======================================= =============================

Channels: ``{ns}:wake:<worker>`` (work, cancels), ``{ns}:done:<client>`` (finished jobs that a
client waits for), ``{ns}:next`` (a new earliest due time), ``{ns}:lead`` (the leader resigned),
``{ns}:watch:<client>`` (the progress of a job that a client watches), ``{ns}:schedule`` (a schedule
was changed), ``{ns}:skips`` (a schedule skipped fires: its id, the time, how many, and why, in
msgpack).

Fields of a job: ``e`` envelope, ``s`` state, ``q`` lane, ``t`` enqueued at, ``o`` origin of an id
chosen by the caller, ``x`` expires at, ``d`` due at, ``a`` times taken (the fence), ``w`` worker
(or the owner of a durable call that is still in its process), ``b`` began at, ``c`` failures,
``k`` crashes, ``g`` how many suspects may run together with it, ``u`` times released as unknown,
``m`` takes that never started, ``y`` fence of the take that began (only after a crash),
``z`` cancel requested, ``n`` clients that wait, ``v`` clients that watch, ``p`` progress,
``r`` result, ``E`` error, ``f`` finished at, ``l`` ttl of the record, ``h<n>`` record of the
attempt with fence n. All times are in milliseconds of the server's clock.
"""

from __future__ import annotations

import re
from typing import Final

from taskq.core.errors import ConfigError
from taskq.core.job import lane_of

GROUP: Final = "g"

_NAMESPACE = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


class Keys:
    """The keys of one namespace.

    >>> Keys("shop").job("img:a")
    '{shop}:j:img:a'
    """

    def __init__(self, namespace: str) -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ConfigError(
                f"namespace {namespace!r} cannot be part of a key; use 1 to 128 of the characters "
                "A-Z a-z 0-9 _ . : -"
            )
        tag = f"{{{namespace}}}:"
        self.namespace = namespace
        self.jobs = tag + "j:"
        self.lane_prefix = tag + "q:"
        self.lanes = tag + "lanes"
        self.due = tag + "due"
        self.expiry = tag + "expiry"
        self.idle = tag + "idle:"
        self.workers = tag + "workers"
        self.held = tag + "held"
        self.slots = tag + "slots"
        self.serves = tag + "serves"
        self.promoter = tag + "promoter"
        self.swept = tag + "swept"
        self.worker_info = tag + "worker:"
        self.cancels = tag + "cancels:"
        self.failed = tag + "failed:"
        self.stats = tag + "stats:"
        self.sent = tag + "sent:"
        self.deferring = tag + "deferring"
        self.malformed = tag + "malformed"
        self.wake_channel = tag + "wake:"
        self.done_channel = tag + "done:"
        self.watch_channel = tag + "watch:"
        self.next_channel = tag + "next"
        self.schedules = tag + "schedules"
        self.schedule_prefix = tag + "schedule:"
        self.declared = tag + "declared"
        self.leader = tag + "leader"
        self.lead_channel = tag + "lead"
        self.schedule_channel = tag + "schedule"
        self.skip_channel = tag + "skips"

    def job(self, job_id: str) -> str:
        return self.jobs + job_id

    def lane(self, queue: str, priority: int, executor: str = "loop") -> str:
        return self.lane_prefix + lane_of(queue, priority, executor)
