"""What goes out: payments as JSON has them. Session keys never do; whoever has one reads the onion.

The fields have the names of `engine.payments.values`, times without their `_ns`. A route has the
fields that a new attempt takes in, so one that was answered can be sent again.
"""

from collections.abc import Mapping
from typing import Any

from engine.gateway.payments.texts import hex_text, records_text, request_text, time_text
from engine.payments import (
    AMP,
    MPP,
    Attempt,
    DuplicatePayment,
    Failure,
    Hop,
    Payment,
    PaymentState,
    Response,
    Route,
    Settle,
)

Answer = dict[str, Any]


def payment(found: Payment) -> Answer:
    """Return a payment."""
    info = found.info
    return {
        "sequence_number": found.sequence_number,
        "identifier": hex_text(info.identifier),
        "value_msat": str(info.value_msat),
        "created_at": time_text(info.created_at_ns),
        **request_text(info.payment_request),
        "first_hop_custom_records": records_text(info.first_hop_custom_records),
        "status": found.status.name,
        "failure_reason": None if found.failure_reason is None else found.failure_reason.name,
        "state": state(found.state),
        "attempts": [attempt(each) for each in found.attempts],
    }


def state(found: PaymentState) -> Answer:
    """Return what the attempts add up to."""
    return {
        "attempts_in_flight": found.attempts_in_flight,
        "remaining_msat": str(found.remaining_msat),
        "fees_msat": str(found.fees_msat),
        "has_settled": found.has_settled,
        "has_failure_reason": found.has_failure_reason,
    }


def attempt(found: Attempt) -> Answer:
    """Return an attempt, with what its route comes to."""
    return {
        "attempt_index": found.attempt_index,
        "status": attempt_status(found),
        "payment_hash": hex_text(found.payment_hash),
        "attempted_at": time_text(found.attempted_at_ns),
        "receiver_msat": str(found.route.receiver_msat),
        "fees_msat": str(found.route.fees_msat),
        "route": route(found.route),
        "settle": settle(found.settle),
        "failure": failure(found.failure),
    }


def attempt_status(found: Attempt) -> str:
    """Return IN_FLIGHT, SETTLED or FAILED."""
    if found.is_in_flight:
        return "IN_FLIGHT"
    return "FAILED" if found.settle is None else "SETTLED"


def settle(found: Settle | None) -> Answer | None:
    """Return the proof that an attempt arrived."""
    if found is None:
        return None
    return {"preimage": hex_text(found.preimage), "settled_at": time_text(found.settled_at_ns)}


def failure(found: Failure | None) -> Answer | None:
    """Return why an attempt failed."""
    if found is None:
        return None
    return {
        "reason": found.reason.name,
        "failed_at": time_text(found.failed_at_ns),
        "source_index": found.source_index,
        "message": hex_text(found.message),
    }


def route(found: Route) -> Answer:
    """Return a route; one whose hops were left out has no field for them."""
    said: Answer = {
        "total_time_lock": found.total_time_lock,
        "total_amount_msat": str(found.total_amount_msat),
        "source_pub_key": hex_text(found.source_pub_key),
        "first_hop_amount_msat": str(found.first_hop_amount_msat),
        "first_hop_wire_records": records_text(found.first_hop_wire_records),
    }
    if found.omitted_receiver_msat is None:
        said["hops"] = [hop(each) for each in found.hops]
    return said


def hop(found: Hop) -> Answer:
    """Return a hop."""
    return {
        "pub_key": hex_text(found.pub_key),
        "channel_id": str(found.channel_id),
        "outgoing_time_lock": found.outgoing_time_lock,
        "amount_to_forward_msat": str(found.amount_to_forward_msat),
        "legacy_payload": found.legacy_payload,
        "mpp": mpp(found.mpp),
        "amp": amp(found.amp),
        "encrypted_data": hex_text(found.encrypted_data),
        "blinding_point": hex_text(found.blinding_point),
        "blinded_total_msat": str(found.blinded_total_msat),
        "metadata": hex_text(found.metadata),
        "custom_records": records_text(found.custom_records),
    }


def mpp(found: MPP | None) -> Answer | None:
    """Return the record of a part."""
    if found is None:
        return None
    return {"payment_addr": hex_text(found.payment_addr), "total_msat": str(found.total_msat)}


def amp(found: AMP | None) -> Answer | None:
    """Return the record of a shard."""
    if found is None:
        return None
    return {
        "root_share": hex_text(found.root_share),
        "set_id": hex_text(found.set_id),
        "child_index": found.child_index,
    }


def duplicate(found: DuplicatePayment) -> Answer:
    """Return a legacy duplicate."""
    return {
        "sequence_number": found.sequence_number,
        "identifier": hex_text(found.identifier),
        "value_msat": str(found.value_msat),
        "created_at": time_text(found.created_at_ns),
        **request_text(found.payment_request),
        "status": found.status.name,
        "failure_reason": None if found.failure_reason is None else found.failure_reason.name,
        "settle": settle(found.settle),
        "attempt": None if found.attempt is None else attempt(found.attempt),
    }


def page(found: Response, *, with_total: bool = False) -> Answer:
    """Return a page of payments; how many there are in all only where it was asked for."""
    said: Answer = {
        "payments": [payment(each) for each in found.payments],
        "first_index_offset": found.first_index_offset,
        "last_index_offset": found.last_index_offset,
        "duplicate_payments": duplicates(found.duplicate_payments),
    }
    return said | {"total_count": found.total_count} if with_total else said


def duplicates(found: Mapping[bytes, tuple[DuplicatePayment, ...]]) -> Answer:
    """Return duplicates by the hash they share."""
    return {one.hex().upper(): [duplicate(each) for each in some] for one, some in found.items()}
