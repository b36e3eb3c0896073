"""The shape of the figures: ratios that hold on any machine, compared with those checked in.

Absolute figures depend on the machine. Ratios of two sides of one run hardly do, so a change that
loses much of one has made something slower. What varies with the noise of a shared machine has a
wide tolerance; what is counted and not timed has a narrow one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "DISTURBED",
    "RULES",
    "SHAPE_FILE",
    "Loss",
    "Rule",
    "judge",
    "read_shape",
    "verdict",
    "write_shape",
]

DISTURBED = 0.25
"""Which part of the time processes may wait for a processor before times prove nothing."""

SHAPE_FILE = Path(__file__).with_name("shape.json")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which way a figure is better, and which part of the stored one it may lose.

    What is not `timed` is counted: nothing else that runs on the machine changes it.
    """

    better: Literal["higher", "lower"]
    tolerance: float
    timed: bool = True

    def bound(self, stored: float) -> float:
        """The worst value that passes."""
        if self.better == "higher":
            return stored * (1 - self.tolerance)
        return stored * (1 + self.tolerance)

    def prefers(self, one: float, other: float) -> bool:
        """Whether `one` is better than `other`."""
        return one > other if self.better == "higher" else one < other

    def passes(self, value: float, stored: float) -> bool:
        """Whether `value` has kept the shape; not a number has not."""
        bound = self.bound(stored)
        return value >= bound if self.better == "higher" else value <= bound


RULES: dict[str, Rule] = {
    "drain_of_limit": Rule("higher", 0.35),
    "drain_worker_cpu_of_limit": Rule("lower", 0.5),
    "drain_server_cpu_of_limit": Rule("lower", 0.5),
    "timeout_of_drain": Rule("higher", 0.35),
    "limit_of_pipeline": Rule("higher", 0.35),
    "gather_of_many": Rule("higher", 0.35),
    "many_of_limit": Rule("higher", 0.35),
    "latency_p50_in_own_pings": Rule("lower", 1.5),
    "latency_p50_of_limit": Rule("lower", 0.5),
    "codec_of_msgpack": Rule("lower", 1.0),
    "bytes_per_job": Rule("lower", 0.10, timed=False),
    "keys_left": Rule("lower", 0.0, timed=False),
    "depth_drain_of_control": Rule("lower", 1.0),
    "depth_enqueue_of_control": Rule("lower", 1.0),
    "delayed_drain_of_control": Rule("lower", 1.0),
    "import_of_redis": Rule("lower", 0.5),
    # Caches that others use too slow a call more than a bare task: 2.5 to 4.4 were seen.
    "defer_of_create_task": Rule("lower", 1.0),
}


@dataclass(frozen=True, slots=True)
class Loss:
    """A figure that lost its shape; `sentence` says so, with what passes.

    `known`: the stored shape has this figure. `timed`: other load on the machine may have done it.
    """

    name: str
    sentence: str
    known: bool = True
    timed: bool = True


def judge(stored: Mapping[str, float], seen: Mapping[str, float]) -> list[Loss]:
    """Compare the figures of a run with the stored shape; those that no rule names do not count."""
    losses: list[Loss] = []
    for name, rule in RULES.items():
        if name in seen and name not in stored:
            text = f"{name} is {seen[name]:.3g} and the stored shape has no such figure"
            losses.append(Loss(name, text, known=False, timed=False))
        elif name in seen and not rule.passes(seen[name], stored[name]):
            worst = "least" if rule.better == "higher" else "most"
            losses.append(
                Loss(
                    name,
                    f"{name} is {seen[name]:.3g}; it was {stored[name]:.3g} when the shape was "
                    f"stored, and {rule.bound(stored[name]):.3g} is the {worst} that passes",
                    timed=rule.timed,
                )
            )
    return losses


def verdict(losses: Sequence[Loss], waited: float) -> tuple[int, list[str]]:
    """The exit code and what to print. `waited`: for which part of the time processes were ready to
    run and had no processor."""
    if not losses:
        return 0, ["the shape holds"]
    sentences = [f"lost: {loss.sentence}" for loss in losses]
    if waited > DISTURBED and all(loss.timed for loss in losses):
        sentences.append(
            f"These processes were ready and without a processor for {waited:.0%} of the time: "
            "others use this machine, so a loss of time proves nothing and is not counted."
        )
        return 0, sentences
    sentences.append(
        "Find out what became dearer than what it is compared with. If the loss is meant, type "
        "`python -m benchmarks --short --update-shape` and say why in the commit."
    )
    return 1, sentences


def read_shape(path: Path = SHAPE_FILE) -> dict[str, float]:
    """The stored figures; none when there is no file."""
    if not path.is_file():
        return {}
    return json.loads(path.read_text("utf-8"))["figures"]


def write_shape(
    seen: Mapping[str, float], machine: Mapping[str, Any], path: Path = SHAPE_FILE
) -> None:
    """Store the figures that rules name, and what they were measured on."""
    kept = {name: value for name, value in read_shape(path).items() if name in RULES}
    figures = kept | {name: round(seen[name], 3) for name in RULES if name in seen}
    made = {name: machine[name] for name in ("date", "command", "runs", "loop", "cpus", "versions")}
    text = json.dumps({"made": made, "figures": figures}, indent=2, sort_keys=True)
    path.write_text(text + "\n", "utf-8")
