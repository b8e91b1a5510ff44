"""Compare payments field by field, and name the fields that differ."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final

import msgspec

from engine.payments.migration.errors import ComparisonError
from engine.payments.records import PaymentRecord

DIFFERENCES_MAX: Final = 20
VALUE_CHARACTERS_MAX: Final = 80

ABSENT: Final = "nothing"


def compare(written: Sequence[PaymentRecord], read: Sequence[PaymentRecord]) -> None:
    """Return when both are equal in every field of every payment.

    Raises:
        ComparisonError: names the first payment that differs, and what differs.
    """
    if tuple(written) == tuple(read):
        return
    for one, other in zip_longest(written, read):
        if one != other:
            either = one or other
            found = tuple(_first(differences(one, other, "")))
            raise ComparisonError(either.info.identifier, found)


def differences(one: object, other: object, place: str) -> Iterator[str]:
    """Yield a sentence for each field in which two values differ."""
    if type(one) is type(other) and isinstance(one, msgspec.Struct):
        for name in one.__struct_fields__:
            yield from differences(getattr(one, name), getattr(other, name), f"{place}.{name}")
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{place}[{key}]")
    elif isinstance(one, tuple) and isinstance(other, tuple):
        for index, (left, right) in enumerate(zip_longest(one, other)):
            yield from differences(left, right, f"{place}[{index}]")
    elif one != other:
        yield f"{place.lstrip('.') or 'payment'}: {_shown(one)} was written, {_shown(other)} read"


def _first(sentences: Iterator[str]) -> Iterator[str]:
    for count, sentence in enumerate(sentences):
        if count == DIFFERENCES_MAX:
            return
        yield sentence


def _shown(value: object) -> str:
    if value is None:
        return ABSENT
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[:VALUE_CHARACTERS_MAX]}…"
