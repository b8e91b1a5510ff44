"""What no file can make the reader do: work without end, and memory without end."""

import os
from pathlib import Path

import pytest

from engine.payments.lnd import DamagedFileError, LndPayments
from tests.payments.builders import make_record
from tests.payments.lnd.nodes import Node, node_of


def read(path: Path) -> None:
    with LndPayments(path) as payments:
        list(payments.records(ignore))


def ignore(text: str) -> None:
    """Take a warning; there are thousands."""


# Work ---------------------------------------------------------------------------------------------


def made_to_be_read_over_and_over() -> Node:
    """Each number of a long index points at one of a few payments in a page of megabytes."""
    records = [make_record(number) for number in (1, 2, 3, 4)]
    node = node_of(records)
    for record in records:
        bucket = node.payments.tree(record.info.identifier)
        bucket.is_whole = True
        bucket[b"junk"] = bytes(3 << 20)
    for number in range(5, 4000):
        node.point(number, records[number % 4].info.identifier)
    return node


def test_a_file_that_is_made_to_be_read_over_and_over_is_refused(tmp_path):
    with pytest.raises(DamagedFileError, match="more work than a sound one"):
        read(made_to_be_read_over_and_over().write(tmp_path / "channel.db"))


def test_no_file_pays_for_work_with_holes_at_its_end(tmp_path):
    path = made_to_be_read_over_and_over().write(tmp_path / "channel.db")
    os.truncate(path, 1 << 40)
    with pytest.raises(DamagedFileError, match="more work than a sound one"):
        read(path)


def inline_payment(junk: dict[bytes, bytes], names: int) -> Node:
    """Return a node with one payment, inline with `junk` in it, that so many numbers name."""
    record = make_record(1)
    node = node_of([record])
    bucket = node.payments.tree(record.info.identifier)
    bucket.is_inline = True
    bucket.items.update(junk)
    for number in range(2, 2 + names):
        node.point(number, record.info.identifier)
    return node


def test_an_inline_payment_is_taken_apart_no_oftener_than_in_a_sound_file(tmp_path):
    node = inline_payment({b"junk": bytes(15_000)}, 8_000)
    with LndPayments(node.write(tmp_path / "channel.db", 65_536)) as payments:
        with pytest.raises(DamagedFileError, match="more work than a sound one"):
            list(payments.records(ignore))
        assert payments.work.inline < 100 << 20


def test_an_inline_payment_of_many_elements_is_refused_when_it_is_first_seen(tmp_path):
    junk = {b"a%d" % index: b"" for index in range(3_000)}
    with LndPayments(inline_payment(junk, 2_000).write(tmp_path / "channel.db")) as payments:
        with pytest.raises(DamagedFileError, match="no more than 1024 lie in a parent"):
            list(payments.records(ignore))
        assert payments.work.inline == 0
