"""Hold the size budget: small modules, short functions, narrow classes, a package that stays small.

How each is counted:

* ``module-lines``: every line of the file, as ``wc -l`` does.
* ``function-lines``: from the first statement after the docstring to the last line of the body,
  blank lines, comments and nested functions included.
* ``class-methods``: every ``def`` in the class body, properties and dunder methods included;
  ``@overload`` declarations have no body and do not count.
* ``init-parameters``: every parameter of a written ``__init__`` besides ``self``; ``*args`` and
  ``**kwargs`` count one each.
* ``modules``: the Python files of the package, ``__init__.py`` included.
* ``code-lines``: the lines of those files that hold code: no blank lines, comments and docstrings
  (a string that stands alone below an attribute is a docstring too).

Limits and exceptions stand in ``pyproject.toml`` below ``[tool.taskq.budget]``. The first four
limits apply to every file below ``paths``, the last two to the whole ``package``. An exception
names one place (``taskq/app.py:TaskQ.run``; a module is its path alone), raises one limit there and
gives its reason. An exception that is no longer needed is an offence too, so that the list only
ever shrinks.

Usage: ``python scripts/budget.py [ROOT]``; exits 1 when something is over its budget.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
BUDGETS = ("module-lines", "function-lines", "class-methods", "init-parameters")
TOTALS = ("modules", "code-lines")
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


@dataclass(frozen=True)
class Measure:
    """One measured size: ``taskq/app.py:TaskQ.run``, line 12, has 17 ``function-lines``."""

    where: str
    line: int
    budget: str
    value: int


@dataclass(frozen=True)
class Exemption:
    """A raised limit for one place."""

    where: str
    budget: str
    limit: int
    reason: str


@dataclass(frozen=True)
class Settings:
    """The contents of ``[tool.taskq.budget]``; ``totals`` are limits of the whole ``package``."""

    paths: tuple[str, ...]
    limits: dict[str, int]
    package: str
    totals: dict[str, int]
    exceptions: tuple[Exemption, ...]


class SettingsError(Exception):
    """``[tool.taskq.budget]`` is invalid."""


def read_settings(pyproject: Path) -> Settings:
    """Read the limits; refuse an exception without a reason or for an unknown budget."""
    table = tomllib.loads(pyproject.read_text("utf-8"))["tool"]["taskq"]["budget"]
    exceptions = tuple(Exemption(**entry) for entry in table.get("exceptions", []))
    for exemption in exceptions:
        if exemption.budget not in BUDGETS:
            raise SettingsError(
                f"{exemption.where}: unknown budget {exemption.budget!r}; "
                f"use one of {', '.join(BUDGETS)}"
            )
        if not exemption.reason.strip():
            raise SettingsError(f"{exemption.where}: an exception needs a reason")
    limits = {budget: int(table[budget]) for budget in BUDGETS}
    totals = {budget: int(table[budget]) for budget in TOTALS}
    return Settings(tuple(table["paths"]), limits, table["package"], totals, exceptions)


def measure_file(path: Path, name: str) -> Iterator[Measure]:
    """Yield every size of one file, reported under ``name``."""
    source = path.read_text("utf-8")
    yield Measure(name, 1, "module-lines", len(source.splitlines()))
    yield from _measure_block(ast.parse(source), name, ":")


def _measure_block(block: ast.AST, name: str, joint: str) -> Iterator[Measure]:
    for node in ast.iter_child_nodes(block):
        if isinstance(node, Function):
            yield from _measure_function(node, f"{name}{joint}{node.name}")
        elif isinstance(node, ast.ClassDef):
            where = f"{name}{joint}{node.name}"
            yield Measure(where, node.lineno, "class-methods", _count_methods(node))
            yield from _measure_block(node, where, ".")
        else:
            yield from _measure_block(node, name, joint)


def _measure_function(node: Function, where: str) -> Iterator[Measure]:
    yield Measure(where, node.lineno, "function-lines", _body_lines(node))
    if node.name == "__init__":
        yield Measure(where, node.lineno, "init-parameters", _count_parameters(node))
    yield from _measure_block(node, where, ".")


def _body_lines(node: Function) -> int:
    body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
    if not body:
        return 0
    decorators = getattr(body[0], "decorator_list", [])
    first = min([body[0].lineno, *(decorator.lineno for decorator in decorators)])
    last = body[-1].end_lineno
    return (last if last is not None else first) - first + 1


def _count_methods(node: ast.ClassDef) -> int:
    return sum(isinstance(item, Function) and not _is_overload(item) for item in node.body)


def _is_overload(node: Function) -> bool:
    names = (ast.unparse(decorator) for decorator in node.decorator_list)
    return any(name.rpartition(".")[2] == "overload" for name in names)


def _count_parameters(node: Function) -> int:
    arguments = node.args
    named = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs)
    starred = (arguments.vararg is not None) + (arguments.kwarg is not None)
    return named - 1 + starred


def measure_tree(root: Path, paths: Iterable[str]) -> Iterator[Measure]:
    """Yield every size of every Python file below the given folders of ``root``."""
    for folder in paths:
        for path in sorted((root / folder).rglob("*.py")):
            yield from measure_file(path, path.relative_to(root).as_posix())


def measure_package(package: Path) -> dict[str, int]:
    """Count the modules of a package, and their code lines."""
    sources = [path.read_text("utf-8") for path in package.rglob("*.py")]
    return {"modules": len(sources), "code-lines": sum(map(count_code_lines, sources))}


def count_code_lines(source: str) -> int:
    """Count the lines of a module that hold code."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - set(_docstring_lines(ast.parse(source))))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            last = node.end_lineno
            if isinstance(node.value.value, str) and last is not None:
                yield from range(node.lineno, last + 1)


def judge(measures: Iterable[Measure], settings: Settings) -> list[str]:
    """Return one line per offence: sizes over their limit, exceptions no longer needed."""
    raised = {(entry.where, entry.budget): entry.limit for entry in settings.exceptions}
    unused = set(raised)
    offences: list[str] = []
    for found in measures:
        key = (found.where, found.budget)
        limit = settings.limits[found.budget]
        if found.value > limit:
            unused.discard(key)
            limit = raised.get(key, limit)
        if found.value > limit:
            path, _, inner = found.where.partition(":")
            place = f"{path}:{found.line}" + (f" {inner}" if inner else "")
            offences.append(f"{place}: {found.value} {found.budget}, the budget is {limit}")
    offences += [
        f"{where}: the exception for {budget} is no longer needed; remove it"
        for where, budget in sorted(unused)
    ]
    return offences


def judge_totals(totals: dict[str, int], settings: Settings) -> list[str]:
    """Return one line per total over its limit."""
    return [
        f"{settings.package}: {value} {budget}, the budget is {settings.totals[budget]}"
        for budget, value in totals.items()
        if value > settings.totals[budget]
    ]


def main(arguments: list[str]) -> int:
    """Print the offences below the root given, or below this checkout."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    settings = read_settings(root / "pyproject.toml")
    measures = list(measure_tree(root, settings.paths))
    totals = measure_package(root / settings.package)
    offences = judge(measures, settings) + judge_totals(totals, settings)
    for offence in offences:
        print(offence)
    files = sum(found.budget == "module-lines" for found in measures)
    counts = ", ".join(
        f"{value:,} {budget.replace('-', ' ')} of {settings.totals[budget]:,}"
        for budget, value in totals.items()
    )
    print(f"{settings.package}: {counts}")
    print(f"size budget: {files} files, {len(offences)} over budget")
    return 1 if offences else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
