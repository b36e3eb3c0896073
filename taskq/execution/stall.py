"""Who stands in the way: the attempt that a blocked event loop is busy with."""

from __future__ import annotations

from types import FrameType

from taskq.execution.attempt import Attempt

__all__ = ["culprit"]


def culprit(frame: FrameType | None) -> tuple[Attempt | None, str]:
    """The attempt that runs in this stack, and the line where its own function stands."""
    where = "an unknown line"
    while frame is not None:
        if frame.f_code.co_name == "run_attempt":
            attempt = frame.f_locals.get("attempt")
            if isinstance(attempt, Attempt):
                return attempt, where
        if not frame.f_globals.get("__name__", "").startswith("taskq."):
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return None, where
