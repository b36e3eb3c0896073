"""Every code block of the README, the quickstart and the guides, run as a reader would run it.

A page is followed from top to bottom in an empty folder of its own, against a server of its own:

* blocks of `python` that begin with `# name.py` are written to that file. In a guide they are also
  run, and what they print must be what their `#>` comments say;
* blocks of `sh` are run line by line; `pip` and `make` are only checked against the project, and
  what ends in `&` runs until the end of the page.

Anything that is not to be run stands in a `console` block, or bears no name.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.server import TestServer

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
RUN_AS_A_WHOLE = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
PAGES = [*RUN_AS_A_WHOLE, *GUIDES]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
FILE_NAME = re.compile(r"# ([\w/]+\.py)\n")
SAID = re.compile(r"#> ?(.*)$", re.M)
LINE_SECONDS = 30.0
LEAVE_SECONDS = 20.0


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block, and where it stands."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{page_name(self.page)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file it is to be written to."""
        named = FILE_NAME.match(self.text)
        return named[1] if named and self.language == "python" else None


def blocks_of(page: Path) -> list[Block]:
    source = page.read_text("utf-8")
    return [
        Block(page, source.count("\n", 0, fence.start()) + 1, fence["language"], fence["text"])
        for fence in FENCE.finditer(source)
    ]


class Reader:
    """Does in `folder` what a page says."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith("TASKQ_")}
        self._environment = own | {"TASKQ_URL": url, "NO_COLOR": "1"}
        self._background: list[tuple[str, subprocess.Popen[str], Path]] = []

    def follow(self, page: Path, *, run_files: bool) -> None:
        for block in blocks_of(page):
            if block.file is not None:
                self._write(block, block.file)
                if run_files:
                    self._run_file(block, block.file)
            elif block.language == "sh":
                for line in block.text.splitlines():
                    self._type(line, str(block))

    def python(self, *arguments: str, where: str) -> str:
        """Run the interpreter; gives what it printed."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LINE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (
            f"{where}: {shlex.join(arguments)} ended with {done.returncode}\n"
            f"{done.stdout}{done.stderr}{self._told_in_background()}"
        )
        return done.stdout

    def leave(self) -> None:
        """Stop what runs in the background, which must end well."""
        for _, process, _ in self._background:
            process.send_signal(signal.SIGTERM)
        for line, process, _ in self._background:
            try:
                code = process.wait(LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                pytest.fail(f"{line}: does not end after SIGTERM{self._told_in_background()}")
            assert code == 0, f"{line}: ended with {code}{self._told_in_background()}"

    def give_up(self) -> None:
        """End what is still there, whatever happened."""
        for _, process, _ in self._background:
            process.kill()
            process.wait()

    def _write(self, block: Block, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, "utf-8")

    def _run_file(self, block: Block, name: str) -> None:
        printed = self.python(name, where=str(block)).splitlines()
        told = SAID.findall(block.text)
        if told:
            assert printed == told, f"{block}: what {name} prints is not what the page says"

    def _type(self, line: str, where: str) -> None:
        words = shlex.split(line, comments=True)
        if not words:
            return
        background = words[-1] == "&"
        program, *arguments = words[:-1] if background else words
        if program == "pip":
            check_install(arguments, where)
        elif program == "make":
            check_targets(arguments, where)
        elif program in ("python", "taskq"):
            module = ["-m", "taskq"] if program == "taskq" else []
            if background:
                self._start(line, [*module, *arguments])
            else:
                self.python(*module, *arguments, where=where)
        else:
            pytest.fail(f"{where}: nobody knows how to check {program!r}")

    def _start(self, line: str, arguments: list[str]) -> None:
        # Beside the folder: a file that grows in it would be seen by what watches it.
        log = self.folder.parent / f"background-{len(self._background)}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                text=True,
            )
        self._background.append((line, process, log))

    def _told_in_background(self) -> str:
        return "".join(f"\n--- {line}\n{log.read_text()}" for line, _, log in self._background)


def check_install(arguments: list[str], where: str) -> None:
    """`pip install ".[extra,...]" other`, in a checkout: the extras are ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    verb, *wanted = arguments
    assert verb == "install", f"{where}: pip {verb}"
    own = [re.fullmatch(r"\.(?:\[([\w,]+)\])?", requirement) for requirement in wanted]
    assert any(own), f"{where}: taskq itself is not installed"
    extras = {extra for found in own if found and found[1] for extra in found[1].split(",")}
    assert extras <= set(project["optional-dependencies"]), f"{where}: unknown extras in {extras}"


def check_targets(arguments: list[str], where: str) -> None:
    """`make target`: the Makefile has it."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert arguments, f"{where}: make without a target"
    assert set(arguments) <= targets, f"{where}: the Makefile has no {set(arguments) - targets}"


@contextmanager
def following(page: Path, tmp_path: Path, *, run_files: bool) -> Iterator[Reader]:
    """The page has been followed; what it started still runs."""
    folder = tmp_path / "project"
    folder.mkdir()
    server = TestServer()
    reader = Reader(folder, server.url)
    try:
        reader.follow(page, run_files=run_files)
        yield reader
        reader.leave()
    finally:
        reader.give_up()
        server.close()


# ------------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("page", RUN_AS_A_WHOLE, ids=page_name)
def test_every_block_of_the_first_pages_can_be_run(page: Path) -> None:
    blocks = blocks_of(page)

    assert blocks
    for block in blocks:
        assert block.language in ("python", "sh"), f"{block}: {block.language or 'no language'}"
        assert block.language == "sh" or block.file, f"{block}: does not begin with # name.py"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_python_block_is_python(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            compile(block.text, str(block), "exec", flags | ast.PyCF_ONLY_AST)


SIGN_UP = """
from fastapi.testclient import TestClient

from web import api, q

with TestClient(api) as client:
    answer = client.post("/signup", params={"name": "Ada"})
    assert answer.status_code == 200, answer.text
    print(q.run(q.job(answer.json()["job"]).result(timeout=10)))
"""


def test_the_readme_can_be_followed(tmp_path: Path) -> None:
    with following(ROOT / "README.md", tmp_path, run_files=False) as reader:
        # Its web application enqueues what the worker of the page runs
        assert reader.python("-c", SIGN_UP, where="README.md, web.py") == "hello, Ada\n"


def test_the_quickstart_can_be_followed(tmp_path: Path) -> None:
    with following(ROOT / "docs" / "quickstart.md", tmp_path, run_files=False):
        pass


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_a_guide_can_be_followed(page: Path, tmp_path: Path) -> None:
    with following(page, tmp_path, run_files=True):
        pass
