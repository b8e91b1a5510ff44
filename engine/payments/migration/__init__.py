"""Move payments into a new store: from another store, or from what `Source` describes.

`migrate_store` takes two URLs. `Migration` is the engine, `stores` opens what URLs name.
"""

from engine.payments.migration.errors import (
    ComparisonError,
    MigrationError,
    OtherMigrationError,
    SourceChangedError,
    UnacceptableRecordError,
)
from engine.payments.migration.move import Migration
from engine.payments.migration.rehearsal import rehearse
from engine.payments.migration.report import Progress, Report, Totals
from engine.payments.migration.source import Place, Source, SourceBatch, StoreSource
from engine.payments.migration.stores import migrate_store, move_into

__all__ = [
    "ComparisonError",
    "Migration",
    "MigrationError",
    "OtherMigrationError",
    "Place",
    "Progress",
    "Report",
    "Source",
    "SourceBatch",
    "SourceChangedError",
    "StoreSource",
    "Totals",
    "UnacceptableRecordError",
    "migrate_store",
    "move_into",
    "rehearse",
]
