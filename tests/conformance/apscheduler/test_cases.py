"""The page lists what the tests show, and each case has a test."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from apscheduler import events
from apscheduler.schedulers.base import BaseScheduler
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tests.conformance.apscheduler.case import KINDS
from tests.conformance.apscheduler.table import CASES, PAGE


def test_the_page_lists_each_case():
    PAGE.check()


TAKE_OPTIONS = (
    BaseScheduler.add_job,
    *(CronTrigger, IntervalTrigger, DateTrigger, CalendarIntervalTrigger),
)


@pytest.mark.parametrize("what", TAKE_OPTIONS, ids=lambda what: what.__name__)
def test_every_option_is_on_the_page(what: Any):
    # `trigger_args` are those of the triggers.
    names = inspect.signature(what).parameters.keys() - {"self", "trigger_args"}

    assert {name for name in names if not PAGE.mentions(name)} == set()


def test_every_method_and_event_is_on_the_page():
    methods = {
        name for name, _ in inspect.getmembers(BaseScheduler, callable) if not name.startswith("_")
    }
    told = {name for name in vars(events) if name.startswith("EVENT_JOB")}

    assert {name for name in methods | told if not PAGE.mentions(name)} == set()


def test_every_case_has_a_test():
    shown = {case.number for case in CASES} - {""}

    assert shown == {f"A{number:02}" for number in range(1, 61)}
    assert {case.kind for case in CASES} == set(KINDS)
