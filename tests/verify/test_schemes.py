"""Signatures: published vectors, each known malformation, and a differential run."""

import json
from hashlib import sha512
from pathlib import Path
from typing import NamedTuple

import pytest
from coincurve import PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_open

from engine.core.claim import signing_message
from engine.verify.schemes import SignatureChecker, is_valid_public_key, verify
from tests.lengths import often
from tests.verify import reference
from tests.verify.payers import CHANNEL_ID, Payer, der, make_payer, positive, split

VECTORS = Path(__file__).parent / "vectors"
MESSAGE = signing_message(CHANNEL_ID, 1_000)
SECP = make_payer("secp256k1")
ED = make_payer("ed25519")
SECP_SIGNATURE = SECP.sign(MESSAGE)
ED_SIGNATURE = ED.sign(MESSAGE)
R, S = split(SECP_SIGNATURE)
N, L = reference.N, reference.L


class Published(NamedTuple):
    name: str
    public_key: bytes
    message: bytes
    signature: bytes
    good: bool


def published() -> list[Published]:
    claims = json.loads((VECTORS / "claim-vectors.json").read_text())
    edges = json.loads((VECTORS / "ed25519-vectors.json").read_text())
    unhex = bytes.fromhex
    rows = [
        (row, signing_message(unhex(row["channel"]), int(row["amount"])))
        for row in claims["claims"]
    ] + [(row, unhex(row["signed_bytes"])) for row in claims["canonicality"]]
    return [
        Published(
            row["id"], unhex(row["public_key"]), message, unhex(row["signature"]), row["valid"]
        )
        for row, message in rows
    ] + [
        Published(
            row["case"],
            b"\xed" + unhex(row["public_key"]),
            unhex(edges["message"]),
            unhex(row["signature"]),
            row["ledger"],
        )
        for row in edges["rows"]
    ]


PUBLISHED = published()


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector.name)
def test_every_published_vector_is_judged_as_by_the_ledger(vector: Published):
    assert verify(vector.public_key, vector.message, vector.signature) is vector.good


def test_the_published_vectors_are_all_there():
    assert len(PUBLISHED) == 13
    assert sum(vector.good for vector in PUBLISHED) == 7


@pytest.mark.parametrize("payer", [SECP, ED], ids=["secp256k1", "ed25519"])
@pytest.mark.parametrize("amount", [0, 1, 10**17, 2**64 - 1])
def test_an_honest_signature_is_good_at_every_amount(payer: Payer, amount: int):
    message = signing_message(CHANNEL_ID, amount)
    assert verify(payer.public_key, message, payer.sign(message))


# secp256k1 signatures ----------------------------------------------------------------------------


def long_form(signature: bytes) -> bytes:
    return b"\x30\x81" + signature[1:]


PADDED_R = b"\0" + positive(R)
PADDED_S = b"\0" + positive(S)
TOP_BIT = (2**255 + 1).to_bytes(32, "big")
SPOILT_DER = {
    "BER long form": long_form(SECP_SIGNATURE),
    "BER long form of R": b"\x30"
    + bytes((SECP_SIGNATURE[1] + 1,))
    + b"\x02\x81"
    + SECP_SIGNATURE[3:],
    "BER indefinite": b"\x30\x80" + SECP_SIGNATURE[2:] + b"\0\0",
    "padded R": der(PADDED_R, positive(S)),
    "padded S": der(positive(R), PADDED_S),
    "negative R": der(TOP_BIT, positive(S)),
    "negative S": der(positive(R), TOP_BIT),
    "R without its sign byte": der((N - 1).to_bytes(32, "big"), positive(S)),
    "trailing byte": SECP_SIGNATURE + b"\0",
    "trailing byte inside": b"\x30" + bytes((SECP_SIGNATURE[1] + 1,)) + SECP_SIGNATURE[2:] + b"\0",
    "wrong outer tag": b"\x31" + SECP_SIGNATURE[1:],
    "wrong tag of R": SECP_SIGNATURE[:2] + b"\x03" + SECP_SIGNATURE[3:],
    "outer length short": b"\x30" + bytes((SECP_SIGNATURE[1] - 1,)) + SECP_SIGNATURE[2:],
    "outer length long": b"\x30" + bytes((SECP_SIGNATURE[1] + 1,)) + SECP_SIGNATURE[2:],
    "length of R beyond the end": SECP_SIGNATURE[:3] + b"\x7f" + SECP_SIGNATURE[4:],
    "empty R": der(b"", positive(S)),
    "empty S": der(positive(R), b""),
    "R = 0": der(b"\0", positive(S)),
    "S = 0": der(positive(R), b"\0"),
    "R = n": der(positive(N), positive(S)),
    "S = n": der(positive(R), positive(N)),
    "R + n": der(positive(R + N), positive(S)),
    "S + n": der(positive(R), positive(S + N)),
    "R and S of one bit": der(b"\1", b"\1"),
    "high S": der(positive(R), positive(N - S)),
    "only R": SECP_SIGNATURE[: 4 + len(positive(R))],
    "64-byte compact": R.to_bytes(32, "big") + S.to_bytes(32, "big"),
    "65-byte recoverable": R.to_bytes(32, "big") + S.to_bytes(32, "big") + b"\0",
    "empty": b"",
    "a megabyte": SECP_SIGNATURE + bytes(1_000_000),
    "of the other curve": ED_SIGNATURE,
}


