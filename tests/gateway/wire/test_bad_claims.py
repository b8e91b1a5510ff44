"""A claim that is well formed and still must not be taken: signatures, states, sequences, marks."""

import time

import coincurve
import pytest

from bench.signing import make_payer, sign
from tests.gateway.wire.world import Payer

N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
L = 2**252 + 27742317777372353535851937790883648493


def integer(value: int) -> bytes:
    """Return a DER integer, as short as may be."""
    octets = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return b"\x02" + bytes([len(octets)]) + octets


def sequence(body: bytes) -> bytes:
    return b"\x30" + bytes([len(body)]) + body


def numbers(der: bytes) -> tuple[int, int]:
    size = der[3]
    return int.from_bytes(der[4 : 4 + size], "big"), int.from_bytes(der[6 + size :], "big")


def spoilt_der(der: bytes) -> dict[str, bytes]:
    """Return what a signature on secp256k1 must not look like."""
    r, s = numbers(der)
    return {
        "of another amount": der[:-1] + bytes([der[-1] ^ 1]),
        "high s": sequence(integer(r) + integer(N - s)),
        "r is 0": sequence(integer(0) + integer(s)),
        "s is 0": sequence(integer(r) + integer(0)),
        "r is n": sequence(integer(N) + integer(s)),
        "s is beyond n": sequence(integer(r) + integer(s + N)),
        "padded": sequence(
            b"\x02" + bytes([der[3] + 1]) + b"\0" + der[4 : 4 + der[3]] + integer(s)
        ),
        "a long length": b"\x30\x81" + der[1:],
        "bytes after it": der + b"\0",
        "a wrong tag": b"\x31" + der[1:],
        "cut short": der[:-1],
        "one byte": b"\x30",
        "compact": r.to_bytes(32, "big") + s.to_bytes(32, "big"),
        "zeros": bytes(72),
    }


def spoilt_64(signature: bytes) -> dict[str, bytes]:
    """Return what a signature on Ed25519 must not look like."""
    head, s = signature[:32], int.from_bytes(signature[32:], "little")
    return {
        "of another amount": signature[:-1] + bytes([signature[-1] ^ 1]),
        "s beyond L": head + (s + L).to_bytes(32, "little"),
        "63 bytes": signature[:63],
        "65 bytes": signature + b"\0",
        "r that is none": b"\xff" * 32 + signature[32:],
        "zeros": bytes(64),
        "one byte": b"\0",
    }


@pytest.mark.parametrize(("curve", "spoil"), [("secp256k1", spoilt_der), ("ed25519", spoilt_64)])
def test_a_spoilt_signature_is_a_bad_one_at_every_door(client, curve, spoil):
    payer = client.payer(curve)
    spoilt = {name: bad for name, bad in spoil(sign(payer.key, 5)).items() if len(bad) <= 72}
    with payer.unchanged(), client.websocket() as speaker:
        claims = [payer.claim(1, 5, signature=bad.hex()) for bad in spoilt.values()]
        results = client.results(*claims)
        codes = {name: result.get("code") for name, result in zip(spoilt, results, strict=True)}
        assert codes == dict.fromkeys(spoilt, "bad_signature")
        speaker.frame(1, *([payer.channel_id, 1, 5, bad] for bad in spoilt.values()))
        assert {code for _, code, _, _ in speaker.answer()[1]} == {"bad_signature"}
        for bad in spoilt.values():
            asked = payer.claim(1, 5, signature=bad.hex().upper())
            told = speaker.ask(
                "channel_verify",
                channel_id=payer.id,
                amount="5",
                public_key=payer.key.public_key.hex(),
                signature=asked["signature"],
            )
            assert told["result"] == {"signature_verified": False}
    assert client.results(payer.claim(1, 5))[0]["status"] == "accepted"


def test_only_the_payers_own_key_signs(client):
    payer, other = client.payer(), Payer(client)
    with payer.unchanged():
        digest = bytes(32)
        strangers = [
            sign(make_payer(10_000, "secp256k1", "stranger"), 5),
            sign(other.key, 5),
            coincurve.PrivateKey(payer.key.secret).sign(digest, hasher=None),
            sign(make_payer(10_000, "ed25519", "stranger"), 5),
        ]
        results = client.results(*(payer.claim(1, 5, signature=s.hex()) for s in strangers))
        assert {result["code"] for result in results} == {"bad_signature"}


