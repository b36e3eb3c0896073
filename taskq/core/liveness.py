"""Every time that decides who lives, who leads, and how long an answer is waited for.

They depend on each other, so they stand together; `tests/unit/core/test_liveness.py` holds the
inequalities that the comments name. All are seconds. This file imports nothing: the keeper of the
embedded server, a process without the rest of taskq, reads it too.
"""

from __future__ import annotations

# ------------------------------------------------------------------------------ the worker's lease

LEASE_SECONDS = 6.0
"""A worker whose heartbeat counter stands still for so long, on an observer's clock, is dead.

Whatever may hold a heartbeat up while worker and server live must be over before that.
"""

HEARTBEAT_SECONDS = 1.0
"""Between two heartbeats. Several fit into a lease, so one that is lost costs nothing."""

HEARTBEAT_CONNECT_SECONDS = 1.5
"""One attempt of the heartbeat to connect. See `HEARTBEAT_REPLY_SECONDS`."""

HEARTBEAT_REPLY_SECONDS = 2.0
"""How long the heartbeat's line may owe a reply before a new line takes its place.

A line that dies right after a heartbeat landed is noticed at the next one, a second later: that,
this time, the watch's delay in seeing it, a pause and a new connection fit into a lease. So while
worker and server live, the loss of this line never costs the worker its jobs.
"""

HEARTBEAT_RETRY_SECONDS = 0.1
"""After a heartbeat that failed; the pause doubles, up to `HEARTBEAT_SECONDS`."""

SILENT_SECONDS = 2.0
"""Who was not heard for so long may be dead, and another one promotes due jobs.

Longer than a heartbeat: each that lives is heard in between. Shorter than the lease.
"""

FRESH_SECONDS = 2.5
"""An observer counts silence only while its own heartbeat landed within this time.

Longer than two heartbeats, so that one lost heartbeat of its own does not stop the count; shorter
than the lease, so that a pause of the server is nobody's silence.
"""

NAME_CHECK_SECONDS = 0.25
"""Between two looks at a worker that has the name this one wants. Shorter than `FRESH_SECONDS`."""

LOOP_STALL_SECONDS = 1.0
"""An event loop that did not turn for so long is warned about. Shorter than the lease."""

LOOP_HAND_BACK_SECONDS = 0.5
"""And after so long, what the worker has not started is handed back, to those that have time.

Longer than a look, so that a job of some tens of milliseconds costs nothing.
"""

LOOP_CHECK_SECONDS = 0.25
"""Between two looks at the loop."""

# ----------------------------------------------------------------------------- a worker's services

POLL_SECONDS = 5.0
"""A worker that was woken may die before it fetches: an idle worker fetches by itself this often.

Shorter than the lease: such a job waits no longer than those of the dead.

An idle worker is parked for 60 s at the server, many times this.
"""

PROMOTE_SECONDS = 1.0
"""The worker that promotes looks for due jobs this often, where none is known to be due before."""

SWEEP_SECONDS = 2.0
"""And for what nobody uses any more this often, at some fifty queues."""

SWEEP_ROUND_SECONDS = 30.0
"""Between two rounds over all queues."""

SLOT_WAIT_SECONDS = 0.5
"""What waited for a slot for so long is handed back, to workers that have one free."""

ALL_SLOTS_WAIT_SECONDS = 10.0
"""And what waited so long for all slots, to run alone: no other job is fetched meanwhile."""

CANCEL_GRACE_SECONDS = 5.0
"""How long an interrupted coroutine may go on before its slot is given to another."""

# ------------------------------------------------------------------------------- how a worker ends

SETTLE_SECONDS = 5.0
"""How long a worker that leaves tries to hand in its outcomes at least.

Shorter than what it is given beyond its grace.
"""

STOP_MARGIN_SECONDS = 10.0
"""What a worker that stops gets beyond its grace, before its process is ended under it."""

END_NOW_SECONDS = 5.0
"""What a worker gets that was told to end now, before its process is ended under it."""

