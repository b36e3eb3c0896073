# test_reports.py
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from taskq import JobFailed
from tasks import order_daily_report, q, write_report
from web import api


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(api) as client:
        yield client


def test_an_ordered_report_is_written(client: TestClient) -> None:
    assert client.post("/reports/march?pages=2").status_code == 202
    assert client.get("/reports/march").json()["state"] == "queued"

    q.run(q.run_until_empty())

    assert client.get("/reports/march/text").json() == "march: 2 pages"


def test_two_orders_make_one_report(client: TestClient) -> None:
    assert client.post("/reports/april").json()["new"] is True
    assert client.post("/reports/april").json()["new"] is False


def test_the_daily_report_is_named_after_its_day() -> None:
    job = q.run(order_daily_report.enqueue())

    q.run(q.run_until_empty())

    assert q.run(job.result()).startswith("report:20")


def test_a_report_without_pages_fails() -> None:
    job = q.run(write_report.enqueue("may", pages=0))

    q.run(q.run_until_empty())

    with pytest.raises(JobFailed, match="at least one page"):
        q.run(job.result())
