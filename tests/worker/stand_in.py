"""A program that keeps a worker's agreement with its supervisor, and runs no job.

Usage: stand_in.py DIARY BEHAVIOUR...; the nth process of a slot behaves as the nth says, the last
one holds for all that follow. `2=BEHAVIOUR` is for slot 2 alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

diary = Path(sys.argv[1])
name, line = os.environ["TASKQ_SUPERVISED"].split()
supervisor = os.getppid()
slot = name.split("-")[-2]
own = [word.partition("=")[2] for word in sys.argv[2:] if word.startswith(f"{slot}=")]
behaviours = own or sys.argv[2:]


def note(event: str, **facts: object) -> None:
    line = {
        "event": event,
        "name": name,
        "slot": slot,
        "pid": os.getpid(),
        "at": time.monotonic(),
    } | facts
    with diary.open("a") as file:
        file.write(json.dumps(line) + "\n")


def end(signum: int, _frame: FrameType | None) -> None:
    note("signal", signal=signal.Signals(signum).name)
    if behaviour not in ("stay", "busy"):
        sys.exit(0)


lines = [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []
number = sum(line["event"] == "start" and line["slot"] == slot for line in lines)
behaviour = behaviours[min(number, len(behaviours) - 1)]
signal.signal(signal.SIGTERM, end)
note("start", supervisor=supervisor)
if behaviour.startswith("fail"):
    sys.exit(int(behaviour[4:]))
os.write(int(line), b"1")
note("serve")
if behaviour.startswith("exit"):
    sys.exit(int(behaviour[4:]))
if behaviour == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
while said := os.read(int(line), 1):
    note("word", word=said.decode())
    if behaviour == "busy":
        break
