"""How payments look: whole in JSON, a line of a table on a terminal."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from engine.cli.output import Output, Row
from engine.core.types import NS_PER_S
from engine.gateway.payments import answers
from engine.payments.values import Attempt, DuplicatePayment, Payment

COLUMNS: Final = ("number", "payment_hash", "created", "status", "value_msat", "attempts")
ATTEMPT_COLUMNS: Final = ("index", "status", "made", "msat", "fees", "hops", "took", "outcome")


def write_payment(output: Output, payment: Payment, **more: Any) -> None:
    """Write one payment: all of it in JSON, two tables on a terminal."""
    if output.is_json:
        output.record(more | answers.payment(payment))
        return
    output.record(more | _fields(payment))
    if payment.attempts:
        output.records((_attempt_row(each) for each in payment.attempts), ATTEMPT_COLUMNS)


def write_duplicate(output: Output, duplicate: DuplicatePayment) -> None:
    """Write one legacy duplicate."""
    output.record(_json_of(duplicate) if output.is_json else answers.duplicate(duplicate))


def write_many(output: Output, found: Iterable[Payment | DuplicatePayment]) -> None:
    """Write payments and duplicates, one a line."""
    view = _json_of if output.is_json else _row_of
    output.records(map(view, found), COLUMNS)


def _json_of(found: Payment | DuplicatePayment) -> Row:
    if isinstance(found, Payment):
        return answers.payment(found)
    return {"is_duplicate": True, **answers.duplicate(found)}


def _row_of(found: Payment | DuplicatePayment) -> Row:
    if isinstance(found, Payment):
        said, kind, attempts = answers.payment(found), "", len(found.attempts)
    else:
        said, kind, attempts = answers.duplicate(found), "duplicate", int(found.attempt is not None)
    return {
        "number": found.sequence_number,
        "payment_hash": said["identifier"],
        "created": _short(said["created_at"]),
        "status": " ".join(filter(None, (said["status"], said["failure_reason"], kind))),
        "value_msat": said["value_msat"],
        "attempts": attempts,
    }


def _short(time: str | None) -> str | None:
    """Return a time to the second: a table has little room, and JSON has all of it."""
    return None if time is None else f"{time[:10]} {time[11:19]}"


def _fields(payment: Payment) -> dict[str, Any]:
    """Return what a person reads of a payment, without its attempts."""
    said = answers.payment(payment)
    del said["attempts"]
    state = said.pop("state")
    said["fees_msat"] = state["fees_msat"]
    said["remaining_msat"] = state["remaining_msat"]
    said["first_hop_custom_records"] = _records(said["first_hop_custom_records"])
    return said


def _records(records: dict[str, str]) -> list[str]:
    return [f"{kind}={value}" for kind, value in records.items()]


def _attempt_row(attempt: Attempt) -> Row:
    said = answers.attempt(attempt)
    outcome, ended_at_ns = None, 0
    if attempt.settle is not None:
        outcome, ended_at_ns = said["settle"]["preimage"], attempt.settle.settled_at_ns
    if attempt.failure is not None:
        outcome = f"{said['failure']['reason']} at {attempt.failure.source_index}"
        ended_at_ns = attempt.failure.failed_at_ns
    return {
        "index": attempt.attempt_index,
        "status": said["status"],
        "made": _short(said["attempted_at"]),
        "msat": said["receiver_msat"],
        "fees": said["fees_msat"],
        "hops": len(attempt.route.hops),
        "took": _duration(attempt.attempted_at_ns, ended_at_ns),
        "outcome": outcome,
    }


def _duration(began_at_ns: int, ended_at_ns: int) -> str | None:
    """Return how long something took; None where old data has no time, or clocks disagree."""
    took_ns = ended_at_ns - began_at_ns
    return f"{took_ns / NS_PER_S:.3f} s" if began_at_ns and took_ns >= 0 else None


def in_order(
    payments: Iterable[Payment], duplicates: Iterable[DuplicatePayment]
) -> Iterator[Payment | DuplicatePayment]:
    """Yield payments and duplicates by ascending sequence number."""
    both: list[Payment | DuplicatePayment] = [*payments, *duplicates]
    yield from sorted(both, key=lambda found: found.sequence_number)
