"""A spread over the system calls of a run; every one of them is in `python -m tests.faults`."""

import pytest

from tests.faults import syscalls
from tests.faults.scorecard import Budget, CannotRun, Row
from tests.faults.tracer import Call, parse


def silent(done: int, total: int, what: str) -> None:
    """Show no progress."""


def problems(rows: list[Row]) -> list[str]:
    """Return what the rows that are not good have to say."""
    return [f"{row}" for row in rows if not row.good]


def rows_of(campaign, share):
    """Return the rows of a campaign, or skip the test where the machine lacks something for it."""
    try:
        return campaign.run(Budget(share=share), silent)
    except CannotRun as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_whatever_call_fails_nothing_acknowledged_is_lost_and_nothing_goes_on():
    *rows, threads = rows_of(syscalls, 0.01)
    assert problems([*rows, threads]) == []
    kinds = [row.name.partition(" at ")[0] for row in rows]
    assert kinds == [*syscalls.KINDS, "EIO", "SIGKILL"]
    assert min(row.acknowledged_checked for row in rows) > 300


def test_a_line_of_strace_is_read():
    line = '71 pwrite64(5</a/b.wal>, ""..., 352, 4096) = -1 EIO (INJECTED)'
    call = Call("pwrite64", ("/a/b.wal",), 5, '5</a/b.wal>, ""..., 352, 4096', "-1 EIO (INJECTED)")
    assert parse(line) == call
    assert call.injected
    assert parse('71 renameat2(1</a>, "b", 1</a>, "c", 0) = 0').name == "rename"
    assert parse("71 fdatasync(5</a/b.wal> <unfinished ...>").handle == 5
    assert parse("71 +++ killed by SIGKILL +++") is None


LOOK = 'openat(AT_FDCWD</>, "/s/MANIFEST", O_RDONLY) = 5</s/MANIFEST>'
SAID = 'write(3</heard>, ""..., 9) = 9'
DRAFT = 'pwrite64(6</s/snap/1.snap.tmp>, ""..., 9, 0) = 9'


@pytest.mark.parametrize(
    ("lines", "is_beside"),
    [
        ([LOOK, DRAFT], False),  # the first start reads the MANIFEST, and needs all it does
        ([SAID, DRAFT], False),
        ([SAID, LOOK, DRAFT], True),
        ([SAID, LOOK, 'rename("/s/snap/1.snap.tmp", "/s/snap/1.snap") = 0', DRAFT], False),
        ([SAID, LOOK, 'pwrite64(6</s/wal/1-1.wal>, ""..., 9, 0) = 9', DRAFT], False),
        ([SAID, LOOK, SAID], False),
    ],
)
def test_only_what_is_done_beside_the_work_may_fail(lines, is_beside):
    assert syscalls.is_beside([parse(f"7 {line}") for line in lines]) is is_beside
