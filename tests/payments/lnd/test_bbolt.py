"""bbolt files: what the writer of these tests wrote and what lnd wrote is read back, in order."""

import errno
import fcntl
import os
import struct
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.payments.lnd import file
from engine.payments.lnd.bbolt import DEPTH_MAX, BboltReader, Bucket
from engine.payments.lnd.errors import DamagedFileError, FileLockedError, UnreadableFileError
from engine.payments.lnd.file import ROOT_OWNER
from engine.payments.lnd.metas import PAGE_SIZES, fnv1a_64
from tests.payments.lnd.real import needs_real_files, real_file
from tests.payments.lnd.writer import Tree, file_bytes, meta_page, write_file


def content(bucket: Bucket) -> Tree:
    """Return a bucket and all in it, as the writer takes it."""
    items = {
        key: content(value) if isinstance(value, Bucket) else value for key, value in bucket.items()
    }
    return Tree(items, bucket.sequence)


def many(count: int, width: int = 8, size: int = 40) -> Tree:
    return Tree({index.to_bytes(width): bytes([index % 251]) * size for index in range(count)})


def nested() -> Tree:
    """Every kind of page: branches, a value with overflow, inline and deeper buckets."""
    root = Tree(
        {b"values": many(5000), b"long": b"x" * 30_000, b"small": Tree({b"a": b"1"}, 77)}, 0
    )
    root.tree(b"empty").sequence = 1000
    inner = root.tree(b"deep").tree(b"deeper").tree(b"deepest")
    inner.items.update(many(300).items)
    return root


keys = st.binary(min_size=1, max_size=40)
trees = st.recursive(
    st.dictionaries(keys, st.binary(max_size=300), max_size=30).map(Tree),
    lambda below: st.builds(
        Tree,
        st.dictionaries(keys, st.binary(max_size=6000) | below, max_size=8),
        st.integers(0, 2**64 - 1),
    ),
    max_leaves=8,
)


# What is read back --------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("freelist", [True, False])
def test_every_page_size_reads_back(tmp_path, page_size, freelist):
    path = write_file(tmp_path / "a.db", nested(), page_size, freelist=freelist)
    with BboltReader(path) as reader:
        assert content(reader.root) == nested()
        assert reader.file.meta.page_size == page_size


@given(tree=trees, page_size=st.sampled_from(PAGE_SIZES[:3]), inline=st.booleans())
def test_any_tree_reads_back(tmp_path_factory, tree, page_size, inline):
    tree.sequence = 0
    path = write_file(tmp_path_factory.mktemp("t") / "a.db", tree, page_size, inline=inline)
    with BboltReader(path) as reader:
        assert content(reader.root) == tree


def test_keys_are_found_and_others_are_not(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path) as reader:
        values = reader.root.bucket(b"values")
        assert values is not None
        for index in range(5000):
            assert values.get(index.to_bytes(8)) == bytes([index % 251]) * 40
        assert [values.get(key) for key in (b"", b"\0", b"\xff" * 9, (5000).to_bytes(8))] == (
            [None] * 4
        )
        assert reader.root.get(b"nothing") is None
        assert reader.root.bucket(b"nothing") is None
        assert [reader.root.has_bucket(key) for key in (b"values", b"small", b"long", b"no")] == (
            [True, True, False, False]
        )


def test_a_bucket_is_no_value_and_a_value_is_no_bucket(tmp_path):
    with BboltReader(write_file(tmp_path / "a.db", nested())) as reader:
        with pytest.raises(DamagedFileError, match="a bucket lies under b'values'"):
            reader.root.get(b"values")
        with pytest.raises(DamagedFileError, match="a value lies under b'long'"):
            reader.root.bucket(b"long")


def test_a_walk_begins_after_any_key(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path) as reader:
        values = reader.root.bucket(b"values")
        for after in (0, 1, 63, 64, 65, 4998, 4999):
            found = [int.from_bytes(key) for key, _ in values.items(after.to_bytes(8))]
            assert found == list(range(after + 1, 5000))
        assert len(list(values.items(b""))) == 5000
        assert list(values.items(b"\xff")) == []
        assert values.count() == 5000


def test_the_last_key_is_found(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path) as reader:
        assert reader.root.bucket(b"values").last() == ((4999).to_bytes(8), bytes([230]) * 40)
        assert reader.root.bucket(b"empty").last() is None
        assert reader.root.last()[0] == b"values"


