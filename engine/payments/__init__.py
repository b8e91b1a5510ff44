"""The payments database. `interface.py` is the place to begin."""

from engine.payments.errors import PaymentDBCode, PaymentDBError, StoreError
from engine.payments.interface import (
    PaymentControl,
    PaymentDB,
    PaymentReader,
    PaymentWriter,
    RecordMover,
    Sequencer,
)
from engine.payments.opening import open_payment_db
from engine.payments.values import (
    AMP,
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    DuplicatePayment,
    Failure,
    FailureReason,
    Hop,
    Payment,
    PaymentState,
    PaymentStatus,
    Query,
    Response,
    Route,
    Settle,
)

__all__ = [
    "AMP",
    "MPP",
    "Attempt",
    "AttemptFailureReason",
    "CreationInfo",
    "DuplicatePayment",
    "Failure",
    "FailureReason",
    "Hop",
    "Payment",
    "PaymentControl",
    "PaymentDB",
    "PaymentDBCode",
    "PaymentDBError",
    "PaymentReader",
    "PaymentState",
    "PaymentStatus",
    "PaymentWriter",
    "Query",
    "RecordMover",
    "Response",
    "Route",
    "Sequencer",
    "Settle",
    "StoreError",
    "open_payment_db",
]
