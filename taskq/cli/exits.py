"""The exit codes that scripts may rely on."""

from __future__ import annotations

from typing import Final

__all__ = ["ERROR", "OK", "UNHEALTHY", "USAGE"]

OK: Final = 0
ERROR: Final = 1
"""The command ran and failed."""
USAGE: Final = 2
"""Invalid usage: an option, a target, a setting."""
UNHEALTHY: Final = 3
"""Checked and found unhealthy."""
