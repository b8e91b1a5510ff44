"""A repair says in words and in drops what it would cost, and does it only when told to."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.channels.recovery import recover_committed, state_hash
from engine.cli.main import cli
from engine.cli.wal import repair
from engine.validation.options import ValidationOptions
from tests.channels.world import Desk, channel_id, item
from tests.wal.disk import copied, frame_starts, live_segment, sealed_segments

LIMITS = ValidationOptions().retries
NAMES = ("a", "b")
ROUNDS = 30


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory: a checkpoint and a segment of claims, then a live segment, then a crash."""
    directory = tmp_path_factory.mktemp("original") / "data"
    desk = Desk(directory / "shard-0000")
    desk.open(*NAMES)
    pay(desk, 1)
    desk.restart(clean=True)
    pay(desk, ROUNDS + 1)
    desk.rest()
    desk.crash()
    return directory


def pay(desk: Desk, first: int) -> None:
    """Submit claims `first` to `first` + 29 of each channel, one batch a round."""
    for number in range(first, first + ROUNDS):
        claims = [item(name, 5 * number, number) for name in NAMES]
        assert desk.words(*claims) == ["accepted"] * len(NAMES)


@pytest.fixture
def datadir(original: Path, tmp_path: Path) -> Path:
    return copied(original, tmp_path / "data")


def damage(segment: Path, frame: int) -> None:
    data = bytearray(segment.read_bytes())
    data[frame_starts(segment)[frame] + 70] ^= 1
    segment.write_bytes(data)


def start(shard: Path) -> Desk:
    """Start a shard on the directory, as the engine does."""
    return Desk(shard)


def test_one_of_the_two_must_be_said(run, datadir):
    assert run("wal", "repair", datadir).code == 2
    assert run("wal", "repair", datadir, "--dry-run", "--apply").code == 2


def test_no_log_is_not_found(run, tmp_path):
    assert run("wal", "repair", tmp_path, "--dry-run").code == 3


def test_a_sound_log_is_left_as_it_is(run, datadir):
    for option in ("--dry-run", "--apply"):
        seen = run("wal", "repair", datadir, option)
        assert (seen.code, seen.line["needed"], seen.line["moved"]) == (0, False, [])


def test_a_log_in_use_is_refused(run, datadir):
    desk = start(datadir / "shard-0000")
    seen = run("wal", "repair", datadir, "--dry-run")
    assert (seen.code, "in use" in seen.err) == (1, True)
    desk.crash()


def test_it_says_what_would_be_lost_down_to_the_drops_of_each_channel(run, datadir):
    live = live_segment(datadir / "shard-0000")
    damage(live, 10)
    before = {path: path.read_bytes() for path in datadir.rglob("*") if path.is_file()}
    seen = run("wal", "repair", datadir, "--dry-run")
    assert seen.code == 6
    assert {path: path.read_bytes() for path in datadir.rglob("*") if path.is_file()} == before
    told = seen.line
    kept = 5 * (ROUNDS + 10)
    assert told["needed"]
    assert told["claims_unproven"] + told["claims_lost"] == 2 * (ROUNDS - 11)
    assert told["events_unreadable"] == 0
    assert {row["kept_amount"] for row in told["channels"]} <= {str(kept)}
    assert told["kept_to_position"] == 4 + 2 * (ROUNDS + 10)


def test_what_can_still_be_read_behind_damage_is_kept_for_the_money(run, datadir):
    """The last segment is lost with its header; every claim in it can still be read."""
    shard = datadir / "shard-0000"
    sealed = sealed_segments(shard)[-1]
    for snapshot in (shard / "snap").iterdir():
        snapshot.unlink()
    data = bytearray(sealed.read_bytes())
    data[300] ^= 1
    sealed.write_bytes(data)
    seen = run("wal", "repair", datadir, "--apply")
    assert seen.code == 0, seen.err
    told = seen.line
    best = 5 * 2 * ROUNDS
    assert told["drops_at_stake"] == str(2 * best)
    assert {row["lost_amount"] for row in told["channels"]} == {str(best)}
    saved = shard / told["salvaged"]
    checked = run("best-claims", "check", saved)
    assert (checked.code, checked.line["total"]) == (0, str(2 * best))


