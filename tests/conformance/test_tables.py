"""The documentation lists what the tests know."""

from __future__ import annotations

from tests.conformance.tables import PAGE, with_table


def test_the_page_lists_each_difference():
    text = PAGE.read_text()

    assert text == with_table(text), "run: python -m tests.conformance.tables"