@pytest.mark.parametrize("name", SPOILT_DER)
def test_a_spoilt_der_signature_is_bad(name: str):
    assert not verify(SECP.public_key, MESSAGE, SPOILT_DER[name])


def test_the_pieces_of_the_spoilt_signatures_make_a_good_one_when_unspoilt():
    assert der(positive(R), positive(S)) == SECP_SIGNATURE
    assert verify(SECP.public_key, MESSAGE, der(positive(R), positive(S)))


@pytest.mark.parametrize("payer", [SECP, ED], ids=["secp256k1", "ed25519"])
def test_no_part_of_a_signature_is_a_signature(payer: Payer):
    signature = payer.sign(MESSAGE)
    for length in range(len(signature)):
        assert not verify(payer.public_key, MESSAGE, signature[:length])


def test_the_digest_is_the_first_half_of_sha_512_and_no_other():
    signature = make_payer("secp256k1").sign(b"")
    assert PublicKey(SECP.public_key).verify(signature, sha512(b"").digest()[:32], None)
    assert verify(SECP.public_key, b"", signature)
    assert not verify(SECP.public_key, sha512(b"").digest()[:32], signature)


# Keys --------------------------------------------------------------------------------------------

X, Y = reference.decompress(SECP.public_key) or (0, 0)
HYBRID = bytes((6 + Y % 2,)) + X.to_bytes(32, "big") + Y.to_bytes(32, "big")
OTHER_SIGN = bytes((5 - SECP.public_key[0],)) + SECP.public_key[1:]
NO_KEYS = {
    "empty": b"",
    "32 bytes": SECP.public_key[:32],
    "34 bytes": SECP.public_key + b"\0",
    "only the prefix": b"\x02",
    "uncompressed": b"\x04" + HYBRID[1:],
    "uncompressed, cut to 33": b"\x04" + HYBRID[1:33],
    "hybrid": HYBRID,
    "hybrid, cut to 33": HYBRID[:33],
    "hybrid prefix 07": b"\x07" + SECP.public_key[1:],
    "x = 0": b"\x02" + bytes(32),
    "x off the curve": b"\x02" + (5).to_bytes(32, "big"),
    "x = p": b"\x02" + reference.P.to_bytes(32, "big"),
    "x = p + 1": b"\x02" + (reference.P + 1).to_bytes(32, "big"),
    "unknown prefix": b"\x32" + SECP.public_key[1:],
    "Ed25519 without its prefix": ED.public_key[1:],
    "Ed25519 under 02": b"\x02" + bytes(31) + b"\x05",
    "Ed25519, 31 bytes": ED.public_key[:-1],
    "Ed25519, 33 bytes": ED.public_key + b"\0",
    "Ed25519 prefix 'ED' in text": b"ED" + ED.public_key[1:32],
    "Ed25519 y not canonical": b"\xed" + (reference.Q + 3).to_bytes(32, "little"),
    "Ed25519 off the curve": b"\xed" + (2).to_bytes(32, "little"),
}


