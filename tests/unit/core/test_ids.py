"""Ids: their shape, their order, and that none comes twice."""

from __future__ import annotations

import os
import random
import re
import threading
import time
import uuid
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.core import ids
from taskq.core.errors import ConfigError
from taskq.core.ids import IdSeries, check_name, new_id, process_name

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def as_uuid(text: str) -> uuid.UUID:
    number = 0
    for digit in text:
        number = number * 32 + DIGITS.index(digit)
    return uuid.UUID(int=number)


def test_an_id_has_26_characters_that_are_hard_to_misread() -> None:
    for _ in range(1000):
        assert re.fullmatch(r"[0-9a-hjkmnp-tv-z]{26}", new_id())


def test_an_id_is_a_uuid_of_version_7_made_now() -> None:
    before = time.time_ns() // 1_000_000
    made = [as_uuid(new_id()) for _ in range(100)]
    after = time.time_ns() // 1_000_000

    for value in made:
        assert value.version == 7
        assert value.variant == uuid.RFC_4122
        assert before <= value.int >> 80 <= after


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1))
@settings(deadline=None, max_examples=200)
def test_ids_sort_by_the_millisecond_they_were_made_in(one: int, other: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids.time, "time_ns", lambda: one * 1_000_000)
        first = new_id()
        patch.setattr(ids.time, "time_ns", lambda: other * 1_000_000)
        second = new_id()

    if one != other:
        assert (first < second) == (one < other)


def test_no_id_comes_twice() -> None:
    assert len({new_id() for _ in range(100_000)}) == 100_000


def test_no_id_comes_twice_in_threads() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend(new_id() for _ in range(2000)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 8000


def test_a_program_that_seeds_chance_gets_new_ids_and_keeps_its_own_chance() -> None:
    made: set[str] = set()
    for _ in range(100):
        random.seed(1)
        made.add(new_id())

    assert len(made) == 100
    drawn = random.random()
    random.seed(1)
    assert random.random() == drawn


def test_a_forked_process_makes_ids_of_its_own() -> None:
    # (many in a row share their chance, as long as one millisecond lasts)
    series = IdSeries()
    reader, writer = os.pipe()
    begun = series.next()
    stood = time.time_ns()
    with mock.patch.object(ids.time, "time_ns", return_value=stood):
        series.next()
        pid = os.fork()
        if pid == 0:
            os.write(writer, f"{series.next()} {new_id()}".encode())
            os._exit(0)
        own = {begun, series.next(), new_id()}
    os.waitpid(pid, 0)
    others = os.read(reader, 100).decode().split()
    os.close(reader)
    os.close(writer)

    assert len(own | set(others)) == 5


def test_ids_differ_in_every_bit_that_may_differ() -> None:
    """Random bits are random: none of the 74 stands still."""
    numbers = [as_uuid(new_id()).int for _ in range(400)]
    free = (1 << 62) - 1 | ((1 << 12) - 1) << 64
    ones = zeros = 0
    for number in numbers:
        ones |= number & free
        zeros |= ~number & free

    assert ones == free
    assert zeros == free


def test_a_process_name_says_where_it_runs_and_is_never_used_twice() -> None:
    names = {process_name() for _ in range(1000)}

    assert len(names) == 1000
    for name in list(names)[:10]:
        assert f"-{ids.os.getpid()}-" in name
        assert check_name("worker", name) == name


@pytest.mark.parametrize(
    ("host", "start"), [("büro mac.local", "b-ro-mac.local-"), ("", "host-"), ("x" * 90, "x" * 40)]
)
def test_a_process_name_can_be_part_of_a_key_whatever_the_host_is_called(
    host: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids.os, "uname", lambda: ids.os.uname_result(("", host, "", "", "")))

    name = process_name()

    assert name.startswith(start)
    assert check_name("worker", name) == name


# ---------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "name", ["a", "img:a", "A-b_c.d:e", "0", "x" * 128, "01m83p8pdee5xr5btf72ynjzxt"]
)
def test_names_that_can_be_part_of_a_key(name: str) -> None:
    assert check_name("queue", name) == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "a b", "a/b", "{a}", "a\n", "\na", "a\0", "ä", "*", "a\r\nb", None, 3, b"a"],
)
def test_names_that_cannot_are_refused_with_what_to_type(name: object) -> None:
    with pytest.raises(ConfigError, match=r"queue .* cannot be part of a key; use 1 to 128 of"):
        check_name("queue", name)  # pyright: ignore[reportArgumentType]


@given(st.text(max_size=140))
@settings(deadline=None, max_examples=300)
def test_a_name_that_passes_holds_nothing_that_means_something_in_a_key(name: str) -> None:
    try:
        check_name("queue", name)
    except ConfigError:
        return
    assert not set(name) & set(" {}/*?[]\\\r\n\0")
