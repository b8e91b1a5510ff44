"""A backup holds what was answered before it began, and comes back as a data directory."""

import asyncio
import shutil
import threading
from pathlib import Path

import pytest

from bench.signing import Payer, make_payer, opening_command, sign
from engine.channels.host import shard_directory
from engine.channels.journal import LogOptions, ShardJournal
from engine.channels.placement import PlacementOptions, load_or_create_placement
from engine.channels.recovery import recover_committed, state_hash
from engine.client import Client
from engine.core.claim import Claim
from engine.validation.options import ValidationOptions
from engine.verify.seal import load_or_create_seal_key
from tests.builders import NOON, decide_open, open_command, taken
from tests.cli.serving import serving
from wal.format import MANIFEST_NAME
from wal.manifest import decode_manifest

LIMITS = ValidationOptions().retries
CHANNELS = 6


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    """A data directory at rest: two shards, a channel in each."""
    directory = tmp_path / "data"
    directory.mkdir()
    load_or_create_placement(directory, PlacementOptions(runtime="inline", shards=2))
    load_or_create_seal_key(directory / "seal.key")
    for number in range(2):
        journal = ShardJournal(shard_directory(directory, number), options_of(number))
        opening = open_command(channel_id=bytes([number]) * 32)
        journal.append(taken(decide_open(opening, NOON)))
        journal.commit()
        journal.close()
    return directory


def options_of(number: int) -> LogOptions:
    return LogOptions(shard_id=number, segment_bytes=65_536, spare_in_background=False)


def manifest_of(shard: Path):
    return decode_manifest((shard / MANIFEST_NAME).read_bytes())


def test_a_backup_comes_back_whole_without_the_secret(run, datadir, tmp_path):
    made = run("backup", datadir, tmp_path / "copy")
    assert (made.code, [line["last_position"] for line in made.lines]) == (0, [2, 2])
    back = run("restore", tmp_path / "copy", tmp_path / "back")
    assert back.code == 0
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert names == {"placement.json", "shard-0000", "shard-0001"}
    for number in range(2):
        ours, theirs = (
            state_hash(recover_committed(shard_directory(directory, number), LIMITS).actors)
            for directory in (datadir, tmp_path / "back")
        )
        assert ours == theirs
    assert run("wal", "verify", tmp_path / "back").code == 0


def test_a_log_that_was_put_back_writes_under_an_epoch_nobody_else_reaches(run, datadir, tmp_path):
    run("backup", datadir, tmp_path / "copy")
    run("restore", tmp_path / "copy", tmp_path / "back")
    shard = shard_directory(tmp_path / "back", 0)
    journal = ShardJournal(shard, options_of(0))
    assert journal.epoch == manifest_of(shard_directory(datadir, 0)).epoch + 65_536 + 1
    journal.close()


def test_a_backup_never_goes_over_something(run, datadir, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").touch()
    assert run("backup", datadir, tmp_path / "copy").code == 2
    assert run("restore", datadir, tmp_path / "copy").code == 2
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["mine"]


def test_what_a_backup_that_broke_off_has_left_is_no_hindrance(run, datadir, tmp_path):
    shutil.copytree(datadir, tmp_path / "copy.partial")
    assert run("backup", datadir, tmp_path / "copy").code == 0
    assert not (tmp_path / "copy.partial").exists()


def test_a_damaged_log_makes_no_backup(run, datadir, tmp_path):
    damage(datadir / "shard-0001")
    seen = run("backup", datadir, tmp_path / "copy")
    assert seen.code == 6
    assert "shard-0001" in seen.err
    assert not (tmp_path / "copy").exists()


def test_a_damaged_backup_is_not_put_back(run, datadir, tmp_path):
    run("backup", datadir, tmp_path / "copy")
    damage(tmp_path / "copy" / "shard-0000")
    seen = run("restore", tmp_path / "copy", tmp_path / "back")
    assert seen.code == 6
    assert not (tmp_path / "back").exists()


def damage(shard: Path) -> None:
    (segment,) = (shard / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[4_096 + 80] ^= 1
    segment.write_bytes(data)


# Beside a running engine --------------------------------------------------------------------------


class Load(threading.Thread):
    """Submits claims to an engine until it is stopped; knows what was acknowledged."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._payers = [make_payer(n, "ed25519", series="backup") for n in range(CHANNELS)]
        self.acknowledged: dict[bytes, int] = {}
        self.stopped = threading.Event()
        self.warm = threading.Event()

    def run(self) -> None:
        asyncio.run(self._pay())

    async def _pay(self) -> None:
        async with Client(self._url) as client:
            for payer in self._payers:
                await client.open_channel(opening_command(payer))
            sequence = 0
            while not self.stopped.is_set():
                sequence += 1
                claims = [claim_of(payer, sequence) for payer in self._payers]
                for result in await client.submit(claims):
                    assert result.is_durable, result
                    self.acknowledged[result.channel_id] = sequence
                if sequence == 20:
                    self.warm.set()


def claim_of(payer: Payer, sequence: int) -> Claim:
    return Claim(payer.channel_id, sequence * 7, sign(payer, sequence * 7), sequence)


@pytest.mark.slow
def test_a_backup_under_load_has_every_claim_acknowledged_before_it_began(run, tmp_path):
    with serving(tmp_path / "data") as served:
        load = Load(served.url)
        load.start()
        assert load.warm.wait(60)
        before = dict(load.acknowledged)
        made = run("backup", tmp_path / "data", tmp_path / "copy")
        assert made.code == 0, made.err
        load.stopped.set()
        load.join(60)
        after = dict(load.acknowledged)
    assert run("restore", tmp_path / "copy", tmp_path / "back").code == 0
    assert len(before) == CHANNELS
    with serving(tmp_path / "back") as served:
        seen = asyncio.run(sequences(served.url, before))
    assert {channel: min(seen[channel], before[channel]) for channel in before} == before
    assert {channel: max(seen[channel], after[channel] + 1) for channel in after} == {
        channel: sequence + 1 for channel, sequence in after.items()
    }


async def sequences(url: str, channels: dict[bytes, int]) -> dict[bytes, int]:
    async with Client(url) as client:
        return {channel: (await client.channel(channel)).sequence for channel in channels}
