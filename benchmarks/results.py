"""Results on disk: everything that was measured, sample by sample, as JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.measuring import Figure, Findings, Goal

__all__ = ["FOLDER", "Results", "read_results", "write_results"]

FOLDER = Path(__file__).with_name("results")


@dataclasses.dataclass(slots=True)
class Results:
    """A run: what it was made on, and the findings of each scenario by name."""

    machine: dict[str, Any]
    findings: dict[str, Findings]

    def figures(self) -> dict[str, Figure]:
        """The figures of all scenarios."""
        return {
            name: figure
            for found in self.findings.values()
            for name, figure in found.figures.items()
        }

    def waited(self) -> float:
        """Which part of the time processes were ready and had no processor; a median."""
        shares = [
            found.medians(row)["waited"]
            for found in self.findings.values()
            for row in found.rows
            if "waited" in found.rows[row][0]
        ]
        return statistics.median(shares) if shares else 0.0

    def values(self) -> dict[str, float]:
        """The median of every figure."""
        return {name: figure.value for name, figure in self.figures().items()}


def write_results(results: Results, path: Path) -> None:
    """Write them, with the medians beside the samples for those who read the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = dataclasses.asdict(results)
    data["medians"] = results.values()
    path.write_text(json.dumps(data, indent=2) + "\n", "utf-8")


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote."""
    data = json.loads(path.read_text("utf-8"))
    return Results(
        data["machine"], {name: _findings(each) for name, each in data["findings"].items()}
    )


def _findings(data: dict[str, Any]) -> Findings:
    return Findings(
        data["note"],
        data["rows"],
        {name: _figure(each) for name, each in data["figures"].items()},
    )


def _figure(data: dict[str, Any]) -> Figure:
    goal = data["goal"]
    return Figure(data["text"], data["samples"], None if goal is None else Goal(**goal))
