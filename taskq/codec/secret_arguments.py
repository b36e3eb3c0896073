"""Arguments that a task's annotations declare secret: wrapped as `Secret` before they travel."""

from __future__ import annotations

import base64
import html
import json
import re
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, Union, cast, get_args, get_origin
from urllib.parse import quote, quote_plus

from taskq.codec.extensions import Record
from taskq.codec.instances import Walk
from taskq.codec.rebuild import CallPlan, plan_for
from taskq.codec.rebuilders import Rebuilder
from taskq.codec.secret import MASK, Secret
from taskq.codec.type_hints import annotations_of, bare

__all__ = ["Concealer", "forms_of", "revealed", "without_passwords"]


class Concealer:
    """Wraps the arguments of one function that its annotations call `Secret`."""

    def __init__(self, function: Callable[..., Any], without: frozenset[str] = frozenset()) -> None:
        self._function = function
        self._without = without
        self._plan: CallPlan | None = None

    @classmethod
    def of(
        cls, function: Callable[..., Any], without: frozenset[str] = frozenset()
    ) -> Concealer | None:
        """The concealer of `function`; None when no annotation mentions a secret.

        `without`: parameters that no call gives an argument for.
        """
        annotations = annotations_of(function)
        told = [text for name, text in annotations.items() if name not in {"return", *without}]
        return cls(function, without) if any("Secret" in str(text) for text in told) else None

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with what is secret wrapped; None stays None."""
        if self._plan is None:
            self._plan = plan_for(self._function, self._without, _concealing)[0]
        given, keywords = self._plan.apply(args, kwargs)
        return tuple(given), keywords


def _concealing(annotation: Any) -> Rebuilder | None:
    return _wrapped if _is_secret(annotation) else None


def _is_secret(annotation: Any) -> bool:
    annotation = bare(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        members = [bare(member) for member in get_args(annotation)]
        return all(member is type(None) or _is_secret(member) for member in members)
    return (origin or annotation) is Secret


def _wrapped(_: Walk, value: Any) -> Any:
    plain: Any = value
    return plain if value is None or isinstance(value, Secret) else Secret[Any](plain)


def revealed(value: Any, *, secret: bool = False) -> list[str | bytes]:
    """All texts and bytes that lie in secrets in `value`, which was decoded from a payload."""
    kind = cast("type[Any]", type(value))
    if kind is Secret:
        return revealed(value.reveal(), secret=True)
    if kind in (dict, Record):
        return revealed([*value.keys(), *value.values()], secret=secret)
    if kind in (list, tuple, set, frozenset):
        return [text for item in value for text in revealed(item, secret=secret)]
    if not secret or value is None or kind is bool:
        return []
    return [value if kind is bytes else str(value)]


def forms_of(secret: str | bytes) -> set[str]:
    """How a secret may be written in a text: as it is, quoted, escaped, in hex and in base 64.

    Of base 64 it is the middle, which is the same wherever the secret lies in what was encoded: in
    the header of a basic authentication, say.
    """
    data = secret if isinstance(secret, bytes) else secret.encode("utf-8", "surrogatepass")
    forms = {repr(data)[2:-1], data.hex(), data.hex().upper(), *_in_base64(data)}
    text = secret if isinstance(secret, str) else data.decode("utf-8", "replace")
    forms |= {
        *(
            text,
            repr(text)[1:-1],
            ascii(text)[1:-1],
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
        ),
        *(quote(data), quote(data, safe=""), quote_plus(data), html.escape(text)),
        # Within the quotes of a shell, and lines of a key that a traceback shows one by one.
        *(text.replace("'", "'\"'\"'"), text.replace("'", "\\'"), text.replace('"', '\\"')),
        *(line for line in text.splitlines() if len(line) >= _LONG),
    }
    return {form for form in forms if len(form) >= _LEAST}


def _in_base64(data: bytes) -> Iterator[str]:
    if len(data) < _LONG:
        return
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).rstrip(b"=").decode()
        # The first characters hold bits of what stands before, the last one of what follows.
        middle = encoded[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6]
        yield middle
        yield middle.translate(_URL_SAFE)


def without_passwords(text: str) -> str:
    """`text` without the passwords of URLs and connection strings, which many errors quote."""
    text = _IN_URL.sub(rf"\1{MASK}@", text)
    return _IN_DSN.sub(rf"\1{MASK}", text)


_LEAST: Final = 4
"""Shorter values are no secrets, and masking them would make a text unreadable."""

_LONG: Final = 6
"""Shorter ones could be anything in base 64."""

_URL_SAFE: Final = str.maketrans("+/", "-_")
# Bounded: such a text may be anybody's, and must not take long.
_IN_URL: Final = re.compile(r"(://[^\s/@:'\"]{0,128}:)[^\s'\"]{1,512}@")
_IN_DSN: Final = re.compile(
    r"(?i)(\b(?:password|passwd|pwd)=)(?:'[^']{0,512}'|\"[^\"]{0,512}\"|[^\s&;,'\"]{1,512})"
)
