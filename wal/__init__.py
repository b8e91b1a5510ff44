"""A write-ahead log of opaque records: one group commit, one frame, one sync.

What `Log.commit` has returned is never lost on a sound disk, and damage to it is never silent.
"""

from wal.codec import FIRST, Codec, LengthPrefixed, Measured, Position
from wal.errors import (
    CorruptLogError,
    CutLogError,
    LogFailedError,
    LogFullError,
    LogInUseError,
    WalError,
)
from wal.files import Files, How, OsFiles
from wal.format import RAW_BYTES_MAX, RECORDS_PER_FRAME_MAX, SNAPSHOT_CHUNK_BYTES_MAX
from wal.inspection import InspectReport, first_positions, inspect
from wal.log import Log
from wal.options import LogOptions
from wal.reader import LogReader
from wal.recovery import RecoveryReport
from wal.statistics import LogStatistics
from wal.verifier.verification import Damage, VerifyReport, verify

__all__ = [
    "FIRST",
    "RAW_BYTES_MAX",
    "RECORDS_PER_FRAME_MAX",
    "SNAPSHOT_CHUNK_BYTES_MAX",
    "Codec",
    "CorruptLogError",
    "CutLogError",
    "Damage",
    "Files",
    "How",
    "InspectReport",
    "LengthPrefixed",
    "Log",
    "LogFailedError",
    "LogFullError",
    "LogInUseError",
    "LogOptions",
    "LogReader",
    "LogStatistics",
    "Measured",
    "OsFiles",
    "Position",
    "RecoveryReport",
    "VerifyReport",
    "WalError",
    "first_positions",
    "inspect",
    "verify",
]
