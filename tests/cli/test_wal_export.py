"""An export has every event, under stable names, in a file that is there whole or not at all."""

import json
import sys
import tracemalloc
from datetime import UTC, datetime
from hashlib import sha512
from pathlib import Path

import pyarrow.parquet
import pytest
from msgspec.structs import replace

from engine.channels.journal import ShardJournal
from engine.channels.offline import export
from engine.core.commands import RequestClose
from engine.core.events import ChannelOpened, ClaimReceived, FundingConfirmed
from tests.builders import NOON, make_event
from tests.channels.world import LOG, Desk, channel_id, item, payer_of
from tests.wal.disk import copied

MINUTE_S = 60


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Two channels, a claim a minute on each for four minutes, one refused claim, one close."""
    desk = Desk(tmp_path_factory.mktemp("desk") / "data" / "shard-0007")
    desk.open("a", "b")
    for number in (1, 2, 3, 4):
        desk.clock.forward(MINUTE_S * 1_000)
        desk.submit(item("a", 10 * number, number), item("b", 20 * number, number))
    assert desk.words(item("a", 2_000, 5)) == ["amount_over_capacity"]
    desk.do(RequestClose, "b")
    desk.rest()
    return desk


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_event_comes_out_in_order_beside_its_writer(run, desk, tmp_path):
    seen = run("wal", "export", desk.directory.parent, "--output", tmp_path / "events")
    assert seen.code == 0, seen.err
    rows = lines_of(tmp_path / "events")
    assert [row["event"] for row in rows] == desk.kinds()
    assert [row["position"] for row in rows] == [f"7-{number}" for number in range(1, 15)]
    assert "14 events of 1 shards" in seen.err


def test_the_names_and_values_are_those_of_the_reference(run, desk):
    first, *_, refused, _ = run("wal", "export", desk.directory).lines
    assert first == {
        "position": "7-1",
        "event": "ChannelOpened",
        "channel_id": channel_id("a").hex().upper(),
        "version": 1,
        "at": "2027-01-15T08:00:00Z",
        "source": first["source"],
        "destination": first["destination"],
        "public_key": payer_of("a").public_key.hex().upper(),
        "capacity": "1000",
        "settle_delay_s": 3600,
        "sequencing": "strict",
    }
    assert (refused["event"], refused["code"], refused["amount"]) == (
        "ClaimRejected",
        "amount_over_capacity",
        "2000",
    )


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        (("--from", 5, "--to", 8), [5, 6, 7, 8]),
        (("--from", "7-13",), [13, 14]),
        (("--to", "2027-01-15T08:01:00Z"), [1, 2, 3, 4, 5, 6]),
        (("--from", "2027-01-15T08:04:00Z"), [11, 12, 13, 14]),
        (("--from", "@1800000061", "--to", "@1800000120"), [7, 8]),
        (("--channel", channel_id("b").hex(), "--from", 7), [8, 10, 12, 14]),
        (("--from", 99), []),
    ],
)  # fmt: skip
def test_a_part_can_be_asked_for(run, desk, options, positions):
    seen = run("wal", "export", desk.directory, *options)
    assert (seen.code, [row["position"] for row in seen.lines]) == (
        0,
        [f"7-{number}" for number in positions],
    )


def test_parquet_has_the_same_as_numbers_and_times(run, desk, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 4)
    target = tmp_path / "events.parquet"
    seen = run("wal", "export", desk.directory, "--format", "parquet", "--output", target)
    assert seen.code == 0, seen.err
    with pyarrow.parquet.ParquetFile(target) as file:
        assert file.num_row_groups == 4
        rows = file.read().to_pylist()
    told = run("wal", "export", desk.directory).lines
    assert len(rows) == len(told) == 14
    for row, line in zip(rows, told, strict=True):
        assert f"{row.pop('shard')}-{row.pop('position')}" == line.pop("position")
        assert {name: as_text(value) for name, value in row.items() if value is not None} == {
            name: str(value).replace("Z", "") for name, value in line.items()
        }
    assert rows[0]["at"] == datetime.fromtimestamp(NOON // 10**9, UTC)


def as_text(value: object) -> str:
    """Return a cell as JSON has it, but for the sign of the zone."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "")
    return str(value).replace("Z", "")


def test_without_the_library_it_says_how_to_get_it(run, desk, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    target = tmp_path / "events"
    seen = run("wal", "export", desk.directory, "--format", "parquet", "--output", target)
    assert (seen.code, "paychan[parquet]" in seen.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_parquet_does_not_go_to_standard_output(run, desk):
    assert run("wal", "export", desk.directory, "--format", "parquet").code == 2


def test_a_damaged_log_leaves_no_half_a_file(run, desk, tmp_path):
    shard = copied(desk.directory, tmp_path / "data" / "shard-0007")
    (segment,) = (shard / "wal").glob("*.wal")
    data = bytearray(segment.read_bytes())
    data[4_096 + 700] ^= 1
    segment.write_bytes(data)
    (tmp_path / "out").mkdir()
    seen = run("wal", "export", shard, "--output", tmp_path / "out" / "events")
    assert seen.code == 6
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_memory_stays_flat(run, tmp_path, monkeypatch, form):
    """Three times the events take no more memory, once the first row group is full."""
    monkeypatch.setattr(export, "ROWS_PER_GROUP", 1_024)
    journal = ShardJournal(tmp_path / "shard-0000", LOG)
    journal.append([make_event(ChannelOpened), make_event(FundingConfirmed)])
    journal.commit()
    peaks = []
    for size in (4_000, 12_000):
        while journal.last < size:
            journal.append([claim(journal.last + number) for number in range(1, 1_001)])
            journal.commit()
        journal.idle()
        tracemalloc.start()
        words = ("--format", form, "--output", tmp_path / f"events-{size}")
        assert run("wal", "export", tmp_path, *words).code == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    journal.close()
    assert peaks[1] < 1.5 * peaks[0], peaks


def claim(number: int) -> ClaimReceived:
    """Return claim `number` - 2 of the channel; its signature is nobody's."""
    signature = sha512(b"%d" % number).digest()
    return replace(
        make_event(ClaimReceived),
        version=number,
        sequence=number - 2,
        amount=number,
        signature=signature,
    )