def test_a_walk_reads_each_page_once(tmp_path):
    path = write_file(tmp_path / "a.db", nested(), freelist=False)
    with BboltReader(path) as reader:
        content(reader.root)
        overflow = 30_000 // 4096
        assert reader.file.work.looks == path.stat().st_size // 4096 - 2 - overflow


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_a_bucket_lies_in_its_parent_up_to_a_quarter_of_a_page(tmp_path, page_size):
    tree = Tree({b"small": Tree({b"k": b"x" * (page_size // 4 - 33)})})
    with BboltReader(write_file(tmp_path / "a.db", tree, page_size)) as reader:
        assert content(reader.root) == tree
        assert (reader.file.work.looks, reader.file.work.inline) == (1, page_size // 4)
    tree.tree(b"small")[b"k"] += b"x"
    with BboltReader(write_file(tmp_path / "a.db", tree, page_size)) as reader:
        assert content(reader.root) == tree
        assert (reader.file.work.looks, reader.file.work.inline) == (2, 0)


@needs_real_files
@pytest.mark.parametrize("name", ["carol", "dave"])
def test_all_of_a_file_of_lnd_is_read_and_written_and_read_again(tmp_path, name):
    with BboltReader(real_file(name)) as reader:
        tree = content(reader.root)
        assert reader.file.work.looks <= reader.file.meta.high_water - 2
    assert len(tree.items) > 30
    assert opened(tmp_path / "a.db", file_bytes(tree, freelist=False)) == tree


# Two meta pages -----------------------------------------------------------------------------------


def rewritten(data: bytes, number: int, **changes: int) -> bytes:
    """Return `data` with meta page `number` made anew, its checksum right."""
    at = number * 4096 + 16
    fields = dict(
        zip(
            ("magic", "version", "page_size", "flags", "root", "sequence", "free", "high", "txid"),
            struct.unpack_from("<IIIIQQQQQ", data, at),
            strict=True,
        )
    )
    body = struct.pack("<IIIIQQQQQ", *{**fields, **changes}.values())
    whole = body + struct.pack("<Q", fnv1a_64(body))
    return data[:at] + whole + data[at + len(whole) :]


def opened(path: Path, data: bytes) -> Tree:
    path.write_bytes(data)
    with BboltReader(path) as reader:
        return content(reader.root)


@pytest.mark.parametrize("number", [0, 1])
def test_one_torn_meta_page_is_no_loss(tmp_path, number):
    data = bytearray(file_bytes(nested()))
    data[number * 4096 + 40] ^= 1
    assert opened(tmp_path / "a.db", bytes(data)) == nested()


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_the_second_meta_page_is_found_without_the_first(tmp_path, page_size):
    data = file_bytes(nested(), page_size)
    assert opened(tmp_path / "a.db", b"\xff" * 200 + data[200:]) == nested()


def test_what_looks_like_a_meta_page_elsewhere_is_none(tmp_path):
    """The first is torn, and in its page lies one that says of itself that it lies elsewhere."""
    data = bytearray(file_bytes(nested()))
    decoy = rewritten(bytes(data), 1, txid=1000, root=2)[4096:4200]
    data[1024 : 1024 + len(decoy)] = decoy
    data[16] ^= 1
    assert opened(tmp_path / "a.db", bytes(data)) == nested()


def test_the_meta_page_of_the_newer_transaction_counts(tmp_path):
    data = file_bytes(nested())
    older = rewritten(data, 0, root=3, txid=7)
    assert opened(tmp_path / "a.db", older) == nested()
    newer = rewritten(rewritten(data, 0, txid=99), 1, root=2**60)
    assert opened(tmp_path / "a.db", newer) == nested()


def test_the_checksum_is_fnv1a():
    assert fnv1a_64(b"") == 0xCBF29CE484222325
    assert fnv1a_64(b"foobar") == 0x85944171F73967E8


# Files that are none ------------------------------------------------------------------------------


def refusal(path: Path, data: bytes) -> DamagedFileError:
    with pytest.raises(DamagedFileError) as caught:
        opened(path, data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"x" * 79, "too short"),
        (b"x" * 100_000, "does not begin like"),
        (b"\0" * 100_000, "does not begin like"),
        (b"SQLite format 3\0" + b"\0" * 8192, "does not begin like"),
    ],
)
def test_what_is_no_bbolt_file_is_refused(tmp_path, data, reason):
    assert reason in str(refusal(tmp_path / "a.db", data))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 3}, "version 3"),
        ({"page_size": 5000}, "page size of 5000"),
        ({"page_size": 0}, "page size of 0"),
        ({"page_size": 1 << 31}, "page size of"),
        ({"high": 2**40}, "was cut"),
        ({"high": 2**40 + 1}, "counts 1099511627777 pages"),
        ({"high": 2**64 - 1}, "counts 18446744073709551615 pages"),
        ({"root": 2**63}, "no such page"),
        ({"root": 0}, "no such page"),
        ({"root": 1}, "no such page"),
    ],
)
def test_a_meta_page_with_a_wrong_number_is_refused(tmp_path, changes, reason):
    data = file_bytes(nested())
    for number in (0, 1):
        data = rewritten(data, number, **changes)
    assert reason in str(refusal(tmp_path / "a.db", data))


