"""Who is dead, judged by counters and one monotonic clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.worker.observer import Observer

LOOK = 0.5


class Story:
    """Looks every half a second at counters; each worker beats once a second unless told not to."""

    def __init__(self) -> None:
        self.observer = Observer()
        self.now = 1000.0
        self.counters: dict[str, int] = {"me": 1, "other": 1}
        self.silent: set[str] = set()

    def look(self) -> dict[str, str]:
        seen = {name: str(count) for name, count in self.counters.items()}
        return self.observer.judge(seen, "me", self.now)

    def pass_time(self, seconds: float) -> Iterator[dict[str, str]]:
        """Look and beat for so long; what each look found dead."""
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK
            if self.now % 1 < LOOK:
                for name in self.counters.keys() - self.silent:
                    self.counters[name] += 1
            yield self.look()

    def ever_dead(self, seconds: float) -> set[str]:
        return {name for dead in self.pass_time(seconds) for name in dead}


@pytest.fixture
def story() -> Story:
    return Story()


def test_who_beats_lives(story: Story) -> None:
    assert story.ever_dead(3600) == set()


def test_six_seconds_of_silence_are_death(story: Story) -> None:
    story.ever_dead(10)
    story.silent.add("other")

    assert story.ever_dead(5.5) == set()
    assert story.ever_dead(1.5) == {"other"}


def test_the_verdict_carries_the_counter_it_was_made_by(story: Story) -> None:
    story.counters["other"] = 41
    story.silent.add("other")

    *_, last = story.pass_time(8)

    assert last == {"other": "41"}


def test_first_sight_starts_the_clock(story: Story) -> None:
    """A worker that has long been silent when it is first seen gets its six seconds."""
    story.ever_dead(3600)
    story.counters["old"] = 7
    story.silent.add("old")

    assert story.ever_dead(6) == set()
    assert story.ever_dead(2) == {"old"}


def test_one_beat_starts_it_anew(story: Story) -> None:
    story.silent.add("other")
    story.ever_dead(5)
    story.counters["other"] += 1

    assert story.ever_dead(5.5) == set()
    assert story.ever_dead(2) == {"other"}


def test_a_counter_that_went_back_is_a_sign_of_life_too(story: Story) -> None:
    """The server may have lost its data, and the worker have registered anew."""
    story.counters["other"] = 500
    story.silent.add("other")
    story.ever_dead(5)
    story.counters["other"] = 1

    assert story.ever_dead(5) == set()


def test_while_our_own_beats_are_not_heard_nobody_dies(story: Story) -> None:
    """The server pauses, or the network breaks: then nobody's counter moves."""
    story.ever_dead(5)
    story.silent |= {"me", "other"}

    assert story.ever_dead(60) == set()


def test_silence_before_ours_ended_is_not_counted_afterwards(story: Story) -> None:
    story.ever_dead(5)
    story.silent |= {"me", "other"}
    story.ever_dead(60)
    story.silent.clear()

    assert story.ever_dead(60) == set()


def test_who_died_meanwhile_is_found_when_ours_are_heard_again(story: Story) -> None:
    story.ever_dead(5)
    story.silent |= {"me", "other"}
    story.ever_dead(60)
    story.silent.discard("me")

    assert story.ever_dead(8) == {"other"}


def test_a_pause_of_the_observer_is_not_counted(story: Story) -> None:
    """It was stopped, or its machine slept: what it did not look at it cannot judge."""
    story.silent.add("other")
    story.ever_dead(4)

    for _ in range(20):
        story.now += 3600.0
        # Its own beats go on before it looks: they come from a thread of their own.
        story.counters["me"] += 1
        assert story.look() == {}

    assert story.ever_dead(3) == {"other"}


def test_an_observer_that_is_not_registered_judges_nobody(story: Story) -> None:
    del story.counters["me"]
    story.silent.add("other")

    assert story.ever_dead(60) == set()


def test_an_observer_never_judges_itself(story: Story) -> None:
    story.observer = Observer(dead_after=1.0)
    story.silent |= {"me", "other"}

    assert story.ever_dead(60) == {"other"}


def test_who_has_gone_is_forgotten(story: Story) -> None:
    story.silent.add("other")
    story.ever_dead(5)
    counter = story.counters.pop("other")
    story.ever_dead(1)
    story.counters["other"] = counter

    assert story.ever_dead(5) == set()


def test_each_is_judged_for_itself(story: Story) -> None:
    story.counters |= {f"w{n}": 1 for n in range(20)}
    story.silent |= {f"w{n}" for n in range(0, 20, 2)}

    assert story.ever_dead(8) == {f"w{n}" for n in range(0, 20, 2)}


@given(st.lists(st.floats(0.05, 2.4), min_size=5, max_size=60))
@settings(deadline=None, max_examples=150)
def test_whatever_the_rhythm_of_looks_nobody_dies_in_less_than_six_seconds(
    gaps: list[float],
) -> None:
    """Looks come early and late; our own beats land at each of them."""
    observer, now = Observer(), 0.0
    for n, gap in enumerate([0.0, *gaps]):
        now += gap
        dead = observer.judge({"me": str(n), "other": "1"}, "me", now)
        assert bool(dead) == (now >= 6.0 - 1e-9) or abs(now - 6.0) < 1e-6