@pytest.mark.parametrize("name", NO_KEYS)
def test_what_is_no_key_of_the_ledger_is_refused_everywhere(name: str):
    assert not is_valid_public_key(NO_KEYS[name])
    assert not verify(NO_KEYS[name], MESSAGE, SECP_SIGNATURE)
    assert not verify(NO_KEYS[name], MESSAGE, ED_SIGNATURE)


@pytest.mark.parametrize("payer", [SECP, ED], ids=["secp256k1", "ed25519"])
def test_a_real_key_may_be_registered(payer: Payer):
    assert is_valid_public_key(payer.public_key)


def test_the_key_with_the_other_sign_is_another_key():
    assert is_valid_public_key(OTHER_SIGN)
    assert not verify(OTHER_SIGN, MESSAGE, SECP_SIGNATURE)


# Ed25519 -----------------------------------------------------------------------------------------


def some_point_of_order_8() -> reference.Point:
    for y in range(2, 100):
        point = reference.ed_decode(y.to_bytes(32, "little"))
        torsion = reference.ed_multiply(L, point) if point else reference.ZERO
        if reference.ed_multiply(4, torsion) != reference.ZERO:
            return torsion
    raise AssertionError("no point of order 8 below y = 100")


TORSION = [reference.ed_multiply(k, some_point_of_order_8()) for k in range(8)]
"""The eight points whose order divides 8; the first is neutral."""

EDGE_SCALAR = int.from_bytes(ED_SIGNATURE[32:], "little")
SPOILT_ED = {
    "S + L": ED_SIGNATURE[:32] + (EDGE_SCALAR + L).to_bytes(32, "little"),
    "S = L": ED_SIGNATURE[:32] + L.to_bytes(32, "little"),
    "S all ones": ED_SIGNATURE[:32] + b"\xff" * 32,
    "S = 0": ED_SIGNATURE[:32] + bytes(32),
    "R not canonical": (reference.Q + 3).to_bytes(32, "little") + ED_SIGNATURE[32:],
    "R neutral": reference.ed_encode(reference.ZERO) + ED_SIGNATURE[32:],
    "0 bytes": b"",
    "63 bytes": ED_SIGNATURE[:63],
    "65 bytes": ED_SIGNATURE + b"\0",
    "twice": ED_SIGNATURE * 2,
    "of the other curve": SECP_SIGNATURE,
}


@pytest.mark.parametrize("name", SPOILT_ED)
def test_a_spoilt_ed25519_signature_is_bad(name: str):
    assert not verify(ED.public_key, MESSAGE, SPOILT_ED[name])


def test_bytes_cannot_move_between_signature_and_message():
    signature = ED.sign(MESSAGE)
    assert verify(ED.public_key, MESSAGE, signature)
    assert not verify(ED.public_key, MESSAGE[1:], signature + MESSAGE[:1])
    assert not verify(ED.public_key, signature[63:] + MESSAGE, signature[:63])


@pytest.mark.parametrize("order", range(8))
def test_a_key_of_small_order_is_refused(order: int):
    key = b"\xed" + reference.ed_encode(TORSION[order])
    assert not is_valid_public_key(key)
    assert not verify(key, MESSAGE, reference.ed_encode(TORSION[order]) + bytes(32))


def mixed_key_signature(torsion: reference.Point) -> tuple[bytes, bytes, bytes]:
    """A key plus a small part, and a message whose plain equation holds all the same."""
    secret = int.from_bytes(sha512(ED.seed).digest()[:32], "little")
    secret = (secret & 2**255 - 8 & ~(1 << 255)) | 1 << 254
    honest = reference.ed_decode(ED.public_key[1:])
    assert honest is not None
    key = reference.ed_encode(reference.ed_add(honest, torsion))
    nonce = 12_345
    commitment = reference.ed_encode(reference.ed_multiply(nonce, reference.B))
    for amount in range(1, 1_000):
        message = signing_message(CHANNEL_ID, amount)
        challenge = reference.ed_challenge(commitment, key, message)
        if challenge % 8 == 0:
            scalar = (nonce + challenge * secret) % L
            return key, message, commitment + scalar.to_bytes(32, "little")
    raise AssertionError("no message fits")