def test_a_file_that_was_cut_is_refused(tmp_path):
    data = file_bytes(nested())
    for size in (len(data) - 1, len(data) - 4096, 8192, 4096, 81):
        assert "was cut" in str(refusal(tmp_path / "a.db", data[:size]))


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("nothing", "pipe", "."):
        with pytest.raises(UnreadableFileError):
            BboltReader(tmp_path / name)
    with pytest.raises(UnreadableFileError):
        BboltReader(tmp_path / "nul\0byte")


def test_a_file_that_a_running_lnd_holds_is_refused(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with path.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(FileLockedError, match="stop lnd"):
            BboltReader(path)
    with BboltReader(path) as first, BboltReader(path) as second:
        assert content(first.root) == content(second.root)


def test_a_file_that_is_being_read_cannot_be_locked_for_writing(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path), path.open("rb+") as writer, pytest.raises(BlockingIOError):
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path) as reader:
        os.truncate(path, 3 * 4096)
        with pytest.raises(DamagedFileError, match="was cut while it was read"):
            content(reader.root)
        with pytest.raises(DamagedFileError, match="was written to"):
            reader.file.check_unchanged()


def test_a_disk_that_fails_is_no_crash(tmp_path, monkeypatch):
    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path) as reader:
        monkeypatch.setattr(os, "pread", failing)
        with pytest.raises(UnreadableFileError, match="cannot be read"):
            content(reader.root)


def test_pages_far_apart_cost_no_memory_for_those_between(tmp_path, monkeypatch):
    numbers = [4 + 1000 * index for index in range(200)]
    rows = [(bytes([index]), number) for index, number in enumerate(numbers)]
    path = tmp_path / "a.db"
    path.write_bytes(assembled(branch(ROOT, *rows), high=numbers[-1] + 1))
    with path.open("rb+") as written:
        for key, number in rows:
            written.seek(number * 4096)
            written.write(simple(number, key))
    monkeypatch.setattr(file, "KEPT_BYTES_MAX", 0)
    with BboltReader(path) as reader:
        tracemalloc.start()
        assert reader.root.count() == 200
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 300_000


def test_a_file_that_grows_is_read_as_it_was(tmp_path):
    path = write_file(tmp_path / "a.db", nested())
    with BboltReader(path) as reader:
        reader.file.check_unchanged()
        with path.open("ab") as more:
            more.write(b"x" * 10_000)
        assert content(reader.root) == nested()
        with pytest.raises(DamagedFileError, match="was written to"):
            reader.file.check_unchanged()


# Pages made up by somebody else -------------------------------------------------------------------

ROOT = 3
"""The page where a hand-made file begins; 2 is its freelist."""


def page(number: int, flags: int, count: int, body: bytes, overflow: int = 0) -> bytes:
    return (struct.pack("<QHHI", number, flags, count, overflow) + body).ljust(4096, b"\0")


