"""The ledger's signature rules once more: slow, plain, sharing nothing with the engine.

Nothing here is constant-time and nothing here guards money. Sources: SEC 1 §4.1.4, BIP 66 (strict
DER), RFC 8032 §5.1 and §6, XRPL PublicKey.cpp.
"""

from hashlib import sha512

Point = tuple[int, int]

# secp256k1 -------------------------------------------------------------------------------------

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)


def add(a: Point | None, b: Point | None) -> Point | None:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = 3 * a[0] ** 2 * pow(2 * a[1], -1, P) % P
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope**2 - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(scalar: int, point: Point | None) -> Point | None:
    total = None
    while scalar:
        if scalar & 1:
            total = add(total, point)
        point = add(point, point)
        scalar >>= 1
    return total


def decompress(key: bytes) -> Point | None:
    x = int.from_bytes(key[1:], "big")
    y = pow(x**3 + 7, (P + 1) // 4, P)
    if x >= P or (y * y - x**3 - 7) % P:
        return None
    return x, (y if y % 2 == key[0] % 2 else P - y)


def read_integer(der: bytes) -> tuple[int, bytes] | None:
    """A strict DER integer, positive and no longer than it must be, and what follows it."""
    if len(der) < 3 or der[0] != 0x02 or not 1 <= der[1] <= 33 or len(der) < 2 + der[1]:
        return None
    body = der[2 : 2 + der[1]]
    if body[0] & 0x80 or (body[0] == 0 and len(body) > 1 and not body[1] & 0x80):
        return None
    return int.from_bytes(body, "big"), der[2 + der[1] :]


def read_der(der: bytes) -> Point | None:
    if not 8 <= len(der) <= 72 or der[0] != 0x30 or der[1] != len(der) - 2:
        return None
    first = read_integer(der[2:])
    second = read_integer(first[1]) if first else None
    if first is None or second is None or second[1]:
        return None
    return first[0], second[0]


def verify_secp256k1(key: bytes, message: bytes, signature: bytes) -> bool:
    point, numbers = decompress(key), read_der(signature)
    if point is None or numbers is None:
        return False
    r, s = numbers
    if not 0 < r < N or not 0 < s <= N // 2:
        return False
    digest = int.from_bytes(sha512(message).digest()[:32], "big")
    inverse = pow(s, -1, N)
    found = add(multiply(digest * inverse % N, G), multiply(r * inverse % N, point))
    return found is not None and found[0] % N == r


# Ed25519 ---------------------------------------------------------------------------------------

Q = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, Q) % Q
ROOT = pow(2, (Q - 1) // 4, Q)
ZERO = (0, 1)


def ed_add(a: Point, b: Point) -> Point:
    bend = D * a[0] * a[1] * b[0] * b[1] % Q
    under = pow((1 + bend) * (1 - bend), -1, Q)
    x = (a[0] * b[1] + a[1] * b[0]) * (1 - bend) * under % Q
    return x, (a[1] * b[1] + a[0] * b[0]) * (1 + bend) * under % Q


def ed_multiply(scalar: int, point: Point) -> Point:
    total = ZERO
    while scalar:
        if scalar & 1:
            total = ed_add(total, point)
        point = ed_add(point, point)
        scalar >>= 1
    return total


def ed_encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def ed_decode(encoded: bytes) -> Point | None:
    y, odd = int.from_bytes(encoded, "little") & 2**255 - 1, encoded[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, Q) % Q
    x = pow(square, (Q + 3) // 8, Q)
    if (x * x - square) % Q:
        x = x * ROOT % Q
    if y >= Q or (x * x - square) % Q or (x == 0 and odd):
        return None
    return (x if x & 1 == odd else Q - x), y


B = ed_decode((4 * pow(5, -1, Q) % Q).to_bytes(32, "little")) or ZERO


def is_ed_key(point: Point | None) -> bool:
    """On the curve, not neutral, and on the subgroup of prime order."""
    return point is not None and point != ZERO and ed_multiply(L, point) == ZERO


def ed_challenge(commitment: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(commitment + key + message).digest(), "little") % L


def satisfies_ed_equation(key: bytes, message: bytes, signature: bytes) -> bool:
    """The ledger's own test, without a look at the subgroup: R = [S]B - [h]A, S < L."""
    point, scalar = ed_decode(key), int.from_bytes(signature[32:], "little")
    if point is None or len(signature) != 64 or scalar >= L:
        return False
    challenge = ed_challenge(signature[:32], key, message)
    minus = (Q - point[0], point[1])
    found = ed_add(ed_multiply(scalar, B), ed_multiply(challenge, minus))
    return ed_encode(found) == signature[:32]


def verify(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """What `engine.verify.schemes.verify` must say."""
    if len(public_key) != 33:
        return False
    if public_key[0] in (2, 3):
        return verify_secp256k1(public_key, message, signature)
    if public_key[0] == 0xED and is_ed_key(ed_decode(public_key[1:])):
        return satisfies_ed_equation(public_key[1:], message, signature)
    return False
