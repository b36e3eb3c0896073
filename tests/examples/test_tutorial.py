"""The end of the tutorial: its files, as the pages leave them and as containers start them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskq.core.liveness import STOP_MARGIN_SECONDS
from tests.docs.test_code_blocks import TUTORIAL, blocks_of
from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tutorial"

COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLE / "compose.yaml").read_text("utf-8"))
MANIFESTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((EXAMPLE / "kubernetes.yaml").read_text("utf-8"))
)
PODS: dict[str, dict[str, Any]] = {
    manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
    for manifest in MANIFESTS
    if manifest["kind"] in ("Deployment", "StatefulSet")
}


def container(pod: str) -> dict[str, Any]:
    (only,) = PODS[pod]["containers"]
    return only


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


WORKERS = {
    "compose": (
        COMPOSE["services"]["worker"]["command"],
        seconds(COMPOSE["services"]["worker"]["stop_grace_period"]),
    ),
    "kubernetes": (
        container("reports-worker")["command"],
        PODS["reports-worker"]["terminationGracePeriodSeconds"],
    ),
}
SERVERS = {
    "compose": COMPOSE["services"]["valkey"]["command"],
    "kubernetes": container("reports-valkey")["args"],
}


@pytest.fixture
def server() -> Iterator[TestServer]:
    server = TestServer()
    yield server
    server.close()


def test_the_example_is_what_the_pages_leave() -> None:
    left = {block.file: block.text for page in TUTORIAL for block in blocks_of(page) if block.file}

    assert left == {path.name: path.read_text("utf-8") for path in EXAMPLE.glob("*.py")}


def test_the_image_is_built_from_files_that_are_there() -> None:
    lines = (EXAMPLE / "Dockerfile").read_text("utf-8").splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY ")]
    missing = [
        source
        for first, *sources in copied
        for source in (sources if first == "--from=taskq" else [first, *sources])
        if not ((ROOT if first == "--from=taskq" else EXAMPLE) / source).exists()
    ]

    assert copied
    assert missing == []
    # taskq is built from what is copied of the checkout
    (wanted,) = re.findall(r"COPY --from=taskq (pyproject.toml .*) /opt/taskq/", "\n".join(lines))
    assert {"pyproject.toml", "README.md", "LICENSE"} == set(wanted.split())


@pytest.mark.parametrize("where", WORKERS)
def test_a_container_gives_a_worker_more_time_than_it_gives_its_jobs(where: str) -> None:
    command, until_killed = WORKERS[where]
    grace = seconds(command[command.index("--grace") + 1])

    assert until_killed >= grace + STOP_MARGIN_SECONDS


@pytest.mark.parametrize("where", WORKERS)
def test_the_worker_of_a_container_starts_and_stops(
    where: str, server: TestServer, tmp_path: Path
) -> None:
    command, _ = WORKERS[where]
    assert command[0] == "taskq"
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=EXAMPLE,
            env=os.environ | {"TASKQ_URL": server.url, "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=log,
            stderr=log,
        )
    eventually_sync(
        lambda: "is ready" in (tmp_path / "log").read_text() or worker.poll() is not None, within=30
    )
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(20) == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("where", SERVERS)
def test_the_doctor_finds_nothing_wrong_with_the_server_of_a_container(where: str) -> None:
    program, *flags = SERVERS[where]
    assert program == "valkey-server"
    # Without the password: the server of the tests is asked without one whether it is up
    if flags[:2] == ["--requirepass", "$(PASSWORD)"]:
        flags = flags[2:]
    server = TestServer(*flags)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "taskq", "doctor", "--url", server.url],
            env=os.environ | {"NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=50,
        )
    finally:
        server.close()

    assert done.returncode == 0, done.stdout + done.stderr
    assert "bad" not in done.stdout


def test_every_container_knows_the_server_by_its_own_name() -> None:
    services = COMPOSE["services"]
    hosts = {services[name]["environment"]["TASKQ_URL"] for name in ("web", "worker")}
    assert hosts == {"redis://valkey:6379/0"}

    (secret,) = [manifest for manifest in MANIFESTS if manifest["kind"] == "Secret"]
    service = next(m for m in MANIFESTS if m["kind"] == "Service" and "valkey" in str(m["spec"]))
    given = secret["stringData"]
    assert given["url"] == f"redis://:{given['password']}@{service['metadata']['name']}:6379/0"
    for pod in ("reports-worker", "reports-web"):
        names = {each["name"]: each for each in container(pod)["env"]}
        found = names["TASKQ_URL"]["valueFrom"]["secretKeyRef"]
        assert found == {"name": secret["metadata"]["name"], "key": "url"}


def test_every_selector_of_the_manifests_finds_its_pods() -> None:
    labels = [
        manifest["spec"]["template"]["metadata"]["labels"]
        for manifest in MANIFESTS
        if "template" in manifest.get("spec", {})
    ]
    for manifest in MANIFESTS:
        selector = manifest.get("spec", {}).get("selector")
        if selector is not None:
            assert selector.get("matchLabels", selector) in labels, manifest["metadata"]["name"]
