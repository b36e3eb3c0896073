"""What taskq adds to msgpack: a flat call must skip the walk that nested values need."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgpack

from benchmarks.measuring import Findings, Metrics, interleaved
from benchmarks.plan import Plan
from taskq.codec.payload import decode_call, encode_call

__all__ = ["codec"]

TASKQ, BARE = "taskq", "msgpack"


async def codec(plan: Plan) -> Findings:
    """The smallest call to bytes and back, beside msgpack alone."""
    calls = plan.count(20_000, 50_000, 200_000)
    findings = Findings(f"f(1, 2) to bytes and back, {calls:,} times")
    await interleaved(
        plan,
        findings,
        {
            TASKQ: lambda: _timed(calls, lambda: decode_call(encode_call((1, 2), {}))),
            BARE: lambda: _timed(calls, lambda: msgpack.unpackb(msgpack.packb([[1, 2], {}]))),
        },
    )
    findings.compare(
        "codec_of_msgpack",
        "CPU of a call to bytes and back, of msgpack alone",
        (TASKQ, "client_us"),
        (BARE, "client_us"),
    )
    return findings


async def _timed(calls: int, call: Callable[[], Any]) -> Metrics:
    began = time.process_time()
    for _ in range(calls):
        call()
    return {"client_us": (time.process_time() - began) / calls * 1e6}
