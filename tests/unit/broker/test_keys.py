"""Keys: all of a namespace in one slot, none shared with another."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq.broker.keys import Keys
from taskq.core.errors import ConfigError

ANY_TIME = settings(deadline=None, max_examples=200)
names = st.text(string.ascii_letters + string.digits + "_.:-", min_size=1, max_size=128)


def all_keys(keys: Keys, name: str = "x") -> list[str]:
    """Every key and channel: attributes, and those that end in a name."""
    fixed = [value for key, value in vars(keys).items() if key != "namespace"]
    assert len(fixed) > 12
    return [*fixed, *(value + name for value in fixed), keys.job(name), keys.lane(name, 5)]


def hash_tag(key: str) -> str:
    """The part of a key by which a cluster chooses its slot."""
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key


@given(names, names)
@ANY_TIME
def test_every_key_of_a_namespace_has_one_hash_tag(namespace: str, name: str) -> None:
    for key in all_keys(Keys(namespace), name):
        assert hash_tag(key) == namespace


@given(names, names, names)
@ANY_TIME
def test_namespaces_share_no_key(one: str, other: str, name: str) -> None:
    if one != other:
        assert not set(all_keys(Keys(one), name)) & set(all_keys(Keys(other), name))


@given(names, names)
@ANY_TIME
def test_keys_of_one_namespace_are_told_apart(one: str, other: str) -> None:
    keys = Keys("shop")
    made = [
        *(keys.job(name) for name in {one, other}),
        *(keys.lane(name, priority) for name in {one, other} for priority in range(10)),
        *(prefix + name for prefix in (keys.idle, keys.failed) for name in {one, other}),
        *(prefix + name for prefix in (keys.cancels, keys.worker_info) for name in {one, other}),
        *(keys.sent + name for name in {one, other}),
        *(keys.lanes, keys.due, keys.expiry, keys.workers, keys.held, keys.serves, keys.malformed),
    ]

    assert len(made) == len(set(made))


def test_the_shape_of_keys_is_fixed_because_other_versions_read_them() -> None:
    keys = Keys("shop")

    assert keys.job("img:a") == "{shop}:j:img:a"
    assert keys.lane("images", 9) == "{shop}:q:images/9"
    assert keys.due == "{shop}:due"
    assert keys.wake_channel == "{shop}:wake:"


@pytest.mark.parametrize(
    "namespace", ["", "a{b", "a}b", "{a}", "a b", "a\n", "ä", "x" * 129, "a/b"]
)
def test_a_namespace_that_cannot_be_part_of_a_key_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match="cannot be part of a key; use 1 to 128 of"):
        Keys(namespace)


@given(st.text(max_size=10))
@ANY_TIME
def test_no_accepted_namespace_holds_a_brace(namespace: str) -> None:
    try:
        Keys(namespace)
    except ConfigError:
        return
    assert not set(namespace) & set("{}")
