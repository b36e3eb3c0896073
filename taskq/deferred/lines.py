"""Lines: calls that belong together run one after another."""

from __future__ import annotations

from collections import deque

from taskq.deferred.call import Call

__all__ = ["Lines"]


class Lines:
    """Calls by line, in the order in which they were submitted; the first of a line may run."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, ...], deque[Call]] = {}

    def join(self, call: Call) -> bool:
        """Put a call at the end of its line; true when it is the first."""
        if call.line is None:
            return True
        line = self._lines.setdefault(call.line, deque())
        line.append(call)
        return len(line) == 1

    def leave(self, call: Call) -> Call | None:
        """Take a call that is over out of its line; gives the one that is first in its place."""
        line = None if call.line is None else self._lines.get(call.line)
        if not line or call.line is None or call not in line:
            return None
        was_first = line[0] is call
        line.remove(call)
        if not line:
            del self._lines[call.line]
            return None
        return line[0] if was_first else None

    def last(self, name: tuple[str, ...]) -> Call | None:
        """The call at the end of a line."""
        line = self._lines.get(name)
        return line[-1] if line else None
