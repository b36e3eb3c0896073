"""Every code block of the README, the quickstart, the tutorial and the guides, run as readers do.

A page is followed from top to bottom in an empty folder of its own, against a server of its own. A
page of the tutorial begins with the files that the pages before it left.

* Blocks of `python` that begin with `# name.py` are written to that file. In a guide they are also
  run, and what they print must be what their `#>` comments say.
* Blocks of `sh` are run line by line, and compared with the `#>` lines below a command, in which
  `...` stands for any text. `pip` and `make` are only checked against the project. A command that
  serves (it ends in `&`, or is `uvicorn` or a `taskq worker` without `--burst`) runs until the end
  of the page.

Anything that is not to be run stands in a `console` block, or has no name.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
RUN_AS_A_WHOLE = [ROOT / "README.md", ROOT / "docs" / "quickstart.md"]
TUTORIAL = [
    ROOT / "docs" / "tutorial" / f"{step}.md"
    for step in ("application", "worker", "schedule", "tests", "deployment")
]
PAGES = [*RUN_AS_A_WHOLE, *TUTORIAL, *GUIDES]

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", re.M | re.S
)
FILE_NAME = re.compile(r"# ([\w/]+\.py)\n")
SAID = re.compile(r"#> ?(.*)$", re.M)
LINE_SECONDS = 30.0
LEAVE_SECONDS = 20.0
PORT = "8000"
MODULES = {"python": [], "taskq": ["-m", "taskq"], "uvicorn": ["-m", "uvicorn"]}
"""Programs that run in this interpreter, and how."""


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
        left_out = ("TASKQ_", "PYTEST_")
        own = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self._environment = own | {"TASKQ_URL": url, "NO_COLOR": "1"}
        self._background: list[tuple[str, subprocess.Popen[str], Path]] = []
        self._started = 0
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = str(free.getsockname()[1])

    def follow(self, page: Path, *, run_files: bool) -> None:
        for block in blocks_of(page):
            if block.file is not None:
                self._write(block, block.file)
                if run_files:
                    self._run_file(block, block.file)
            elif block.language == "sh":
                self._type_all(block)

    def take_files(self, page: Path) -> None:
        """Write the files of a page without following it."""
        for block in blocks_of(page):
            if block.file is not None:
                self._write(block, block.file)

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
            # uvicorn drains, and then ends by the signal it was sent.
            ended_well = code == 0 or (code == -signal.SIGTERM and line.startswith("uvicorn"))
            assert ended_well, f"{line}: ended with {code}{self._told_in_background()}"

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

    def _type_all(self, block: Block) -> None:
        lines = block.text.splitlines()
        for number, line in enumerate(lines):
            if line.startswith("#>"):
                continue
            printed = self._type(line, str(block))
            told = [said[2:].strip() for said in said_below(lines, number)]
            if told:
                shown = [said.strip() for said in printed.splitlines()]
                assert matches(shown, told), f"{block}: {line!r} printed {shown}"

    def _type(self, line: str, where: str) -> str:
        """Run a command; gives what it printed, nothing for one that serves."""
        words = shlex.split(line.replace(PORT, self._port), comments=True)
        if not words:
            return ""
        background = words[-1] == "&"
        program, *arguments = words[:-1] if background else words
        if program == "pip":
            check_install(arguments, where)
        elif program == "make":
            check_targets(arguments, where)
        elif program == "curl":
            return self._curl(arguments, where)
        elif program == "pytest":
            return self.python("-m", "pytest", "-p", "no:cacheprovider", *arguments, where=where)
        elif program not in MODULES:
            pytest.fail(f"{where}: the test has no way to check {program!r}")
        elif background or serves(program, arguments):
            port = ["--port", self._port] if program == "uvicorn" else []
            self._start(line, [*MODULES[program], *arguments, *port])
        else:
            return self.python(*MODULES[program], *arguments, where=where)
        return ""

    def _curl(self, arguments: list[str], where: str) -> str:
        """`curl [-X METHOD] URL`; waits for the server, which was started a moment ago."""
        method = arguments[1] if arguments[0] == "-X" else "GET"
        answers: list[httpx.Response] = []

        def asked() -> bool:
            try:
                answers.append(httpx.request(method, arguments[-1], timeout=20))
            except httpx.ConnectError:
                return False
            return True

        if not arguments[-1].startswith("http"):
            arguments[-1] = f"http://{arguments[-1]}"
        eventually_sync(asked, within=LINE_SECONDS)
        assert not answers[0].is_server_error, f"{where}: {answers[0]}{self._told_in_background()}"
        return answers[0].text

    def _start(self, line: str, arguments: list[str]) -> None:
        """Start what serves; the same line again is a restart."""
        for known in [each for each in self._background if each[0] == line]:
            known[1].send_signal(signal.SIGINT)
            known[1].wait(LEAVE_SECONDS)
            self._background.remove(known)
        # Beside the folder: a file that grows in it would be seen by what watches it.
        log = self.folder.parent / f"background-{self._started}.log"
        self._started += 1
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
        if "worker" in arguments:
            eventually_sync(
                lambda: "is ready" in log.read_text() or process.poll() is not None,
                within=LINE_SECONDS,
            )

    def _told_in_background(self) -> str:
        return "".join(f"\n--- {line}\n{log.read_text()}" for line, _, log in self._background)


def serves(program: str, arguments: list[str]) -> bool:
    """Whether a command runs until it is stopped."""
    worker = program == "taskq" and arguments[0] == "worker" and "--burst" not in arguments
    return program == "uvicorn" or worker


def said_below(lines: list[str], number: int) -> Iterator[str]:
    """The `#>` lines that follow a line."""
    for line in lines[number + 1 :]:
        if not line.startswith("#>"):
            return
        yield line


def matches(shown: list[str], told: list[str]) -> bool:
    """Whether these lines were printed; `...` stands for any text, or for any lines."""
    pattern = "\n".join(re.escape(line).replace(re.escape("..."), "(?s:.*)") for line in told)
    return re.fullmatch(pattern, "\n".join(shown)) is not None


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
def following(
    page: Path, tmp_path: Path, *, run_files: bool, after: Iterable[Path] = ()
) -> Iterator[Reader]:
    """The page has been followed, where those in `after` left their files; what it started runs."""
    folder = tmp_path / "project"
    folder.mkdir()
    server = TestServer()
    reader = Reader(folder, server.url)
    try:
        for earlier in after:
            reader.take_files(earlier)
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


@pytest.mark.parametrize("page", TUTORIAL, ids=page_name)
def test_a_step_of_the_tutorial_can_be_followed(page: Path, tmp_path: Path) -> None:
    before = TUTORIAL[: TUTORIAL.index(page)]
    with following(page, tmp_path, run_files=False, after=before):
        pass


def test_the_steps_of_the_tutorial_are_all_there_are() -> None:
    folder = ROOT / "docs" / "tutorial"

    assert {*TUTORIAL, folder / "index.md"} == set(folder.glob("*.md"))


@pytest.mark.parametrize("page", GUIDES, ids=page_name)
def test_a_guide_can_be_followed(page: Path, tmp_path: Path) -> None:
    with following(page, tmp_path, run_files=True):
        pass


CELLS = """
import ast, asyncio, inspect, json, sys

async def run_cells(cells):
    sys.ps1 = "In : "  # as IPython has it
    for cell in cells:
        code = compile(cell, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, vars(sys.modules["__main__"]))
        if inspect.iscoroutine(running):
            await running

asyncio.run(run_cells(json.load(open("cells.json"))))
"""


def test_the_cells_of_the_notebook_can_be_run_one_after_the_other(tmp_path: Path) -> None:
    page = ROOT / "docs" / "guides" / "notebooks.md"
    cells = [block.text for block in blocks_of(page) if block.language == "python"]
    cells = [cell for cell in cells if not FILE_NAME.match(cell)]
    with following(page, tmp_path, run_files=True) as reader:
        (reader.folder / "cells.json").write_text(json.dumps(cells))
        printed = reader.python("-c", CELLS, where="notebooks.md").splitlines()

    told = [line for cell in cells for line in SAID.findall(cell)]
    assert told
    assert [line for line in printed if line in told] == told, printed
