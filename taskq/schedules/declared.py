"""Schedules that the code declares: `@q.schedule(...)` above `@q.task`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar, Unpack, cast

from taskq.core.errors import ConfigError
from taskq.execution.address import module_name
from taskq.execution.task import Task, task_spec_of
from taskq.schedules.editor import check_id
from taskq.schedules.info import check_trigger, make_spec
from taskq.schedules.policy import ScheduleOptions, ScheduleOptionValues
from taskq.schedules.spec import Spec
from taskq.triggers.trigger import Trigger

__all__ = ["Declarations", "Declared", "home_of"]

T = TypeVar("T", bound=Task[..., Any])


@dataclass(frozen=True, slots=True)
class Declared:
    """One declared schedule; `paused`: it starts paused."""

    id: str
    spec: Spec
    paused: bool


class Declarations:
    """The declared schedules, by id."""

    def __init__(self) -> None:
        self._all: dict[str, Declared] = {}

    def declare(
        self, trigger: Trigger, /, *, id: str | None = None, **options: Unpack[ScheduleOptionValues]
    ) -> Callable[[T], T]:
        """Declare a schedule of a task: `@q.schedule(...)` above `@q.task`, as often as you like.

        `id`: the task's name by default, with a number from the second schedule on. `options`: see
        `ScheduleOptionValues`. Workers and `taskq scheduler` store what the code declares when they
        start, and remove what it no longer declares.

        Raises `ConfigError` and `UnknownOption`, and `CallError` for arguments that do not fit.

        >>> @q.schedule(cron("0 8 * * mon-fri", tz="Asia/Shanghai"))
        ... @q.task
        ... async def daily_report() -> None: ...
        """
        check_trigger(trigger)
        checked = ScheduleOptions().with_changes(cast("dict[str, Any]", options))
        if id is not None:
            check_id(id)

        def decorate(task: T, /) -> T:
            if not isinstance(task, Task):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigError(
                    f"{task!r} is not a task; put @q.schedule above @q.task, not below it"
                )
            spec = make_spec(task_spec_of(task), trigger, checked)
            spec = replace(spec, declared=home_of(task), fingerprint=spec.content)
            self._add(id, task, spec, paused=bool(checked.paused))
            return task

        return decorate

    def forget(self, task: str) -> None:
        """Drop the schedules of a task that is defined again."""
        for declared in [known for known in self._all.values() if known.spec.task == task]:
            del self._all[declared.id]

    def _add(self, given: str | None, task: Task[..., Any], spec: Spec, *, paused: bool) -> None:
        schedule = given or check_id(self._free_id(task.name))
        if schedule in self._all:
            raise ConfigError(
                f"two schedules are called {schedule!r}: of {self._all[schedule].spec.task} and of "
                f"{task.name}; give one of them another id: @q.schedule(..., id='...')"
            )
        self._all[schedule] = Declared(schedule, spec, paused)

    def _free_id(self, task: str) -> str:
        """The task's name, and a number from the second one on."""
        schedule, number = task, 1
        while schedule in self._all:
            number += 1
            schedule = f"{task}-{number}"
        return schedule

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)


def home_of(task: Task[..., Any]) -> str:
    """The module of a task's function, by the name that others import."""
    return module_name(task.function)
