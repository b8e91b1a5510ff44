"""Parsed public keys, bounded in number.

The one rule: a key is found by all of its bytes, never by a part or a digest of them.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

Parsed = TypeVar("Parsed")


class KeyCache(Generic[Parsed]):
    """The keys seen last, parsed.

    Two generations instead of a list in order of use: a hit is one look-up and moves nothing.
    When the young generation is full it becomes the old one, and what was old and not asked for
    since is gone. For one thread; others see wasted work at worst, never a wrong key.
    """

    def __init__(self, parse: Callable[[bytes], Parsed | None], keys_max: int) -> None:
        if keys_max < 2:
            raise ValueError(f"keys_max must be 2 or more, got {keys_max}")
        self._parse = parse
        self._young_max = keys_max // 2
        self._young: dict[bytes, Parsed] = {}
        self._old: dict[bytes, Parsed] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, public_key: bytes) -> Parsed | None:
        """Return the parsed key, or None when these bytes are no key."""
        try:
            return self._young[public_key]
        except KeyError:
            return self._find(public_key)

    def _find(self, public_key: bytes) -> Parsed | None:
        parsed = self._old.pop(public_key, None)
        if parsed is None:
            parsed = self._parse(public_key)
        # What is no key is not kept: rubbish must neither fill memory nor push good keys out.
        if parsed is not None:
            self._keep(public_key, parsed)
        return parsed

    def _keep(self, public_key: bytes, parsed: Parsed) -> None:
        if len(self._young) >= self._young_max:
            self._old, self._young = self._young, {}
        self._young[public_key] = parsed
