"""The same faults over other stores: ours stands, and the faults are real ones, for others fall."""

import pytest

from tests.faults import rivals
from tests.faults.rivals import sectors
from tests.faults.scorecard import OURS, Budget, CannotRun
from tests.faults.test_syscalls import problems, silent
from tests.faults.tracer import require_strace

try:
    require_strace()
except CannotRun as error:
    pytestmark = pytest.mark.skip(str(error))


@pytest.mark.slow
def test_faults_that_others_do_not_notice_are_noticed_here():
    rows = rivals.run(Budget(share=0.01), silent)
    assert problems([row for row in rows if row.system == OURS]) == []
    unnoticed = {(row.name, row.system) for row in rows if row.undetected}
    assert ("a bit flipped at rest", "SQLite") in unnoticed
    assert ("a bit flipped at rest", "append with CRC") in unnoticed
    assert ("a file cut, emptied, missing or foreign", "LMDB") in unnoticed


def test_a_write_is_lost_sector_by_sector():
    assert list(sectors(500, 600)) == [(500, 12), (512, 512), (1024, 76)]
