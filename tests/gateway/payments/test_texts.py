"""What is written of a value is read back as that value, to the last nanosecond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.gateway.forms import Malformed
from engine.gateway.payments import texts
from engine.payments import AttemptFailureReason, FailureReason
from engine.payments.values import NUMBER_MAX


@given(st.integers(1, NUMBER_MAX))
def test_a_time_is_exact(at_ns):
    assert texts.time_in("t", texts.time_text(at_ns)) == at_ns


TIMES = [
    (1, "1970-01-01T00:00:00.000000001Z"),
    (1_000_000_000, "1970-01-01T00:00:01Z"),
    (1_767_323_045_120_000_000, "2026-01-02T03:04:05.12Z"),
    (NUMBER_MAX, "2262-04-11T23:47:16.854775807Z"),
]


@pytest.mark.parametrize(("at_ns", "text"), TIMES)
def test_a_time_is_iso_8601_in_utc(at_ns, text):
    assert texts.time_text(at_ns) == text


def test_no_time_is_written_as_none():
    assert texts.time_text(0) is None


def test_another_zone_is_read():
    assert texts.time_in("t", "1970-01-01T02:00:01.5+02:00") == 1_500_000_000


BAD_TIMES = [
    "2026-01-02T03:04:05",
    "2026-01-02",
    "2026-01-02T03:04:05.1234567890Z",
    "2026-01-02T03:04:05.Z",
    "2026-13-02T03:04:05Z",
    "2026-01-02T03:04:05,5Z",
    "1969-12-31T23:59:59.9Z",
    "0001-01-01T00:00:00+23:59",
    "",
    "\uff12026-01-02T03:04:05Z",
]


@pytest.mark.parametrize("text", BAD_TIMES)
def test_what_is_no_time_is_malformed(text):
    with pytest.raises(Malformed, match="t: a time such as"):
        texts.time_in("t", text)


@given(st.binary(max_size=40))
def test_octets_are_hex(octets):
    assert texts.octets_in("o", octets.hex().upper()) == octets
    assert texts.octets_in("o", octets.hex()) == octets


@given(st.dictionaries(st.integers(0, 2**64 - 1), st.binary(max_size=8), max_size=5))
def test_records_are_told_and_read(records):
    told = texts.records_text(records)
    assert texts.records_in("r", told) == records
    assert list(told) == [str(kind) for kind in sorted(records)]


@given(st.binary(max_size=40) | st.text("abc 1%", max_size=40).map(str.encode))
def test_a_payment_request_is_told_and_read_and_never_moves_a_cursor(request):
    told = texts.request_text(request)
    assert texts.request_in(told.get("payment_request"), told.get("payment_request_hex")) == request
    assert all(text.isprintable() and text.isascii() for text in told.values())


@pytest.mark.parametrize("reason", [*FailureReason, *AttemptFailureReason])
def test_a_reason_has_a_name_in_either_case(reason):
    for name in (reason.name, reason.name.lower()):
        assert texts.reason_in("reason", name, type(reason)) is reason
