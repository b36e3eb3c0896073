"""The shape of the package: layers, sizes, imports, scripts, documentation."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "taskq"
MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = sorted(PACKAGE.rglob("*.lua"))
OPERATIONS = [path for path in SCRIPTS if path.parent.name != "include"]
FRAGMENTS = [path for path in SCRIPTS if path.parent.name == "include"]

HEAVY = ("click", "croniter", "fastapi", "pydantic", "redis", "rich", "starlette", "typer")
# An entry that must prepare the interpreter before anything of the package can be imported.
# app.py, location.py: a process that only enqueues, or has a server, pays neither for the worker
# nor for the embedded server. launch.py: the keeper runs without the package.
LATE_BY_DESIGN = {
    "taskq/embedded/launch.py",
    "taskq/app.py",
    "taskq/definition.py",
    "taskq/location.py",
}
NAMELESS = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def header_of(script: Path) -> str:
    """The comment a file opens with, its dashes taken off."""
    lines: list[str] = []
    for line in script.read_text("utf-8").splitlines():
        if not line.startswith("--") or line.startswith("--@"):
            break
        lines.append(line.removeprefix("--").strip())
    return "\n".join(lines)


def test_imports_keep_to_the_layers():
    done = run_python(
        "-c",
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))",
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_keeps_to_the_size_budget():
    done = run_python("scripts/budget.py")

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_budget_finds_what_is_too_large(tmp_path):
    # Given one offence of every kind, and an exception that is no longer needed
    methods = "\n".join(f"    def m{number}(self): ..." for number in range(3))
    source = (
        "class Wide:\n"
        "    def __init__(self, a, *b, c, **d):\n"
        "        '''Doc.\n\n        More.\n        '''\n"
        "        self.a = a\n\n        # why\n        self.b = b\n"
        f"{methods}\n"
        "limit: int = (\n    3\n)\n"
        "'''Doc of an attribute.\n\nMore.\n'''\n"
    )
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text('"""Doc."""\n# why\n')
    (tmp_path / "pack" / "wide.py").write_text(source)
    (tmp_path / "pyproject.toml").write_text(
        "[tool.taskq.budget]\n"
        "paths = ['pack']\nmodule-lines = 19\nfunction-lines = 3\nclass-methods = 3\n"
        "init-parameters = 3\npackage = 'pack'\nmodules = 1\ncode-lines = 9\n"
        "exceptions = [{ where = 'pack/wide.py:Wide.m0', "
        "budget = 'function-lines', limit = 9, reason = 'none' }]\n"
    )

    # When it is judged
    done = run_python("scripts/budget.py", str(tmp_path))

    # Then each is named, with its size
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "pack/wide.py:1: 20 module-lines, the budget is 19",
        "pack/wide.py:1 Wide: 4 class-methods, the budget is 3",
        "pack/wide.py:2 Wide.__init__: 4 function-lines, the budget is 3",
        "pack/wide.py:2 Wide.__init__: 4 init-parameters, the budget is 3",
        "pack/wide.py:Wide.m0: the exception for function-lines is no longer needed; remove it",
        "pack: 2 modules, the budget is 1",
        "pack: 10 code-lines, the budget is 9",
        "pack: 2 modules of 1, 10 code lines of 9",
        "size budget: 2 files, 7 over budget",
    ]


def test_every_public_name_resolves():
    taskq = importlib.import_module("taskq")

    missing = [name for name in taskq.__all__ if not hasattr(taskq, name)]

    assert taskq.__all__
    assert missing == []
    assert len(set(taskq.__all__)) == len(taskq.__all__)


def test_importing_taskq_loads_nothing_it_can_do_without():
    done = run_python("-c", "import sys, taskq; print(*sys.modules)")

    assert done.returncode == 0, done.stderr
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert sorted(loaded.intersection(HEAVY)) == []


@pytest.mark.parametrize("module", MODULES, ids=relative)
def test_no_module_unpickles(module):
    names = {name.partition(".")[0] for name in imported_names(ast.parse(module.read_text()))}

    assert not names & {"cloudpickle", "dill", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize(
    "module", [path for path in MODULES if relative(path) not in LATE_BY_DESIGN], ids=relative
)
def test_the_package_is_imported_at_the_top_of_modules_only(module):
    # A late import of our own code is an import cycle that hides.
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    late = {
        name
        for function in ast.walk(ast.parse(module.read_text()))
        if isinstance(function, functions)
        for name in imported_names(function)
    }

    assert sorted(name for name in late if name.partition(".")[0] == "taskq") == []


def test_no_module_has_a_name_that_says_nothing():
    assert [relative(path) for path in MODULES if NAMELESS & set(path.stem.split("_"))] == []


def test_the_package_is_typed_and_has_scripts():
    assert (PACKAGE / "py.typed").is_file()
    assert OPERATIONS


@pytest.mark.parametrize("script", OPERATIONS, ids=relative)
def test_every_script_says_what_it_takes_and_gives(script):
    header = header_of(script)

    for word in ("KEYS", "ARGV", "Returns", "Called by"):
        assert re.search(rf"^{word}\b", header, re.MULTILINE), f"no line begins with {word}"


@pytest.mark.parametrize("script", OPERATIONS, ids=relative)
def test_every_script_is_called_by_the_module_it_names(script):
    named = re.search(r"^Called by ([\w/]+\.py)", header_of(script), re.MULTILINE)
    assert named, "write: -- Called by broker/<module>.py"
    caller = PACKAGE / named[1]

    assert caller.is_file(), f"{relative(caller)} does not exist"
    assert re.search(rf"\b{script.stem}\b", caller.read_text()), "the module does not mention it"


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=relative)
def test_every_shared_function_of_the_scripts_is_explained(fragment):
    lines = fragment.read_text().splitlines()

    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if line.startswith("local function") and not above.startswith("--")
    ]

    assert bare == []


def test_the_navigation_of_the_site_lists_every_page_and_no_other():
    settings = tomllib.loads((ROOT / "zensical.toml").read_text())

    def pages(entry: object) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, dict):
            for value in entry.values():
                yield from pages(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from pages(value)

    docs = ROOT / "docs"
    written = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))

    assert sorted(pages(settings["project"]["nav"])) == written
