"""Thousands of damaged files: each is read, or refused by name, and costs no more than a sound one.

The corpus is numbers (`fuzz`): a failure names specimen, kind and number, and that is the file.
"""

from collections import Counter
from pathlib import Path

import pytest

from engine.payments.lnd import DamagedFileError, DamagedPaymentError, work
from tests.lengths import often
from tests.payments.lnd.fuzz import Outcome, Specimen, damaged, in_order, specimens

QUICK, MANY = 60, often(800, 3_000)
DEPTH = 8
"""Pages a look-up of these files goes through at the most, with room for damage that adds some."""

INLINE_TIMES = 1
"""How often over a file its inline buckets are taken apart; those of a sound one add up to an
eighth of it at the most."""

SPECIMENS = specimens()
names = [specimen.name for specimen in SPECIMENS]


def check(specimen: Specimen, number: int, folder: Path) -> str:
    """Read one damaged file; return what came of it."""
    kind, data = damaged(specimen, number)
    path = folder / "channel.db"
    path.write_bytes(data)
    case = f"{specimen.name}, {kind}, number {number}"
    try:
        outcome = Outcome(path)
    except Exception as error:
        raise AssertionError(f"{case}: {error!r}") from error
    assert in_order(outcome.records), case
    bound = 4 * specimen.pages + DEPTH * (outcome.entries + 200)
    assert outcome.looks <= bound, f"{case}: {outcome.looks} looks at pages of {bound}"
    seen = f"{outcome.inline_bytes} bytes of inline buckets"
    assert outcome.inline_bytes <= INLINE_TIMES * len(specimen.data), f"{case}: {seen}"
    if outcome.error is None:
        return "read"
    assert str(path) in str(outcome.error) or not str(outcome.error).startswith("/"), case
    return type(outcome.error).__name__


@pytest.mark.parametrize("specimen", SPECIMENS, ids=names)
def test_a_sound_specimen_is_read_with_no_work_for_free(tmp_path, specimen, monkeypatch):
    monkeypatch.setattr(work, "FREE_BYTES", 0)
    path = tmp_path / "channel.db"
    path.write_bytes(specimen.data)
    outcome = Outcome(path)
    assert outcome.error is None
    assert outcome.records != []


@pytest.mark.parametrize("specimen", SPECIMENS, ids=names)
def test_damage_is_survived(tmp_path, specimen):
    for number in range(QUICK):
        check(specimen, number, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("specimen", SPECIMENS, ids=names)
def test_much_damage_is_survived(tmp_path, specimen):
    ends = Counter(check(specimen, number, tmp_path) for number in range(QUICK, MANY))
    # Damage that nothing notices, or that is all noticed at the door, tests nothing.
    assert ends["read"] > MANY // 50, ends
    assert ends[DamagedFileError.__name__] > MANY // 50, ends
    assert ends[DamagedPaymentError.__name__] > 0, ends


@pytest.mark.parametrize("specimen", SPECIMENS[1:3], ids=names[1:3])
def test_a_file_cut_at_any_page_is_refused(tmp_path, specimen):
    path = tmp_path / "channel.db"
    for page in range(0, specimen.pages, 3):
        path.write_bytes(specimen.data[: page * specimen.page_size])
        assert isinstance(Outcome(path).error, DamagedFileError)
