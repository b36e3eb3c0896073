"""The page lists what the tests show, and each case has a test."""

from __future__ import annotations

from tests.conformance.apscheduler.case import KINDS
from tests.conformance.apscheduler.table import CASES, PAGE


def test_the_page_lists_each_case():
    PAGE.check()


def test_every_case_has_a_test():
    shown = {case.number for case in CASES} - {""}

    assert shown == {f"A{number:02}" for number in range(1, 61)}
    assert {case.kind for case in CASES} == set(KINDS)
