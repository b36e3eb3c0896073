"""The file a keeper is started with: `python -I -S launch.py ...`.

The keeper needs four modules of this package and must stay small, so `taskq/__init__.py` and all
that it imports must not run (without site-packages it could not). Empty stand-ins for the packages
let those modules be imported under their usual names, from this folder, with cached bytecode.
"""

from __future__ import annotations

import os
import sys

__all__: list[str] = []


def launch() -> None:
    """Put the stand-ins in place and become the keeper."""
    here = os.path.dirname(os.path.abspath(__file__))
    for name, folder in (("taskq", os.path.dirname(here)), ("taskq.embedded", here)):
        package = type(sys)(name)
        package.__path__ = [folder]
        sys.modules[name] = package
    from taskq.embedded.keeper import main

    main(sys.argv[1:])


if __name__ == "__main__":
    launch()
