"""Whether what a call passes will arrive equal: found out where it is enqueued.

A value arrives equal to what was sent, or is refused with its path. Builtins and their containers
travel as they are. Enums, objects with fields and subclasses of builtins travel as something
plainer, and the annotations of the function decide what is made of that again: so it is made at
once, and compared. Plain data is input: what an annotation makes of it is what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Final, cast

from taskq.codec.extensions import AS_IS, SCALAR_EXTENSIONS, Record
from taskq.codec.instances import fields_of, is_object_class
from taskq.codec.payload import decode_call
from taskq.codec.rebuild import CallRebuilder
from taskq.codec.secret import Secret
from taskq.codec.unencodable import a_type
from taskq.core.durations import base_datetime
from taskq.core.errors import EncodeError

__all__ = ["check_arrival"]

_SCALARS = AS_IS | SCALAR_EXTENSIONS.keys()
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset, Record})
_ABSENT: Final = object()


def check_arrival(
    rebuilder: Callable[[], CallRebuilder | None],
    data: bytes,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Check the arguments of a call, whose bytes are `data`.

    Raises `EncodeError` with the path of a value that would arrive as another one, and `CallError`
    for one that the annotations refuse.
    """
    came_args, came_kwargs = decode_call(data)
    rebuild = rebuilder()
    if rebuild is not None:
        came_args, came_kwargs = rebuild.apply(came_args, came_kwargs)
    try:
        for place, sent in enumerate(args):
            _compare(sent, came_args[place], f"args[{place}]")
        for name, sent in kwargs.items():
            _compare(sent, came_kwargs[name], name)
    except _Change as change:
        raise change.error() from None


class _Change(Exception):
    """A value that would arrive as another one, on its way up to its argument."""

    def __init__(self, sent: Any, came: Any) -> None:
        super().__init__()
        self.path = ""
        self._sent = sent
        self._came = came

    def error(self) -> EncodeError:
        what = f"{self.path} is {a_type(self._sent)}"
        if type(self._came) is type(self._sent):
            return EncodeError(
                f"{what} that would arrive changed: what is made of it again is another one. Pass "
                "the plain values it is made of"
            )
        came = "nothing" if self._came is _ABSENT else a_type(self._came)
        if type(self._came) is Record:
            came = "a dictionary of its fields"
        return EncodeError(
            f"{what}, and would arrive as {came}; annotate the parameter or field it is passed for "
            f"with {type(self._sent).__name__} (imported at run time too), or pass plain data"
        )


def _compare(sent: Any, came: Any, step: str, exact: bool = False) -> None:
    """Raise `_Change` unless `came` is what `sent` stands for; `step` leads to both.

    `exact`: they lie in an object, where plain data is no input either.
    """
    try:
        same = _same(sent, came, exact)
    except _Change as change:
        change.path = step + change.path
        raise
    if not same:
        change = _Change(sent, came)
        change.path = step
        raise change


def _same(sent: Any, came: Any, exact: bool) -> bool:
    kind = cast("type[Any]", type(sent))
    if kind in _SCALARS:
        return not exact or _equal(sent, came)
    if kind is Secret:
        _compare(sent.reveal(), came.reveal() if type(came) is Secret else came, "", exact)
        return True
    if is_object_class(kind):
        return _same_object(sent, came)
    if isinstance(sent, (list, tuple)):
        return _same_items(cast("list[Any]", sent), came, exact or kind not in _CONTAINERS)
    if isinstance(sent, dict):
        return _same_mapping(cast("dict[Any, Any]", sent), came, exact or kind not in _CONTAINERS)
    return _equal(sent, came)


def _same_object(sent: Any, came: Any) -> bool:
    if type(came) is not type(sent):
        return False
    before, after = fields_of(sent), fields_of(came)
    if before is None or after is None:
        return _equal(sent, came)
    for name, value in before.items():
        _compare(value, after.get(name, _ABSENT), f".{name}", exact=True)
    return before.keys() == after.keys()


def _same_items(sent: list[Any], came: Any, exact: bool) -> bool:
    if not exact and _is_plain(sent):
        return True
    if not isinstance(came, (list, tuple)):
        return _equal(sent, came)
    there = cast("list[Any]", came)
    for place, (item, other) in enumerate(zip(sent, there, strict=False)):
        _compare(item, other, f"[{place}]", exact)
    return len(sent) == len(there)


def _same_mapping(sent: dict[Any, Any], came: Any, exact: bool) -> bool:
    if not exact and _is_plain(sent):
        return True
    if not isinstance(came, dict):
        # Input for a class: what is no plain data in it must lie in what was made of it.
        for name, item in sent.items():
            _compare(item, getattr(came, str(name), _ABSENT), f"[{name!r}]", exact)
        return not exact
    there = cast("dict[Any, Any]", came)
    for (key, item), (other_key, other) in zip(sent.items(), there.items(), strict=False):
        _compare(key, other_key, "<key>", exact)
        _compare(item, other, f"[{key!r}]", exact)
    # As a plain dictionary it has no factory where it arrives, and is equal all the same.
    factories = {getattr(one, "default_factory", None) for one in (sent, there)}
    return len(sent) == len(there) and (type(there) is dict or len(factories) == 1)


def _is_plain(value: Any) -> bool:
    """Whether a value travels as what it is, all the way down."""
    kind = cast("type[Any]", type(value))
    if kind is dict:
        return _all_plain(value) and _all_plain(value.values())
    return kind in _SCALARS or (kind in _CONTAINERS and _all_plain(value))


def _all_plain(items: Iterable[Any]) -> bool:
    return AS_IS.issuperset(map(type, items)) or all(map(_is_plain, items))


def _equal(sent: Any, came: Any) -> bool:
    if isinstance(sent, datetime) and isinstance(came, datetime):
        # Those of two zones are never equal within the hour that a change of clocks repeats.
        sent, came = base_datetime(sent), base_datetime(came)
        if sent.utcoffset() != came.utcoffset():
            return False
        sent, came = sent.replace(tzinfo=None), came.replace(tzinfo=None)
    try:
        # What is not equal to itself is NaN.
        return bool(sent == came) or (type(sent) is type(came) and sent != sent and came != came)
    except Exception:  # arrays, and whatever else compares in its own way: nothing is known
        return type(sent) is type(came)
