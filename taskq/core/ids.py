"""Ids of jobs, workers and clients."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from taskq.core.errors import ConfigError
from taskq.core.rng import RNG

__all__ = ["IdSeries", "check_job_id", "check_name", "new_id", "process_name"]

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = tuple(high + low for high in _DIGITS for low in _DIGITS)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def new_id() -> str:
    """A UUID version 7 (RFC 9562) in 26 characters of Crockford's base 32, lower case.

    Ids sort by creation time (ms), can be selected with a double click, and are a third
    shorter than hexadecimal: the server stores each one twice. They are not secrets.

    >>> len(new_id())
    26
    """
    bits = RNG.getrandbits(74)
    rest = 0x7 << 76 | (bits >> 62) << 64 | 0b10 << 62 | bits & 0x3FFF_FFFF_FFFF_FFFF
    pairs = _PAIRS
    return (
        _ten_digits(time.time_ns() // 1_000_000)
        + pairs[rest >> 70]
        + pairs[rest >> 60 & 1023]
        + pairs[rest >> 50 & 1023]
        + pairs[rest >> 40 & 1023]
        + pairs[rest >> 30 & 1023]
        + pairs[rest >> 20 & 1023]
        + pairs[rest >> 10 & 1023]
        + pairs[rest & 1023]
    )


@lru_cache(maxsize=4)
def _ten_digits(number: int) -> str:
    """The leading digits, cached because many ids are made within one millisecond."""
    return "".join(_PAIRS[number >> shift & 1023] for shift in (40, 30, 20, 10, 0))


class IdSeries:
    """Ids like those of `new_id`, in a fifth of the time when many are made at once.

    Ids of one millisecond share their random bits, except for the last ten, which count up. A
    forked process starts its own series.
    """

    __slots__ = ("_series",)

    def __init__(self) -> None:
        # One tuple, replaced atomically: threads may share a series.
        self._series: tuple[int, int, str, Iterator[str]] = (0, 0, "", iter(()))

    def next(self) -> str:
        """The next id."""
        at, forks, start, rest = self._series
        now = time.time_ns() // 1_000_000
        last = next(rest, None) if now == at and forks == RNG.forks else None
        if last is not None:
            return start + last
        start, rest = new_id()[:-2], iter(_PAIRS)
        first = next(rest)
        self._series = (now, RNG.forks, start, rest)
        return start + first


def process_name() -> str:
    """A name for a worker: host, pid and an id, never used twice."""
    host = re.sub(r"[^A-Za-z0-9_.-]", "-", os.uname().nodename)[:40] or "host"
    return f"{host}-{os.getpid()}-{new_id()[-8:]}"


def check_job_id(job_id: str) -> str:
    """Return `job_id` if it is a valid id, else raise `ConfigError`.

    The ids that schedules make consist of two names with an `@` between them.
    """
    for name in job_id.split("@", 1) if isinstance(job_id, str) else [job_id]:  # pyright: ignore[reportUnnecessaryIsInstance]
        check_name("job id", name)
    return job_id


def check_name(what: str, name: str) -> str:
    """Return `name` if it can be part of a key, else raise `ConfigError`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"{what} {name!r} cannot be part of a key; use 1 to 128 of the characters "
            "A-Z a-z 0-9 _ . : -"
        )
    return name
