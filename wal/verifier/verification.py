"""Judge every byte of a log, independently of the code that wrote it.

The one rule: of this package it shares only the constants of the format and the way to the disk.
What the writer, the recovery and the reader may all get wrong in the same way, this one must not.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from wal.codec import Codec, LengthPrefixed, R, codec_for
from wal.files import Files, How, OsFiles, read_whole
from wal.format import (
    GENESIS,
    MANIFEST_NAME,
    QUARANTINE,
    SEGMENTS,
    SNAPSHOTS,
    SPARE_NAME,
)
from wal.verifier.manifest import decode_manifest, expected_of, manifest_bytes, segments_of
from wal.verifier.places import Places
from wal.verifier.segment import Broken, Expected, Misplaced, SegmentJudge, proof_of_rot
from wal.verifier.snapshot import snapshot_fault
from wal.verifier.window import Window

Progress = Callable[[int, int], None]
"""Told the bytes judged so far and the bytes in all."""

_TRIES = 3


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A place where the bytes are not what they must be."""

    segment: str
    offset: int
    reason: str


class VerifyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `damages` is in the order of the log; one per file, its first.

    `torn_bytes` at the end of the live segment are no damage: nothing shows that they were ever
    acknowledged, and the next start will cut them. `strays` are files that nothing names.
    """

    damages: tuple[Damage, ...] = ()
    segments: int = 0
    snapshots: int = 0
    frames: int = 0
    records: int = 0
    bytes: int = 0
    last_lsn: int = 0
    last_position: int = 0
    torn_segment: str = ""
    torn_offset: int = 0
    torn_bytes: int = 0
    strays: tuple[str, ...] = ()
    quarantine: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every byte is what it must be."""
        return not self.damages


def verify(
    directory: Path,
    codec: Callable[[], Codec[R]] = LengthPrefixed,  # type: ignore[assignment]
    progress: Progress | None = None,
    files: Files | None = None,
) -> VerifyReport:
    """Judge every byte of the log in `directory`. A writer may be at work meanwhile.

    Raises:
        WalError: there is no log.
    """
    files = files or OsFiles()
    directory = Path(directory)
    for tries_left in reversed(range(_TRIES)):
        before = manifest_bytes(files, directory)
        report = _Verifier(files, directory, codec, progress or _silent).run(before)
        # A writer at work replaces files; what it replaced under us looks like damage once.
        if report.ok or manifest_bytes(files, directory) == before:
            return report
        report = _without_replaced(report, manifest_bytes(files, directory))
        if report.ok or not tries_left:
            return report
    return report


