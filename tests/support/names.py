"""Names of parametrised tests."""

from __future__ import annotations

__all__ = ["steady_name"]


def steady_name(item: object) -> str:
    """`str(item)` where it can be shown and is the same in every process, else the type's name.

    Addresses and the order of sets change from process to process, and pytest-xdist compares names.
    """
    try:
        shown = str(item)
    except Exception:
        return type(item).__name__
    unsteady = " at 0x" in shown or shown.startswith(("{", "frozenset"))
    return type(item).__name__ if unsteady else shown
