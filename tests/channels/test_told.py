"""A start says what it cut, put aside or passed over."""

from structlog.testing import capture_logs

from engine.channels.told import tell_recovery
from tests.channels.world import Desk, item
from tests.wal.disk import flip, frame_starts, live_segment


def test_a_torn_tail_and_a_bad_checkpoint_are_told(tmp_path):
    desk = Desk(tmp_path / "shard-0000")
    desk.open("a")
    desk.restart(clean=True)
    desk.submit(item("a", 1, 1))
    desk.crash()
    live = live_segment(desk.directory)
    *_, last, end = frame_starts(live)
    flip(live, (end - 40) * 8)
    (checkpoint,) = (desk.directory / "snap").iterdir()
    flip(checkpoint, 1_000)
    desk.start()
    with capture_logs() as lines:
        tell_recovery(7, desk.log.recovery)
    cut, refused, *kept = lines
    assert (cut["event"], cut["shard"], cut["offset"]) == ("log_tail_cut", 7, last)
    assert (refused["event"], checkpoint.name in refused["checkpoint"]) == (
        "checkpoint_refused",
        True,
    )
    assert {line["event"] for line in kept} == {"put_in_quarantine"}
    desk.crash()


def test_a_clean_start_says_nothing(tmp_path):
    desk = Desk(tmp_path / "shard-0000")
    desk.open("a")
    desk.restart(clean=True)
    with capture_logs() as lines:
        tell_recovery(0, desk.log.recovery)
    assert lines == []
    desk.crash()
