"""What a worker asks for of the jobs that run in threads and in processes."""

from __future__ import annotations

from taskq.core.job import Delivery
from taskq.worker.in_flight import Load


def thread_job(number: int) -> Delivery:
    return Delivery(str(number), "default/5t", b"default/5t %d-1" % number, 1, b"", 0, 0, 0, 0)


def test_a_thread_that_came_free_during_a_fetch_is_asked_for_by_the_next() -> None:
    jobs = [thread_job(number) for number in range(3)]
    load, woken = Load({"t": 2}), list[str]()
    load.on_room = lambda: woken.append("woken")

    # Given a fetch that went out while both threads were taken, and a third job waited
    for job in jobs:
        load.add(job)
    assert load.ask("t", 0) == 0

    # When the first one ends, the job that waited takes its thread
    load.remove(jobs[0])
    assert not woken
    assert not load.lacks_jobs

    # And when another one ends, a thread is free
    load.remove(jobs[1])
    assert woken == ["woken"]
    assert load.lacks_jobs

    # Then the next fetch asks for it, and if it finds nothing there is nothing
    assert load.ask("t", 0) == 1
    assert not load.lacks_jobs


def test_a_fetch_that_brought_all_it_asked_for_may_have_left_some() -> None:
    load = Load({"t": 4})
    jobs = [thread_job(number) for number in range(4)]
    for job in jobs:
        load.add(job)
    load.remove(jobs[0])
    assert load.ask("t", 0) == 1

    # When another thread comes free while the fetch is on its way
    load.remove(jobs[1])
    load.add(thread_job(4))

    assert load.lacks_jobs
