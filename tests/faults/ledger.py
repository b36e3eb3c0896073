"""A ledger outside the server: what was asked for, acknowledged, started and ended.

Every process of a test appends to one file. A line is one `write` to a file opened with O_APPEND,
so lines stay whole, whoever else writes and whatever ends the writer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Ledger", "Line"]


class Line(NamedTuple):
    """One line: what happened to the request `token`, which is the job `job` once it has an id.

    `what`: ask, ack, cancel and got are written by who enqueues; start and end by the task.
    """

    what: str
    job: str
    attempt: int
    pid: int
    at: float
    token: str
    note: str


class Ledger:
    """The file and its lines."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def write(
        self, what: str, token: str, job: str = "-", attempt: int = 0, note: str = "-"
    ) -> None:
        """Append one line; words hold no spaces."""
        self.write_many(what, [(token, job, attempt, note)])

    def write_many(self, what: str, rows: Iterable[tuple[str, str, int, str]]) -> None:
        """Append lines of one kind, whole, with one system call."""
        pid, now = os.getpid(), time.time()
        text = "".join(
            f"{what} {job} {attempt} {pid} {now:.6f} {token} {note}\n"
            for token, job, attempt, note in rows
        )
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def read(self) -> list[Line]:
        """Everything so far."""
        if not self.path.exists():
            return []
        lines: list[Line] = []
        for text in self.path.read_text().splitlines():
            what, job, attempt, pid, at, token, note = text.split()
            lines.append(Line(what, job, int(attempt), int(pid), float(at), token, note))
        return lines

    def count(self, what: str) -> int:
        """How many lines of a kind there are."""
        return sum(line.what == what for line in self.read())
