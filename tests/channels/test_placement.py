"""How a data directory is laid out is written down once, and nothing else is taken for it."""

import pytest

from engine.channels.options import SLOTS, PlacementOptions
from engine.channels.placement import PlacementMismatch, load_or_create_placement

SHARDED = PlacementOptions(shards=3)
DEDICATED = PlacementOptions(placement="dedicated")


def test_a_new_directory_is_laid_out_and_read_back(tmp_path):
    record = load_or_create_placement(tmp_path, SHARDED)
    assert load_or_create_placement(tmp_path, SHARDED) == record
    assert (len(record.slots), set(record.slots)) == (SLOTS, {0, 1, 2})
    assert [path.name for path in tmp_path.iterdir()] == ["placement.json"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (SHARDED, PlacementOptions(shards=2)),
        (SHARDED, DEDICATED),
        (DEDICATED, SHARDED),
    ],
)
def test_another_layout_is_refused_with_both_named(tmp_path, first, second):
    load_or_create_placement(tmp_path, first)
    with pytest.raises(PlacementMismatch, match="use the former or another data directory"):
        load_or_create_placement(tmp_path, second)


def test_dedicated_shards_may_be_any_number(tmp_path):
    load_or_create_placement(tmp_path, DEDICATED)
    record = load_or_create_placement(tmp_path, PlacementOptions(placement="dedicated", shards=9))
    assert (record.shards, record.slots) == (0, [])


def test_a_draft_that_a_crash_left_behind_is_not_the_layout(tmp_path):
    (tmp_path / "placement.draft").write_text("{")
    assert load_or_create_placement(tmp_path, SHARDED).shards == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"placement":"sharded","shards":3}',
        '{"placement":"sharded","shards":3,"slots":[0,1,2]}',
        f'{{"placement":"sharded","shards":3,"slots":[{",".join(["3"] * SLOTS)}]}}',
        '{"placement":"other","shards":3,"slots":[]}',
    ],
)
def test_a_record_that_makes_no_sense_is_refused(tmp_path, text):
    (tmp_path / "placement.json").write_text(text)
    with pytest.raises(PlacementMismatch):
        load_or_create_placement(tmp_path, SHARDED)
