"""`taskq enqueue`: enqueue a job from a shell, and with `--wait` print its result."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from typing import Annotated, Any

import typer

from taskq.app import TaskQ, registry_of
from taskq.cli.exits import ERROR, OK
from taskq.cli.options import AsJson, duration, shortened
from taskq.cli.target import (
    Choice,
    Namespace,
    Url,
    choose,
    explained,
    refuse_lone_target,
    target_and,
)
from taskq.cli.terminal import printable
from taskq.core.errors import ConfigError, JobError, JobFailed, TaskqError, UnknownTask
from taskq.core.options import nearest
from taskq.execution.handle import Job
from taskq.ops.as_json import json_of

__all__ = ["enqueue"]


def enqueue(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            show_default=False,
            help="The TaskQ: module:attr or app.py. Default: the one found here; with --url or "
            "--namespace only the name of the task is known. \\[env var: TASKQ_APP]",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK",
            show_default=False,
            help="The name of the task, always the last word.",
        ),
    ] = None,
    args: Annotated[
        str, typer.Option(metavar="JSON", help="Positional arguments: a JSON array.")
    ] = "[]",
    kwargs: Annotated[
        str, typer.Option(metavar="JSON", help="Keyword arguments: a JSON object.")
    ] = "{}",
    delay: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="TIME", help="Run it after this time: 30s, 5m, 1h30m."
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", help="The queue. Default: that of the task.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="From 0 to 9; 9 runs first.")] = None,
    job_id: Annotated[str | None, typer.Option("--id", help="The job's id.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and print the result.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="With --wait: the longest wait."),
    ] = None,
    url: Url = None,
    namespace: Namespace = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a job and print its id, or with --wait its result; exit with 1 when the job failed.

    Examples: taskq enqueue app:q app.resize --args '["a.png"]' --kwargs '{"width": 400}' --wait,
    taskq enqueue --url redis://host app.resize --args '["a.png"]' --delay 5m
    """
    with explained():
        named, name = target_and("TASK", "enqueue", target, task)
        if named is None and not (url or namespace):
            refuse_lone_target("TASK", name, "enqueue", _tasks)
        choice = choose(named, url, namespace)
        call = _json("--args", args, list), _json("--kwargs", kwargs, dict)
        changes = {"delay": delay, "queue": queue, "priority": priority, "id": job_id}
        code = asyncio.run(_enqueue(choice, name, call, changes, _Then(wait, timeout, as_json)))
    raise typer.Exit(code)


def _tasks(app: TaskQ) -> str:
    names = tuple(registry_of(app).names())
    return f", one of {shortened(names)}" if names else "; it has no tasks at all"


@dataclasses.dataclass(frozen=True, slots=True)
class _Then:
    """What to do once the job is enqueued."""

    wait: bool
    timeout: float | None
    as_json: bool


def _json(option: str, text: str, kind: type[Any]) -> Any:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text!r} is not JSON: {error}") from None
    if not isinstance(value, kind):
        form = "'[\"a.png\", 2]'" if kind is list else "'{\"width\": 400}'"
        raise ConfigError(f"{option} {text!r} is not a JSON {_FORMS[kind]}; use {option} {form}")
    return value


_FORMS: dict[type[Any], str] = {list: "array", dict: "object"}


async def _enqueue(
    choice: Choice,
    name: str,
    call: tuple[list[Any], dict[str, Any]],
    changes: dict[str, Any],
    then: _Then,
) -> int:
    app = choice.app
    if choice.target is not None and registry_of(app).find(name) is None:
        raise _unknown(choice, name)
    args, kwargs = call
    given = {option: value for option, value in changes.items() if value is not None}
    # Connects first: a wrong URL must fail at once, not at the deadline of enqueues.
    async with app:
        job = await app.remote(name).options(**given).enqueue(*args, **kwargs)
        if job.created is False:
            print(f"job {job.id} already exists; nothing was enqueued", file=sys.stderr)
        if not then.wait:
            return _print_id(job, then)
        # Printed before the result, so that a user who stops waiting has the id. Only the result
        # goes to standard output.
        print(f"job {job.id}", file=sys.stderr, flush=True)
        return await _wait(choice, job, then)


def _unknown(choice: Choice, name: str) -> UnknownTask:
    names = registry_of(choice.app).names()
    hint = nearest(name, names) if names else "; it has no tasks"
    return UnknownTask(f"{choice.target} has no task {name!r}{hint}")


def _print_id(job: Job[Any], then: _Then) -> int:
    print(json.dumps({"id": job.id, "created": job.created}) if then.as_json else job.id)
    return OK


async def _wait(choice: Choice, job: Job[Any], then: _Then) -> int:
    try:
        result = await job.result(then.timeout)
    except JobError as error:
        if then.as_json:
            shown = {"id": job.id, "created": job.created, "state": await _state(job)}
            print(json.dumps(shown | _failure(error)))
        else:
            text = printable(choice.aimed(str(error)), lines=True)
            print(f"taskq: {text}", file=sys.stderr)
        return ERROR
    shown = {"id": job.id, "created": job.created, "state": "succeeded", "result": result}
    print(json_of(shown if then.as_json else result, ascii_only=False))
    return OK


def _failure(error: JobError) -> dict[str, Any]:
    if isinstance(error, JobFailed):
        return {
            "error_type": error.error_type,
            "error": error.error_text,
            "traceback": error.traceback,
        }
    return {"error_type": type(error).__name__, "error": str(error)}


async def _state(job: Job[Any]) -> str | None:
    """The state of a job without a result; None when the job no longer exists."""
    try:
        return str(await job.status())
    except (TaskqError, ConnectionError):
        return None
