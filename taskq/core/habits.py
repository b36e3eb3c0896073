"""What people who come from another library try first, and what it is called here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

__all__ = ["OF_TASKQ", "OF_TASKS", "Habits"]

_LATER = ".enqueue(...), which gives a Job"
_WITH_OPTIONS = ".options(delay=..., queue=...).enqueue(...)"

OF_TASKS: Final = {
    "delay": _LATER,
    "send": _LATER,
    "submit": _LATER,
    "kiq": _LATER,
    "apply_async": _WITH_OPTIONS,
    "send_with_options": _WITH_OPTIONS,
    "kicker": ".options(...)",
    "apply": "the task itself: it is the plain function",
    "fn": ".function",
    "signature": ".s(...)",
    "subtask": ".s(...)",
    "message": ".s(...)",
}
OF_TASKQ: Final = {
    "enqueue": "the task's own .enqueue(...), or q.send('name', ...) without its code",
    "enqueue_job": "the task's own .enqueue(...), or q.send('name', ...) without its code",
    "send_task": "q.send('name', ...)",
    "actor": "@q.task",
    "add_job": "await q.schedules.add(...)",
    "add_task": "q.defer(...), or await f.enqueue(...)",
    "scheduled_job": "@q.schedule(...) above @q.task",
    "on_after_configure": "@q.schedule(...) above @q.task",
}


class Habits:
    """A base for classes with names that others would give: asking for one says what to use.

    Type checkers do not see them, so for them the names stay unknown.
    """

    __slots__ = ()
    _habits: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            text = f"{kind!r} object has no attribute {name!r}"
            if name in self._habits:
                text += f"; use {self._habits[name]}"
            raise AttributeError(text, name=name, obj=self)
