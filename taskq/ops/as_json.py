"""The read model as JSON: what `--json` prints and what other views serve, of any value."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from enum import Enum
from typing import Any, cast

from taskq.core.text import CONTROLS
from taskq.ops.overview import Overview, Trouble
from taskq.redis.server_check import Verdict

__all__ = ["doctor_json", "json_of", "json_printable", "plain", "status_json"]


def status_json(
    overview: Overview, server: str, namespace: str, troubles: Iterable[Trouble]
) -> dict[str, Any]:
    """An overview with the server it was read from, as values of JSON.

    `troubles` are those of the overview, with fixes as the reader can use them.
    """
    rounded = plain(overview, digits=4)
    workers = [
        worker | {"alive": state.alive}
        for worker, state in zip(rounded["workers"], overview.workers, strict=True)
    ]
    return {
        "server": server,
        "namespace": namespace,
        "healthy": overview.healthy,
        **rounded,
        "workers": workers,
        "troubles": [dataclasses.asdict(trouble) for trouble in troubles],
    }


def doctor_json(verdicts: Iterable[Verdict], server: str, namespace: str) -> dict[str, Any]:
    """The verdicts of an examination with the server that was examined, as values of JSON."""
    found = [dataclasses.asdict(verdict) for verdict in verdicts]
    return {
        "server": server,
        "namespace": namespace,
        "healthy": not any(verdict["level"] == "bad" for verdict in found),
        "verdicts": found,
    }


def json_of(value: Any, *, indent: int | None = None, ascii_only: bool = True) -> str:
    """Any value that taskq can carry, as JSON that every reader accepts."""
    text = json.dumps(plain(value), indent=indent, ensure_ascii=ascii_only, allow_nan=False)
    return json_printable(text)


def json_printable(text: str) -> str:
    """JSON in which control characters within strings are escaped."""
    return CONTROLS.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    # The only control character between strings is the line feed.
    return found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}"


def plain(value: Any, *, digits: int | None = None) -> Any:
    """`value` in the types of JSON: anything else becomes text, an array or an object.

    Bytes become base64, an enum its value, and a number that JSON lacks its name, such as "NaN". A
    key that is not text becomes its JSON. With `digits`, floats are rounded.
    """
    if isinstance(value, Enum):
        return plain(value.value, digits=digits)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return _number(value, digits)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (date, time)):
        return value.isoformat()
    return _container(value, digits)


def _number(value: float, digits: int | None) -> float | str:
    if not math.isfinite(value):
        return _NAMES.get(value, "NaN")
    return value if digits is None else round(value, digits)


def _container(value: Any, digits: int | None) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: plain(getattr(value, item.name), digits=digits)
            for item in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        items = cast("Mapping[Any, Any]", value).items()
        return {_key(key): plain(item, digits=digits) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, digits=digits) for item in cast("Iterable[Any]", value)]
    # A pydantic model knows its JSON form; anything else, such as a Decimal, becomes text.
    dump = getattr(value, "model_dump", None)
    return str(value) if dump is None else plain(dump(mode="json"), digits=digits)


def _key(key: Any) -> str:
    shown = plain(key)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


_NAMES = {math.inf: "Infinity", -math.inf: "-Infinity"}
