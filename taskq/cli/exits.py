"""The exit codes that scripts may rely on."""

from __future__ import annotations

from typing import Final

__all__ = ["ERROR", "OK", "UNHEALTHY", "USAGE"]

OK: Final = 0
ERROR: Final = 1
"""It was tried, and failed."""
USAGE: Final = 2
"""What was typed cannot be done: an option, a target, a setting."""
UNHEALTHY: Final = 3
"""It was looked at, and is not well."""
