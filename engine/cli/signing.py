"""`paychan claim sign` and `paychan claim verify`: offline, exactly as the ledger does it."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import click
import coincurve
import msgspec
import nacl.bindings

from engine.cli.arguments import (
    CHANNEL_ID,
    DROPS,
    DROPS_OR_NONE,
    PUBLIC_KEY,
    SEQUENCE,
    SIGNATURE,
    parse_hex,
)
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option
from engine.core.claim import signing_message
from engine.core.types import AMOUNT_MAX, CHANNEL_ID_BYTES
from engine.verify import schemes

Curve = Literal["secp256k1", "ed25519"]
SECRET_BYTES: Final = 32
KEY_FORMS: Final = (
    "a key file holds one private key: 64 hex digits, or 66 with 00 (secp256k1) or ED (ed25519)"
    " first, or an XRPL seed such as s… or sEd…"
)


class _Key(NamedTuple):
    """A payer's key pair. Never shown: a repr in a traceback must not tell."""

    curve: Curve
    secret: bytes

    def __repr__(self) -> str:
        return f"<{self.curve} key>"

    def public_key(self) -> bytes:
        if self.curve == "ed25519":
            return b"\xed" + nacl.bindings.crypto_sign_seed_keypair(self.secret)[0]
        return coincurve.PrivateKey(self.secret).public_key.format()

    def sign(self, message: bytes) -> bytes:
        if self.curve == "ed25519":
            _, pair = nacl.bindings.crypto_sign_seed_keypair(self.secret)
            return nacl.bindings.crypto_sign(message, pair)[:64]
        digest = hashlib.sha512(message).digest()[:32]
        return coincurve.PrivateKey(self.secret).sign(digest, hasher=None)


def read_key(path: Path, curve: Curve) -> _Key:
    """Return the key in a file; what it holds is in no message.

    Args:
        path: See `KEY_FORMS`.
        curve: Which curve 64 hex digits without a prefix are on.

    Raises:
        Failure: the file holds no key.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
        key = _from_seed(text) if text.startswith("s") else _from_hex(text, curve)
        key.public_key()
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no private key"
        # The cause may quote the file, so it ends here.
        raise Failure(ExitCode.USAGE, f"{path}: {reason}", KEY_FORMS) from None
    return key


def _from_hex(text: str, curve: Curve) -> _Key:
    secret = parse_hex(text)
    if len(secret) == SECRET_BYTES + 1 and secret[0] in (0x00, 0xED):
        curve = "ed25519" if secret[0] else "secp256k1"
        secret = secret[1:]
    if len(secret) != SECRET_BYTES:
        raise ValueError("not the length of a private key")
    return _Key(curve, secret)


def _from_seed(text: str) -> _Key:
    # xrpl-py costs half a second; only a seed needs it.
    from xrpl.core.addresscodec import XRPLAddressCodecException
    from xrpl.core.keypairs import derive_keypair
    from xrpl.core.keypairs.exceptions import XRPLKeypairsException

    try:
        _, private_key = derive_keypair(text)
    except (XRPLAddressCodecException, XRPLKeypairsException) as error:
        raise ValueError("not a seed") from error
    return _from_hex(private_key, "secp256k1")


@click.command("sign")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the payer's private key lies; it is read, and never shown or sent.",
)
@click.option("--channel-id", type=CHANNEL_ID, required=True, help="Whose claim it is.")
@click.option("--amount", type=DROPS, required=True, help="Drops owed in all.")
@click.option("--sequence", type=SEQUENCE, help="Put into the answer; it is not signed.")
@click.option(
    "--curve",
    type=click.Choice(("secp256k1", "ed25519")),
    default="secp256k1",
    show_default=True,
    help="What 64 hex digits are; other keys say it themselves.",
)
@json_option
def sign(
    key_file: Path,
    channel_id: bytes,
    amount: int,
    sequence: int | None,
    curve: Curve,
    *,
    as_json: bool,
) -> None:
    """Sign a claim; its output is what `claim submit --stdin` reads."""
    key = read_key(key_file, curve)
    message = signing_message(channel_id, amount)
    public_key, signature = key.public_key(), key.sign(message)
    if not schemes.verify(public_key, message, signature):
        raise Failure(ExitCode.INTEGRITY, "the signature made here does not verify; not shown")
    claim = {
        "channel_id": channel_id,
        "amount": amount,
        "sequence": sequence,
        "public_key": public_key,
        "signature": signature,
    }
    Output(as_json=as_json).record(claim)


@click.command("verify")
@click.option("--channel-id", type=CHANNEL_ID)
@click.option("--amount", type=DROPS_OR_NONE, help="Drops.")
@click.option("--public-key", type=PUBLIC_KEY)
@click.option("--signature", type=SIGNATURE)
@click.option(
    "--stdin", "from_stdin", is_flag=True, help="Read JSON lines with those four fields instead."
)
@json_option
def verify(*, from_stdin: bool, as_json: bool, **fields: Any) -> None:
    """Say whether the ledger would accept a signature; offline.

    One claim: exit code 4 if it would not. With --stdin: a line of JSON for each line read, false
    too for what cannot be read as a claim.
    """
    if from_stdin:
        _verify_lines(sys.stdin.buffer)
        return
    missing = ["--" + name.replace("_", "-") for name, value in fields.items() if value is None]
    if missing:
        raise click.UsageError(f"give {', '.join(missing)}, or --stdin")
    message = signing_message(fields["channel_id"], fields["amount"])
    good = schemes.verify(fields["public_key"], message, fields["signature"])
    Output(as_json=as_json).record({"signature_verified": good})
    if not good:
        raise SystemExit(ExitCode.REJECTED)


class _Line(msgspec.Struct):
    channel_id: str
    amount: str | int
    public_key: str
    signature: str


def _verify_lines(lines: Iterable[bytes]) -> None:
    for line in lines:
        if line.strip():
            verdict = "true" if _is_good(line) else "false"
            click.echo(f'{{"signature_verified": {verdict}}}')


def _is_good(line: bytes) -> bool:
    try:
        read = msgspec.json.decode(line, type=_Line)
        channel_id, amount = parse_hex(read.channel_id), int(str(read.amount), 10)
        public_key, signature = parse_hex(read.public_key), parse_hex(read.signature)
    except (msgspec.DecodeError, ValueError):
        return False
    if len(channel_id) != CHANNEL_ID_BYTES or not 0 <= amount <= AMOUNT_MAX:
        return False
    return schemes.verify(public_key, signing_message(channel_id, amount), signature)
