"""The times that decide who lives depend on each other: each test is one such inequality."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from taskq.core import liveness as t

PACKAGE = Path(t.__file__).parents[1]

LIVENESS = re.compile(
    r"LEASE|BEAT|DEAD|SILENT|FRESH|TRUST|RENEW|OBSERVE|POLL|PROMOTE|CONNECT|REPLY|ANSWER|PROBE|DOUBT"
    r"|GRACE|TIMEOUT"
)
"""What such a time is called; how a loop paces its own work is its own affair."""


def test_all_times_that_others_depend_on_stand_in_one_file():
    elsewhere = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "liveness.py"
        for name in _times_of(path)
    ]

    assert elsewhere == []


def _times_of(path: Path) -> list[str]:
    targets: list[ast.expr] = []
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.Assign(targets=found, value=ast.Constant(value=int() | float())):
                targets += found
            case ast.AnnAssign(target=found, value=ast.Constant(value=int() | float())):
                targets.append(found)
            case _:
                continue
    names = [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if LIVENESS.search(name)]


def test_a_lost_heartbeat_does_not_cost_the_lease():
    assert 4 * t.HEARTBEAT_SECONDS < t.LEASE_SECONDS


def test_a_silent_heartbeat_line_is_replaced_before_the_lease_is_over():
    noticed = t.HEARTBEAT_REPLY_SECONDS * (1 + 1 / t.WATCH_CHECKS)
    replaced = t.HEARTBEAT_RETRY_SECONDS + t.HEARTBEAT_CONNECT_SECONDS

    assert t.HEARTBEAT_SECONDS + noticed + replaced < t.LEASE_SECONDS


def test_a_death_is_noticed_within_eight_seconds():
    assert 2 * t.HEARTBEAT_SECONDS + t.LEASE_SECONDS <= 8.0


def test_an_observer_that_lost_one_heartbeat_goes_on_counting():
    assert 2 * t.HEARTBEAT_SECONDS < t.FRESH_SECONDS


def test_a_pause_of_the_server_is_not_counted_as_silence_of_a_worker():
    assert t.FRESH_SECONDS < t.LEASE_SECONDS - t.HEARTBEAT_SECONDS
    assert t.SILENT_SECONDS < t.FRESH_SECONDS
    assert t.NAME_CHECK_SECONDS < t.FRESH_SECONDS


def test_who_is_silent_has_missed_a_heartbeat_and_may_still_live():
    assert t.HEARTBEAT_SECONDS < t.SILENT_SECONDS < t.LEASE_SECONDS


def test_a_job_that_a_dead_worker_was_woken_for_waits_no_longer_than_those_it_held():
    assert t.POLL_SECONDS < t.LEASE_SECONDS


def test_what_waits_behind_a_stalled_loop_goes_before_the_stall_is_reported():
    assert t.LOOP_CHECK_SECONDS < t.LOOP_HAND_BACK_SECONDS < t.LOOP_STALL_SECONDS


def test_a_stalled_loop_is_reported_before_the_lease_is_over():
    assert t.LOOP_CHECK_SECONDS + t.LOOP_STALL_SECONDS < t.LEASE_SECONDS


def test_a_leader_steps_down_before_another_takes_over():
    assert t.LEADER_TRUST_SECONDS < t.LEADER_LEASE_SECONDS


def test_a_lost_renewal_does_not_cost_the_leadership():
    assert t.LEADER_RENEW_SECONDS + t.LEADER_REPLY_SECONDS < t.LEADER_TRUST_SECONDS
    assert t.LEADER_REPLY_SECONDS < t.FRESH_SECONDS


def test_a_leader_is_reported_missing_only_after_another_had_its_time():
    followed = t.LEADER_LEASE_SECONDS + t.LEADER_CHECK_SECONDS + t.LEADER_REPLY_SECONDS

    assert followed < t.LEADER_SILENT_SECONDS


def test_a_fire_is_planned_at_least_twice():
    assert 2 * t.PLAN_SECONDS < t.PLAN_AHEAD_SECONDS


def test_a_worker_that_leaves_hands_in_its_outcomes_before_it_is_ended():
    assert t.SETTLE_SECONDS < t.STOP_MARGIN_SECONDS


def test_a_supervisor_waits_for_what_a_process_takes_to_end_itself():
    assert t.END_NOW_SECONDS <= t.KILL_MARGIN_SECONDS
    assert t.REAP_SECONDS < t.LEASE_SECONDS


def test_a_new_server_is_found_within_four_seconds():
    doubted = t.DOUBT_SECONDS + t.WATCH_SECONDS

    assert doubted + t.PROBE_SECONDS + t.WATCH_SECONDS <= 4.0
    # And several times, before the line is given up anyway
    assert doubted + 2 * t.PROBE_SECONDS < t.REPLY_SECONDS
    assert t.WATCH_SECONDS * t.WATCH_CHECKS <= t.REPLY_SECONDS


def test_a_batch_is_not_sent_again_after_the_server_forgot_it():
    assert t.RESEND_SECONDS < t.REMEMBERED_SECONDS


def test_a_durable_call_is_held_though_one_attempt_to_hold_it_fails():
    assert t.CALL_SECONDS + t.DURABLE_LEASE_SECONDS / t.DURABLE_RENEWALS_PER_LEASE < (
        t.DURABLE_LEASE_SECONDS
    )


def test_who_opens_the_embedded_server_waits_longer_than_its_keeper():
    assert t.KEEPER_START_SECONDS < t.EMBEDDED_START_SECONDS < t.EMBEDDED_LOAD_SECONDS
