"""The same faults over other stores: ours stands, and the faults are real ones, for others fall."""

import pytest

from tests.faults import rivals
from tests.faults.rivals import sectors
from tests.faults.scorecard import OURS
from tests.faults.test_syscalls import problems, rows_of


@pytest.mark.slow
def test_faults_that_others_do_not_notice_are_noticed_here():
    rows = rows_of(rivals, 0.01)
    assert problems([row for row in rows if row.system == OURS]) == []
    unnoticed = {(row.name, row.system) for row in rows if row.undetected}
    assert ("a bit flipped at rest", "SQLite") in unnoticed
    assert ("a bit flipped at rest", "append with CRC") in unnoticed
    assert ("a file cut, emptied, missing or foreign", "LMDB") in unnoticed


def test_a_write_is_lost_sector_by_sector():
    assert list(sectors(500, 600)) == [(500, 12), (512, 512), (1024, 76)]
