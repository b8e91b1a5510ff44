"""Say which segment lies where another belongs, and what unnamed files hold.

Part of `verification`; shares only the format's constants with the code that writes. A sound log is
read once: this looks at files again only where something is wrong already, or is not named at all.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import google_crc32c

from wal.codec import Codec, codec_for
from wal.files import Files, How, read_whole
from wal.format import (
    CRC,
    PACKED_VERSION,
    SEGMENT_HEADER,
    SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC,
    SEGMENTS,
    SPARE_NAME,
    TEMPORARY,
)
from wal.verifier.segment import Broken, Expected, SegmentJudge

_STRAY_BYTES_MAX = 512 << 20


class Places:
    """The files of one log, asked for by their paths relative to its directory."""

    def __init__(
        self, files: Files, directory: Path, paths: Iterable[str], named: dict[str, Expected]
    ) -> None:
        """`paths` are all files there are; `named` is what belongs into each segment."""
        self._files = files
        self._directory = directory
        self._paths = [path for path in paths if path.startswith(SEGMENTS)]
        self._named = named

    def misplaced(self, path: str) -> str:
        """Return what the file at `path` is instead of the segment that belongs there."""
        wanted = self._named[path]
        said = self._identity(path)
        if said is None:
            where = next((one for one in self._others(path) if self._identity(one) == wanted), "")
            return f"the segment is missing; {where} is it" if where else "the segment is missing"
        if said.shard_id != wanted.shard_id:
            return f"a segment of shard {said.shard_id}, not of shard {wanted.shard_id}"
        owner = next((one for one, theirs in self._named.items() if theirs == said), "")
        if owner:
            doubled = self._identity(owner) == said
            return f"a copy of {owner}" if doubled else f"{owner} lies in the place of this one"
        if said.number != wanted.number:
            return f"segment {said.number} where segment {wanted.number} belongs"
        if said.epoch != wanted.epoch:
            return f"a segment of epoch {said.epoch}, not of epoch {wanted.epoch}"
        return "the segment belongs into another history"

    def newest_in(self, path: str, codec: Callable[[], Codec[Any]]) -> int:
        """Return the newest frame that an unnamed file holds, or begins at by its name.

        It is 0 for what an interrupted step leaves behind, and for what is no segment at all.
        """
        name = path.rpartition("/")[2]
        if name == SPARE_NAME or name.endswith(TEMPORARY):
            return 0
        data = self._read(path, _STRAY_BYTES_MAX)
        if path in self._paths and not data[SEGMENT_HEADER_BYTES:].strip(b"\0"):
            return 0
        said = _identity_in(data[:SEGMENT_HEADER_BYTES])
        if said is None:
            number = name.partition("-")[0]
            return int(number) if number.isdecimal() else 0
        return max(_last_lsn(data, said, codec, new_epoch) for new_epoch in (True, False))

    def _others(self, path: str) -> list[str]:
        return [other for other in self._paths if other != path]

    def _identity(self, path: str) -> Expected | None:
        return _identity_in(self._read(path, SEGMENT_HEADER_BYTES)[:SEGMENT_HEADER_BYTES])

    def _read(self, path: str, size_max: int) -> bytes:
        try:
            return read_whole(self._files, self._directory / path, How.READ, size_max)
        except OSError:
            return b""  # gone, or not to be read: then it is nothing that could be named


def _identity_in(block: bytes) -> Expected | None:
    """Return what the first block of a segment says it is, None when it cannot be believed."""
    size = SEGMENT_HEADER.size
    if len(block) < SEGMENT_HEADER_BYTES or not block.startswith(SEGMENT_MAGIC):
        return None
    if CRC.pack(google_crc32c.value(block[:size])) != block[size : size + CRC.size]:
        return None
    said = SEGMENT_HEADER.unpack_from(block)
    version, shard_id, epoch, number, first_lsn, first_position = said[1], *said[3:8]
    packed = version == PACKED_VERSION
    return Expected(shard_id, number, epoch, first_lsn, first_position, said[10], packed)


def _last_lsn(data: bytes, said: Expected, codec: Callable[[], Codec[Any]], new_epoch: bool) -> int:
    def fetch(offset: int, size: int) -> bytes:
        return data[offset : offset + size]

    judge = SegmentJudge(fetch, said, codec_for(codec, said.packed), new_epoch)
    while True:
        try:
            judge.frame()
        except Broken:
            return judge.lsn - 1