def leaf(number: int, *rows: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """Make a leaf of (flags, pos, key size, value size), `data` behind its table."""
    table = b"".join(struct.pack("<IIII", *row) for row in rows)
    return page(number, 2, len(rows), table + data)


def branch(number: int, *rows: tuple[bytes, int]) -> bytes:
    table, data = b"", b""
    for index, (key, below) in enumerate(rows):
        table += struct.pack("<IIQ", 16 * (len(rows) - index) + len(data), len(key), below)
        data += key
    return page(number, 1, len(rows), table + data)


def simple(number: int, key: bytes, value: bytes = b"v", flags: int = 0) -> bytes:
    return leaf(number, (flags, 16, len(key), len(value)), data=key + value)


def bucket(root: int) -> bytes:
    return struct.pack("<QQ", root, 0)


def inline(flags: int = 2, count: int = 0, number: int = 0, body: bytes = b"") -> bytes:
    return bucket(0) + struct.pack("<QHHI", number, flags, count, 0) + body


def long(flags: int, element: bytes) -> list[bytes]:
    """Make page 3 of one element with a key of 32,769 bytes, over nine pages."""
    whole = page(3, flags, 1, element + bytes(9 * 4096 - 32), overflow=8)
    return cut(whole)


def cut(whole: bytes) -> list[bytes]:
    """Cut a page with its overflow into pages."""
    return [whole[at : at + 4096] for at in range(0, len(whole), 4096)]


def assembled(*pages: bytes, high: int = 0) -> bytes:
    high = high or 3 + len(pages)
    metas = [meta_page(number, 4096, ROOT, 2, high, number) for number in (0, 1)]
    return b"".join([*metas, page(2, 16, 0, b""), *pages])


HOSTILE = {
    "a page that says it is another": ([simple(9, b"k")], 3, "says it is page 9"),
    "a meta page in the tree": ([page(3, 4, 0, b"")], 3, "flags 0x4"),
    "a freelist in the tree": ([page(3, 16, 0, b"")], 3, "flags 0x10"),
    "leaf and branch at once": ([page(3, 3, 0, b"")], 3, "flags 0x3"),
    "more elements than fit": ([page(3, 2, 65535, b"")], 3, "more elements"),
    "more branches than fit": ([page(3, 1, 300, b"")], 3, "more elements"),
    "overflow beyond the file": ([page(3, 2, 0, b"", overflow=1)], 3, "beyond the file"),
    "overflow without end": ([page(3, 2, 0, b"", overflow=2**32 - 1)], 3, "beyond the file"),
    "a branch without pages": ([page(3, 1, 0, b"")], 3, "without a page"),
    "a value beyond the page": ([leaf(3, (0, 16, 1, 5000))], 3, "outside its page"),
    "a key beyond the page": ([leaf(3, (0, 16, 2**32 - 1, 0))], 3, "outside its page"),
    "a position beyond the page": ([leaf(3, (0, 2**32 - 1, 1, 1))], 3, "outside its page"),
    "a key in the table": ([leaf(3, (0, 0, 4, 4))], 3, "outside its page"),
    "elements over each other": (
        [leaf(3, (0, 32, 1, 9), (0, 20, 1, 9), data=b"a" * 40)], 3, "over another",
    ),
    "the same key twice": (
        [leaf(3, (0, 32, 1, 1), (0, 18, 1, 1), data=b"kvkv")], 3, "out of order",
    ),
    "keys out of order": (
        [leaf(3, (0, 32, 1, 1), (0, 18, 1, 1), data=b"kvav")], 3, "out of order",
    ),
    "an unknown kind of element": ([leaf(3, (2, 16, 1, 1), data=b"kv")], 3, "unknown kind"),
    "branch keys out of order": (
        [branch(3, (b"b", 4), (b"a", 5)), simple(4, b"b"), simple(5, b"c")], 3, "out of order",
    ),
    "a key longer than bbolt takes": (
        long(2, struct.pack("<IIII", 0, 16, 32_769, 0)), 3, "has 32769 bytes",
    ),
    "a branch key longer than bbolt takes": (
        long(1, struct.pack("<IIQ", 16, 32_769, 4)), 3, "has 32769 bytes",
    ),
    "a branch to itself": ([branch(3, (b"a", 3))], 3, "two places"),
    "a cycle of two": ([branch(3, (b"a", 4)), branch(4, (b"a", 3))], 3, "two places"),
    "two branches to one page": (
        [branch(3, (b"a", 4), (b"b", 4)), simple(4, b"a")], 4, "two places",
    ),
    "a branch to a meta page": ([branch(3, (b"a", 1))], 1, "no such page"),
    "a branch beyond the file": ([branch(3, (b"a", 4))], 4, "no such page"),
    "a branch far beyond the file": ([branch(3, (b"a", 2**64 - 1))], 2**64 - 1, "no such page"),
    "a branch to the freelist": ([branch(3, (b"a", 2))], 2, "flags 0x10"),
    "a key before its branch": ([branch(3, (b"b", 4)), simple(4, b"a")], 4, "another page"),
    "a key of the next branch": (
        [branch(3, (b"a", 4), (b"b", 5)), simple(4, b"b"), simple(5, b"b")], 4, "another page",
    ),
    "an empty page below a branch": ([branch(3, (b"a", 4)), leaf(4)], 4, "is empty"),
    "a bucket that is its own parent": ([simple(3, b"k", bucket(3), 1)], 3, "two places"),
    "a bucket without a head": ([simple(3, b"k", b"short", 1)], 3, "has no head"),
    "a bucket with more than a head": (
        [simple(3, b"k", bucket(4) + b"x", 1), simple(4, b"a")], 3, "longer than its head",
    ),
    "an inline bucket without a page": ([simple(3, b"k", bucket(0), 1)], 3, "no head"),
    "an inline branch": ([simple(3, b"k", inline(flags=1), 1)], 3, "not an inline leaf"),
    "an inline page with a number": ([simple(3, b"k", inline(number=3), 1)], 3, "not an inline"),
    "an inline count": ([simple(3, b"k", inline(count=9), 1)], 3, "more elements"),
    "an inline bucket of more than a quarter of a page": (
        [simple(3, b"k", inline(body=bytes(1009)), 1)], 3, "1025 bytes, and no more than 1024",
    ),
    "a bucket in an inline one": (
        [simple(3, b"k", inline(count=1, body=struct.pack("<IIII", 1, 16, 1, 16) + b"k" * 17), 1)],
        3,
        "another bucket",
    ),
    "an overflow page that is a page": (
        [branch(3, (b"a", 5), (b"b", 4)), page(4, 2, 1, struct.pack("<IIII", 0, 16, 1, 1) + b"bv",
        overflow=1), simple(5, b"a")], 5, "two places",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("pages", "number", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_page_that_bbolt_would_not_write_is_refused_with_its_place(
    tmp_path, pages, number, reason
):
    error = refusal(tmp_path / "a.db", assembled(*pages))
    assert reason in error.reason
    assert (error.page, error.offset) == (number, number * 4096)
    assert str(tmp_path / "a.db") in str(error)


def test_a_chain_of_branches_ends(tmp_path):
    chain = [branch(number, (b"a", number + 1)) for number in range(3, 3 + 100)]
    error = refusal(tmp_path / "a.db", assembled(*chain, simple(103, b"a")))
    assert "pages deep" in error.reason
    assert error.page == 3 + DEPTH_MAX


def test_a_page_of_many_megabytes_is_refused(tmp_path):
    path = tmp_path / "a.db"
    path.write_bytes(assembled(page(3, 2, 0, b"", overflow=100_000), *[b"\0" * 4096] * 0))
    data = path.read_bytes()
    for number in (0, 1):
        data = rewritten(data, number, high=200_000)
    path.write_bytes(data)
    os.truncate(path, 200_000 * 4096)
    with pytest.raises(DamagedFileError, match="too long"), BboltReader(path) as reader:
        content(reader.root)


def test_a_walk_holds_the_way_down_and_not_what_lies_beside_it(tmp_path):
    """The first of 60,000 pages is read; nothing is made for the others."""
    count, pages = 60_000, 264
    table = b"".join(
        struct.pack("<IIQ", 16 * (count - index) + 2 * index, 2, ROOT + pages + index)
        for index in range(count)
    )
    keys = b"".join(struct.pack(">H", index) for index in range(count))
    root = page(ROOT, 1, count, table + keys, overflow=pages - 1).ljust(pages * 4096, b"\0")
    path = tmp_path / "a.db"
    path.write_bytes(assembled(*cut(root), simple(ROOT + pages, b"\0\0")))
    with BboltReader(path) as reader:
        reader.file.page(ROOT, ROOT_OWNER)
        tracemalloc.start()
        first = next(reader.root.items())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert first == (b"\0\0", b"v")
    assert peak < 1 << 20
