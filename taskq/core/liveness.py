"""All timing constants, in seconds: leases, heartbeats, leadership, timeouts and intervals.

They depend on each other, so they are in one place; `tests/unit/core/test_liveness.py` tests the
inequalities that the comments state. This module imports nothing, because the keeper of the
embedded server, a process without the rest of taskq, uses it too.
"""

from __future__ import annotations

# ------------------------------------------------------------------------------ the worker's lease

LEASE_SECONDS = 6.0
"""A worker whose heartbeat counter does not change for this long, on an observer's clock, is dead.

Any delay of a heartbeat while worker and server are alive must be shorter.
"""

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats. Several fit into a lease, so losing one is harmless."""

HEARTBEAT_CONNECT_SECONDS = 1.5
"""Timeout of one attempt of the heartbeat to connect. See `HEARTBEAT_REPLY_SECONDS`."""

HEARTBEAT_REPLY_SECONDS = 2.0
"""Reply timeout of the heartbeat's connection; after it, a new connection is opened.

A connection that breaks right after a heartbeat is noticed at the next one, a second later. That
second, this timeout, the monitor's delay in noticing it, a pause and a new connection fit into a
lease. So while worker and server are alive, a broken connection never costs the worker its jobs.
"""

HEARTBEAT_RETRY_SECONDS = 0.1
"""Pause after a failed heartbeat; it doubles, up to `HEARTBEAT_SECONDS`."""

SILENT_SECONDS = 2.0
"""A worker without a heartbeat for this long may be dead, and another one promotes due jobs.

Longer than a heartbeat interval, so that every living worker is seen. Shorter than the lease.
"""

FRESH_SECONDS = 2.5
"""An observer counts silence only while its own last heartbeat succeeded within this time.

Longer than two heartbeats, so that one lost heartbeat of its own does not stop the count; shorter
than the lease, so that a pause of the server is never taken for the death of workers.
"""

NAME_CHECK_SECONDS = 0.25
"""Between two checks of another worker with the same name. Shorter than `FRESH_SECONDS`."""

LOOP_STALL_SECONDS = 1.0
"""A warning is logged when the event loop is blocked for this long. Shorter than the lease."""

LOOP_HAND_BACK_SECONDS = 0.5
"""When the event loop is blocked for this long, jobs not yet started go to other workers.

Longer than `LOOP_CHECK_SECONDS`, so that blocking for some tens of milliseconds has no effect.
"""

LOOP_CHECK_SECONDS = 0.25
"""Between two checks of the event loop."""

# ----------------------------------------------------------------------------- a worker's services

POLL_SECONDS = 5.0
"""An idle worker fetches unprompted this often, because a woken worker may die before it fetches.

Shorter than the lease, so that such a job waits no longer than the jobs of dead workers. Much
shorter than the 60 s for which the server remembers an idle worker.
"""

PROMOTE_SECONDS = 1.0
"""Longest pause between two searches for due jobs; shorter if one is known to be due earlier."""

SWEEP_SECONDS = 2.0
"""Between two sweeps, each of which cleans up about fifty queues."""

SWEEP_ROUND_SECONDS = 30.0
"""Between the starts of two sweeps over all queues."""

SLOT_WAIT_SECONDS = 0.5
"""A job that waited for a slot for this long is handed back, for workers with a free slot."""

CANCEL_GRACE_SECONDS = 5.0
"""How long a cancelled coroutine may keep running before its slot is reused."""

# ------------------------------------------------------------------------------- how a worker ends

SETTLE_SECONDS = 5.0
"""Shortest time for which a stopping worker tries to report its outcomes.

Shorter than `STOP_MARGIN_SECONDS`.
"""

STOP_MARGIN_SECONDS = 10.0
"""Time for a stopping worker beyond its grace, before its process exits regardless."""

END_NOW_SECONDS = 5.0
"""Time for a worker to stop after a second signal, before its process exits regardless."""

KILL_MARGIN_SECONDS = 5.0
"""A supervisor waits this long beyond the grace, and again after the second signal, then kills.

