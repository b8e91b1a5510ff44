"""coincurve checks the signature under a row lock of PostgreSQL; one commit a claim.

`SELECT ... FOR UPDATE`, check, `UPDATE`, `COMMIT`: what a careful gateway writes today. Statements
are prepared, commits are synced, and many workers share the syncs.
"""

from collections.abc import Sequence

import psycopg

from bench.rivals import Account
from bench.rivals.checking import Checker


class Postgres:
    """See `Kind`; the place is a URL."""

    def prepare(self, place: str, accounts: Sequence[Account]) -> None:
        """Make the table."""
        with psycopg.connect(place) as connection:
            connection.execute(
                "CREATE TABLE channel (id bytea PRIMARY KEY, key bytea, sequence bigint,"
                " claimed bigint, signature bytea)"
            )
            rows = [(one.channel_id, one.public_key, 0, 0, b"") for one in accounts]
            with connection.cursor() as cursor:
                cursor.executemany("INSERT INTO channel VALUES (%s, %s, %s, %s, %s)", rows)

    def worker(self, place: str) -> "PostgresWorker":
        """Connect."""
        return PostgresWorker(place)


class PostgresWorker:
    """See `Rival`."""

    def __init__(self, place: str) -> None:
        self._connection = psycopg.connect(place, prepare_threshold=0)
        self._checker = Checker()

    def take(self, channel_id: bytes, sequence: int, amount: int, signature: bytes) -> bool:
        """Lock, check, update, commit."""
        with self._connection.transaction(), self._connection.cursor(binary=True) as cursor:
            found = cursor.execute(
                "SELECT key, sequence, claimed FROM channel WHERE id = %s FOR UPDATE",
                (channel_id,),
            ).fetchone()
            if found is None:
                return False
            key, last, claimed = found
            if sequence != last + 1 or amount <= claimed:
                return False
            if not self._checker.is_good(key, channel_id, amount, signature):
                return False
            cursor.execute(
                "UPDATE channel SET sequence = %s, claimed = %s, signature = %s WHERE id = %s",
                (sequence, amount, signature, channel_id),
            )
        return True

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
