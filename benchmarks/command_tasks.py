"""What `taskq worker` is pointed at: a no-op, on the server that TASKQ_URL names."""

from __future__ import annotations

from taskq import TaskQ

q = TaskQ()


@q.task(name="noop")
async def noop(a: int, b: int) -> None:
    """Do nothing."""
