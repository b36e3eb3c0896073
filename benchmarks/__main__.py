"""Run the benchmarks: `python -m benchmarks`, with `--help` for what can be chosen."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks import loops, machine, page
from benchmarks.plan import Mode, Plan
from benchmarks.report import figures_table, header, plain, scenario_table
from benchmarks.results import FOLDER, Results, read_results, write_results
from benchmarks.scenarios.registry import SCENARIOS, Scenario
from benchmarks.shape import DISTURBED, RULES, judge, read_shape, verdict, write_shape

_LATEST = FOLDER / "latest.json"
_RUNS: dict[Mode, int] = {"short": 3, "full": 3, "long": 5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit code."""
    # A runner that is stopped must still stop its servers.
    signal.signal(signal.SIGTERM, _terminated)
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:<16} {scenario.text}")
        return 0
    if options.last:
        if not _LATEST.is_file():
            print("there are no results yet; run python -m benchmarks", file=sys.stderr)
            return 1
        results = read_results(_LATEST)
        _show(results, as_markdown=options.markdown)
    else:
        results = _measure(options)
    if options.update_docs:
        page.update(results)
        print(f"written: {page.PAGE}")
    if options.update_shape:
        write_shape(results.values(), results.machine)
        if results.waited() > DISTURBED:
            print(
                "warning: others use this machine; store the shape of an idle one", file=sys.stderr
            )
        return 0
    return _verdict(results) if options.short else 0


def _terminated(_number: int, _frame: FrameType | None) -> None:
    sys.exit(143)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure taskq beside what can be done by hand."
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--short",
        action="store_true",
        help="under a minute; exits 1 when the ratios are far below those in shape.json",
    )
    mode.add_argument("--long", action="store_true", help="more jobs, 5 rounds, deeper queues")
    mode.add_argument("--last", action="store_true", help="measure nothing: show the last results")
    parser.add_argument(
        "--only", action="append", choices=SCENARIOS, metavar="SCENARIO", help="may be repeated"
    )
    parser.add_argument("--jobs", type=_positive, help="jobs in every scenario")
    parser.add_argument("--runs", type=_positive, help="rounds that count (3; 5 with --long)")
    parser.add_argument("--seed", type=int, default=1, help="decides the jobs' arguments")
    parser.add_argument("--loop", choices=loops.LOOPS, default=loops.default_loop())
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--markdown", action="store_true", help="print markdown tables")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--update-shape", action="store_true", help="store the ratios of this run")
    parser.add_argument(
        "--update-docs", action="store_true", help="put the tables into docs/benchmarks.md"
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("type 1 or more")
    return value


def _measure(options: argparse.Namespace) -> Results:
    mode: Mode = "short" if options.short else "long" if options.long else "full"
    plan = Plan(mode, options.runs or _RUNS[mode], options.loop, options.seed, options.jobs)
    chosen = [
        scenario
        for scenario in SCENARIOS.values()
        if (scenario.name in options.only if options.only else mode in scenario.modes)
    ]
    results = Results(machine.describe(plan), {})
    for scenario in chosen:
        _run(scenario, plan, results)
    if mode == "short" and not options.update_shape:
        _measure_losses_again(chosen, plan, results)
    warning = machine.busy(results.machine)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    name = "partial" if options.only else "short" if options.short else "latest"
    write_results(results, options.out or FOLDER / f"{name}.json")
    _show(results, as_markdown=options.markdown)
    return results


def _run(scenario: Scenario, plan: Plan, results: Results) -> None:
    """Each scenario has a loop of its own, so that none inherits another's connections."""
    began = time.perf_counter()
    print(f"{scenario.name} ...", end="", file=sys.stderr, flush=True)
    plan = dataclasses.replace(plan, loop=scenario.loop or plan.loop)
    results.findings[scenario.name] = loops.run(lambda: scenario.run(plan), plan.loop)
    print(f" {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)


def _measure_losses_again(chosen: Sequence[Scenario], plan: Plan, results: Results) -> None:
    """A busy moment looks like a loss: only what is lost twice is lost."""
    lost = {loss.name for loss in judge(read_shape(), results.values()) if loss.known}
    for scenario in chosen:
        before = results.findings[scenario.name].figures
        mine = lost.intersection(before)
        if not mine:
            continue
        print(f"again, for {', '.join(sorted(mine))}:", file=sys.stderr)
        _run(scenario, plan, results)
        after = results.findings[scenario.name].figures
        for name in before:
            if name in RULES and RULES[name].prefers(before[name].value, after[name].value):
                after[name] = before[name]


def _verdict(results: Results) -> int:
    code, sentences = verdict(judge(read_shape(), results.values()), results.waited())
    print("\n".join(sentences))
    return code


def _show(results: Results, *, as_markdown: bool) -> None:
    if as_markdown:
        print(page.tables(results))
        return
    print(header(results.machine))
    for name, findings in results.findings.items():
        print(f"\n{name}: {findings.note}\n{plain(scenario_table(findings))}")
    print(f"\n{plain(figures_table(results.figures()))}")


if __name__ == "__main__":
    sys.exit(main())
