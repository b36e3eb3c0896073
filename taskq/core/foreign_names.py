"""Names from other task queues, and what to use here instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

__all__ = ["NAMES_FOR_TASKQ", "NAMES_FOR_TASKS", "ForeignNames"]

_LATER = ".enqueue(...), which gives a Job"
_WITH_OPTIONS = ".options(delay=..., queue=...).enqueue(...)"

NAMES_FOR_TASKS: Final = {
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
NAMES_FOR_TASKQ: Final = {
    "enqueue": "the task's own .enqueue(...), or q.send('name', ...) without its code",
    "enqueue_job": "the task's own .enqueue(...), or q.send('name', ...) without its code",
    "send_task": "q.send('name', ...)",
    "actor": "@q.task",
    "add_job": "await q.schedules.add(...)",
    "add_task": "q.defer(...), or await f.enqueue(...)",
    "scheduled_job": "@q.schedule(...) above @q.task",
    "on_after_configure": "@q.schedule(...) above @q.task",
}


class ForeignNames:
    """A base class whose `AttributeError` for a name of another library says what to use instead.

    To type checkers the names stay unknown.
    """

    __slots__ = ()
    _foreign_names: ClassVar[Mapping[str, str]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            text = f"{kind!r} object has no attribute {name!r}"
            if name in self._foreign_names:
                text += f"; use {self._foreign_names[name]}"
            raise AttributeError(text, name=name, obj=self)
