"""`python -m tests.faults.chaos`: one run of the chaos driver; the exit code is its verdict."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from pathlib import Path

from tests.faults.chaos.driver import Plan, run


def main() -> int:
    """Read the plan from the command line, carry it out, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long things happen")
    parser.add_argument("--jobs", type=int, default=2_000, help="with --kills: stop after both")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between events")
    parser.add_argument("--rate", type=float, default=60.0, help="jobs per second")
    parser.add_argument("--keep", type=Path, help="where ledger and logs go when it fails")
    given = parser.parse_args()
    plan = Plan(**vars(given))
    began = time.monotonic()
    print(f"seed {plan.seed}: again with --seed {plan.seed}", flush=True)
    report = asyncio.run(
        run(plan, lambda text: print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True))
    )
    print(report)
    return 1 if report.verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
