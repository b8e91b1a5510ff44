"""Signing and checking claims offline: published seeds make published signatures."""

import json
import traceback
from pathlib import Path

import pytest

from engine.cli.failures import Failure
from engine.cli.signing import read_key

CHANNEL = "5DB01B7FFED6B67E6B0414DED11E051D2EE2B7619CE0EAA6286D67A3A4D5BDB3"
OTHER = "3E18C05AD40319B809520F1A136370C4075321B285217323396D6FD9EE1E9037"

# xrpl.js, tests of authorizeChannel: seed, private key, public key, signature of 1 XRP on CHANNEL.
SECP256K1 = (
    "snGHNrPbHrdUcszeuDEigMdC1Lyyd",
    "2860A948EF3635A6BFA9F82C1494AB41E3D5F6D841816AA94ACF4D8FACC46905",
    "023D5005A90AE49BEA3BECECCE9B3AB0CA89F60DF3191A54BCCDBF39F47F4AD610",
    "304402204E7052F33DDAFAAA55C9F5B132A5E50EE95B2CF68C0902F61DFE77299BC89374"
    "0220353640B951DCD24371C16868B3F91B78D38B6F3FD1E826413CDF891FA8250AAC",
)
ED25519 = (
    "sEdSuqBPSQaood2DmNYVkwWTn1oQTj2",
    "247EA70F7A05D0628EE02CC9183B7EECD2607DCF33D212BF8EE9869A28FC7D32",
    "ED4139EEFB4A5E0A3B9698A9ECAB5A7C66E4270B49548542D54BFB810784931497",
    "7E1C217A3E4B3C107B7A356E665088B4FBA6464C48C58267BEF64975E3375EA3"
    "38AE22E6714E3F5E734AE33E6B97AAD59058E1E196C1F92346FC1498D0674404",
)

# channel id, amount, public key, signature, whether the ledger takes it; all of them published.
VECTORS = [
    (
        CHANNEL,
        "1000000",
        "023693F15967AE357D0327974AD46FE3C127113B1110D6044FD41E723689F81CC6",
        "304402204EF0AFB78AC23ED1C472E74F4299C0C21F1B21D07EFC0A3838A420F76D783A40"
        "0220154FB11B6F54320666E4C36CA7F686C16A3A0456800BBC43746F34AF50290064",
        True,
    ),
    (
        OTHER,
        "10",
        "02F89EAEC7667B30F33D0687BBA86C3FE2A08CCA40A9186C5BDE2DAA6FA97A37D8",
        "3045022100B5C54654221F154347679B97AE7791CBEF5E6772A3F894F9C781B8F1B400F8"
        "9F022021E466D29DC5AEB5DFAFC76E8A88D2E388EBD25A84143B6AC3B647F479CB89B7",
        True,
    ),
    (
        OTHER,
        "10",
        "03A6523FE4281DA48A6FD77FAF3CB77F5C7001ABA0B32BCEDE0369AC009758D7D9",
        "3045022100B5C54654221F154347679B97AE7791CBEF5E6772A3F894F9C781B8F1B400F8"
        "9F022021E466D29DC5AEB5DFAFC76E8A88D2E388EBD25A84143B6AC3B647F479CB89B7",
        False,
    ),
    (
        CHANNEL,
        "0",
        "023D5005A90AE49BEA3BECECCE9B3AB0CA89F60DF3191A54BCCDBF39F47F4AD610",
        "3044022069888D92E1F4104FAD7BA66D8DA69278E579FE6EDAF32E87ACF481A6383C4AEB"
        "02204E0286429FF9842724627A08EAFD1A8356A6B36994DA6F386D2363C5D3AAFE7C",
        True,
    ),
    (
        "C1AE6DDDEEC05CF2978C0BAD6FE302948E9533691DC749DCDD3B9E5992CA6198",
        "1000000",
        "32D2471DB72B27E3310F355BB33E339BF26F8392D5A93D3BC0FC3B566612DA0F0A",
        "30440220718D264EF05CAED7C781FF6DE298DCAC68D002562C9BF3A07C1E721B420C0DAB"
        "02203A5A4779EF4D2CCC7BC3EF886676D803A9981B928D3B8ACA483B80ECA3CD7B9B",
        False,
    ),
    (CHANNEL, "1000000", *SECP256K1[2:], True),
    (CHANNEL, "1000000", *ED25519[2:], True),
]
FIELDS = ("channel_id", "amount", "public_key", "signature")


def as_line(vector: tuple[str, str, str, str, bool]) -> str:
    return json.dumps(dict(zip(FIELDS, vector, strict=False)))


# Verify -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS)
def test_a_published_claim_is_judged_as_the_ledger_does(run, vector):
    options = zip(("--channel-id", "--amount", "--public-key", "--signature"), vector, strict=False)
    seen = run("claim", "verify", *(word for option in options for word in option))
    assert seen.line == {"signature_verified": vector[4]}
    assert seen.code == (0 if vector[4] else 4)