@pytest.mark.parametrize("index", range(1, 8))
def test_a_key_of_mixed_order_is_refused_even_where_its_equation_holds(index: int):
    key, message, signature = mixed_key_signature(TORSION[index])
    # The library alone takes it, so nothing but our subgroup test stands in the way.
    assert crypto_sign_open(signature + message, key) == message
    assert not is_valid_public_key(b"\xed" + key)
    assert not verify(b"\xed" + key, message, signature)


# The cache of keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("payer", [SECP, ED], ids=["secp256k1", "ed25519"])
def test_a_good_verdict_is_not_remembered_for_another_signature_or_message(payer: Payer):
    checker = SignatureChecker()
    signature = payer.sign(MESSAGE)
    other = signing_message(CHANNEL_ID, 1_001)
    for _ in range(2):
        assert checker.verify(payer.public_key, MESSAGE, signature)
        assert not checker.verify(payer.public_key, other, signature)
        assert not checker.verify(payer.public_key, MESSAGE, payer.sign(other))


def test_keys_that_differ_in_any_one_byte_are_never_taken_for_each_other():
    checker = SignatureChecker()
    for payer in (SECP, ED):
        signature = payer.sign(MESSAGE)
        assert checker.verify(payer.public_key, MESSAGE, signature)
        for at in range(33):
            other = bytearray(payer.public_key)
            other[at] ^= 1
            assert not checker.verify(bytes(other), MESSAGE, signature)


# Against the reference ---------------------------------------------------------------------------


@st.composite
def hostile(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """An honest (key, message, signature) or one with something done to it."""
    payer = make_payer(draw(st.sampled_from(["secp256k1", "ed25519"])), draw(st.integers(1, 8)))
    message = signing_message(CHANNEL_ID, draw(st.integers(0, 2**64 - 1)))
    parts = [payer.public_key, message, payer.sign(message)]
    which = draw(st.sampled_from([0, 1, 2, 2, 2]))
    kind = draw(st.sampled_from(["nothing", "bit", "cut", "longer", "splice", "numbers"]))
    part = parts[which]
    at = draw(st.integers(0, len(part) - 1))
    if kind == "bit":
        parts[which] = (
            part[:at] + bytes((part[at] ^ 1 << draw(st.integers(0, 7)),)) + part[at + 1 :]
        )
    elif kind == "cut":
        parts[which] = part[:at]
    elif kind == "longer":
        parts[which] = part + draw(st.binary(min_size=1, max_size=8))
    elif kind == "splice":
        piece = draw(st.binary(max_size=4))
        parts[which] = part[:at] + piece + part[at + len(piece) :]
    elif kind == "numbers":
        parts[2] = draw(other_numbers(payer, parts[2]))
    return parts[0], parts[1], parts[2]


@st.composite
def other_numbers(draw: st.DrawFn, payer: Payer, signature: bytes) -> bytes:
    """The same signature with its numbers moved to where a lax reader takes them too."""
    if payer.curve == "ed25519":
        scalar = int.from_bytes(signature[32:], "little")
        moved = draw(st.sampled_from([scalar, scalar + L, 2 * L - scalar, 0, L, L - scalar]))
        return signature[:32] + moved.to_bytes(32, "little")
    r, s = split(signature)
    r = draw(st.sampled_from([r, r, r + N, N - r, 0, N]))
    s = draw(st.sampled_from([s, N - s, s + N, 0, N, N // 2, N // 2 + 1]))
    pads = [draw(st.sampled_from([b"", b"", b"\0"])) for _ in range(2)]
    return der(pads[0] + positive(r), pads[1] + positive(s))


@pytest.mark.slow
@given(hostile())
@settings(max_examples=often(200, 1_000), deadline=None)
def test_ours_and_the_reference_agree_on_honest_and_hostile_bytes(
    triple: tuple[bytes, bytes, bytes],
):
    assert verify(*triple) is reference.verify(*triple)


@given(st.binary(max_size=40), st.binary(max_size=60), st.binary(max_size=80))
def test_random_bytes_are_refused_without_an_exception(
    key: bytes, message: bytes, signature: bytes
):
    for prefix in (b"", b"\x02", b"\x03", b"\xed"):
        assert verify((prefix + key)[:33], message, signature) is False
        assert verify(SECP.public_key, message, prefix + signature) is False
        assert verify(ED.public_key, message, prefix + signature) is False