def test_at_stake_is_what_lies_between_the_best_claims_kept_and_lost(run, datadir):
    shard = datadir / "shard-0000"
    for snapshot in (shard / "snap").iterdir():
        snapshot.unlink()
    damage(sealed_segments(shard)[0], 10)
    told = run("wal", "repair", datadir, "--dry-run").line
    (kept,) = {int(row["kept_amount"]) for row in told["channels"]}
    assert 0 < kept < 5 * ROUNDS
    best = 5 * 2 * ROUNDS
    assert [row["drops"] for row in told["channels"]] == [str(best - kept)] * 2
    assert told["drops_at_stake"] == str(2 * (best - kept))


def test_after_a_repair_the_log_verifies_and_the_engine_starts(run, datadir):
    shard = datadir / "shard-0000"
    damage(live_segment(shard), 10)
    assert run("wal", "repair", datadir, "--apply").code == 0
    assert run("wal", "verify", datadir).code == 0
    desk = start(shard)
    assert desk.view("a").channel.sequence == ROUNDS + 10
    again = item("a", 5 * (ROUNDS + 11), ROUNDS + 11)
    assert desk.words(again) == ["accepted"]
    desk.shard.close()
    assert run("wal", "repair", datadir, "--dry-run").code == 0


def test_damage_below_a_checkpoint_costs_no_claim(run, datadir):
    shard = datadir / "shard-0000"
    before = state_hash(recover_committed(shard, LIMITS).actors)
    damage(sealed_segments(shard)[0], 10)
    seen = run("wal", "repair", datadir, "--apply")
    assert (seen.code, seen.line["claims_lost"], seen.line["frames_lost"]) == (0, 0, 0)
    assert state_hash(recover_committed(shard, LIMITS).actors) == before
    assert run("wal", "verify", datadir).code == 0
    assert run("wal", "replay", datadir, "--from-genesis").code == 3  # the log was cut


def test_a_backup_brings_everything_back(run, datadir, tmp_path):
    shard = datadir / "shard-0000"
    before = state_hash(recover_committed(shard, LIMITS).actors)
    assert run("backup", datadir, tmp_path / "copy").code == 0
    damage(sealed_segments(shard)[0], 10)
    damage(live_segment(shard), 10)
    seen = run("wal", "repair", datadir, "--apply", "--from", tmp_path / "copy")
    assert (seen.code, seen.line["frames_lost"], len(seen.line["fetched"])) == (0, 0, 2)
    assert state_hash(recover_committed(shard, LIMITS).actors) == before
    proved = run("wal", "replay", datadir, "--from-genesis")
    assert (proved.code, "the same as" in proved.err) == (0, True)


def test_a_missing_manifest_is_made_anew_only_when_told_to(run, datadir):
    shard = datadir / "shard-0000"
    before = state_hash(recover_committed(shard, LIMITS).actors)
    (shard / "MANIFEST").unlink()
    refused = run("wal", "repair", datadir, "--apply")
    assert (refused.code, "--rebuild-manifest" in refused.err) == (6, True)
    seen = run("wal", "repair", datadir, "--apply", "--rebuild-manifest")
    assert seen.code == 0, seen.err
    assert state_hash(recover_committed(shard, LIMITS).actors) == before
    assert channel_id("a") in recover_committed(shard, LIMITS).actors


def test_a_terminal_is_told_in_sentences(datadir, monkeypatch):
    class Terminal(repair.Output):
        def __init__(self, *, as_json: bool) -> None:
            self.is_json = False

    monkeypatch.setattr(repair, "Output", Terminal)
    damage(live_segment(datadir / "shard-0000"), 10)
    seen = CliRunner().invoke(cli, ["wal", "repair", str(datadir), "--dry-run"])
    assert seen.exit_code == 6
    assert "shard-0000: wrong: wal/" in seen.stdout
    assert "shard-0000: positions 1 to 84 would stay" in seen.stdout
    assert "frames behind that would be lost from the log" in seen.stdout