KILL_MARGIN_SECONDS = 5.0
"""What a supervisor gives a process beyond its grace, and again to end now, before it kills it.

Not shorter than what the process takes by itself, `END_NOW_SECONDS`.
"""

RELOAD_GRACE_SECONDS = 5.0
"""What running jobs get when changed code is loaded."""

REAP_SECONDS = 5.0
"""How long a supervisor tries to have the jobs of a dead process given to others.

Shorter than the lease: after it, the other workers do it anyway.
"""

# -------------------------------------------------------------------------------------- schedulers

LEADER_LEASE_SECONDS = LEASE_SECONDS
"""A leader that is silent for so long, on a follower's clock, may be replaced."""

LEADER_CHECK_SECONDS = 0.5
"""Between two looks of a follower at the leader."""

LEADER_RENEW_SECONDS = 1.0
"""Between two renewals of the leader."""

LEADER_REPLY_SECONDS = 2.0
"""How long an answer about the leadership is waited for.

With one renewal it is shorter than `LEADER_TRUST_SECONDS`, so a lost reply costs no leadership.
"""

LEADER_TRUST_SECONDS = 5.0
"""How long a leader trusts its office after it sent the last renewal that was answered.

Shorter than the lease: it steps down before another one may take over.
"""

LEADER_SILENT_SECONDS = 10.0
"""A leader silent for so long is reported as missing: a successor had its time by then."""

PLAN_SECONDS = 1.0
"""Between two looks of the leader at the schedules."""

PLAN_AHEAD_SECONDS = 2.5
"""How far a look reaches: a fire is planned at least twice before its time."""

# ------------------------------------------------------------------------------- lines and answers

CONNECT_SECONDS = 5.0
"""One attempt to connect: address, TLS and greeting."""

REPLY_SECONDS = 10.0
"""A line on which a reply is owed and nothing is heard for so long is given up."""

WATCH_SECONDS = 0.5
"""Between two looks at a connection, or less where its reply timeout asks for it."""

WATCH_CHECKS = 4
"""How often a line is watched within its reply timeout at least: so much later it is given up."""

DOUBT_SECONDS = 1.0
"""A line that owes a reply for so long is doubted: the server is asked elsewhere.

With three looks and a probe it is well below `REPLY_SECONDS`: a new server is found within 4 s.
"""

PROBE_SECONDS = 1.5
"""How long a sign of life is waited for on a new line, and as long for the line itself."""

CALL_SECONDS = 10.0
"""How long a call that may be done twice is tried."""

ENQUEUE_SECONDS = 10.0
"""The default of `enqueue_deadline`."""

RESEND_SECONDS = 1800.0
"""How long after its deadline a batch is not sent again: its process stood still."""

REMEMBERED_SECONDS = 3600.0
"""How long after that deadline the server remembers that the batch was done.

Longer than `RESEND_SECONDS`, or a batch could be done twice.
"""

RECHECK_SECONDS = 5.0
"""Messages may be lost: a wait is asked again this often."""

RECHECK_RETRY_SECONDS = 0.5
"""And so long after it could not be asked."""

# ---------------------------------------------------------------------------------- deferred calls

DURABLE_LEASE_SECONDS = 30.0
"""Default: the queue runs a durable call whose process is silent for so long."""

DURABLE_RENEWALS_PER_LEASE = 6
"""How often in a lease a process puts it off: a call that fails may be tried again in time."""

# ------------------------------------------------------------------------------ the embedded server

EMBEDDED_ANSWER_SECONDS = 1.0
"""How long one answer of an embedded server that is up is waited for when it is opened."""

EMBEDDED_START_SECONDS = 10.0
"""For a server to come up, or to stop. Longer than its keeper waits for it."""

EMBEDDED_LOAD_SECONDS = 60.0
"""For a server that answers, but still reads its data."""

KEEPER_START_SECONDS = 5.0
"""How long the keeper waits for its server to appear on its socket."""

KEEPER_ANSWER_SECONDS = 5.0
"""How long it waits for an answer. A server that takes longer is at work or stopped, not idle."""

KEEPER_SHUTDOWN_SECONDS = 30.0
"""For the server to write, sync and leave."""
