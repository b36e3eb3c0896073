"""Nothing in the package makes code out of data; `make wheel-test` says the wheel is the same."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskq import JobFailed, TaskQ

ROOT = Path(__file__).resolve().parent.parent
#: Modules that make objects or code out of bytes.
BANNED = {"cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve", "yaml"}
#: Calls that do, and where one is meant: what is loaded there was named by whoever typed a command,
#: or stands in a registered function or in the module itself, and never in a message.
CALLS = {"__import__", "compile", "eval", "exec"}
LOADS = {"exec_module", "import_module", "run_module", "run_path"}
MEANT = {
    "taskq/__init__.py",
    "taskq/cli/demo.py",
    "taskq/cli/loading.py",
    "taskq/execution/address.py",
    "taskq/execution/executors/child.py",
}


def offences(name: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [node.module or ""]
        else:
            imported = []
        yield from (f"{name}: {word}" for word in imported if word.split(".")[0] in BANNED)
        if isinstance(node, ast.Call) and name not in MEANT:
            called = node.func
            word = called.id if isinstance(called, ast.Name) else ""
            if isinstance(called, ast.Attribute):
                word = called.attr if called.attr in LOADS else ""
            if word in CALLS | LOADS:
                yield f"{name}:{node.lineno}: {word}()"


def test_the_scan_finds_what_it_is_for() -> None:
    source = "import pickle\nfrom marshal import loads\neval(data)\nimportlib.import_module(name)"

    assert len(list(offences("x.py", source))) == 4


def test_the_package_unpickles_and_evaluates_nothing() -> None:
    found = [
        offence
        for path in sorted((ROOT / "taskq").rglob("*.py"))
        for offence in offences(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]

    assert found == []


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "antigravity.fly", "this.x"])
async def test_a_name_in_a_message_imports_nothing(q: TaskQ, name: str) -> None:
    loaded = set(sys.modules)
    job = await q.send(name, "touch /tmp/x")
    async with q.worker(unknown_limit=1):
        with pytest.raises(JobFailed) as caught:
            await job.result(timeout=5)

    assert caught.value.error_type == "UnknownTask"
    assert {
        module for module in set(sys.modules) - loaded if module in ("antigravity", "this")
    } == set()


async def test_an_exception_is_never_made_again_from_its_name(q: TaskQ) -> None:
    class Evil(Exception):
        def __init__(self, *texts: str) -> None:
            made.append(texts)
            super().__init__(*texts)

    made: list[tuple[str, ...]] = []
    Evil.__name__ = "SystemExit"
    Evil.__module__ = "builtins"

    @q.task(name="evil")
    async def evil() -> None:
        raise Evil("boom")

    async with q.worker():
        with pytest.raises(JobFailed) as caught:
            await (await evil.enqueue()).result(timeout=5)

    # Made once, where it was raised: the caller has text only
    assert made == [("boom",)]
    assert (type(caught.value), caught.value.__cause__) == (JobFailed, None)
    assert caught.value.error_type == "SystemExit"
