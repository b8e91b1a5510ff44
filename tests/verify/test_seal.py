"""The seal: opens for exactly one batch and one key, and its key file is made once."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.verify import seal as sealing
from engine.verify.batch import SECP256K1_PROBES, encode_batch, with_probes
from engine.verify.errors import SealKeyError, SealRefusal, SealRefusedError
from engine.verify.seal import load_or_create_seal_key, open_sealed, seal
from tests.verify.payers import make_item, make_payer

KEY = bytes(range(32))
ITEMS = [make_item(make_payer("secp256k1")), make_item(make_payer("ed25519"), good=False)]
BLOB = encode_batch(with_probes(ITEMS))
SEALED = seal(KEY, BLOB, b"\1\0\0\1")


def refusal(key: bytes, blob: bytes, sealed: bytes) -> SealRefusal:
    with pytest.raises(SealRefusedError) as refused:
        open_sealed(key, blob, sealed)
    return refused.value.reason


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_seal_opens_to_the_verdicts_on_the_claims():
    assert open_sealed(KEY, BLOB, SEALED) == b"\1\0"


def test_the_seal_of_no_claims_opens_to_nothing():
    blob = encode_batch(with_probes([]))
    assert open_sealed(KEY, blob, seal(KEY, blob, b"\0\1")) == b""


def test_any_changed_byte_of_the_blob_is_refused():
    for at in range(len(BLOB)):
        assert refusal(KEY, flipped(BLOB, at * 8), SEALED) is SealRefusal.FOREIGN


def test_any_changed_bit_of_verdicts_or_seal_is_refused():
    for bit in range(len(SEALED) * 8):
        assert refusal(KEY, BLOB, flipped(SEALED, bit)) is SealRefusal.FOREIGN


def test_any_changed_bit_of_the_key_is_refused():
    for bit in range(256):
        assert refusal(flipped(KEY, bit), BLOB, SEALED) is SealRefusal.FOREIGN


def test_a_cut_or_longer_answer_is_refused():
    for length in range(len(SEALED)):
        assert refusal(KEY, BLOB, SEALED[:length]) is SealRefusal.FOREIGN
    assert refusal(KEY, BLOB, SEALED + b"\0") is SealRefusal.FOREIGN
    assert refusal(KEY, BLOB, b"\1" + SEALED) is SealRefusal.FOREIGN


def test_verdicts_of_one_batch_do_not_open_another():
    other = encode_batch(with_probes(ITEMS[::-1]))
    assert refusal(KEY, other, SEALED) is SealRefusal.FOREIGN


def test_bytes_cannot_move_between_blob_and_verdicts():
    for cut in range(1, 8):
        moved = BLOB[-cut:] + b"\1\0\0\1"
        forged = moved + SEALED[-sealing.SEAL_BYTES :]
        assert refusal(KEY, BLOB[:-cut], forged) is SealRefusal.FOREIGN


@given(st.binary(max_size=100))
def test_random_bytes_never_open(answer: bytes):
    assert refusal(KEY, BLOB, answer) is SealRefusal.FOREIGN


NONSENSE = {
    "all good": b"\1\1\1\1",
    "all bad": b"\0\0\0\0",
    "probes swapped": b"\1\0\1\0",
    "one short": b"\0\0\1",
    "one more": b"\1\0\0\0\1",
    "none": b"",
    "no verdict byte": b"\2\0\0\1",
}


@pytest.mark.parametrize("name", NONSENSE)
def test_a_true_seal_over_nonsense_is_refused_as_such(name: str):
    assert refusal(KEY, BLOB, seal(KEY, BLOB, NONSENSE[name])) is SealRefusal.PROBE


def test_a_true_seal_on_a_batch_without_probes_is_refused_as_such():
    blob = BLOB[:-1]
    assert refusal(KEY, blob, seal(KEY, blob, b"\1\0\0\1")) is SealRefusal.UNPROBED


def test_what_only_ends_like_a_batch_is_refused():
    tail = encode_batch(list(SECP256K1_PROBES))[1:]
    blob = b"\x94" + tail
    assert refusal(KEY, blob, seal(KEY, blob, b"\0\1")) is SealRefusal.PROBE


# The file of the key ---------------------------------------------------------------------------


def test_a_key_is_made_once_and_then_read(tmp_path: Path):
    path = tmp_path / "seal.key"
    key = load_or_create_seal_key(path)
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_seal_key(path) == key
    assert path.read_bytes() == key
    assert os.listdir(tmp_path) == ["seal.key"]


def test_two_keys_are_not_the_same(tmp_path: Path):
    assert load_or_create_seal_key(tmp_path / "a") != load_or_create_seal_key(tmp_path / "b")


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"k" * 33, b"k" * 4_096])
def test_a_key_of_the_wrong_size_is_refused_and_kept(tmp_path: Path, content: bytes):
    path = tmp_path / "seal.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(SealKeyError, match="32 bytes"):
        load_or_create_seal_key(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_key_open_to_others_is_refused(tmp_path: Path, mode: int):
    path = tmp_path / "seal.key"
    path.write_bytes(KEY)
    path.chmod(mode)
    with pytest.raises(SealKeyError, match="others") as refused:
        load_or_create_seal_key(path)
    assert refused.value.path == path
    assert KEY.hex() not in str(refused.value)


def test_a_directory_or_a_pipe_is_no_key(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "directory").mkdir(0o700)
    with pytest.raises(SealKeyError, match="plain file"):
        load_or_create_seal_key(tmp_path / "pipe")
    with pytest.raises((SealKeyError, IsADirectoryError)):
        load_or_create_seal_key(tmp_path / "directory")


def test_a_key_that_another_process_made_first_wins(tmp_path: Path, monkeypatch):
    path = tmp_path / "seal.key"
    link = os.link

    def late(draft: str, target: Path) -> None:
        target.write_bytes(KEY)
        target.chmod(0o600)
        link(draft, target)

    monkeypatch.setattr(os, "link", late)
    assert load_or_create_seal_key(path) == KEY
    assert os.listdir(tmp_path) == ["seal.key"]


def test_a_disk_that_refuses_leaves_no_key_and_no_draft(tmp_path: Path, monkeypatch):
    def refuse(descriptor: int) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="input/output"):
        load_or_create_seal_key(tmp_path / "seal.key")
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path;"
        "from engine.verify.seal import load_or_create_seal_key as load;"
        "sys.stdin.read(1); sys.stdout.write(load(Path(sys.argv[1])).hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "seal.key")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("g")
        process.stdin.flush()
    keys = {process.communicate(timeout=60)[0] for process in started}
    assert len(keys) == 1
    assert len(keys.pop()) == 64
