"""The documentation lists what the tests know."""

from __future__ import annotations

from tests.conformance.tables import PAGE


def test_the_page_lists_each_difference():
    PAGE.check()
