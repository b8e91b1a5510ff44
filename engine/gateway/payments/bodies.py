"""What comes in: bodies of calls as JSON has them, and the values they stand for.

Unknown fields are refused. Every field has the name it has in an answer.
"""

from collections.abc import Sequence
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from engine.gateway.forms import Malformed
from engine.gateway.payments.texts import (
    number_in,
    octets_in,
    reason_in,
    records_in,
    request_in,
    time_in,
)
from engine.gateway.schemas import checked
from engine.payments import (
    AMP,
    MPP,
    Attempt,
    AttemptFailureReason,
    CreationInfo,
    Failure,
    FailureReason,
    Hop,
    Route,
    Settle,
)

Body = TypeVar("Body", bound=msgspec.Struct)
Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""Any that the decoder can take; which ones may be is for the store to say."""

COMMAS_MAX: Final = 65_536
"""All first-hop records of 65,535 bytes and of 27 hops of 1,300 have less: each takes 2 bytes or
more. Without a bound, a body of 2 MiB decodes to fifty times that."""


class InitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/payments`; without a time, it is now."""

    identifier: str
    value_msat: str
    created_at: str | None = None
    payment_request: str | None = None
    payment_request_hex: str | None = None
    first_hop_custom_records: dict[str, str] = {}


class MPPBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The record of a part."""

    payment_addr: str
    total_msat: str


class AMPBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The record of a shard."""

    root_share: str
    set_id: str
    child_index: Number


class HopBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A hop."""

    pub_key: str
    channel_id: str
    outgoing_time_lock: Number
    amount_to_forward_msat: str
    legacy_payload: bool = False
    mpp: MPPBody | None = None
    amp: AMPBody | None = None
    encrypted_data: str | None = None
    blinding_point: str | None = None
    blinded_total_msat: str = "0"
    metadata: str | None = None
    custom_records: dict[str, str] = {}


class RouteBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A route."""

    total_time_lock: Number
    total_amount_msat: str
    source_pub_key: str
    hops: list[HopBody]
    first_hop_amount_msat: str = "0"
    first_hop_wire_records: dict[str, str] = {}


class AttemptBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /v1/payments/{identifier}/attempts`; without an index, the next one."""

    session_key: str
    route: RouteBody
    attempt_index: Number | None = None
    attempted_at: str | None = None
    payment_hash: str | None = None


class SettleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `settle`."""

    preimage: str
    settled_at: str | None = None


class FailAttemptBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `fail` of an attempt."""

    reason: str
    failed_at: str | None = None
    source_index: Number = 0
    message: str | None = None


class FailBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `fail` of a payment."""

    reason: str


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a call that needs nothing said."""


def decoded(data: bytes, kind: type[Body]) -> Body:
    """Return the body of a call.

    Raises:
        Malformed: it is none, has another field, or more values than any call.
    """
    if data.count(b",") > COMMAS_MAX:
        raise Malformed("body", f"more than {COMMAS_MAX} values")
    return checked(msgspec.json.Decoder(kind).decode, data)


# What they stand for; `now_ns` is the time of what does not say its own ---------------------------


def _time(param: str, text: str | None, now_ns: int) -> int:
    return now_ns if text is None else time_in(param, text)


def _octets(param: str, text: str | None) -> bytes | None:
    return None if text is None else octets_in(param, text)


def creation_of(body: InitBody, now_ns: int) -> CreationInfo:
    """Return what is to be paid."""
    records = records_in("first_hop_custom_records", body.first_hop_custom_records)
    return CreationInfo(
        identifier=octets_in("identifier", body.identifier),
        value_msat=number_in("value_msat", body.value_msat),
        created_at_ns=_time("created_at", body.created_at, now_ns),
        payment_request=request_in(body.payment_request, body.payment_request_hex),
        first_hop_custom_records=records,
    )


def attempt_of(body: AttemptBody, attempt_index: int, now_ns: int) -> Attempt:
    """Return an attempt that is about to be sent."""
    return Attempt(
        attempt_index=attempt_index,
        session_key=octets_in("session_key", body.session_key),
        route=route_of(body.route),
        attempted_at_ns=_time("attempted_at", body.attempted_at, now_ns),
        payment_hash=_octets("payment_hash", body.payment_hash),
    )


def route_of(body: RouteBody, param: str = "route") -> Route:
    """Return a route."""
    wire_records = records_in(f"{param}.first_hop_wire_records", body.first_hop_wire_records)
    first_hop_amount = number_in(f"{param}.first_hop_amount_msat", body.first_hop_amount_msat)
    return Route(
        total_time_lock=body.total_time_lock,
        total_amount_msat=number_in(f"{param}.total_amount_msat", body.total_amount_msat),
        source_pub_key=octets_in(f"{param}.source_pub_key", body.source_pub_key),
        hops=_hops(body.hops, param),
        first_hop_amount_msat=first_hop_amount,
        first_hop_wire_records=wire_records,
    )


def _hops(hops: Sequence[HopBody], param: str) -> tuple[Hop, ...]:
    return tuple(_hop(hop, f"{param}.hops[{index}]") for index, hop in enumerate(hops))


def _hop(body: HopBody, param: str) -> Hop:
    amount = number_in(f"{param}.amount_to_forward_msat", body.amount_to_forward_msat)
    return Hop(
        pub_key=octets_in(f"{param}.pub_key", body.pub_key),
        channel_id=number_in(f"{param}.channel_id", body.channel_id),
        outgoing_time_lock=body.outgoing_time_lock,
        amount_to_forward_msat=amount,
        legacy_payload=body.legacy_payload,
        mpp=None if body.mpp is None else _mpp(body.mpp, f"{param}.mpp"),
        amp=None if body.amp is None else _amp(body.amp, f"{param}.amp"),
        encrypted_data=_octets(f"{param}.encrypted_data", body.encrypted_data),
        blinding_point=_octets(f"{param}.blinding_point", body.blinding_point),
        blinded_total_msat=number_in(f"{param}.blinded_total_msat", body.blinded_total_msat),
        metadata=_octets(f"{param}.metadata", body.metadata),
        custom_records=records_in(f"{param}.custom_records", body.custom_records),
    )


def _mpp(body: MPPBody, param: str) -> MPP:
    return MPP(
        octets_in(f"{param}.payment_addr", body.payment_addr),
        number_in(f"{param}.total_msat", body.total_msat),
    )


def _amp(body: AMPBody, param: str) -> AMP:
    root_share = octets_in(f"{param}.root_share", body.root_share)
    return AMP(root_share, octets_in(f"{param}.set_id", body.set_id), body.child_index)


def settle_of(body: SettleBody, now_ns: int) -> Settle:
    """Return what settles an attempt."""
    preimage = octets_in("preimage", body.preimage)
    return Settle(preimage, _time("settled_at", body.settled_at, now_ns))


def failure_of(body: FailAttemptBody, now_ns: int) -> Failure:
    """Return why an attempt failed."""
    return Failure(
        failed_at_ns=_time("failed_at", body.failed_at, now_ns),
        reason=reason_in("reason", body.reason, AttemptFailureReason),
        source_index=body.source_index,
        message=_octets("message", body.message),
    )


def reason_of(body: FailBody) -> FailureReason:
    """Return why a payment was given up."""
    return reason_in("reason", body.reason, FailureReason)
