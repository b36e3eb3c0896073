"""Values that JSON lacks, as `--json` prints them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from taskq import Secret
from taskq.codec.payload import decode_call, encode_call
from taskq.ops.as_json import json_of
from tests.support.names import steady_name


class Color(Enum):
    RED = "red"
    MIXED = ("red", 1.5)


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: float
    name: Color


class Model(BaseModel):
    at: datetime
    share: float


def strictly(text: str) -> Any:
    """As a reader that knows the standard alone."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([None, True, 1, 2.5, "ä"], [None, True, 1, 2.5, "ä"]),
        ([math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"]),
        ({("a", 1): 2}, {'["a", 1]': 2}),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
        ({math.nan: 1, Color.RED: 2, b"ab": 3}, {"NaN": 1, "red": 2, "YWI=": 3}),
        ({frozenset({"a"}): {"b"}}, {'["a"]': ["b"]}),
        ([Color.RED, Color.MIXED, Level.HIGH], ["red", ["red", 1.5], 3]),
        ([b"ab", bytearray(b"ab")], ["YWI=", "YWI="]),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        ([date(2026, 1, 2), time(3, 4)], ["2026-01-02", "03:04:00"]),
        ([Decimal("1.50"), UUID(int=1)], ["1.50", "00000000-0000-0000-0000-000000000001"]),
        (timedelta(hours=1), "1:00:00"),
        ({"token": Secret("hunter2")}, {"token": "********"}),
        (Point(math.nan, Color.RED), {"x": "NaN", "name": "red"}),
        (
            Model(at=datetime(2026, 1, 2, tzinfo=UTC), share=math.inf),
            {"at": "2026-01-02T00:00:00Z", "share": "Infinity"},
        ),
    ],
    ids=steady_name,
)
def test_whatever_it_is_it_is_json(value: Any, shown: Any) -> None:
    assert strictly(json_of(value)) == shown
    assert strictly(json_of(value, indent=2, ascii_only=False)) == shown


def test_whatever_travels_can_be_shown() -> None:
    given = (
        {(1, ("a", b"b")): {frozenset({2**2000}): math.nan}},
        [Decimal("NaN"), {timedelta(1): {date(2026, 1, 2)}}, {UUID(int=1): time(1, tzinfo=UTC)}],
        Color.MIXED,
        Secret({"a": (1,)}),
    )

    args, kwargs = decode_call(encode_call(given, {"point": Point(1, Color.RED)}))

    assert len(strictly(json_of([args, kwargs]))[0]) == 4
