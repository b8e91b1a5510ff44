"""Channel ids as published by others for real channels."""

import json
from pathlib import Path

import pytest

from engine.core.channel import derive_channel_id

PATH = Path(__file__).parents[1] / "verify" / "vectors" / "channel-ids.json"
ROWS = json.loads(PATH.read_text())


def derive(row: dict[str, str]) -> str:
    return derive_channel_id(row["source"], row["destination"], int(row["sequence"])).hex().upper()


def test_the_published_ids_are_all_there():
    assert len(ROWS) == 6


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["channel_id"][:8])
def test_a_published_channel_id_is_derived(row: dict[str, str]):
    assert derive(row) == row["channel_id"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["channel_id"][:8])
def test_who_pays_whom_and_when_all_matter(row: dict[str, str]):
    swapped = row | {"source": row["destination"], "destination": row["source"]}
    later = row | {"sequence": row["sequence"] + 1}
    assert len({derive(row), derive(swapped), derive(later)}) == 3
