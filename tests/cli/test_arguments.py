"""A wrong value on the command line is told what it is and what it may be; nothing is sent."""

import pytest

from engine.cli.arguments import MOMENT, SERVER, parse_hex

CHANNEL = "AB" * 32


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("AB", "is 1 bytes; a channel id is 32 bytes"),
        ("AB" * 33, "is 33 bytes; a channel id is 32 bytes"),
        ("XY" * 32, "is not hex; a channel id is 32 bytes of it"),
        ("A" * 63, "is not hex"),
        (" " + "AB" * 32, "is not hex"),
    ],
)
def test_a_channel_id_is_32_bytes_of_hex(run, value, says):
    seen = run("balance", value)
    assert seen.code == 2
    assert says in seen.err


def test_a_signature_has_at_most_72_bytes(run):
    words = ("--channel-id", CHANNEL, "--amount", 1, "--signature", "AB" * 73)
    seen = run("claim", "submit", *words)
    assert seen.code == 2
    assert "is 73 bytes; a signature is up to 72 bytes" in seen.err


@pytest.mark.parametrize("text", ["", "AB CD", "A", "\uff10\uff11", "0x00", "AB\n"])
def test_only_digits_are_hex(text):
    with pytest.raises(ValueError, match=r"hex"):
        parse_hex(text)


def test_a_time_is_nanoseconds_exactly():
    assert MOMENT.convert("1970-01-01T00:00:01.000001Z", None, None) == 1_000_001_000
    assert MOMENT.convert("2026-08-01T14:00:00+02:00", None, None) == 1_785_585_600 * 10**9


@pytest.mark.parametrize(
    ("value", "says"), [("tomorrow", "is no time"), ("2026-08-01T12:00", "does not say its zone")]
)
def test_a_time_says_its_zone(run, value, says):
    seen = run("channel", "open", CHANNEL, "--expiration", value)
    assert seen.code == 2
    assert says in seen.err


@pytest.mark.parametrize("value", ["localhost:8480", "ftp://localhost", "http://", "http://h/path"])
def test_a_server_is_a_url_without_a_path(run, value):
    seen = run("getinfo", "--server", value)
    assert seen.code == 2
    assert "give one like http://127.0.0.1:8480" in seen.err


def test_a_slash_at_the_end_of_a_server_does_not_matter():
    assert SERVER.convert("http://localhost:1/", None, None) == "http://localhost:1"


@pytest.mark.parametrize("words", [["getinfo"], ["channel", "list"], ["balance", CHANNEL]])
def test_nobody_at_the_address_has_its_own_code_at_once(run, words):
    """Port 1 needs rights that no engine has."""
    seen = run(*words, "--server", "http://127.0.0.1:1")
    assert (seen.code, seen.out) == (5, "")
    assert "http://127.0.0.1:1 cannot be reached" in seen.err
    assert "paychan serve" in seen.err


def test_the_environment_may_name_the_server(run, monkeypatch):
    monkeypatch.setenv("PAYCHAN_SERVER", "http://127.0.0.1:1")
    seen = run("getinfo")
    assert seen.code == 5
    assert "127.0.0.1:1 " in seen.err


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[]",
        '{"channel_id": "AB", "amount": "1", "signature": "zz"}',
        '{"channel_id": "AB", "amount": "1.5", "signature": "AB"}',
        '{"channel_id": "AB", "amount": 1e3, "signature": "AB"}',
        '{"channel_id": "AB", "signature": "AB"}',
        '{"channel_id": "AB", "amount": "1", "signature": "AB", "previous": "minus one"}',
    ],
)
def test_a_line_that_is_no_claim_is_named_and_nothing_is_sent(run, line):
    good = '{"channel_id": "AB", "amount": "1", "signature": "AB"}'
    given = f"{good}\n{line or '{}'}\n"
    seen = run("claim", "submit", "--stdin", "--server", "http://127.0.0.1:1", given=given)
    assert seen.code == 2
    assert "line 2: " in seen.err
    assert "nothing was sent" in seen.err
