"""Whatever bytes come, a decoder gives a value or refuses them in its own words.

Each is given its kept corpus, damaged copies of what taskq writes, and noise. Longer:
`TASKQ_FUZZ_EXAMPLES=100000 make tests TESTS=tests/fuzz`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, check, seeds

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
KEPT = sorted(path for path in CORPUS.rglob("*") if path.is_file())
EXAMPLES = int(os.environ.get("TASKQ_FUZZ_EXAMPLES", "150"))
SEEDS = seeds()
BOUNDED = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

#: Headers of msgpack and RESP that announce more than there is.
AWKWARD = [
    b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\x00\xff\xff\xff", b"\xc9\x00\x00\xff\xff\x02", b"\xd4\x0b\x90", b"\xc7\x02\x0b\x91\xc0",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xc1", b"\x81\x90\xc0", b"\xa1\xff", b"\x91" * 60,
    b"$-1\r\n", b">0\r\n", b"*-1\r\n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_left_running() -> None:
    """Nothing is started here; the check would collect garbage after each of these many tests."""


def damaged(name: str) -> st.SearchStrategy[bytes]:
    """A seed with pieces cut out, doubled, or replaced by what is awkward."""

    @st.composite
    def build(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(SEEDS[name]))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, len(data)))
            to = min(len(data), at + draw(st.integers(0, 8)))
            piece = draw(st.sampled_from(AWKWARD) | st.binary(max_size=6))
            data = data[:at] + piece + data[to:]
        return data

    return build()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_kept_bytes_are_read_or_refused(path: Path) -> None:
    check(path.parent.name, path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_bytes_are_read_or_refused(name: str) -> None:
    @given(damaged(name))
    @BOUNDED
    def fuzz(data: bytes) -> None:
        check(name, data)

    fuzz()


@pytest.mark.parametrize("name", TARGETS)
def test_noise_is_read_or_refused(name: str) -> None:
    @given(st.binary(max_size=80) | st.lists(st.sampled_from(AWKWARD)).map(b"".join))
    @BOUNDED
    def fuzz(data: bytes) -> None:
        check(name, data)

    fuzz()


@pytest.mark.parametrize("name", TARGETS)
def test_what_taskq_writes_is_read(name: str) -> None:
    """A target that refuses everything would pass the others."""
    if name == "schedule":
        return  # its seed is only like one: tests/schedules reads what it writes
    for data in SEEDS[name]:
        TARGETS[name].read(data)


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS)
