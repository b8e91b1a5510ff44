"""What the attempts of one payment must have in common. Pure.

The order of the checks is part of the contract: an attempt that is wrong in two ways is refused
with the same code everywhere. Nothing compares the MPP total with the value of the payment, and AMP
records are not looked at; both are so in lnd.
"""

from collections.abc import Iterable

import msgspec

from engine.payments.errors import PaymentDBCode, PaymentDBError
from engine.payments.values import MPP, Route


class Terms(msgspec.Struct, frozen=True):
    """What the final hop of a route says of the whole payment.

    Attributes:
        blinded_total_msat: None = not blinded.
    """

    mpp: MPP | None = None
    blinded_total_msat: int | None = None


def terms_of(route: Route) -> Terms:
    """Return the terms of `route`.

    Raises:
        PaymentDBError: no_route_hops.
    """
    if not route.hops:
        raise PaymentDBError(PaymentDBCode.NO_ROUTE_HOPS)
    hop = route.hops[-1]
    return Terms(hop.mpp, hop.blinded_total_msat if hop.encrypted_data else None)


def check_compatible(
    value_msat: int, sent_msat: int, in_flight: Iterable[Terms], route: Route
) -> None:
    """Allow an attempt on `route` beside what a payment of `value_msat` has.

    Args:
        value_msat: What the receiver is to get in all.
        sent_msat: What attempts that are settled or in flight send already.
        in_flight: The terms of the attempts in flight, ascending by index; no others.
        route: The way of the new one.

    Raises:
        PaymentDBError: blinded_missing_total_amount, mpp_record_in_blinded_payment,
            mixed_blinded_and_non_blinded, blinded_total_amount_mismatch, mpp_payment,
            non_mpp_payment, mpp_payment_addr_mismatch, mpp_total_amount_mismatch, value_mismatch,
            value_exceeds_amt, in this order; no_route_hops.
    """
    new = terms_of(route)
    if new.blinded_total_msat == 0:
        raise PaymentDBError(PaymentDBCode.BLINDED_MISSING_TOTAL_AMOUNT)
    if new.blinded_total_msat is not None and new.mpp is not None:
        raise PaymentDBError(PaymentDBCode.MPP_RECORD_IN_BLINDED_PAYMENT)
    for old in in_flight:
        _check_pair(old, new)
    amount_msat = route.receiver_msat
    if new == Terms() and amount_msat != value_msat:
        raise PaymentDBError(PaymentDBCode.VALUE_MISMATCH, expected=value_msat, actual=amount_msat)
    if sent_msat + amount_msat > value_msat:
        raise PaymentDBError(
            PaymentDBCode.VALUE_EXCEEDS_AMT, expected=value_msat, actual=sent_msat + amount_msat
        )


def _check_pair(old: Terms, new: Terms) -> None:
    if new.blinded_total_msat is None and old.blinded_total_msat is None:
        _check_parts(old.mpp, new.mpp)
        return
    if new.blinded_total_msat is not None and old.mpp is not None:
        raise PaymentDBError(PaymentDBCode.MPP_RECORD_IN_BLINDED_PAYMENT)
    if new.blinded_total_msat is None or old.blinded_total_msat is None:
        raise PaymentDBError(PaymentDBCode.MIXED_BLINDED_AND_NON_BLINDED)
    if old.blinded_total_msat != new.blinded_total_msat:
        raise PaymentDBError(
            PaymentDBCode.BLINDED_TOTAL_AMOUNT_MISMATCH,
            expected=old.blinded_total_msat,
            actual=new.blinded_total_msat,
        )


def _check_parts(old: MPP | None, new: MPP | None) -> None:
    if old is None and new is None:
        return
    if new is None:
        raise PaymentDBError(PaymentDBCode.MPP_PAYMENT)
    if old is None:
        raise PaymentDBError(PaymentDBCode.NON_MPP_PAYMENT)
    if old.payment_addr != new.payment_addr:
        raise PaymentDBError(PaymentDBCode.MPP_PAYMENT_ADDR_MISMATCH)
    if old.total_msat != new.total_msat:
        raise PaymentDBError(
            PaymentDBCode.MPP_TOTAL_AMOUNT_MISMATCH,
            expected=old.total_msat,
            actual=new.total_msat,
        )
