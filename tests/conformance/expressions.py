"""Made-up cron expressions, with what they mean.

The meaning is known from how an expression was made: nothing here reads one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from hypothesis import strategies as st

__all__ = ["Expression", "Part", "expressions", "part"]

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True)
class Part:
    """A field: its text, and the numbers that fit it. Weekdays count from Sunday, 0."""

    text: str
    values: frozenset[int]

    @property
    def starred(self) -> bool:
        return self.text.startswith("*")


@dataclass(frozen=True)
class Expression:
    """Five fields."""

    minute: Part
    hour: Part
    day: Part
    month: Part
    weekday: Part

    @property
    def text(self) -> str:
        parts = (self.minute, self.hour, self.day, self.month, self.weekday)
        return " ".join(part.text for part in parts)

    @property
    def elapsed(self) -> bool:
        """It follows elapsed time, as a star in the minute or the hour says."""
        return self.minute.starred or self.hour.starred

    def fits_time(self, wall: datetime) -> bool:
        return wall.minute in self.minute.values and wall.hour in self.hour.values

    def fits_both_days(self, wall: datetime) -> bool:
        return (
            wall.month in self.month.values
            and wall.day in self.day.values
            and wall.isoweekday() % 7 in self.weekday.values
        )

    def fits_as_debian(self, wall: datetime) -> bool:
        """A star in front of one of the days means both, as Debian's cron has it."""
        if self.day.starred or self.weekday.starred:
            return self.fits_both_days(wall)
        return wall.month in self.month.values and (
            wall.day in self.day.values or wall.isoweekday() % 7 in self.weekday.values
        )


@dataclass(frozen=True)
class Numbers:
    """How a dialect spells the numbers of a field."""

    low: int
    high: int
    names: tuple[str, ...] = ()
    wraps: bool = False
    #: `5/20`
    open_steps: bool = True
    #: `mon-fri/2`
    name_steps: bool = True
    #: `1-1`
    equal_ranges: bool = True
    #: No step is wider than its range.
    steps_fit: bool = False
    #: 7 is 0.
    modulo: int = 0

    def spell(self, number: int, named: bool) -> str:
        return self.names[(number - self.low) % len(self.names)] if named else str(number)

    def steps(self, width: int) -> st.SearchStrategy[int]:
        return st.integers(1, max(width, 1) if self.steps_fit else self.high - self.low + 2)

    @property
    def value(self) -> st.SearchStrategy[int]:
        return st.integers(self.low, self.high)

    @property
    def naming(self) -> st.SearchStrategy[bool]:
        return st.booleans() if self.names else st.just(False)


@dataclass(frozen=True)
class Item:
    """One item of a list: its text, and its numbers in order."""

    text: str
    numbers: list[int]


@st.composite
def stars(draw: st.DrawFn, field: Numbers) -> Item:
    step = draw(field.steps(field.high - field.low))
    return Item(f"*/{step}", list(range(field.low, field.high + 1))[::step])


@st.composite
def values(draw: st.DrawFn, field: Numbers) -> Item:
    value, named = draw(field.value), draw(field.naming)
    step = draw(st.none() | field.steps(field.high - value))
    if not step or not field.open_steps or (named and not field.name_steps):
        return Item(field.spell(value, named), [value])
    if field.steps_fit and step > field.high - value:
        return Item(field.spell(value, named), [value])
    text = f"{field.spell(value, named)}/{step}"
    return Item(text, list(range(value, field.high + 1, step)))


@st.composite
def ranges(draw: st.DrawFn, field: Numbers) -> Item:
    first, last = sorted((draw(field.value), draw(field.value)))
    named = draw(field.naming)
    step = draw(st.none() | field.steps(last - first))
    if first == last and not field.equal_ranges:
        return Item(field.spell(first, named), [first])
    text = f"{field.spell(first, named)}-{field.spell(last, named)}"
    numbers = list(range(first, last + 1))
    if not step or (named and not field.name_steps) or (field.steps_fit and step > last - first):
        return Item(text, numbers)
    return Item(f"{text}/{step}", numbers[::step])


@st.composite
def wraps(draw: st.DrawFn, field: Numbers) -> Item:
    first, last = sorted((draw(field.value), draw(field.value)))
    named, step = draw(field.naming), draw(st.none() | field.steps(6))
    numbers = [*range(last, field.high + 1), *range(field.low, first + 1)]
    if not field.wraps or first == last:
        return Item(field.spell(first, named), [first])
    text = f"{field.spell(last, named)}-{field.spell(first, named)}"
    return Item(f"{text}/{step}", numbers[::step]) if step else Item(text, numbers)


def part(low: int, high: int, **spelling: Any) -> st.SearchStrategy[Part]:
    """Fields of numbers from `low` to `high`; `spelling` as in `Numbers`."""
    field = Numbers(low, high, **spelling)

    def joined(items: list[Item]) -> Part:
        found = {number for item in items for number in item.numbers}
        if field.modulo:
            found = {number % field.modulo for number in found}
        return Part(",".join(item.text for item in items), frozenset(found))

    item = stars(field) | values(field) | ranges(field) | wraps(field)
    every = Item("*", list(range(low, high + 1)))
    return st.just(joined([every])) | st.lists(item, min_size=1, max_size=3).map(joined)


def expressions(
    minute: st.SearchStrategy[Part],
    hour: st.SearchStrategy[Part],
    day: st.SearchStrategy[Part],
    month: st.SearchStrategy[Part],
    weekday: st.SearchStrategy[Part],
    *,
    days_matter: bool = False,
) -> st.SearchStrategy[Expression]:
    """Expressions of these fields; their days are mostly stars unless `days_matter`."""

    def mostly(star: Part, strategy: st.SearchStrategy[Part]) -> st.SearchStrategy[Part]:
        if days_matter:
            return strategy | st.just(star)
        return st.sampled_from([True, True, True, False]).flatmap(
            lambda plain: st.just(star) if plain else strategy
        )

    return st.builds(
        Expression,
        minute,
        hour,
        mostly(Part("*", frozenset(range(1, 32))), day),
        mostly(Part("*", frozenset(range(1, 13))), month),
        mostly(Part("*", frozenset(range(7))), weekday),
    )
