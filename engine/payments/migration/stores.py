"""Migrate between stores named by URLs: opens both, moves or rehearses, closes both."""

from engine.monitor.secrets import without_password
from engine.payments.errors import StoreNotFoundError
from engine.payments.migration.destination import Destination
from engine.payments.migration.move import Migration, ProgressCallback
from engine.payments.migration.rehearsal import rehearse
from engine.payments.migration.report import Report
from engine.payments.migration.source import Source, StoreSource
from engine.payments.opening import open_payment_db


def migrate_store(
    source_url: str,
    destination_url: str,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> Report:
    """Move all payments of one store into a new one, which may be of another kind.

    Raises:
        StoreError: as `Migration.run`, or one of the stores cannot be opened.
    """
    with open_payment_db(source_url, create=False, read_only=True) as store:
        source = StoreSource(store, without_password(source_url))
        return move_into(source, destination_url, dry_run=dry_run, progress=progress)


def move_into(
    source: Source,
    destination_url: str,
    *,
    dry_run: bool = False,
    progress: ProgressCallback | None = None,
) -> Report:
    """Move all of `source` into the store at a URL, which is made if it is not there.

    Args:
        source: what to move.
        destination_url: a store that is new, or that an earlier run began.
        dry_run: read and check the source, look whether the destination can be used, write nothing.
        progress: called after each batch.

    Raises:
        StoreError: as `Migration.run`, or the store cannot be opened.
    """
    name = without_password(destination_url)
    if dry_run:
        _look(source, destination_url, name)
        return rehearse(source, name, progress=progress)
    with open_payment_db(destination_url, unfinished=True) as destination:
        return Migration(source, destination, name, progress).run()


def _look(source: Source, url: str, name: str) -> None:
    """Refuse what a migration would refuse, as far as it shows without a change."""
    try:
        with open_payment_db(url, create=False, read_only=True, unfinished=True) as store:
            Destination(store, name).look(source)
    except StoreNotFoundError:
        return
