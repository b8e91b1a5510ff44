"""What an unfinished migration leaves in its destination, committed with each batch of payments.

While it is there the store opens for nothing else. It is bound to the content of the source, so a
second run goes on with the same payments or not at all.
"""

from typing import Final

import msgspec

from engine.payments.migration.errors import OtherMigrationError
from engine.payments.migration.report import Totals
from engine.payments.migration.source import Place

FORMAT: Final = 2


class Note(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a migration is.

    Attributes:
        format: of this note.
        fingerprint: of the source, in hex.
        source: its name when the migration began, for people.
        compared: everything up to here was read back and compared.
        pending: so many payments follow it that were written, and are yet to be compared.
        totals: of all that was written.
        in_flight: the hash over what of that is in flight, in hex.
        is_last: the source has nothing more than what was written.
    """

    format: int
    fingerprint: str
    source: str
    compared: Place
    pending: int
    totals: Totals
    in_flight: str
    is_last: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Note).decode


def encode_note(note: Note) -> bytes:
    """Return the bytes that are stored."""
    return _encode(note)


def decode_note(data: bytes) -> Note:
    """Read a note.

    Raises:
        OtherMigrationError: another version of paychan wrote it.
    """
    try:
        note = _decode(data)
    except msgspec.DecodeError as error:
        raise _other_version(f"one that this version cannot go on with ({error})") from error
    if note.format != FORMAT:
        raise _other_version(f"one of format {note.format}, and this version knows {FORMAT}")
    return note


def _other_version(which: str) -> OtherMigrationError:
    return OtherMigrationError(
        f"the destination holds an unfinished migration, {which}: finish it with the version that "
        "began it, or remove the store and begin again"
    )
