"""Which logs a command means, and what is wrong with one as the end of the command."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from engine.cli.failures import ExitCode, Failure

MANIFEST: Final = "MANIFEST"
ONE_SHARD: Final = "shard-[0-9][0-9][0-9][0-9]"
LOOK_AT_DISK: Final = "look at the disk, `dmesg` and `df`: docs/how-to/lost-disk.md"

directory_argument = click.argument(
    "directory", metavar="DIR", type=click.Path(path_type=Path, file_okay=False)
)


def shards_of(directory: Path) -> list[Path]:
    """Return the shard directories meant by DIR.

    Raises:
        Failure: there is no log.
    """
    if (directory / MANIFEST).exists():
        return [directory]
    found = sorted(path for path in directory.glob(ONE_SHARD) if (path / MANIFEST).exists())
    if not found:
        advice = "DIR is the engine's --datadir, or one shard-NNNN directory in it"
        raise Failure(ExitCode.NOT_FOUND, f"no log in {directory}", advice)
    return found


def number_of(shard: Path) -> int:
    """Return the number of a shard by the name of its directory; 0 where that says nothing."""
    digits = shard.resolve().name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


@contextlib.contextmanager
def judged(shard: Path) -> Iterator[None]:
    """Turn what is wrong with a log into how the command ends."""
    from engine.channels.offline.history import BeforeTheLog
    from engine.channels.recovery import RecoveryBroken
    from wal import CorruptLogError, LogFailedError, LogInUseError, WalError

    try:
        yield
    except CorruptLogError as error:
        advice = "keep a copy before all else; `paychan wal repair --dry-run` says what can be kept"
        raise Failure(ExitCode.INTEGRITY, f"{shard}: {error}", advice) from error
    except RecoveryBroken as error:
        advice = "keep a copy before all else; docs/how-to/corrupt-segment.md says what comes next"
        raise Failure(ExitCode.INTEGRITY, f"{shard}: {error}", advice) from error
    except BeforeTheLog as error:
        advice = "older events are in the backups made before the log was cut"
        raise Failure(ExitCode.NOT_FOUND, str(error), advice) from error
    except LogInUseError as error:
        advice = "stop the engine that runs on it first"
        raise Failure(ExitCode.FAILED, f"{shard} is in use: {error}", advice) from error
    except (LogFailedError, OSError) as error:
        raise Failure(ExitCode.FAILED, f"{shard}: {error}", LOOK_AT_DISK) from error
    except WalError as error:
        raise Failure(ExitCode.NOT_FOUND, f"{shard}: {error}") from error
