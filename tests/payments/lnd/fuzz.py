"""Damage to bbolt files, each made from a number: the same number gives the same damage.

Most single bytes of a file are in values nobody reads, so damage goes where numbers are: heads and
tables of pages, heads of buckets, the values of payments.
"""

import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Final

from engine.payments.errors import PaymentsError
from engine.payments.lnd import LndPayments, LndSource
from engine.payments.migration import Place
from engine.payments.records import PaymentRecord, check_record
from tests.payments.lnd.nodes import node_of
from tests.payments.lnd.real import FOLDER
from tests.payments.lnd.samples import Samples
from tests.payments.lnd.writer import file_bytes

NUMBERS: Final = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63, 2**64 - 1)
FNV_BASIS: Final = 0xCBF29CE484222325
FNV_PRIME: Final = 0x100000001B3


class Specimen:
    """A sound file, and where the numbers in it are."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.data = data
        (self.page_size,) = struct.unpack_from("<I", data, 24)
        self.pages = len(data) // self.page_size
        self.edges = self.numbers()

    def numbers(self) -> list[tuple[int, int]]:
        """Return (offset, size) of every number of every page of a tree."""
        found = [(16 + 4 * i, 4) for i in range(4)] + [(32 + 8 * i, 8) for i in range(6)]
        found += [(self.page_size + at, size) for at, size in found]
        for number in range(2, self.pages):
            at = number * self.page_size
            _, flags, count, _ = struct.unpack_from("<QHHI", self.data, at)
            found += [(at, 8), (at + 8, 2), (at + 10, 2), (at + 12, 4)]
            if flags in (1, 2):
                found += self.table(at + 16, count, (4, 4, 4, 4) if flags == 2 else (4, 4, 8))
        return found

    def table(self, at: int, count: int, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        found = []
        for row in range(at, at + 16 * count, 16):
            for size in sizes:
                found.append((row, size))
                row += size
        return found


def specimens() -> list[Specimen]:
    """Return fixtures of every layout and page size, and the real files where they are."""
    made = []
    for version, page_size, freelist in (
        (35, 4096, True), (23, 1024, False), (22, 1024, True), (16, 4096, False), (35, 16384, False)
    ):  # fmt: skip
        root = node_of(Samples(version).records(24), version).root
        data = file_bytes(root, page_size, freelist=freelist)
        made.append(Specimen(f"version {version} in pages of {page_size}", data))
    real = sorted(FOLDER.glob("*.channel.db")) if FOLDER.is_dir() else []
    return made + [Specimen(path.name, path.read_bytes()) for path in real]


# Kinds of damage ----------------------------------------------------------------------------------

Damage = Callable[[Specimen, bytearray, Random], None]


def any_bit(specimen: Specimen, data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def any_byte(specimen: Specimen, data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] = random.randrange(256)


def one_number(specimen: Specimen, data: bytearray, random: Random) -> None:
    """Put one number of a page to an end of its range, to a page, or next to what it was."""
    at, size = random.choice(specimen.edges)
    old = int.from_bytes(data[at : at + size], "little")
    new = random.choice(
        [*NUMBERS, random.randrange(specimen.pages), old + 1, old - 1, random.getrandbits(64)]
    )
    data[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, "little")
    sign(data, specimen.page_size)


def byte_of_a_payment(specimen: Specimen, data: bytearray, random: Random) -> None:
    """Change a byte behind one of the names lnd gives to what belongs to payments."""
    name = random.choice(
        [b"payment-creation-info", b"payment-htlcs-bucket", b"payment-sequence-key", b"ai\0\0",
         b"si\0\0", b"fi\0\0", b"payment-duplicate-bucket", b"payment-fail-info", b"dbp",
         b"htlc-attempt-info", b"payments-index-bucket", b"payments-root-bucket"]
    )  # fmt: skip
    at = data.find(name, random.randrange(len(data)))
    if at < 0:
        at = data.find(name)
    at = max(at, 0) + random.randrange(400)
    data[min(at, len(data) - 1)] = random.choice([0, 1, 0xFD, 0xFE, 0xFF, random.randrange(256)])


def two_pages_swapped(specimen: Specimen, data: bytearray, random: Random) -> None:
    """Swap two pages, their numbers put right, so that only keys and kinds give it away."""
    one, other = (random.randrange(specimen.pages) for _ in range(2))
    size = specimen.page_size
    first, second = bytes(page_of(data, one, size)), bytes(page_of(data, other, size))
    data[one * size : (one + 1) * size] = struct.pack("<Q", one) + second[8:]
    data[other * size : (other + 1) * size] = struct.pack("<Q", other) + first[8:]


def one_page_twice(specimen: Specimen, data: bytearray, random: Random) -> None:
    one, other = (random.randrange(specimen.pages) for _ in range(2))
    size = specimen.page_size
    page = bytes(page_of(data, one, size))
    data[other * size : (other + 1) * size] = struct.pack("<Q", other) + page[8:]


def cut(specimen: Specimen, data: bytearray, random: Random) -> None:
    """Cut the file anywhere, with or without meta pages that count only what is left."""
    del data[random.randrange(len(data)) :]
    if random.randrange(2) and len(data) > 2 * specimen.page_size:
        for meta in (0, specimen.page_size):
            struct.pack_into("<Q", data, meta + 56, len(data) // specimen.page_size)
        sign(data, specimen.page_size)


def zeros(specimen: Specimen, data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    size = min(random.choice([1, 16, 512, specimen.page_size]), len(data) - at)
    data[at : at + size] = bytes(size)


def noise(specimen: Specimen, data: bytearray, random: Random) -> None:
    at = random.randrange(len(data))
    size = min(random.choice([2, 16, 64]), len(data) - at)
    data[at : at + size] = random.randbytes(size)


DAMAGES: Final[tuple[Damage, ...]] = (
    any_bit, any_byte, one_number, one_number, one_number, byte_of_a_payment, byte_of_a_payment,
    two_pages_swapped, one_page_twice, cut, zeros, noise,
)  # fmt: skip


def page_of(data: bytearray, number: int, size: int) -> bytearray:
    return data[number * size : (number + 1) * size]


def sign(data: bytearray, page_size: int) -> None:
    """Make the checksums of both meta pages right again, so that the damage gets further in."""
    for at in (16, page_size + 16):
        checksum = FNV_BASIS
        for byte in data[at : at + 56]:
            checksum = (checksum ^ byte) * FNV_PRIME % (1 << 64)
        if len(data) >= at + 64:
            struct.pack_into("<Q", data, at + 56, checksum)


def damaged(specimen: Specimen, number: int) -> tuple[str, bytes]:
    """Return the damage of this number, 1 to 3 of a kind, with its name."""
    random = Random(f"{specimen.name} {number}")
    damage = random.choice(DAMAGES)
    data = bytearray(specimen.data)
    for _ in range(random.choice((1, 1, 2, 3))):
        if data:
            damage(specimen, data, random)
    return damage.__name__, bytes(data)


# What comes of it ---------------------------------------------------------------------------------


class Outcome:
    """What reading a file came to, and what it cost."""

    def __init__(self, path: Path) -> None:
        self.error: PaymentsError | None = None
        self.records: list[PaymentRecord] = []
        self.looks = self.inline_bytes = 0
        self.entries = 0
        try:
            with LndPayments(path) as payments:
                self.read(payments)
        except PaymentsError as error:
            self.error = error

    def read(self, payments: LndPayments) -> None:
        """Read all that an import would, repairs too."""
        try:
            payments.count()
            source = LndSource(payments)
            source.fingerprint()
            for batch in source.batches(Place(), 5):
                self.entries += len(batch.records) + len(batch.warnings) + batch.unquoted
                for record in batch.records:
                    check_record(record)
                self.records += batch.records
            source.finish(len(self.records))
        finally:
            self.looks = payments.work.looks
            self.inline_bytes = payments.work.inline


def in_order(records: list[PaymentRecord]) -> bool:
    return all(one.sequence_number < other.sequence_number for one, other in pairwise(records))
