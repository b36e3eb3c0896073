"""Names of parametrised tests."""

from __future__ import annotations

__all__ = ["steady_name"]


def steady_name(item: object) -> str | None:
    """`str(item)` where it is the same in every process: no addresses, no order of a set,
    nothing of values that cannot be shown."""
    try:
        shown = str(item)
    except Exception:
        return None
    return None if " at 0x" in shown or shown.startswith(("{", "frozenset")) else shown
