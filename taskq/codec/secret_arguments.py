"""Keep secret arguments secret: wrap them before they are sent, and mask them in texts."""

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
from taskq.codec.type_hints import annotations_of, unwrapped

__all__ = ["SecretWrapper", "mask_passwords", "secret_texts", "written_forms"]


class SecretWrapper:
    """Wraps the arguments that a function annotates with `Secret`."""

    def __init__(self, function: Callable[..., Any], without: frozenset[str] = frozenset()) -> None:
        self._function = function
        self._without = without
        self._plan: CallPlan | None = None

    @classmethod
    def of(
        cls, function: Callable[..., Any], without: frozenset[str] = frozenset()
    ) -> SecretWrapper | None:
        """The wrapper for `function`; None when no annotation mentions a secret.

        `without`: parameters that calls never pass.
        """
        annotations = annotations_of(function)
        passed = [text for name, text in annotations.items() if name not in {"return", *without}]
        return cls(function, without) if any("Secret" in str(text) for text in passed) else None

    def __call__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with its secrets wrapped; None stays None."""
        if self._plan is None:
            self._plan = plan_for(self._function, self._without, _secret_rebuilder)[0]
        given, keywords = self._plan.apply(args, kwargs)
        return tuple(given), keywords


def _secret_rebuilder(annotation: Any) -> Rebuilder | None:
    return _wrapped if _is_secret(annotation) else None


def _is_secret(annotation: Any) -> bool:
    annotation = unwrapped(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        members = [unwrapped(member) for member in get_args(annotation)]
        return all(member is type(None) or _is_secret(member) for member in members)
    return (origin or annotation) is Secret


def _wrapped(_: Walk, value: Any) -> Any:
    plain: Any = value
    return plain if value is None or isinstance(value, Secret) else Secret[Any](plain)


def secret_texts(value: Any, *, secret: bool = False) -> list[str | bytes]:
    """All texts and bytes inside the secrets of `value`, which was decoded from a payload."""
    kind = cast("type[Any]", type(value))
    if kind is Secret:
        return secret_texts(value.reveal(), secret=True)
    if kind in (dict, Record):
        return secret_texts([*value.keys(), *value.values()], secret=secret)
    if kind in (list, tuple, set, frozenset):
        return [text for item in value for text in secret_texts(item, secret=secret)]
    if not secret or value is None or kind is bool:
        return []
    return [value if kind is bytes else str(value)]


def written_forms(secret: str | bytes) -> set[str]:
    """The forms in which a text may show a secret: plain, quoted, escaped, in hex and in base 64.

    Of base 64 only the middle, which does not depend on where in the encoded data the secret is
    (the header of a basic authentication, for example).
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
        # Quoted for a shell; and single lines, as a traceback shows a key.
        *(text.replace("'", "'\"'\"'"), text.replace("'", "\\'"), text.replace('"', '\\"')),
        *(line for line in text.splitlines() if len(line) >= _SHORTEST_ENCODED),
    }
    return {form for form in forms if len(form) >= _SHORTEST}


def _in_base64(data: bytes) -> Iterator[str]:
    if len(data) < _SHORTEST_ENCODED:
        return
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).rstrip(b"=").decode()
        # The first characters hold bits of the preceding bytes, the last one of the following.
        middle = encoded[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6]
        yield middle
        yield middle.translate(_URL_SAFE)


def mask_passwords(text: str) -> str:
    """`text` with the passwords in URLs and connection strings masked: many errors quote them."""
    text = _IN_URL.sub(rf"\1{MASK}@", text)
    return _IN_DSN.sub(rf"\1{MASK}", text)


_SHORTEST: Final = 4
"""Masking shorter values would make a text unreadable."""

_SHORTEST_ENCODED: Final = 6
"""The base 64 form of shorter values would match by accident."""

_URL_SAFE: Final = str.maketrans("+/", "-_")
# Bounded, because the text is untrusted and matching must not take long.
_IN_URL: Final = re.compile(r"(://[^\s/@:'\"]{0,128}:)[^\s'\"]{1,512}@")
_IN_DSN: Final = re.compile(
    r"(?i)(\b(?:password|passwd|pwd)=)(?:'[^']{0,512}'|\"[^\"]{0,512}\"|[^\s&;,'\"]{1,512})"
)
