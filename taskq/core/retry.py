"""Whether and when a failed job gets another attempt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from taskq.core.durations import Duration, seconds
from taskq.core.errors import ConfigError, Reject
from taskq.core.exception_types import is_a, name_of
from taskq.core.rng import RNG

__all__ = ["NO_RETRY", "Retry"]

_MOST: Final = 1_000_000_000
"""At one attempt a second, these take thirty years."""

_Errors = tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Retry:
    """A retry policy: how many attempts may fail, and the pauses between them.

    The pause after failure n is `backoff * 2 ** (n - 1)` seconds, at most `max_delay`. With
    `jitter` it is drawn evenly from 0 to that ("full jitter", M. Brooker, AWS Architecture Blog,
    2015), so that jobs that failed together do not come back together.

    `on`: only these exceptions are retried (default: every `Exception`). `never`: these are not
    retried, whatever `on` says. Both match as in `except`. Attempts lost with their worker do not
    count as failures.

    Raises `ConfigError` for numbers out of range.

    >>> Retry(max_attempts=4, backoff=2.0, jitter=False).delay(3)
    8.0
    """

    max_attempts: int = 4
    backoff: Duration = 2.0
    max_delay: Duration = 600.0
    jitter: bool = True
    on: _Errors = (Exception,)
    never: _Errors = ()

    def __post_init__(self) -> None:
        if isinstance(self.max_attempts, bool) or not isinstance(self.max_attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"max_attempts={self.max_attempts!r} is not a whole number")
        if self.max_attempts < 1:
            raise ConfigError(
                f"max_attempts={self.max_attempts} allows no attempt at all; use 1 for no retry"
            )
        if self.max_attempts > _MOST:
            raise ConfigError(f"max_attempts={self.max_attempts}: use at most {_MOST:,}")
        seconds("backoff", self.backoff)
        seconds("max_delay", self.max_delay)
        for name in ("on", "never"):
            object.__setattr__(self, name, _error_types(name, getattr(self, name)))

    @classmethod
    def of(cls, value: Retry | int | None) -> Retry:
        """The policy of `retry=`: a policy, a number of retries after the first, or None."""
        if value is None:
            return NO_RETRY
        if isinstance(value, Retry):
            return value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(
                f"retry={value!r}: use a number of retries (0 or more) or Retry(max_attempts=...)"
            )
        if value >= _MOST:
            raise ConfigError(f"retry={value}: use at most {_MOST - 1:,}")
        return cls(max_attempts=value + 1)

    def decide(
        self, error: BaseException, failures: int, draw: Callable[[], float] = RNG.random
    ) -> float | None:
        """Seconds until the next attempt after `error`, or None to give up.

        `failures` includes this one. `draw` returns numbers from 0 to 1 for the jitter.
        """
        return self.decide_by(
            failures,
            wanted=is_a(error, *self.on) and not is_a(error, *self.never, Reject),
            draw=draw,
        )

    def decide_by(
        self, failures: int, *, wanted: bool, draw: Callable[[], float] = RNG.random
    ) -> float | None:
        """Like `decide`, for an error known by name only; `wanted` says whether to retry it."""
        if not wanted or failures >= self.max_attempts:
            return None
        return self.delay(failures, draw)

    def wants_names(self, names: tuple[str, ...]) -> bool:
        """Whether an exception whose classes are called `names` would be retried."""
        if any(name_of(error) in names for error in self.never):
            return False
        return any(name_of(error) in names for error in self.on)

    def delay(self, failures: int, draw: Callable[[], float] = RNG.random) -> float:
        """The pause after failure number `failures`, in seconds."""
        base, cap = seconds("backoff", self.backoff), seconds("max_delay", self.max_delay)
        # 2 ** 64 still fits a float and exceeds any cap.
        pause = min(cap, base * 2.0 ** min(failures - 1, 64))
        return pause * draw() if self.jitter else pause


def _error_types(name: str, value: Any) -> _Errors:
    types = cast("tuple[Any, ...]", value if isinstance(value, tuple) else (value,))
    for item in types:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise ConfigError(f"{name}={value!r}: use exception classes: {name}=(OSError,)")
    return types


NO_RETRY = Retry(max_attempts=1, backoff=0.0, jitter=False)
