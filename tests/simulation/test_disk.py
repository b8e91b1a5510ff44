"""The simulated disk loses what a disk may lose, and nothing else: toy writers show both."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.simulation.disk import SECTOR, Disk, Killed, SimFiles
from wal.files import Files, How, sync_directory, write_all, write_new

ROOT = Path("/disk")
FILE, OTHER = ROOT / "file", ROOT / "other"
NUMBERS = range(60)


def machine(number: int = 0, trouble: Callable[[str, str], str] = lambda call, path: ""):
    disk = Disk(str(ROOT), Random(number))
    return disk, SimFiles(disk, lambda: 0, trouble)


def content(disk: Disk, path: Path = FILE) -> bytes | None:
    """Return what a fresh process reads from the disk itself; None where there is no file."""
    files = SimFiles(disk, lambda: 0, lambda call, path: "")
    if path.name not in files.scan(path.parent):
        return None
    handle = files.open(path, How.DISK)
    try:
        return files.read(handle, 1 << 20, 0)
    finally:
        files.close(handle)


def left_behind(write: Callable[[Files], None]) -> set[bytes | None]:
    """Return all that a power loss after `write` may leave of the file."""
    left = set()
    for number in NUMBERS:
        disk, files = machine(number)
        write(files)
        files.die()
        disk.lose_power()
        left.add(content(disk))
    return left


def write_unsynced(files: Files) -> None:
    handle = files.open(FILE, How.CREATE)
    write_all(files, handle, b"promised", 0)
    sync_directory(files, ROOT)


def write_unnamed(files: Files) -> None:
    write_new(files, FILE, b"promised")


def write_durably(files: Files) -> None:
    write_new(files, FILE, b"promised")
    sync_directory(files, ROOT)


def test_what_was_not_synced_can_be_lost_and_can_be_kept():
    assert {b"", b"promised"} <= left_behind(write_unsynced)


def test_a_name_is_lost_without_a_sync_of_its_directory():
    assert left_behind(write_unnamed) == {None, b"promised"}


def test_what_was_synced_with_its_name_is_never_lost():
    assert left_behind(write_durably) == {b"promised"}


def test_a_rename_is_done_or_not_and_never_half():
    def replace(files: Files) -> None:
        write_durably(files)
        write_new(files, OTHER, b"the newer")
        files.rename(OTHER, FILE)

    assert left_behind(replace) == {b"promised", b"the newer"}


def test_a_name_that_was_unlinked_can_come_back():
    def remove(files: Files) -> None:
        write_durably(files)
        files.unlink(FILE)

    assert left_behind(remove) == {b"promised", None}


def test_a_write_is_torn_at_sectors_and_harms_nothing_beside_it():
    old, new, start = b"o" * SECTOR * 8, b"n" * SECTOR * 3, 700
    words = {b"o" * SECTOR: "old", b"n" * SECTOR: "new", bytes(SECTOR): "zero"}
    kinds = set()

    def overwrite(files: Files) -> None:
        write_new(files, FILE, old)
        sync_directory(files, ROOT)
        handle = files.open(FILE, How.WRITE)
        write_all(files, handle, new, start)

    for left in left_behind(overwrite):
        assert left is not None
        assert left[:start] == old[:start]
        assert left[start + len(new) :] == old[start + len(new) :]
        sector = left[2 * SECTOR : 3 * SECTOR]
        kinds.add(words.get(sector, "rubbish"))
    assert kinds == {"old", "new", "zero", "rubbish"}


def test_after_a_sync_that_failed_the_next_one_promises_nothing():
    lost = 0
    for number in NUMBERS:
        fates = iter(("eio", "", ""))
        disk, files = machine(number, lambda call, _, f=fates: next(f) if call == "sync" else "")
        handle = files.open(FILE, How.CREATE)
        write_all(files, handle, b"promised", 0)
        with pytest.raises(OSError, match="simulated eio"):
            files.sync(handle)
        assert files.read(handle, 8, 0) == b"promised"  # the page cache has it still
        files.sync(handle)
        sync_directory(files, ROOT)
        lost += content(disk) != b"promised"
    assert 0 < lost < len(NUMBERS)


def test_a_killed_process_loses_its_locks_and_keeps_what_it_wrote():
    disk, files = machine()
    files.open(OTHER, How.LOCK)
    handle = files.open(FILE, How.CREATE)
    write_all(files, handle, b"written", 0)
    second = SimFiles(disk, lambda: 0, lambda call, path: "")
    with pytest.raises(BlockingIOError):
        second.open(OTHER, How.LOCK)
    files.die()
    second.open(OTHER, How.LOCK)
    assert content(disk) == b"written"
    with pytest.raises(Killed):
        files.write(handle, b"more", 0)


def test_a_full_disk_takes_no_more_bytes_and_lets_those_it_has_be_changed():
    disk, files = machine()
    write_durably(files)
    disk.full = True
    handle = files.open(FILE, How.WRITE)
    files.write(handle, b"p", 0)
    with pytest.raises(OSError, match="full disk"):
        files.write(handle, b"one byte more than there was", 0)
    with pytest.raises(OSError, match="full disk"):
        files.open(OTHER, How.CREATE)


def test_a_bit_that_flips_is_read_from_then_on():
    disk, files = machine()
    write_durably(files)
    disk.files_under(str(ROOT))[0][1].flip(0)
    assert content(disk) == b"qromised"


def test_a_new_directory_is_lost_with_all_in_it_unless_its_parent_was_synced():
    left = set()
    for number in NUMBERS:
        disk, files = machine(number)
        files.make_directory(ROOT / "inner")
        write_new(files, ROOT / "inner" / "file", b"deep")
        sync_directory(files, ROOT / "inner")
        if number % 2:
            sync_directory(files, ROOT)
        disk.lose_power()
        left.add((number % 2, str(ROOT / "inner") in disk.folders))
        if str(ROOT / "inner") in disk.folders:
            assert content(disk, ROOT / "inner" / "file") == b"deep"
    assert left == {(0, False), (0, True), (1, True)}
