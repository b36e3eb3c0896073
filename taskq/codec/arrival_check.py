"""Check at enqueue that arguments will arrive equal to what was passed.

A value arrives equal or is refused with its path. Builtins and their containers are sent as they
are. Enums, objects with fields and subclasses of builtins are sent as simpler types, and the
annotations of the function decide what becomes of them: so the arguments are rebuilt at once and
compared. Plain data is input: whatever an annotation makes of it is intended.
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

    Raises `EncodeError` with the path of a value that would arrive changed, and `CallError` for one
    that the annotations refuse.
    """
    received_args, received_kwargs = decode_call(data)
    rebuild = rebuilder()
    if rebuild is not None:
        received_args, received_kwargs = rebuild.apply(received_args, received_kwargs)
    try:
        for place, sent in enumerate(args):
            _compare(sent, received_args[place], f"args[{place}]")
        for name, sent in kwargs.items():
            _compare(sent, received_kwargs[name], name)
    except _Changed as changed:
        raise changed.error() from None


class _Changed(Exception):
    """A value that would arrive changed; the path to it grows as this propagates."""

    def __init__(self, sent: Any, received: Any) -> None:
        super().__init__()
        self.path = ""
        self._sent = sent
        self._received = received

    def error(self) -> EncodeError:
        what = f"{self.path} is {a_type(self._sent)}"
        if type(self._received) is type(self._sent):
            return EncodeError(
                f"{what} that would arrive changed: rebuilding it gives another value. Pass the "
                "plain values it is made of"
            )
        received = "nothing" if self._received is _ABSENT else a_type(self._received)
        if type(self._received) is Record:
            received = "a dictionary of its fields"
        return EncodeError(
            f"{what} that would arrive as {received}; annotate its parameter or field with "
            f"{type(self._sent).__name__} (imported at run time too), or pass plain data"
        )


def _compare(sent: Any, received: Any, step: str, exact: bool = False) -> None:
    """Raise `_Changed` unless `received` is equal to `sent`; `step` is the path to both.

    `exact`: they are inside an object, where plain data is state and not input.
    """
    try:
        same = _same(sent, received, exact)
    except _Changed as changed:
        changed.path = step + changed.path
        raise
    if not same:
        changed = _Changed(sent, received)
        changed.path = step
        raise changed


def _same(sent: Any, received: Any, exact: bool) -> bool:
    kind = cast("type[Any]", type(sent))
    if kind in _SCALARS:
        return not exact or _equal(sent, received)
    if kind is Secret:
        _compare(
            sent.reveal(), received.reveal() if type(received) is Secret else received, "", exact
        )
        return True
    if is_object_class(kind):
        return _same_object(sent, received)
    if isinstance(sent, (list, tuple)):
        return _same_items(cast("list[Any]", sent), received, exact or kind not in _CONTAINERS)
    if isinstance(sent, dict):
        return _same_mapping(
            cast("dict[Any, Any]", sent), received, exact or kind not in _CONTAINERS
        )
    return _equal(sent, received)


def _same_object(sent: Any, received: Any) -> bool:
    if type(received) is not type(sent):
        return False
    before, after = fields_of(sent), fields_of(received)
    if before is None or after is None:
        return _equal(sent, received)
    for name, value in before.items():
        _compare(value, after.get(name, _ABSENT), f".{name}", exact=True)
    return before.keys() == after.keys()


def _same_items(sent: list[Any], received: Any, exact: bool) -> bool:
    if not exact and _is_plain(sent):
        return True
    if not isinstance(received, (list, tuple)):
        return _equal(sent, received)
    there = cast("list[Any]", received)
    for place, (item, other) in enumerate(zip(sent, there, strict=False)):
        _compare(item, other, f"[{place}]", exact)
    return len(sent) == len(there)


def _same_mapping(sent: dict[Any, Any], received: Any, exact: bool) -> bool:
    if not exact and _is_plain(sent):
        return True
    if not isinstance(received, dict):
        # Input for a class: values that are not plain data must be attributes of the result.
        for name, item in sent.items():
            _compare(item, getattr(received, str(name), _ABSENT), f"[{name!r}]", exact)
        return not exact
    there = cast("dict[Any, Any]", received)
    for (key, item), (other_key, other) in zip(sent.items(), there.items(), strict=False):
        _compare(key, other_key, "<key>", exact)
        _compare(item, other, f"[{key!r}]", exact)
    # A plain dictionary has no factory, and is equal all the same.
    factories = {getattr(one, "default_factory", None) for one in (sent, there)}
    return len(sent) == len(there) and (type(there) is dict or len(factories) == 1)


def _is_plain(value: Any) -> bool:
    """Whether a value and all it contains are sent as they are."""
    kind = cast("type[Any]", type(value))
    if kind is dict:
        return _all_plain(value) and _all_plain(value.values())
    return kind in _SCALARS or (kind in _CONTAINERS and _all_plain(value))


def _all_plain(items: Iterable[Any]) -> bool:
    return AS_IS.issuperset(map(type, items)) or all(map(_is_plain, items))


def _equal(sent: Any, received: Any) -> bool:
    if isinstance(sent, datetime) and isinstance(received, datetime):
        # Datetimes of two zones never compare equal in the hour that daylight saving time repeats.
        sent, received = base_datetime(sent), base_datetime(received)
        if sent.utcoffset() != received.utcoffset():
            return False
        sent, received = sent.replace(tzinfo=None), received.replace(tzinfo=None)
    try:
        # Only NaN is not equal to itself.
        return bool(sent == received) or (
            type(sent) is type(received) and sent != sent and received != received
        )
    except Exception:  # arrays and others that do not compare to a bool: undecidable
        return type(sent) is type(received)
