"""Sections A to H of the conformance tables: what needs no store."""

import itertools

import pytest

from engine.payments import MPP, FailureReason, PaymentDBError, PaymentState, PaymentStatus
from engine.payments.checking import check_route
from engine.payments.compatibility import check_compatible, terms_of
from engine.payments.rules import (
    check_delete_choice,
    check_init_again,
    check_registrable,
    check_remove,
    check_update,
    may_try_more,
    must_wait,
)
from engine.payments.state import Tally, state_of, status_of, tally_of, tally_of_codes
from engine.payments.values import Attempt, Route
from tests.payments.builders import (
    STATUS,
    P,
    addr,
    failure,
    make_attempt,
    one_hop,
    settle,
)
from tests.payments.tables import number, rows

ROUTE = one_hop(90)


def status(word: str) -> int:
    return STATUS[word] if word in STATUS else int(word)


def reason(word: str) -> FailureReason | None:
    return None if word == "none" else FailureReason[word.upper()]


def code_of(check, *arguments, **named) -> str:
    """Return "ok", or the code of the refusal."""
    try:
        check(*arguments, **named)
    except PaymentDBError as refusal:
        return refusal.code.value
    return "ok"


def attempt(kind: str, route: Route = ROUTE) -> Attempt:
    """Return one attempt: I is in flight, S settled, F failed."""
    result = {"I": {}, "S": {"settle": settle()}, "F": {"failure": failure()}}[kind]
    return make_attempt(1, route, **result)


# A. Status from attempts and failure reason -------------------------------------------------------

STATUS_TABLE = """
    no.  attempts  reason    status
    1    ISF       no_route  InFlight
    2    ISF       none      InFlight
    3    IS        no_route  InFlight
    4    IS        none      InFlight
    5    IF        no_route  InFlight
    6    IF        none      InFlight
    7    I         no_route  InFlight
    8    I         none      InFlight
    9    SF        no_route  Succeeded
    10   SF        none      Succeeded
    11   S         no_route  Succeeded
    12   S         none      Succeeded
    13   F         no_route  Failed
    14   F         none      InFlight
    15   -         no_route  Failed
    16   -         none      Initiated
"""


@pytest.mark.parametrize(("attempts", "why", "expected"), rows(STATUS_TABLE))
def test_the_status_follows_from_attempts_and_reason(attempts, why, expected):
    for order in itertools.permutations(attempts.strip("-") * 2):
        tally = tally_of(attempt(kind) for kind in order)
        assert status_of(tally, reason(why)) is STATUS[expected]


# B. Status from resolution codes ------------------------------------------------------------------

CODES_TABLE = """
    no.  codes      reason    expected
    17   null,null  none      InFlight
    18   1          none      Succeeded
    19   2          none      InFlight
    20   2          no_route  Failed
    21   null,1     none      InFlight
    23   1,2        none      Succeeded
    24   -          none      Initiated
    25   -          no_route  Failed
    28   1,1,1      none      Succeeded
    29   2,2        no_route  Failed
"""


def codes(word: str) -> list[int | None]:
    parts = [] if word == "-" else word.split(",")
    return [None if part == "null" else int(part) for part in parts]


@pytest.mark.parametrize(("resolutions", "why", "expected"), rows(CODES_TABLE))
def test_the_status_needs_no_routes(resolutions, why, expected):
    assert status_of(tally_of_codes(codes(resolutions)), reason(why)) is STATUS[expected]


def test_codes_are_counted():
    assert tally_of_codes([1, None, 2, 2, None, None]) == Tally(in_flight=3, settled=1, failed=2)
    assert tally_of_codes([]) == Tally(0, 0, 0, 0, 0) == Tally()


@pytest.mark.parametrize("unknown", [999, 0, 3, -1])
def test_an_unknown_resolution_is_an_error(unknown):  # row 26
    with pytest.raises(PaymentDBError) as refusal:
        tally_of_codes([1, unknown])
    assert (refusal.value.code, refusal.value.actual) == ("unknown_resolution", unknown)


# C. What each status permits ----------------------------------------------------------------------

PERMITS = """
    no.  status     init again              update                     remove
    30   Initiated  payment_exists          ok                         ok
    31   InFlight   payment_in_flight       ok                         payment_in_flight
    32   Succeeded  already_paid            payment_already_succeeded  ok
    33   Failed     ok                      payment_already_failed     ok
    34   0          unknown_payment_status  unknown_payment_status     unknown_payment_status
"""


@pytest.mark.parametrize(("where", "init", "update", "remove"), rows(PERMITS))
def test_a_status_permits(where, init, update, remove):
    assert code_of(check_init_again, status(where)) == init
    assert code_of(check_update, status(where)) == update
    assert code_of(check_remove, status(where)) == remove