def test_lines_are_judged_one_by_one(run):
    seen = run("claim", "verify", "--stdin", given="\n".join(map(as_line, VECTORS)))
    assert [line["signature_verified"] for line in seen.lines] == [v[4] for v in VECTORS]
    assert seen.code == 0


def test_lower_case_hex_and_a_number_for_the_amount_are_taken(run):
    line = json.loads(as_line(VECTORS[0]))
    line = {name: value.lower() for name, value in line.items()} | {"amount": 1_000_000}
    assert run("claim", "verify", "--stdin", given=json.dumps(line)).line["signature_verified"]


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "1000001"},
        {"amount": "-1"},
        {"amount": "1e6"},
        {"amount": str(2**64)},
        {"amount": None},
        {"channel_id": CHANNEL[:-2]},
        {"channel_id": "5D B0" + CHANNEL[4:]},
        {"public_key": ""},
        {"signature": "zz"},
        {"signature": 7},
    ],
)
def test_what_is_no_claim_is_false_and_the_next_line_is_read(run, change):
    bad = json.dumps(json.loads(as_line(VECTORS[0])) | change)
    seen = run("claim", "verify", "--stdin", given=f"{bad}\nnot json\n\n{as_line(VECTORS[0])}")
    assert [line["signature_verified"] for line in seen.lines] == [False, False, True]


def test_a_field_that_is_missing_is_named(run):
    seen = run("claim", "verify", "--channel-id", CHANNEL, "--amount", "1")
    assert seen.code == 2
    assert "--public-key, --signature" in seen.err


# Sign ---------------------------------------------------------------------------------------------


def forms() -> list[tuple[str, tuple[str, ...], tuple[str, str, str, str]]]:
    """Return what a key file may hold, the options it needs, and the vector it must give."""
    found = []
    for vector, prefix, curve in ((SECP256K1, "00", ()), (ED25519, "ED", ("--curve", "ed25519"))):
        seed, secret, _, _ = vector
        found += [(seed, (), vector), (secret, curve, vector), (prefix + secret, (), vector)]
        found.append((f"\n{(prefix + secret).lower()}\n\n", (), vector))
    return found


@pytest.mark.parametrize(("text", "options", "vector"), forms())
def test_a_key_makes_the_published_signature(run, tmp_path, text, options, vector):
    key_file = tmp_path / "key"
    key_file.write_text(text)
    seen = sign(run, key_file, *options)
    assert seen.code == 0
    assert seen.line == {
        "channel_id": CHANNEL,
        "amount": "1000000",
        "public_key": vector[2],
        "signature": vector[3],
    }


def sign(run, key_file: Path, *options: str):
    words = ("--key-file", key_file, "--channel-id", CHANNEL, "--amount", "1000000")
    return run("claim", "sign", *words, *options)


def test_what_was_signed_verifies(run, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(SECP256K1[0])
    signed = sign(run, key_file, "--sequence", "3")
    assert signed.line["sequence"] == 3
    assert run("claim", "verify", "--stdin", given=signed.out).line["signature_verified"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0" * 64,
        "F" * 64,
        "AB" * 31,
        "AB" * 33,
        "01" + "AB" * 32,
        "snGHNrPbHrdUcszeuDEigMdC1Lyye",
        "sEdSuqBPSQaood2DmNYVkwWTn1oQTj3",
        "s",
        "secret words in the wrong file",
        "käse",
    ],
)
def test_a_file_that_holds_no_key_is_refused_and_not_quoted(run, tmp_path, text):
    key_file = tmp_path / "key"
    key_file.write_text(text)
    seen = sign(run, key_file)
    assert seen.code == 2
    assert seen.out == ""
    assert "holds no private key" in seen.err
    assert len(text) < 2 or text not in seen.err


def test_not_even_a_traceback_shows_the_key(tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text("AB" * 31)
    with pytest.raises(Failure) as seen:
        read_key(key_file, "secp256k1")
    shown = "".join(traceback.format_exception(seen.value))
    assert "holds no private key" in shown
    assert "ValueError" not in shown
    key_file.write_text(SECP256K1[1])
    assert SECP256K1[1][:8].lower() not in repr(read_key(key_file, "secp256k1")).lower()


def test_a_file_that_is_not_there_is_named(run, tmp_path):
    seen = sign(run, tmp_path / "nowhere")
    assert seen.code == 2
    assert "nowhere: No such file" in seen.err


def test_an_amount_that_is_no_number_of_drops_is_explained(run, tmp_path):
    key_file = tmp_path / "key"
    key_file.write_text(SECP256K1[0])
    for amount in ("0", "1.5", "-1", "1_000", "18446744073709551616", "٣"):
        words = ("--key-file", key_file, "--channel-id", CHANNEL, f"--amount={amount}")
        seen = run("claim", "sign", *words)
        assert seen.code == 2
        assert "give whole drops from 1 to 18446744073709551615" in seen.err
