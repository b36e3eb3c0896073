"""Whatever a job or a schedule carries, as JSON can show it."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from datetime import date, time
from enum import Enum
from typing import Any, cast

from taskq.cli.printable import json_printable

__all__ = ["json_of", "plain"]


def json_of(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """JSON that every reader takes, of anything that taskq can carry."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return json_printable(text)


def plain(value: Any) -> Any:
    """`value` of what JSON knows: the rest becomes text, an array or an object.

    Bytes are base64, an enum is its value, and a number that JSON has not is its name, such as
    "NaN". A key that is no text is the JSON of it.
    """
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _NAMES.get(value, "NaN")
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return _container(value)


def _container(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_key(key): plain(item) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in cast("Iterable[Any]", value)]
    # A pydantic model knows how it looks as JSON; anything else, such as a Decimal, is text.
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else plain(dump(mode="json"))


def _key(key: Any) -> str:
    shown = plain(key)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


_NAMES = {math.inf: "Infinity", -math.inf: "-Infinity"}