# D. Registrable -----------------------------------------------------------------------------------

REGISTRABLE = """
    no.  status     settled  reason  result
    35   Initiated  no       no      ok
    35b  Initiated  yes      yes     ok
    36   InFlight   no       no      ok
    37   InFlight   yes      no      payment_pending_settled
    37b  InFlight   yes      yes     payment_pending_settled
    38   InFlight   no       yes     payment_pending_failed
    39   0          yes      yes     unknown_payment_status
    40   Succeeded  no       no      payment_already_succeeded
    41   Failed     no       no      payment_already_failed
    42   0          no       no      unknown_payment_status
"""


@pytest.mark.parametrize(("where", "settled", "given_up", "result"), rows(REGISTRABLE))
def test_a_new_attempt_is_allowed(where, settled, given_up, result):
    flags = {"has_settled": settled == "yes", "has_failure_reason": given_up == "yes"}
    assert code_of(check_registrable, status(where), **flags) == result


# E. Derived state ---------------------------------------------------------------------------------


def costing(kind: str, total: int, fee: int) -> Attempt:
    route = one_hop(total - fee)
    return attempt(kind, Route(100, total, P, route.hops))


def test_more_sent_than_the_value_is_an_error():  # row 43
    with pytest.raises(PaymentDBError) as refusal:
        state_of(1, tally_of([costing("S", 100, 10)]), None)
    assert refusal.value.code == "sent_exceeds_total"
    assert (refusal.value.expected, refusal.value.actual) == (1, 90)


def test_a_failed_attempt_sends_nothing_and_costs_nothing():  # row 44
    tally = tally_of([costing("I", 100, 10), costing("F", 100, 10)])
    assert tally == Tally(in_flight=1, failed=1, sent_msat=90, fees_msat=10)
    assert state_of(1_000, tally, None) == PaymentState(1, 910, 10, False, False)


def test_what_settled_is_sent():
    tally = tally_of([costing("S", 100, 10), costing("I", 50, 1)])
    assert state_of(139, tally, None) == PaymentState(1, 0, 11, True, False)


def test_without_attempts_all_remains():  # row 46
    assert state_of(1_000, Tally(), FailureReason.ERROR) == PaymentState(0, 1_000, 0, False, True)


# F. Need to wait ----------------------------------------------------------------------------------

WAIT = """
    no.  status     remaining  settled  reason  result
    47   Initiated  1000       no       no      no
    48   InFlight   1000       no       no      no
    49   InFlight   1000       yes      no      wait
    50   InFlight   1000       no       yes     wait
    51   Succeeded  1000       no       no      payment_internal
    52   Failed     1000       no       no      no
    53   Initiated  0          no       no      payment_internal
    54   InFlight   0          no       no      wait
    55   Succeeded  0          no       no      no
    56   Failed     0          no       no      payment_internal
    57   0          0          no       no      unknown_payment_status
    58   0          1000       no       no      unknown_payment_status
"""


def state(remaining: str, settled: str, given_up: str) -> PaymentState:
    return PaymentState(0, int(remaining), 0, settled == "yes", given_up == "yes")


@pytest.mark.parametrize(("where", "remaining", "settled", "given_up", "result"), rows(WAIT))
def test_a_payer_must_wait(where, remaining, settled, given_up, result):
    arguments = status(where), state(remaining, settled, given_up)
    if result in ("no", "wait"):
        assert must_wait(*arguments) is (result == "wait")
    else:
        assert code_of(must_wait, *arguments) == result


# G. Allow more attempts ---------------------------------------------------------------------------

MORE = """
    no.  status     remaining  settled  reason  result
    59   Initiated  0          no       no      payment_internal
    60   InFlight   0          no       no      no
    61   Succeeded  0          no       no      no
    62   Failed     0          no       no      no
    63   InFlight   0          yes      no      no
    64   InFlight   0          no       yes     no
    66   Initiated  1000       no       no      yes
    67   InFlight   1000       no       no      yes
    68   InFlight   1000       yes      no      no
    69   InFlight   1000       no       yes     no
    70   Failed     1000       no       no      no
    71   Succeeded  1000       yes      no      payment_internal
    73   0          1000       no       no      no
"""


@pytest.mark.parametrize(("where", "remaining", "settled", "given_up", "result"), rows(MORE))
def test_a_payer_may_try_more(where, remaining, settled, given_up, result):
    arguments = status(where), state(remaining, settled, given_up)
    if result in ("yes", "no"):
        assert may_try_more(*arguments) is (result == "yes")
    else:
        assert code_of(may_try_more, *arguments) == result


