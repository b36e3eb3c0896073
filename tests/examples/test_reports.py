"""The example application, as a reader runs it: under uvicorn, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.server import TestServer
from tests.support.waiting import eventually_sync

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[httpx.Client]:
    server = TestServer()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "reports.web:app", "--port", str(port)],
            cwd=EXAMPLES,
            env=os.environ | {"TASKQ_URL": server.url},
            stdout=log,
            stderr=log,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
        eventually_sync(lambda: answers(port) or process.poll() is not None)
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield client
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    said = (tmp_path / "log").read_text()
    server.close()
    assert "Traceback" not in said, said


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_the_application_does_what_its_page_shows(site: httpx.Client) -> None:
    assert "<progress" in site.get("/").text

    # Signing up sends a mail
    assert site.post("/signup", params={"address": "ada@example.org"}).json() == {"members": 1}
    eventually_sync(lambda: site.get("/mails").json() == ["welcome, ada@example.org"])

    # A report tells how far it is, and ends with its result
    answer = site.post("/reports", params={"title": "March", "pages": 3})
    assert answer.status_code == 202
    job = answer.json()["job"]
    events = site.get(f"/jobs/{job}/events").text
    assert "event: progress" in events
    assert '"text":"page 3 of 3"' in events
    assert site.get(f"/jobs/{job}/result").json()["result"] == "March: 3 pages about 1 members"

    # And one that is not wanted any more is cancelled
    job = site.post("/reports", params={"title": "April", "pages": 100}).json()["job"]
    assert site.delete(f"/jobs/{job}").json() == {"cancelled": True}
    assert site.get(f"/jobs/{job}/result", params={"wait": 10}).status_code == 409
