"""The bytes of a log, fixed: a change here is a change of the format."""

from collections.abc import Callable
from pathlib import Path

from tests.wal.disk import SteadyFiles, live_segment
from wal import Log, LogOptions, Position

GOLDEN = Path(__file__).parent / "golden"
OPTIONS = LogOptions(
    shard_id=7,
    segment_bytes=8192,
    spare_in_background=False,
    codec_id=2,
    schema_version=3,
    zstd_level=1,
)


def write_golden(directory: Path) -> None:
    """Write two segments and a snapshot, then stop without a close."""
    log = Log.open(directory, OPTIONS, files=SteadyFiles())
    log.append([b"opened", b"funded", b""])
    log.commit()
    log.append([b"claim" * 100])
    log.commit()
    log.idle()
    log.close()
    log = Log.open(directory, OPTIONS, files=SteadyFiles())
    log.append([b"claim of the second epoch"])
    log.commit()
    log.snapshot(Position(5), [b"the state", b"of everything"])
    log.append([bytes(range(256))])
    log.commit()
    log.abandon()


def test_the_format_is_what_it_was(tmp_path: Path, golden: Callable[[Path, bytes], None]) -> None:
    write_golden(tmp_path)
    (sealed,) = set((tmp_path / "wal").iterdir()) - {live_segment(tmp_path)}
    (snapshot,) = (tmp_path / "snap").iterdir()
    golden(GOLDEN / "sealed.wal", sealed.read_bytes())
    golden(GOLDEN / "live.wal", live_segment(tmp_path).read_bytes())
    golden(GOLDEN / "state.snap", snapshot.read_bytes())
    golden(GOLDEN / "MANIFEST", (tmp_path / "MANIFEST").read_bytes())


def test_a_log_of_the_past_is_read(tmp_path: Path) -> None:
    write_golden(tmp_path)
    live = live_segment(tmp_path)
    (sealed,) = set((tmp_path / "wal").iterdir()) - {live}
    sealed.write_bytes((GOLDEN / "sealed.wal").read_bytes())
    live.write_bytes((GOLDEN / "live.wal").read_bytes())
    (tmp_path / "MANIFEST").write_bytes((GOLDEN / "MANIFEST").read_bytes())
    with Log.open(tmp_path, OPTIONS) as log:
        assert [data for _, data in log.read()] == [
            b"opened", b"funded", b"", b"claim" * 100, b"claim of the second epoch",
            bytes(range(256)),
        ]  # fmt: skip
        (found,) = log.checkpoint()
        assert (found[0], list(found[1])) == (5, [b"the state", b"of everything"])