@pytest.mark.parametrize("where", PaymentStatus)
def test_a_payer_who_may_try_more_need_not_wait(where):
    for remaining, settled, given_up in itertools.product("01", ("yes", "no"), ("yes", "no")):
        arguments = where, state(remaining, settled, given_up)
        if code_of(may_try_more, *arguments) == code_of(must_wait, *arguments) == "ok":
            assert not (may_try_more(*arguments) and must_wait(*arguments))


# H. Compatibility ---------------------------------------------------------------------------------

COMPATIBLE = """
    no.  value  existing                   new                        result
    74   1000   -                          900                        value_mismatch
    75   1200   -                          1200                       ok
    76   2000   1000 mpp:2000:A            1000                       mpp_payment
    77   2000   2000                       1000 mpp:2000:A            non_mpp_payment
    78   3000   1500 mpp:3000:A            1500 mpp:3000:B            mpp_payment_addr_mismatch
    79   3000   1500 mpp:3000:A            1500 mpp:2999:A            mpp_total_amount_mismatch
    79b  3000   1500 mpp:3000:A            1500 mpp:2999:B            mpp_payment_addr_mismatch
    80   3000   1500 mpp:3000:A            1500 mpp:3000:A            ok
    81   5000   2500 enc:01:5000           2500 mpp:5000:A            mixed_blinded_and_non_blinded
    82   5000   2500 mpp:5000:A            2500 enc:01:5000           mpp_record_in_blinded_payment
    83   5000   2500 enc:01:5000           2500 enc:03:5001           blinded_total_amount_mismatch
    84   5000   2500 enc:01:5000           2500 enc:04:5000           ok
    85   5000   -                          2500 enc:010203:0          blinded_missing_total_amount
    85b  5000   -                          2500 mpp:5000:A enc:01:0   blinded_missing_total_amount
    86   5000   -                          2500 enc:040506:5000       ok
    87   5000   -                          9 mpp:9:A enc:01:5000      mpp_record_in_blinded_payment
    88   4000   2000 enc:01:4000           4000                       mixed_blinded_and_non_blinded
    88b  4000   4000                       2000 enc:01:4000           mixed_blinded_and_non_blinded
    89   3000   1500 mpp:3000:A            1501 mpp:3000:A            value_exceeds_amt
    89b  3000   2999                       3000                       value_exceeds_amt
    89c  3000   2999                       1                          value_mismatch
    89d  5000   2500 enc:01:5000           2501 enc:01:5000           value_exceeds_amt
"""


def route_of(words: str) -> Route:
    """Read "amount mpp:total:letter enc:hex:total"."""
    amount, *records = words.split()
    fields: dict[str, object] = {}
    for record in records:
        kind, one, other = record.split(":")
        if kind == "mpp":
            fields["mpp"] = MPP(addr(other), int(one))
        else:
            fields |= {"enc": bytes.fromhex(one), "total": int(other)}
    return one_hop(int(amount), **fields)


@pytest.mark.parametrize(("value", "existing", "new", "result"), rows(COMPATIBLE))
def test_a_new_attempt_fits(value, existing, new, result):
    routes = [] if existing == "-" else [route_of(existing)]
    sent = sum(route.receiver_msat for route in routes)
    found = code_of(check_compatible, int(value), sent, map(terms_of, routes), route_of(new))
    assert found == result


def test_a_route_without_hops_is_no_route():  # row 90
    empty = Route(100, 1_000, P, ())
    assert code_of(check_route, empty) == "no_route_hops"
    assert code_of(check_compatible, 1_000, 0, (), empty) == "no_route_hops"


def test_the_numbers_that_disagree_are_in_the_refusal():
    with pytest.raises(PaymentDBError) as refusal:
        check_compatible(2**64 - 1, 2**64 - 2, (), one_hop(2, MPP(addr("A"), 5)))
    assert (refusal.value.expected, refusal.value.actual) == (2**64 - 1, 2**64)
    assert number("2^64-1") == 2**64 - 1


# N. Deletion asked for by a person ----------------------------------------------------------------

CHOICES = """
    no.   all  failed  attempts  result
    186   no   no      no        delete_flags
    187   yes  yes     no        delete_flags
    187b  yes  no      yes       delete_flags
    187c  yes  yes     yes       delete_flags
    187d  yes  no      no        ok
    187e  no   yes     no        ok
    187f  no   no      yes       ok
    187g  no   yes     yes       ok
"""


@pytest.mark.parametrize(("whole", "failed", "attempts", "result"), rows(CHOICES))
def test_a_bulk_delete_says_what_is_to_go(whole, failed, attempts, result):
    flags = {
        "all_payments": whole == "yes",
        "failed_only": failed == "yes",
        "failed_attempts_only": attempts == "yes",
    }
    assert code_of(check_delete_choice, **flags) == result