def test_a_claim_of_one_channel_is_none_of_another(client):
    payer, other = client.payer(), client.payer()
    assert client.results(payer.claim(1, 5))[0]["status"] == "accepted"
    with other.unchanged():
        replayed = payer.claim(1, 5, channel_id=other.id)
        assert client.results(replayed)[0]["code"] == "bad_signature"


STATES = {
    "Pending": ({"funded": False}, []),
    "Settling": ({}, ["request-close"]),
    "Settled": ({}, ["request-close", "settle"]),
    "Disputed": ({}, ["dispute"]),
}


@pytest.mark.parametrize("state", STATES)
def test_only_an_active_channel_takes_claims(client, state):
    opening, commands = STATES[state]
    payer = client.payer(**opening)
    for command in commands:
        assert payer.command(command).status == 200
    with payer.unchanged(noted=True), client.websocket() as speaker:
        assert payer.channel["state"] == state
        (result,) = client.results(payer.claim(1, 5))
        assert result["code"] == "not_active"
        assert state in result["message"]
        problem = client.post(f"{payer.path}/claims", payer.claim(1, 5)).problem
        assert (problem["code"], problem["status"]) == ("not_active", 422)
        speaker.frame(1, payer.wire(1, 5))
        assert speaker.answer()[1][0][:2] == [3, "not_active"]


def test_a_channel_whose_time_is_up_takes_no_claims(client):
    payer = client.payer(expiration="2001-01-01T00:00:00Z")
    assert client.results(payer.claim(1, 5))[0]["code"] == "channel_expired"
    assert payer.balance()["claimed"] == "0"


def test_what_was_decided_is_not_decided_again(client):
    payer = client.payer()
    first = client.results(payer.claim(1, 5), payer.claim(2, 7))
    with payer.unchanged(noted=True):
        again = client.results(payer.claim(1, 5), payer.claim(2, 7))
        assert [result["status"] for result in again] == ["duplicate"] * 2
        assert [r["position"] for r in again] == [r["position"] for r in first]
        lower, other, not_more = client.results(
            payer.claim(1, 6), payer.claim(2, 8), payer.claim(3, 7)
        )
        assert lower["code"] == other["code"] == "sequence_conflict"
        assert (other["expected"], other["actual"]) == ("7", "8")
        assert not_more["code"] == "amount_not_increasing"
        assert (not_more["expected"], not_more["actual"]) == ("7", "7")


def test_an_unknown_channel_is_unknown_at_every_door(client):
    nobody = Payer(client)
    assert client.results(nobody.claim(1, 5))[0]["code"] == "unknown_channel"
    problem = client.post(f"{nobody.path}/claims", nobody.claim(1, 5)).problem
    assert (problem["code"], problem["status"]) == ("unknown_channel", 404)
    for path in ("", "/balance", "/best-claim", "/claims", "/balance?consistency=eventual"):
        assert client.get(nobody.path + path).problem["code"] == "unknown_channel"
    for command in ("confirm-funding", "request-close", "settle", "dispute"):
        assert nobody.command(command).problem["code"] == "unknown_channel"
    with client.websocket() as speaker:
        speaker.frame(1, nobody.wire(1, 5))
        assert speaker.answer()[1] == [[3, "unknown_channel", None, None]]
        for command in ("channel_info", "balance"):
            assert speaker.ask(command, channel_id=nobody.id)["error"] == "unknown_channel"
        assert speaker.ask("subscribe", channels=[nobody.id])["error"] == "unknown_channel"


def test_a_flood_of_gaps_is_held_within_bounds(client):
    payer = client.payer(capacity="1000000")
    claims = [payer.claim(number, number * 10) for number in range(3, 603)]
    results = client.results(*claims)
    held = [result for result in results if result["status"] == "buffered"]
    assert len(held) == 256
    assert {result["code"] for result in results if result not in held} == {"sequence_gap"}
    assert all(len(result["missing"]) <= 64 for result in held)
    assert held[0]["missing"] == [1, 2]
    assert payer.balance()["sequence"] == 0


@pytest.mark.slow
def test_a_gap_that_nobody_fills_is_refused_when_its_time_is_up(client):
    payer = client.payer()
    with client.websocket() as speaker:
        started = time.monotonic()
        speaker.frame(1, payer.wire(3, 7))
        assert speaker.answer() == (1, [[2, None, 3, None]])
        number, answers = speaker.answer()
        assert (number, answers[0][:2]) == (1, [3, "sequence_gap"])
        assert time.monotonic() - started > 0.9
    assert payer.balance()["claimed"] == "0"
