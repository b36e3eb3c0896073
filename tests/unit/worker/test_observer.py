"""Who is dead, judged by the order of heartbeats and one monotonic clock."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.broker.leases import SilentWorker
from taskq.worker.heartbeat import Observer


class Story:
    """Workers beat once a second unless told not to, `me` among them; the server numbers them."""

    def __init__(self, *others: str) -> None:
        self.observer = Observer()
        self.now = 1000.0
        self.number = 0
        self.beats = dict.fromkeys(("me", *(others or ("other",))), 0)
        self.silent: set[str] = set()
        self.lost = False
        """Whether heartbeats of `me` are not answered."""
        self.next_death = float("inf")
        for name in self.beats:
            self.beat(name)

    def beat(self, name: str) -> None:
        self.number += 1
        self.beats[name] = self.number

    def ask(self) -> list[SilentWorker]:
        """One heartbeat of `me`, answered at once; who is dead by it."""
        since = self.observer.since(self.now)
        if self.lost:
            return []
        self.beat("me")
        silent = [SilentWorker(*found) for found in self.beats.items() if found[1] < since]
        self.observer.landed(self.number, self.now, self.now)
        self.next_death = self.observer.next_death(silent)
        return self.observer.dead(silent, self.now)

    def ever_dead(self, seconds: float) -> set[str]:
        """Let time pass; who was found dead meanwhile."""
        found: set[str] = set()
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            for name in self.beats.keys() - self.silent - {"me"}:
                self.beat(name)
            found |= {worker.worker for worker in self.ask()}
        return found


@pytest.fixture
def story() -> Story:
    return Story()


def test_who_beats_lives(story: Story) -> None:
    assert story.ever_dead(3600) == set()


def test_six_seconds_of_silence_are_death(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")

    assert story.ever_dead(5) == set()
    assert story.ever_dead(1) == {"other"}


def test_the_verdict_names_the_last_heartbeat(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    last = story.beats["other"]
    story.ever_dead(6)

    story.now += 1.0
    assert story.ask() == [SilentWorker("other", last)]


def test_the_next_heartbeat_need_not_wait_longer_than_the_lease(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    heard = story.now
    story.ever_dead(4)

    # It was heard before ours was answered that second
    assert story.next_death == heard + 6.0


def test_who_is_not_silent_dies_at_no_time(story: Story) -> None:
    story.ever_dead(10)

    assert story.next_death == float("inf")


def test_first_sight_starts_the_clock() -> None:
    story = Story()
    story.silent.add("other")

    assert story.ever_dead(6) == set()
    assert story.ever_dead(1) == {"other"}


def test_one_heartbeat_starts_it_anew(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    story.ever_dead(5)
    story.beat("other")

    assert story.ever_dead(6) == set()
    assert story.ever_dead(1) == {"other"}


def test_while_our_own_heartbeats_are_not_heard_nobody_dies(story: Story) -> None:
    """The server stands still: nobody's heartbeat lands."""
    story.ever_dead(10)
    story.silent.add("other")
    story.lost = True
    story.ever_dead(60)
    story.lost = False

    assert story.ever_dead(6) == set()


def test_who_died_meanwhile_is_found_when_ours_are_heard_again(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    story.lost = True
    story.ever_dead(60)
    story.lost = False

    assert story.ever_dead(8) == {"other"}


def test_one_heartbeat_of_ours_that_is_lost_does_not_stop_the_count(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    story.ever_dead(2)
    story.lost = True
    story.ever_dead(1)
    story.lost = False

    assert story.ever_dead(4) == {"other"}


def test_when_the_server_went_back_in_time_nobody_dies() -> None:
    """A replica that lagged took over: numbers that were given are given again."""
    story = Story("one", "two", "three")
    story.ever_dead(60)
    story.number -= 80
    for name, beat in story.beats.items():
        story.beats[name] = beat - 80

    assert story.ever_dead(60) == set()
    story.silent.add("two")
    assert story.ever_dead(8) == {"two"}


def test_a_pause_of_the_observer_is_not_counted(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    story.ever_dead(2)
    story.now += 3600

    assert story.ever_dead(6) == set()


def test_an_answer_that_took_long_is_not_counted_as_silence(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")
    sent = story.now + 1.0
    silent = [SilentWorker("other", story.beats["other"])]
    # Given that the server stood still for ten seconds between question and answer
    story.observer.landed(story.number + 1, sent, sent + 10.0)

    assert story.observer.dead(silent, sent) == []
    assert story.observer.dead(silent, sent + 10.1) == []


def test_one_whose_jobs_are_being_taken_back_is_dead_at_once(story: Story) -> None:
    assert story.observer.dead([SilentWorker("half", -1)], story.now) == [SilentWorker("half", -1)]


def test_each_is_judged_for_itself() -> None:
    story = Story("lives", "dies")
    story.ever_dead(10)
    story.silent.add("dies")

    assert story.ever_dead(10) == {"dies"}


@given(st.lists(st.floats(0.01, 2.4), min_size=1, max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_the_rhythm_nobody_dies_in_less_than_six_seconds(pauses: list[float]) -> None:
    story = Story()
    story.ever_dead(3)
    heard = story.now
    story.beat("other")
    for pause in pauses:
        story.now += pause
        if story.ask():
            assert story.now - heard >= 6.0
            return
