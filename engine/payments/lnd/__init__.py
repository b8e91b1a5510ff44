"""Payments of lnd: a reader of its `channel.db`, and that file as a source of a migration.

`LndPayments` reads and never writes, `LndSource` is what a migration moves from, and `import_lnd`
does all of it.
"""

from engine.payments.lnd.errors import (
    DamagedFileError,
    DamagedPaymentError,
    FileLockedError,
    UnknownLayoutError,
    UnreadableFileError,
)
from engine.payments.lnd.importing import import_lnd
from engine.payments.lnd.layout import LndCounters, LndPayments
from engine.payments.lnd.source import LndSource

__all__ = [
    "DamagedFileError",
    "DamagedPaymentError",
    "FileLockedError",
    "LndCounters",
    "LndPayments",
    "LndSource",
    "UnknownLayoutError",
    "UnreadableFileError",
    "import_lnd",
]
