"""Known signatures, good and bad, judged before a verifier serves.

The one rule: a library that accepts what the ledger refuses is found out here, at the start, and
not by a claim that nobody can redeem.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from engine.core.claim import signing_message
from engine.verify.errors import SelfTestFailedError


class Vector(NamedTuple):
    """One signature and what the ledger says to it."""

    name: str
    message: bytes
    public_key: bytes
    signature: bytes
    good: bool


def _vector(name: str, good: bool, message: bytes, public_key: str, signature: str) -> Vector:
    return Vector(name, message, bytes.fromhex(public_key), bytes.fromhex(signature), good)


def _claim(channel_id: str, amount: int) -> bytes:
    return signing_message(bytes.fromhex(channel_id), amount)


_MAINNET: Final = "5DB01B7FFED6B67E6B0414DED11E051D2EE2B7619CE0EAA6286D67A3A4D5BDB3"
_PUBLISHED: Final = _claim(_MAINNET, 1_000_000)
_ONE_DROP: Final = _claim(_MAINNET, 1)
_EDGES: Final = _claim(
    "69E36568CD8B4659389B9FCFBE1167547F6421E78168BFB439DADA2FFDDB0146", 1_000_000
)
_CANONICAL: Final = bytes.fromhex(
    "34C19028C80D21F3F48C9354895F8D5BF0D5EE7FF457647CF655F5530A3022A7"
)

_PAYER: Final = "023693F15967AE357D0327974AD46FE3C127113B1110D6044FD41E723689F81CC6"
_PAYER_R: Final = "4EF0AFB78AC23ED1C472E74F4299C0C21F1B21D07EFC0A3838A420F76D783A40"
_PAYER_S: Final = "154FB11B6F54320666E4C36CA7F686C16A3A0456800BBC43746F34AF50290064"
_CANONICAL_KEY: Final = "025096EB12D3E924234E7162369C11D8BF877EDA238778E7A31FF0AAC5D0DBCF37"
_EDGE_KEY: Final = "ED88AA55E6AFEED8960A3191DE78600347DB8ACD0A3795412F275F049B86260488"

# Sources: xrpl.org channel_verify (mainnet), xrpl.js authorizeChannel test, rippled SecretKey test.
# The last two keys are a good key plus a point of order 2 or 8: the plain equation holds for these
# messages, so only the subgroup test can refuse them. libsodium before 2025-12-31 lets order 2
# through (CVE-2025-69277).
VECTORS: Final = (
    _vector("published claim", True, _PUBLISHED, _PAYER,
            f"30440220{_PAYER_R}0220{_PAYER_S}"),
    _vector("one drop more", False, _claim(_MAINNET, 1_000_001), _PAYER,
            f"30440220{_PAYER_R}0220{_PAYER_S}"),
    _vector("padded R", False, _PUBLISHED, _PAYER,
            f"3045022100{_PAYER_R}0220{_PAYER_S}"),
    _vector("trailing byte", False, _PUBLISHED, _PAYER,
            f"30440220{_PAYER_R}0220{_PAYER_S}00"),
    _vector("BER length", False, _PUBLISHED, _PAYER,
            f"3081440220{_PAYER_R}0220{_PAYER_S}"),
    _vector("low S", True, _CANONICAL, _CANONICAL_KEY,
            "3045022100C2EC8B76743C718241ABB81BDA4434C97FE62E1EC27B40A1BA42D3344EF59CBD"
            "022029E9722F18B302DBDB0D573CED8EB26094667F03ACEF0239B0AA712B525A93A6"),
    _vector("high S", False, _CANONICAL, _CANONICAL_KEY,
            "3046022100C2EC8B76743C718241ABB81BDA4434C97FE62E1EC27B40A1BA42D3344EF59CBD"
            "022100D6168DD0E74CFD2424F2A8C312714D9E26485DE302599E020F27ED617DDBAD9B"),
    _vector("Ed25519", True, _EDGES, _EDGE_KEY,
            "3E54C441927F9F0EE5E13E34F0B0404C5043651A8F4B7EF087A1C42262A85D0A"
            "38E143B849BC83B9B2DE1E678C3E72B9D7175127411C5EF31F8060FAD92BBF0F"),
    _vector("R + T8", False, _EDGES, _EDGE_KEY,
            "5B61C2E3B93E6C06450F327EA72CDFEB8CDE6AA020D2DD827AB3F86E708C8393"
            "61034F7F30085C2586C6F4AEEECEE62FE505E47B1EE72C28DF0FD723E3714106"),
    _vector("S + L", False, _EDGES, _EDGE_KEY,
            "3E54C441927F9F0EE5E13E34F0B0404C5043651A8F4B7EF087A1C42262A85D0A"
            "25B53915641F9611897B160A6B3851CED7175127411C5EF31F8060FAD92BBF1F"),
    _vector("key + T2", False, _ONE_DROP,
            "ED03B5939C1D63ADF5410AAF84ECD13A066AB889514141846DBDE11596EBB92DD3",
            "A1EE0D16C543EC06CF6154302F05965BE44B7A785CB7B45C008BAF5428CB1644"
            "0502DB302D09714FA74511A168FBD9FF195247B57CA1CD7C606BFAC639E6F305"),
    _vector("key + T8", False, _ONE_DROP,
            "ED1F4F580E73AC208F06760190E9EDC6F5916775DABD9C1CDCA393175C2D6D1083",
            "A1EE0D16C543EC06CF6154302F05965BE44B7A785CB7B45C008BAF5428CB1644"
            "DCEDEFDC6F15D298F5FE968E597188AB15C1C965FA406174602343C576380C05"),
)  # fmt: skip


def run_self_test(verify: Callable[[bytes, bytes, bytes], bool]) -> None:
    """Judge every vector with `verify`; a millisecond.

    Raises:
        SelfTestFailedError: one came out wrong; whoever asked must not serve.
    """
    for vector in VECTORS:
        if verify(vector.public_key, vector.message, vector.signature) is not vector.good:
            raise SelfTestFailedError(vector.name, vector.good)
