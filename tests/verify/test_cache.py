"""Parsed keys: found by all their bytes, bounded, and rubbish is not kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.verify.cache import KeyCache


class Parser:
    """Takes keys that begin with K, and counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, public_key: bytes) -> str | None:
        self.asked.append(public_key)
        return f"parsed {public_key!r}" if public_key.startswith(b"K") else None


def test_a_key_is_parsed_once():
    parser = Parser()
    cache = KeyCache(parser, keys_max=4)
    assert [cache.get(b"K1") for _ in range(3)] == ["parsed b'K1'"] * 3
    assert parser.asked == [b"K1"]


def test_what_is_no_key_is_not_kept_and_pushes_nothing_out():
    parser = Parser()
    cache = KeyCache(parser, keys_max=4)
    cache.get(b"K1")
    for number in range(100):
        assert cache.get(b"rubbish %d" % number) is None
    assert len(cache) == 1
    cache.get(b"K1")
    assert parser.asked.count(b"K1") == 1


def test_a_key_in_use_stays_while_others_pass_through():
    parser = Parser()
    cache = KeyCache(parser, keys_max=8)
    for number in range(1_000):
        cache.get(b"K in use")
        cache.get(b"K%d" % number)
    assert parser.asked.count(b"K in use") == 1


def test_a_key_not_used_for_long_is_parsed_again():
    parser = Parser()
    cache = KeyCache(parser, keys_max=4)
    for number in (0, 1, 2, 3, 4, 0):
        cache.get(b"K%d" % number)
    assert parser.asked.count(b"K0") == 2


@given(st.integers(2, 20), st.lists(st.integers(0, 40)))
def test_the_bound_holds_and_each_key_gets_its_own_parse(keys_max: int, numbers: list[int]):
    cache = KeyCache(Parser(), keys_max)
    for number in numbers:
        key = b"K%d" % number
        assert cache.get(key) == f"parsed {key!r}"
        assert len(cache) <= keys_max


def test_a_cache_for_fewer_than_two_keys_is_refused():
    with pytest.raises(ValueError, match="2 or more"):
        KeyCache(Parser(), keys_max=1)
