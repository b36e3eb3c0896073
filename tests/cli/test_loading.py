"""Finding the TaskQ of a target, or where it usually is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskq.cli.loading import load_app
from taskq.core.errors import ConfigError

Write = Callable[..., None]

ONE = "from taskq import TaskQ\nq = TaskQ('redis://nowhere', namespace='{}')\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write files of the current folder; nothing that they bring into this process stays."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".toml" if path.name == "pyproject" else ".py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def package(folder: Path) -> None:
    folder.mkdir()
    (folder / "__init__.py").write_text("")


# ------------------------------------------------------------------------------------ targets


@pytest.mark.parametrize(
    "target", ["shop1:q", "shop1", "shop1.py", "shop1.py:q", "./shop1.py:q", "shop1:holder.q"]
)
def test_a_target_names_a_module_or_a_file_and_perhaps_an_attribute(
    write: Write, target: str
) -> None:
    write(shop1=ONE.format("mine") + "class holder: q = q\n")

    loaded = load_app(target)

    assert loaded.app._settings.keys.namespace == "mine"
    assert loaded.target == ("shop1:holder.q" if "holder" in target else "shop1:q")


def test_a_file_in_a_package_is_imported_by_its_full_name(write: Write, tmp_path: Path) -> None:
    package(tmp_path / "shop2")
    write(shop2__tasks=ONE.format("packaged"))

    assert load_app("shop2/tasks.py").target == "shop2.tasks:q"
    assert load_app("shop2.tasks:q").app is sys.modules["shop2.tasks"].q


def test_one_taskq_under_two_names_is_one(write: Write) -> None:
    write(shop3=ONE.format("x") + "queue = q\n")

    assert load_app("shop3").target == "shop3:q"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop4:nothing", "shop4 has no attribute 'nothing'; its TaskQ is shop4:q: use that"),
        ("shop4:api", "is a FastAPI application, which uvicorn runs, not a TaskQ; its TaskQ is"),
        ("shop4:add", "shop4:add is the task shop4.add, not a TaskQ"),
        ("shop4:TaskQ", "the class TaskQ"),
        ("shop4:number", "shop4:number is a int, not a TaskQ"),
        ("shop4.q", "there is no module 'shop4.q'.* Did you mean shop4:q?"),
        ("absent", "there is no module 'absent' in"),
        ("absent.py", "there is no file 'absent.py' in"),
        (":q", "':q' does not name a module"),
        ("two4", "two4 does not name a single TaskQ: it has two4:q, two4:r: use one of them"),
        ("none4:q", "none4 has no attribute 'q'; it has no TaskQ"),
    ],
)
def test_what_is_wrong_with_a_target_is_said(write: Write, target: str, said: str) -> None:
    write(
        shop4=ONE.format("x")
        + "import fastapi\napi = fastapi.FastAPI()\nnumber = 1\n@q.task\nasync def add(): ...\n",
        two4=ONE.format("x") + "r = TaskQ('redis://elsewhere')\n",
        none4="import taskq\n",
    )

    with pytest.raises(ConfigError, match=said):
        load_app(target)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there_at_all\n", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("def broken(:\n", "SyntaxError"),
        ("raise SystemExit('no settings')\n", "SystemExit: no settings"),
        ("from taskq import TaskQ\nTaskQ('http://x')\n", "the server's URL has the scheme 'http'"),
    ],
)
def test_a_module_that_does_not_import_shows_the_end_of_its_own_traceback(
    write: Write, source: str, said: str
) -> None:
    write(broken5=source)

    with pytest.raises(ConfigError, match="broken5 cannot be imported") as caught:
        load_app("broken5:q")

    text = str(caught.value)
    assert said in text
    assert 'broken5.py", line' in text
    assert "importlib" not in text
    assert "loading.py" not in text


def test_a_module_of_the_current_folder_comes_before_others_of_its_name(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(shop6=ONE.format("mine"), other__shop6=ONE.format("other"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other"), str(tmp_path), *sys.path])

    assert load_app("shop6:q").app._settings.keys.namespace == "mine"
    assert sys.path.count(str(tmp_path)) == 1


def test_a_file_whose_name_is_taken_by_another_module_is_refused(write: Write) -> None:
    write(taskq=ONE.format("x"))

    with pytest.raises(ConfigError, match=r"cannot be imported as 'taskq'.*rename the file"):
        load_app("taskq.py")


# ------------------------------------------------------------------------------------ looking


def test_pyproject_names_the_app(write: Write) -> None:
    write(pyproject='[tool.taskq]\napp = "named6:q"\n', named6=ONE.format("named"), app="1 / 0")

    assert load_app().target == "named6:q"


@pytest.mark.parametrize(
    ("text", "said"),
    [("[tool.taskq", "pyproject.toml cannot be read"), ("[tool.taskq]\napp = 3", "app = 3")],
)
def test_a_pyproject_that_says_nonsense_is_refused(write: Write, text: str, said: str) -> None:
    write(pyproject=text)

    with pytest.raises(ConfigError, match=said):
        load_app()


def test_it_looks_into_the_usual_files_in_their_order(write: Write, tmp_path: Path) -> None:
    write(app="import taskq\n", main=ONE.format("main"), tasks=ONE.format("tasks"))
    assert load_app().target == "main:q"

    (tmp_path / "main.py").unlink()
    assert load_app().target == "tasks:q"


def test_packages_are_looked_into_last_and_may_share_one_taskq(
    write: Write, tmp_path: Path
) -> None:
    package(tmp_path / "mail7")
    package(tmp_path / "shop7")
    write(
        shop7__queue=ONE.format("shared"),
        shop7__tasks="import taskq\nfrom shop7.queue import q\n@q.task\nasync def sell(): ...\n",
        mail7__tasks="import taskq\nfrom shop7.queue import q\n@q.task\nasync def send(): ...\n",
    )

    loaded = load_app()

    assert loaded.app._registry.names() == ["mail7.tasks.send", "shop7.tasks.sell"]


def test_a_file_that_does_not_mention_taskq_is_not_run(write: Write) -> None:
    write(app="1 / 0\n", main=ONE.format("main"))

    assert load_app().target == "main:q"


def test_several_are_not_chosen_from(write: Write) -> None:
    write(app=ONE.format("x") + "r = TaskQ('redis://elsewhere')\n")

    with pytest.raises(ConfigError, match="several TaskQs here: app:q, app:r"):
        load_app()


def test_nothing_found_says_how_to_name_it(write: Write) -> None:
    write(app="import taskq\n")

    with pytest.raises(ConfigError, match=r"found no TaskQ in .*; app\.py have none\. Name it: "):
        load_app()
