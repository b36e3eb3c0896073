"""The script that starts a keeper: `python -I -S launch.py ...`.

The keeper must stay small and uses a few modules of this package only, so `taskq/__init__.py` and
what it imports must not run (without site-packages it could not). Empty stand-ins for the packages
make those modules importable under their usual names, with cached bytecode.
"""

from __future__ import annotations

import os
import sys

__all__: list[str] = []


def launch() -> None:
    """Install the stand-ins, and become the keeper."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name, folder in (("taskq", os.path.dirname(here)), ("taskq.embedded", here)):
        package = type(sys)(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    from taskq.embedded.keeper import main

    main(sys.argv[1:])


if __name__ == "__main__":
    launch()
