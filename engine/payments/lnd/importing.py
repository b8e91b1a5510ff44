"""Import a file of lnd into a store named by a URL."""

from pathlib import Path

from engine.payments.lnd.layout import LndPayments
from engine.payments.lnd.source import LndSource
from engine.payments.migration.move import ProgressCallback
from engine.payments.migration.report import Report
from engine.payments.migration.stores import move_into


def import_lnd(
    path: str | Path,
    destination_url: str,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> Report:
    """Move all payments of lnd's `channel.db` into a new store. lnd must not run on the file.

    Args:
        path: the file; it is read only, under a lock that keeps lnd from starting.
        destination_url: a store that is new, or that an earlier import of this file began.
        dry_run: read and check all of the file, write nothing.
        progress: called after each batch.

    Raises:
        StoreError: the file is damaged or in use, or as `Migration.run`.
    """
    with LndPayments(path) as payments:
        return move_into(LndSource(payments), destination_url, dry_run=dry_run, progress=progress)
