"""How to install the optional parts of taskq, said once: it changes with the first release."""

from __future__ import annotations

__all__ = ["install_command"]


def install_command(extra: str) -> str:
    """What installs an extra, for an error message.

    >>> install_command("embedded")
    'pip install ".[embedded]" (in a checkout of taskq)'
    """
    return f'pip install ".[{extra}]" (in a checkout of taskq)'