At least `END_NOW_SECONDS`, which the process may need.
"""

RELOAD_GRACE_SECONDS = 5.0
"""Grace for running jobs when changed code is reloaded."""

REAP_SECONDS = 5.0
"""How long a supervisor tries to release the jobs of a dead process.

Shorter than the lease, after which the other workers do it anyway.
"""

# -------------------------------------------------------------------------------------- schedulers

LEADER_LEASE_SECONDS = LEASE_SECONDS
"""A leader that is silent for this long, on a follower's clock, may be replaced."""

LEADER_CHECK_SECONDS = 0.5
"""Between two checks of the leader by a follower."""

LEADER_RENEW_SECONDS = 1.0
"""Between two renewals of the leadership."""

LEADER_REPLY_SECONDS = 2.0
"""Reply timeout of requests about the leadership.

Together with one renewal it is shorter than `LEADER_TRUST_SECONDS`, so that a lost reply does not
cost the leadership.
"""

LEADER_TRUST_SECONDS = 5.0
"""How long a leader leads after sending the last renewal that was answered.

Shorter than the lease, so that it steps down before another one may take over.
"""

LEADER_SILENT_SECONDS = 10.0
"""A leader silent for this long is reported as missing: a successor had enough time."""

PLAN_SECONDS = 1.0
"""Between two planning rounds of the leader."""

PLAN_AHEAD_SECONDS = 2.5
"""How far ahead a round plans: every fire is planned at least twice before it is due."""

# ------------------------------------------------------------------------- connections and replies

CONNECT_SECONDS = 5.0
"""Timeout of one attempt to connect: address, TLS and handshake."""

REPLY_SECONDS = 10.0
"""A connection is closed when a reply is pending and nothing arrives for this long."""

WATCH_SECONDS = 0.5
"""Longest time between two checks of a connection; shorter with a short reply timeout."""

WATCH_CHECKS = 4
"""Fewest checks of a connection within its reply timeout: they bound how late it is closed."""

DOUBT_SECONDS = 1.0
"""When a reply has been pending for this long, the server is probed on another connection.

Together with three checks and a probe it is well below `REPLY_SECONDS`: a new server is found
within 4 s.
"""

PROBE_SECONDS = 1.5
"""Timeout of a probe on a new connection, and of opening that connection."""

CALL_SECONDS = 10.0
"""How long an idempotent call is retried."""

ENQUEUE_SECONDS = 10.0
"""The default of `enqueue_deadline`."""

RESEND_SECONDS = 1800.0
"""A batch is not sent again this long after its deadline: its process was suspended."""

REMEMBERED_SECONDS = 3600.0
"""How long after the deadline the server remembers a batch.

Longer than `RESEND_SECONDS`, or a batch could be executed twice.
"""

RECHECK_SECONDS = 5.0
"""A wait for a result asks the server this often, because messages may be lost."""

RECHECK_RETRY_SECONDS = 0.5
"""Pause after such a request failed."""

# ---------------------------------------------------------------------------------- deferred calls

DURABLE_LEASE_SECONDS = 30.0
"""Default: a worker takes over a durable call whose process is silent for this long."""

DURABLE_RENEWALS_PER_LEASE = 6
"""Renewals per lease of a durable call, so that a failed renewal can be retried in time."""

# ------------------------------------------------------------------------------ the embedded server

EMBEDDED_ANSWER_SECONDS = 1.0
"""Reply timeout of a running embedded server when it is opened."""

EMBEDDED_START_SECONDS = 10.0
"""For a server to start or stop. Longer than its keeper waits for it."""

EMBEDDED_LOAD_SECONDS = 60.0
"""For a server that answers but is still loading its data."""

KEEPER_START_SECONDS = 5.0
"""How long the keeper waits for its server to appear on its socket."""

KEEPER_ANSWER_SECONDS = 5.0
"""Reply timeout of the keeper. A server that takes longer is busy or suspended, not idle."""

KEEPER_SHUTDOWN_SECONDS = 30.0
"""For the server to write and sync its data and exit."""
