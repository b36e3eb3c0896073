"""Two threads claim deliveries: each has one owner, and nothing of it is remembered for ever."""

from __future__ import annotations

from collections.abc import Callable

from taskq.core.job import Delivery
from taskq.worker.slots import StartClaims


def delivery(fence: int = 1) -> Delivery:
    return Delivery("a", "default/5", b"default/5 1-1", fence, b"", 0, 0, 0, 0)


class Interleaved(dict[bytes, int]):
    """Lets the other thread run after the next look."""

    then: Callable[[], None] | None = None

    def setdefault(self, key: bytes, default: int = 0, /) -> int:
        found = super().setdefault(key, default)
        then, self.then = self.then, None
        if then is not None:
            then()
        return found


def test_who_comes_first_has_it() -> None:
    claims = StartClaims()

    assert claims.start(delivery())
    assert not claims.hand_back(b"default/5 1-1", 1)

    other = StartClaims()
    assert other.hand_back(b"default/5 1-1", 1)
    assert not other.start(delivery())


def test_what_is_asked_again_is_answered_the_same() -> None:
    claims = StartClaims()

    assert claims.hand_back(b"default/5 1-1", 1)
    assert claims.hand_back(b"default/5 1-1", 1)

    assert not claims.start(delivery())


def test_what_was_handed_back_is_forgotten_once_the_loop_came_to_it() -> None:
    claims = StartClaims()
    for number in range(1000):
        one = delivery()._replace(entry=b"default/5 %d-1" % number)
        claims.hand_back(one.entry, 1)
        assert not claims.start(one)

    assert claims._claims == {}


def test_the_next_delivery_of_an_entry_is_claimed_anew() -> None:
    """The first one was handed back, and never arrived."""
    claims = StartClaims()
    claims.hand_back(b"default/5 1-1", 1)
    assert claims.start(delivery(2))

    claims.hand_back(b"default/5 1-1", 1)
    claims.end(delivery(2))
    claims.hand_back(b"default/5 1-1", 1)
    assert claims.hand_back(b"default/5 1-1", 3)
    assert not claims.start(delivery(3))


def test_an_older_delivery_takes_nothing_from_the_next_one() -> None:
    claims = StartClaims()
    claims.hand_back(b"default/5 1-1", 1)
    assert claims.start(delivery(2))

    assert not claims.start(delivery(1))
    assert not claims.hand_back(b"default/5 1-1", 2)


def test_the_next_delivery_is_claimed_once_by_two_threads_at_once() -> None:
    claims, started = StartClaims(), list[bool]()
    claims._claims = table = Interleaved({b"default/5 1-1": -1})
    table.then = lambda: started.append(claims.start(delivery(2)))

    handed_back = claims.hand_back(b"default/5 1-1", 2)

    assert (started, handed_back) == ([True], False)
