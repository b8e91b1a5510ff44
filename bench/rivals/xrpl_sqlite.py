"""xrpl-py checks the signature; SQLite (write-ahead log, FULL) commits once a claim."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from xrpl.core import keypairs

from bench.rivals import Account
from engine.core.claim import signing_message

WAIT_S = 30.0


class XrplSqlite:
    """See `Kind`."""

    def prepare(self, place: str, accounts: Sequence[Account]) -> None:
        """Make the table."""
        ledger = _connect(place)
        ledger.execute("PRAGMA journal_mode = WAL")
        ledger.execute(
            "CREATE TABLE channel (id BLOB PRIMARY KEY, key TEXT, sequence INTEGER,"
            " claimed INTEGER, signature BLOB)"
        )
        rows = [(one.channel_id, one.public_key.hex().upper(), 0, 0, b"") for one in accounts]
        ledger.executemany("INSERT INTO channel VALUES (?, ?, ?, ?, ?)", rows)
        ledger.close()

    def worker(self, place: str) -> "XrplSqliteWorker":
        """Open the table."""
        return XrplSqliteWorker(place)


class XrplSqliteWorker:
    """See `Rival`."""

    def __init__(self, place: str) -> None:
        self._ledger = _connect(place)

    def take(self, channel_id: bytes, sequence: int, amount: int, signature: bytes) -> bool:
        """Look, check, update."""
        found = self._ledger.execute(
            "SELECT key, sequence, claimed FROM channel WHERE id = ?", (channel_id,)
        ).fetchone()
        key, last, claimed = found
        if sequence != last + 1 or amount <= claimed:
            return False
        if not keypairs.is_valid_message(signing_message(channel_id, amount), signature, key):
            return False
        self._ledger.execute(
            "UPDATE channel SET sequence = ?, claimed = ?, signature = ? WHERE id = ?",
            (sequence, amount, signature, channel_id),
        )
        return True

    def close(self) -> None:
        """Close the database."""
        self._ledger.close()


def _connect(place: str) -> sqlite3.Connection:
    ledger = sqlite3.connect(Path(place) / "baseline.db", isolation_level=None, timeout=WAIT_S)
    ledger.execute("PRAGMA synchronous = FULL")
    return ledger
