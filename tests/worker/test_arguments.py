"""Arguments and results arrive as the annotations of the task promise."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import pytest
from pydantic import BaseModel, field_validator

from taskq import EncodeError, JobFailed, JobState, TaskQ, every


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Mode(StrEnum):
    FAST = "fast"


@dataclass(frozen=True)
class Size:
    width: int
    height: int = 100


@dataclass
class Picture:
    path: str
    size: Size
    colours: list[Colour] = field(default_factory=list[Colour])


class Point(NamedTuple):
    x: int
    y: int


class Note(TypedDict):
    text: str
    at: datetime


class Order(BaseModel):
    number: int
    placed: datetime
    lines: list[Size] = []


CHINA = timezone(timedelta(hours=8))


async def same(value: Any) -> Any:
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**63),
        2**64 - 1,
        10**30,
        1.5,
        float("inf"),
        "",
        "Ünïcode \U0001f680 \x00",
        b"\x00\xff",
        [],
        [1, [2, [3]]],
        {},
        {"a": {"b": None}},
        {1: "one", None: "none"},
        (),
        (1, (2, [3])),
        {1, 2},
        frozenset({"a"}),
        datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, tzinfo=CHINA),
        date(2026, 1, 2),
        time(3, 4, 5),
        timedelta(days=-1, microseconds=7),
        Decimal("1.10"),
        UUID("12345678-1234-5678-1234-567812345678"),
    ],
    ids=lambda value: repr(value)[:30],
)
async def test_a_value_arrives_as_it_was_sent_and_comes_back(q: TaskQ, value: Any) -> None:
    seen: list[Any] = []

    @q.task(name="same")
    async def same(value: Any) -> Any:
        seen.append(value)
        return value

    job = await same.enqueue(value)
    await q.run_until_empty()
    result = await job.result(timeout=5)

    assert (seen, result) == ([value], value)
    assert type(seen[0]) is type(result) is type(value)


async def colour(value: Colour) -> Colour:
    return value


async def level(value: Level) -> Level:
    return value


async def mode(value: Mode) -> Mode:
    return value


async def picture(value: Picture) -> Picture:
    return value


async def point(value: Point) -> Point:
    return value


async def note(value: Note) -> Note:
    return value


async def order(value: Order) -> Order:
    return value


async def pictures(value: dict[str, list[Picture]]) -> dict[str, list[Picture]]:
    return value


async def pair(value: tuple[Colour, Size | None]) -> tuple[Colour, Size | None]:
    return value


PICTURE = Picture("a.png", Size(400), [Colour.RED])


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (colour, Colour.BLUE),
        (level, Level.LOW),
        (mode, Mode.FAST),
        (picture, PICTURE),
        (point, Point(1, 2)),
        (note, {"text": "now", "at": datetime(2026, 1, 2, tzinfo=UTC)}),
        (order, Order(number=7, placed=datetime(2026, 1, 2, tzinfo=UTC), lines=[Size(1)])),
        (pictures, {"a": [PICTURE, PICTURE], "b": []}),
        (pair, (Colour.RED, Size(1, 2))),
        (pair, (Colour.RED, None)),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_objects_are_made_again_from_the_annotations_of_the_task(
    q: TaskQ, function: Callable[[Any], Coroutine[Any, Any, Any]], value: Any
) -> None:
    seen: list[Any] = []

    async def wrapped(value: Any) -> Any:
        seen.append(value)
        return await function(value)

    wrapped.__annotations__ = dict(function.__annotations__)
    task = q.task(name="wrapped")(wrapped)

    job = await task.enqueue(value)
    await q.run_until_empty()
    result = await job.result(timeout=5)

    assert (seen, result) == ([value], value)
    assert type(seen[0]) is type(result) is type(value)


async def test_keyword_and_surplus_arguments_are_made_again_as_well(q: TaskQ) -> None:
    @q.task(name="paint")
    async def paint(first: Colour, *more: Colour, size: Size, **named: Level) -> str:
        names = [colour.name for colour in (first, *more)]
        return f"{names} {size.width} {named['level'].name}"

    job = await paint.enqueue(Colour.RED, Colour.BLUE, size=Size(3), level=Level.LOW)
    await q.run_until_empty()

    assert await job.result(timeout=5) == "['RED', 'BLUE'] 3 LOW"


async def test_plain_functions_get_their_objects_as_coroutines_do(q: TaskQ) -> None:
    @q.task(name="area")
    def area(size: Size) -> Size:
        return Size(size.width * size.height)

    job = await area.enqueue(Size(3, 4))
    await q.run_until_empty()

    assert await job.result(timeout=5) == Size(12)


async def test_info_shows_results_as_result_gives_them_and_arguments_as_they_travel(
    q: TaskQ,
) -> None:
    task = q.task(name="picture")(picture)
    job = await task.enqueue(PICTURE)
    await q.run_until_empty()

    info = await job.info()
    assert info.result == PICTURE
    assert info.args == (
        {"path": "a.png", "size": {"width": 400, "height": 100}, "colours": ["red"]},
    )
    # A handle made from an id knows no annotations
    assert (await q.job(job.id).info()).result == info.args[0]


async def test_an_argument_that_is_no_such_object_fails_the_job_with_its_name(
    q: TaskQ, other: TaskQ
) -> None:
    q.task(name="picture", retry=3)(picture)

    job = await other.send("picture", {"path": "a.png", "size": {"wdth": 1}})
    await q.run_until_empty()

    info = await job.info()
    assert info.state is JobState.FAILED
    assert info.attempt == 1
    assert info.attempts[0].outcome == "unfit_arguments"
    assert "value" in (info.error or "")


class Doubling(BaseModel):
    """Validated once more it would be another one."""

    price: int

    @field_validator("price")
    @classmethod
    def double(cls, price: int) -> int:
        return 2 * price


async def doubled(order: Doubling, *, more: list[Doubling] | None = None) -> Doubling:
    return order


@pytest.mark.parametrize("executor", ["loop", "process"])
async def test_objects_arrive_and_return_as_they_were_sent(q: TaskQ, executor: Any) -> None:
    task = q.task(name="doubled", executor=executor)(doubled)
    order = Doubling(price=3)

    sent = await task.enqueue(order, more=[order])
    input_ = await task.enqueue({"price": 3})  # type: ignore[arg-type]
    by_name = await q.send("doubled", order)
    async with q.worker():
        assert await sent.result(timeout=20) == order
        assert await input_.result(timeout=20) == Doubling(price=3)
        assert await task.job(by_name.id).result(timeout=20) == order


async def test_a_schedule_keeps_the_objects_it_was_given(q: TaskQ) -> None:
    task = q.task(name="doubled")(doubled)
    order = Doubling(price=3)
    await q.schedules.add("orders", every(hours=1), task.s(order))
    await q.schedules.modify("orders", priority=7)

    job = await q.schedules.run_now("orders")
    await q.run_until_empty()

    assert await job.result(timeout=5) == order
    await q.schedules.remove("orders")


async def test_what_would_arrive_as_another_value_is_refused_where_it_is_passed(q: TaskQ) -> None:
    @q.task(name="any")
    async def anything(value: Any, *, colour: str = "") -> None: ...

    with pytest.raises(EncodeError, match=r"args\[0\]\['a'\] is a Size that would arrive as a dic"):
        await anything.enqueue({"a": Size(1)})
    with pytest.raises(EncodeError, match=r"colour is a Colour that would arrive as a str; annota"):
        await anything.options(delay=5).enqueue(1, colour=Colour.RED)  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="would arrive as a str"):
        await q.schedules.add("any", every(hours=1), anything.s(Colour.RED))
    with pytest.raises(EncodeError, match="would arrive as a str"):
        anything.options(durable=True).defer(Colour.RED)

    assert await q.schedules.get("any") is None


async def test_arguments_are_copies(q: TaskQ) -> None:
    numbers = [3, 1, 2]

    @q.task(name="sort")
    async def sort(values: list[int]) -> list[int]:
        values.sort()
        return values

    job = await sort.enqueue(numbers)
    numbers.append(99)
    await q.run_until_empty()

    assert await job.result(timeout=5) == [1, 2, 3]
    assert numbers == [3, 1, 2, 99]


async def test_naive_datetimes_are_refused_on_both_ways(q: TaskQ) -> None:
    @q.task(name="when")
    async def when(_: Any = None) -> datetime:
        return datetime(2026, 1, 2)

    with pytest.raises(ValueError, match="naive datetime"):
        await when.enqueue(datetime(2026, 1, 2))

    job = await when.enqueue()
    await q.run_until_empty()
    with pytest.raises(JobFailed, match="naive datetime"):
        await job.result(timeout=5)
