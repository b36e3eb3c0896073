"""The benchmarks' own judgement: figures, their goals, and the shape they must keep."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.measuring import Findings, at_least, at_most
from benchmarks.report import markdown, plain, scenario_table
from benchmarks.results import Results, read_results, write_results
from benchmarks.shape import RULES, SHAPE_FILE, Rule, judge, read_shape, verdict, write_shape

MACHINE: dict[str, object] = {
    "date": "",
    "command": "",
    "runs": 3,
    "loop": "asyncio",
    "cpus": 2,
    "versions": {},
}


def findings() -> Findings:
    """Three rounds of two sides; the machine was three times slower in the last one."""
    made = Findings("two sides")
    made.rows = {
        "ours": [{"jobs_per_s": rate} for rate in (30.0, 33.0, 10.0)],
        "limit": [{"jobs_per_s": rate} for rate in (60.0, 66.0, 20.0)],
    }
    made.compare(
        "drain_of_limit", "drain", ("ours", "jobs_per_s"), ("limit", "jobs_per_s"), at_least(0.6)
    )
    return made


def test_a_ratio_is_taken_within_each_round() -> None:
    figure = findings().figures["drain_of_limit"]

    assert figure.samples == [0.5, 0.5, 0.5]
    assert figure.value == 0.5


def test_a_goal_is_met_at_its_bound() -> None:
    assert at_least(0.6).met_by(0.6)
    assert not at_least(0.6).met_by(0.59)
    assert at_most(30).met_by(30)
    assert not at_most(30).met_by(30.1)


@pytest.mark.parametrize(
    ("better", "value", "passes"),
    [
        ("higher", 0.75, True),
        ("higher", 0.74, False),
        ("higher", 9.0, True),
        ("lower", 1.25, True),
        ("lower", 1.26, False),
        ("lower", 0.1, True),
        ("higher", math.nan, False),
        ("lower", math.nan, False),
    ],
)
def test_a_rule_bounds_what_may_be_lost_and_never_what_is_won(
    better: str, value: float, passes: bool
) -> None:
    rule = Rule("higher" if better == "higher" else "lower", 0.25)

    assert rule.passes(value, stored=1.0) is passes


def test_no_loss_is_found_in_the_shape_itself() -> None:
    stored = dict.fromkeys(RULES, 1.0)

    assert judge(stored, stored) == []


def test_each_loss_names_the_figure_what_it_was_and_what_passes() -> None:
    # Given a shape, and a run that lost half of one ratio and won another
    stored = {"drain_of_limit": 0.8, "bytes_per_job": 200.0}
    seen = {"drain_of_limit": 0.4, "bytes_per_job": 150.0}

    # When they are compared
    (loss,) = judge(stored, seen)

    # Then the sentence says all one needs
    assert loss.name == "drain_of_limit"
    assert loss.timed
    assert loss.known
    assert loss.sentence == (
        "drain_of_limit is 0.4; it was 0.8 when the shape was stored, "
        "and 0.52 is the least that passes"
    )


def test_what_is_counted_is_no_matter_of_time() -> None:
    (loss,) = judge({"keys_left": 0.0}, {"keys_left": 1.0})

    assert not loss.timed
    assert loss.sentence.endswith("and 0 is the most that passes")


def test_a_figure_the_shape_does_not_have_is_a_loss_that_no_rerun_helps() -> None:
    (loss,) = judge({}, {"drain_of_limit": 0.7})

    assert not loss.known
    assert not loss.timed


def test_a_figure_that_was_not_measured_or_has_no_rule_is_not_judged() -> None:
    assert judge({"drain_of_limit": 0.7, "whim": 1.0}, {"whim": 0.0}) == []


@pytest.mark.parametrize(
    ("name", "waited", "code"),
    [("drain_of_limit", 0.1, 1), ("drain_of_limit", 0.5, 0), ("bytes_per_job", 0.5, 1)],
)
def test_a_loss_fails_unless_it_is_one_of_time_on_a_busy_machine(
    name: str, waited: float, code: int
) -> None:
    worse = {"drain_of_limit": 0.1, "bytes_per_job": 999.0}
    losses = judge({name: 1.0}, {name: worse[name]})

    assert verdict(losses, waited)[0] == code
    assert verdict(losses, waited)[1][0].startswith(f"lost: {name} is ")
    assert verdict([], waited)[0] == 0


def test_the_stored_shape_keeps_what_a_partial_run_did_not_measure(tmp_path: Path) -> None:
    path = tmp_path / "shape.json"

    write_shape({"drain_of_limit": 0.7, "keys_left": 0.0, "whim": 5.0}, MACHINE, path)
    write_shape({"drain_of_limit": 0.8}, MACHINE, path)

    assert read_shape(path) == {"drain_of_limit": 0.8, "keys_left": 0.0}
    assert read_shape(tmp_path / "none.json") == {}


def test_the_shape_that_is_checked_in_has_every_figure_that_rules_name() -> None:
    assert sorted(json.loads(SHAPE_FILE.read_text())["figures"]) == sorted(RULES)


def test_results_are_read_back_as_they_were(tmp_path: Path) -> None:
    results = Results({"load": 0.1}, {"drain": findings()})
    path = tmp_path / "results" / "latest.json"

    write_results(results, path)

    assert read_results(path) == results
    assert json.loads(path.read_text())["medians"] == {"drain_of_limit": 0.5}


def test_tables_show_medians_and_the_spread_of_the_first_metric() -> None:
    table = scenario_table(findings())

    assert plain(table).splitlines() == [
        "       jobs/s  from - to",
        "ours       30    10 - 33",
        "limit      60    20 - 66",
    ]
    assert markdown(table).splitlines()[1:3] == ["| --- | ---: | ---: |", "| ours | 30 | 10 - 33 |"]