class _Verifier:
    """One pass over all files."""

    def __init__(
        self, files: Files, directory: Path, codec: Callable[[], Codec[Any]], progress: Progress
    ) -> None:
        self._files = files
        self._directory = directory
        self._codec = codec
        self._progress = progress
        self._done = self._told = self._total = 0
        self._damages: list[Damage] = []
        self._misplaced: list[str] = []
        self._chains: dict[int, bytes | None] = {}
        self._facts: dict[str, Any] = {"frames": 0, "records": 0}

    def run(self, said: bytes) -> VerifyReport:
        """Judge everything that the MANIFEST names, and list what it does not."""
        sizes = {
            f"{part}/{name}": size
            for part in (SEGMENTS, SNAPSHOTS)
            for name, size in self._scan(part).items()
        }
        quarantine = tuple(sorted(self._scan(QUARANTINE)))
        try:
            manifest = decode_manifest(said)
        except Broken as broken:
            self._damage(MANIFEST_NAME, broken)
            return VerifyReport(damages=tuple(self._damages), quarantine=quarantine)
        named = set(segments_of(manifest))
        named |= {f"{SNAPSHOTS}/{entry['name']}" for entry in manifest["snapshots"]}
        self._total = sum(size for path, size in sizes.items() if path in named)
        self._all_segments(manifest)
        for entry in manifest["snapshots"]:
            self._snapshot(entry, manifest)
        strays = sorted(set(sizes) - named - {f"{SEGMENTS}/{SPARE_NAME}"})
        self._judge_places(manifest, sizes, strays)
        self._progress(self._total, self._total)
        return VerifyReport(
            damages=tuple(self._damages),
            segments=len(segments_of(manifest)),
            snapshots=len(manifest["snapshots"]),
            bytes=self._done,
            strays=tuple(strays),
            quarantine=quarantine,
            **self._facts,
        )

    def _scan(self, part: str) -> dict[str, int]:
        try:
            return self._files.scan(self._directory / part)
        except FileNotFoundError:
            return {}  # what the MANIFEST names in it is then missing, and reported file by file

    def _damage(self, path: str, broken: Broken) -> None:
        self._damages.append(Damage(segment=path, offset=broken.offset, reason=broken.reason))

    def _all_segments(self, manifest: Any) -> None:
        """Judge the segments in order, each against the MANIFEST and against the one before."""
        shard_id = manifest["shard_id"]
        chain = sha256(GENESIS + shard_id.to_bytes(4, "little")).digest()
        lsn, position = manifest["retained_lsn"], 1
        epoch = 0 if lsn == 1 else None  # what came before a cut is not known
        # None until the frame was judged; it stays so where damage hides the frame.
        self._chains = {entry["lsn"]: None for entry in manifest["snapshots"]} | {0: chain}
        if lsn > 1 and manifest["sealed"]:
            chain = manifest["sealed"][0]["before"]
            position = manifest["sealed"][0]["first_position"]
        for entry in (*manifest["sealed"], manifest["live"]):
            if entry is None:
                continue
            path = f"{SEGMENTS}/{entry['name']}"
            if (entry["first_lsn"], entry["first_position"], entry["before"]) != (
                lsn, position, chain,
            ):  # fmt: skip
                self._damage(path, Broken(0, "the segment does not follow the one before it"))
            try:
                new_epoch = None if epoch is None else entry["epoch"] != epoch
                self._segment(path, entry, manifest, new_epoch)
            except Misplaced:
                self._misplaced.append(path)
            except Broken as broken:
                self._damage(path, broken)
            if entry is not manifest["live"]:
                lsn, position = entry["last_lsn"] + 1, entry["last_position"] + 1
                chain, epoch = entry["after"], entry["epoch"]

    def _judge_places(self, manifest: Any, paths: Iterable[str], strays: Sequence[str]) -> None:
        """Name what lies in the wrong place, and refuse strays that the log should know of."""
        named = segments_of(manifest)
        places = Places(self._files, self._directory, paths, named)
        sound = not self._damages and not self._misplaced
        for path in self._misplaced:
            self._damage(path, Broken(0, places.misplaced(path)))
        end = self._facts.get("last_lsn", 0)
        newer = [path for path in strays if sound and places.newest_in(path, self._codec) > end]
        # A writer at work may have begun it meanwhile; then the MANIFEST names it by now, because
        # it does before the first frame.
        for path in set(newer) - self._named_by_now(newer):
            reason = f"not in the MANIFEST, yet newer than the log, which ends at {end}"
            self._damage(path, Broken(0, reason))
        order = {path: index for index, path in enumerate(named)}
        self._damages.sort(key=lambda damage: order.get(damage.segment, len(order)))

    def _named_by_now(self, newer: Sequence[str]) -> set[str]:
        if not newer:
            return set()
        return set(segments_of(decode_manifest(manifest_bytes(self._files, self._directory))))

    def _segment(self, path: str, entry: Any, manifest: Any, new_epoch: bool | None) -> None:
        try:
            fetch = Window(self._files, self._directory / path, self._tell)
        except FileNotFoundError as error:
            raise Misplaced(0, "the segment is missing") from error
        except OSError as error:
            raise Broken(0, f"cannot be read: {error.strerror}") from error
        expected = expected_of(manifest, entry)
        codec = codec_for(self._codec, expected.packed)
        judge = SegmentJudge(fetch, expected, codec, new_epoch)
        try:
            judge.header()
            if entry is manifest["live"]:
                self._live(path, fetch, judge, expected, manifest)
            else:
                self._sealed(fetch, judge, entry)
        finally:
            fetch.close()
            self._done += judge.offset
            self._facts["frames"] += judge.lsn - expected.first_lsn
            self._facts["records"] += judge.position - expected.first_position
            self._facts["last_lsn"] = judge.lsn - 1
            self._facts["last_position"] = judge.position - 1

    def _frame(self, judge: SegmentJudge) -> None:
        judge.frame()
        if judge.lsn - 1 in self._chains:
            self._chains[judge.lsn - 1] = judge.log_chain

    def _sealed(self, fetch: Window, judge: SegmentJudge, entry: Any) -> None:
        while judge.offset < entry["size"]:
            self._frame(judge)
        if fetch(entry["size"], 1):
            raise Broken(entry["size"], "the file is longer than the MANIFEST says")
        found = (judge.lsn - 1, judge.position - 1, judge.log_chain, judge.offset)
        told = (entry["last_lsn"], entry["last_position"], entry["after"], entry["size"])
        if found != told or judge.chain != (entry.get("packed_chain") or entry["after"]):
            raise Broken(judge.offset, "the segment ends elsewhere than the MANIFEST says")
        if fetch.digest(entry["size"]) != entry["sha256"]:
            raise Broken(0, "all frames are valid, but the hash in the MANIFEST is another")

    def _live(
        self, path: str, fetch: Window, judge: SegmentJudge, expected: Expected, manifest: Any
    ) -> None:
        try:
            while True:
                self._frame(judge)
        except Broken as broken:
            proof, torn_bytes = proof_of_rot(fetch, judge, expected)
            if proof and broken.torn and self._is_sound_now(fetch, judge):
                return  # it was being written when it was read
            durable = max(
                manifest["durable_lsn"],
                manifest["archived_lsn"],
                *(entry["lsn"] for entry in manifest["snapshots"]),
            )
            if not broken.torn:
                raise
            if durable >= judge.lsn:
                proof = f"frame {durable} was durable"
            if proof:
                raise Broken(broken.offset, f"{broken.reason}; {proof}") from broken
            if torn_bytes:
                self._facts |= {
                    "torn_segment": path, "torn_offset": judge.offset, "torn_bytes": torn_bytes,
                }  # fmt: skip

    def _is_sound_now(self, fetch: Window, judge: SegmentJudge) -> bool:
        """Read a frame once more that is proven by now; a writer at work may have completed it."""
        fetch.forget()
        try:
            self._frame(judge)
        except Broken:
            return False
        return True

    def _snapshot(self, entry: Any, manifest: Any) -> None:
        path = f"{SNAPSHOTS}/{entry['name']}"
        lsn = entry["lsn"]
        try:
            data = read_whole(self._files, self._directory / path, How.READ, entry["size"])
        except FileNotFoundError:
            self._damage(path, Broken(0, "the snapshot is missing"))
            return
        except OSError as error:
            self._damage(path, Broken(0, f"cannot be read: {error.strerror}"))
            return
        if lsn > self._facts.get("last_lsn", 0) and not self._damages:
            self._damage(path, Broken(0, f"a snapshot of frame {lsn}, which the log does not have"))
        places = {other["lsn"] for other in manifest["snapshots"]}
        if entry["kind"] and entry["base_lsn"] not in places:
            self._damage(path, Broken(0, f"builds on a snapshot of frame {entry['base_lsn']}"))
        fault = snapshot_fault(data, entry, manifest["shard_id"], self._chains[lsn])
        if fault is not None:
            self._damage(path, fault)
        self._done += len(data)

    def _tell(self, offset: int) -> None:
        # A segment is gone through twice, by its frames and by its hash: never tell a step back.
        self._told = max(self._told, min(self._done + offset, self._total))
        self._progress(self._told, self._total)


def _without_replaced(report: VerifyReport, now: bytes) -> VerifyReport:
    """Leave out what is wrong with files that the MANIFEST, by now, no longer names."""
    try:
        manifest = decode_manifest(now)
    except Broken:
        return report
    named = {*segments_of(manifest), MANIFEST_NAME}
    named |= {f"{SNAPSHOTS}/{entry['name']}" for entry in manifest["snapshots"]}
    return msgspec.structs.replace(
        report, damages=tuple(damage for damage in report.damages if damage.segment in named)
    )


def _silent(done: int, total: int) -> None:
    """Tell nobody."""
