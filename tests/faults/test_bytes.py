"""What rots is found and named, what was only torn is cut and no more; see `tests.faults.bytes`."""

import pytest

from tests.faults import bytes as campaign
from tests.faults import misplaced
from tests.faults.moments import SECTORS, story
from tests.faults.scorecard import Budget
from tests.faults.specimen import ROOT, judged, specimen, started
from wal.format import SEGMENT_HEADER_BYTES, Flag
from wal.manifest import Manifest
from wal.verifier.manifest import MANIFEST_FIELDS

BUDGET = Budget()


def silent(done, total, what):
    """Tell nobody."""


def good(row):
    assert row.good, "\n".join(row.notes)
    return row


# The log that is damaged --------------------------------------------------------------------------


def test_the_log_holds_all_that_a_log_can_hold():
    log = specimen()
    assert judged(log.disk()).ok
    assert len(log.manifest.sealed) == 4
    assert log.manifest.sealed[0].packed
    assert {entry.kind for entry in log.manifest.snapshots} == {0, 1}
    assert len(log.newest_line) == 2
    assert len(log.snapshots) > len(log.newest_line)
    assert {entry.epoch for entry in log.manifest.sealed} == {1, 2}
    assert started(log.disk()).events < log.events
    flags = {
        log.image[path][frame.start + 5] for path, frames in log.frames.items() for frame in frames
    }
    for flag in (Flag.ZSTD, Flag.WATERMARK, Flag.SEAL, Flag.EPOCH_START):
        assert any(said & flag for said in flags), flag


def test_every_acknowledged_byte_of_the_log_is_among_those_that_are_damaged():
    log = specimen()
    for path, size in log.acknowledged.items():
        assert 0 < size <= len(log.image[path])
    live = log.segments[-1]
    assert log.acknowledged[live] == log.frames[live][-1].start
    assert not log.image[live][log.frames[live][-1].end :].strip(b"\0")
    assert set(log.image) - set(log.acknowledged) == {f"{ROOT}/LOCK"}
    assert sum(log.acknowledged.values()) > 5 * SEGMENT_HEADER_BYTES


def test_the_story_has_writes_of_many_sectors_to_every_kind_of_file():
    moments = story().moments
    assert {moment.path.rpartition("/")[2].partition("-")[0] for moment in moments} >= {
        "00000000000000000001", "MANIFEST.tmp",
    }  # fmt: skip
    assert {moment.path.split(".", 1)[1] for moment in moments} == {
        "wal", "wal.tmp", "pack.00000001.tmp", "snap.tmp", "inc.tmp", "tmp",
    }  # fmt: skip
    assert max(len(moment.data) for moment in moments) > 2 * max(SECTORS)
    assert len({moment.acknowledged for moment in moments}) > 10


# What must come of it -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", misplaced.CASES, ids=lambda case: case.name)
def test_each_damage_has_its_name(case):
    assert misplaced.fault_of(specimen(), case) == ""


@pytest.mark.parametrize("wrong", [{"frames": 1}, {"records": 1}, {"chain": bytes(32)}], ids=str)
def test_the_verifier_counts_what_a_seal_says(wrong):
    log = specimen()
    (damage,) = judged(log.disk(**misplaced.sealed_by(**wrong)(log))).damages
    assert damage.offset == log.frames[log.segments[-1]][-1].end
    assert "the seal counts other frames or records" in damage.reason


def test_the_verifier_knows_every_field_of_the_manifest():
    assert set(Manifest.__struct_fields__) == MANIFEST_FIELDS


@pytest.mark.slow
def test_verify_names_the_place_of_a_flipped_bit():
    assert good(campaign.flipped_for_verify(specimen(), BUDGET, silent)).tried > 1_500


@pytest.mark.slow
def test_no_start_takes_a_flipped_bit():
    assert good(campaign.flipped_for_start(specimen(), BUDGET, silent)).tried > 1_500


@pytest.mark.slow
def test_no_larger_damage_goes_unnoticed():
    good(campaign.overwritten(specimen(), BUDGET, silent))


@pytest.mark.slow
def test_a_write_cut_at_any_byte_loses_nothing_and_alarms_nobody():
    assert good(campaign.cut_short(BUDGET, silent)).tried > 1_000


@pytest.mark.slow
def test_no_mixture_of_sectors_loses_anything_or_alarms_anybody():
    good(campaign.torn_sectors(BUDGET, silent))
