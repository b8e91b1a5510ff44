"""Numbers in front of fields: each has one form, and bytes that end early are noticed."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.payments.lnd.fields import Fields, MalformedError, big_size, truncated
from tests.payments.lnd import nodes

u64 = st.integers(0, 2**64 - 1)
records = st.dictionaries(u64, st.binary(max_size=300), max_size=10)


@given(u64)
def test_a_big_size_reads_back(number):
    assert big_size(nodes.big_size(number)) == number


@given(u64)
def test_a_truncated_number_reads_back(number):
    assert truncated(nodes.short(number), 8) == number


@given(records)
def test_a_stream_reads_back(found):
    assert dict(Fields(nodes.stream(found)).stream()) == found


@given(records, st.data())
def test_a_stream_cut_anywhere_is_refused_or_ends_at_a_record(found, data):
    whole = nodes.stream(found)
    part = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        read = dict(Fields(part).stream())
    except MalformedError:
        return
    assert nodes.stream(read) == part


@given(st.binary(max_size=64))
def test_any_bytes_are_a_stream_in_its_one_form_or_none(data):
    try:
        read = dict(Fields(data).stream())
    except MalformedError:
        return
    assert nodes.stream(read) == data


@pytest.mark.parametrize(
    "data",
    [b"", b"\xfd", b"\xfd\0", b"\xfd\0\xfc", b"\xfe\0\0\xff\xff", b"\xff" + bytes(7),
     b"\xff\0\0\0\0\xff\xff\xff\xff", b"\1\1"],
)  # fmt: skip
def test_a_big_size_has_one_form(data):
    with pytest.raises(MalformedError):
        big_size(data)


@pytest.mark.parametrize(
    "prefix",
    [b"", b"\5", b"\xfd\xfc\0", b"\xfd\5", b"\xfe\xff\xff\0\0", b"\xff" + b"\xff" * 4 + bytes(4)],
)
def test_a_compact_size_has_one_form_too(prefix):
    with pytest.raises(MalformedError):
        Fields(prefix + b"data").counted(2**40)


@given(st.binary(max_size=700))
def test_bytes_behind_their_compact_size_read_back(data):
    fields = Fields(nodes.counted(data) + b"x")
    assert fields.counted(700) == data
    assert len(fields) == 1
    with pytest.raises(MalformedError, match="1 bytes follow"):
        fields.end()


def test_a_field_that_is_longer_than_it_may_be_is_not_taken():
    with pytest.raises(MalformedError, match="5 bytes is longer than 4"):
        Fields(b"\5" + bytes(5)).counted(4)


def test_fields_end_where_the_bytes_do():
    fields = Fields(bytes(11))
    fields.unpack(struct.Struct(">Q"))
    assert fields.take(3) == bytes(3)
    fields.end()
    for take in (lambda: fields.take(1), lambda: fields.unpack(struct.Struct(">H"))):
        with pytest.raises(MalformedError, match="early"):
            take()
