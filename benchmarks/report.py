"""Findings as tables: plain text for terminals, markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.measuring import Figure, Findings

__all__ = ["figures_table", "header", "markdown", "plain", "scenario_table"]

Table = tuple[list[str], list[list[str]]]

_METRICS: dict[str, tuple[str, str]] = {
    "jobs_per_s": ("jobs/s", ",.0f"),
    "client_us": ("client CPU µs/job", ".1f"),
    "worker_us": ("worker CPU µs/job", ".1f"),
    "server_us": ("server CPU µs/job", ".1f"),
    "rss_mb": ("RSS MB", ".1f"),
    "waited": ("waited for CPU", ".0%"),
    "of_ideal": ("of ideal", ".2f"),
    "p50_ms": ("p50 ms", ".3f"),
    "p99_ms": ("p99 ms", ".3f"),
    "requests_per_s": ("requests/s", ",.0f"),
    "bytes_per_job": ("bytes/job", ".0f"),
    "first_job_ms": ("first job ms", ",.0f"),
    "call_us": ("µs/call", ".1f"),
    "round_ms": ("round ms", ",.0f"),
    "add_us": ("add µs", ",.0f"),
    "core_percent": ("% of a core", ".2f"),
    "idle_bytes": ("bytes/s", ",.0f"),
    "idle_commands": ("commands/s", ".2f"),
    "idle_cpu": ("server CPU µs/s", ",.0f"),
    "import_ms": ("ms", ",.0f"),
    "import_cpu_ms": ("CPU ms", ",.0f"),
    "enqueue_us": ("enqueue µs/job", ".1f"),
    "enqueue_server_us": ("its server CPU", ".1f"),
    "drain_us": ("drain µs/job", ".1f"),
    "drain_server_us": ("its server CPU", ".1f"),
}


def header(machine: dict[str, Any]) -> str:
    """One paragraph: when, with what, on what, and the command that repeats it."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['date']}; {versions}; {machine['system']}, {machine['cpus']} x "
        f"{machine['processor']}, load before the start {machine['load']:g}; median of "
        f"{machine['runs']}, seed {machine['seed']}, {machine['loop']}; `{machine['command']}`"
    )


def scenario_table(findings: Findings) -> Table:
    """A row for each side, with the median of every metric it has; the first with its spread."""
    metrics = list(dict.fromkeys(name for rounds in findings.rows.values() for name in rounds[0]))
    headings = [""]
    for number, metric in enumerate(metrics):
        headings.append(_METRICS[metric][0])
        if not number:
            headings.append("from - to")
    rows: list[list[str]] = []
    for name in findings.rows:
        medians = findings.medians(name)
        row = [name]
        for number, metric in enumerate(metrics):
            form = _METRICS[metric][1]
            row.append(format(medians[metric], form) if metric in medians else "")
            if not number and metric not in medians:
                row.append("")
            elif not number:
                samples = findings.samples(name, metric)
                row.append(f"{min(samples):{form}} - {max(samples):{form}}")
        rows.append(row)
    return headings, rows


def figures_table(figures: dict[str, Figure]) -> Table:
    """A row for each figure: its value, its spread, and whether its goal is met."""
    rows = [
        [
            figure.text,
            _number(figure.value),
            f"{_number(min(figure.samples))} - {_number(max(figure.samples))}",
            str(figure.goal or ""),
            ""
            if figure.goal is None
            else ("met" if figure.goal.met_by(figure.value) else "missed"),
        ]
        for figure in figures.values()
    ]
    return ["figure", "median", "from - to", "goal", ""], rows


def plain(table: Table) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = _widths(table)

    def line(cells: Sequence[str]) -> str:
        rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([cells[0].ljust(widths[0]), *rest]).rstrip()

    headings, rows = table
    return "\n".join([line(headings), *map(line, rows)])


def markdown(table: Table) -> str:
    """A pipe table."""
    headings, rows = table
    ruler = ["---", *["---:"] * (len(headings) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [headings, ruler, *rows])


def _widths(table: Table) -> list[int]:
    headings, rows = table
    return [max(len(cells[at]) for cells in [headings, *rows]) for at in range(len(headings))]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
