"""The order of claims, told in tables: each row is a batch of its own, or a tick of the clock.

`ms` is when, `later` is what the shard decided meanwhile about claims of earlier rows (row:word).
"""

import pytest

from engine.core.claim import claim_digest
from engine.core.events import ClaimReceived
from engine.core.types import Sequencing
from engine.validation.options import ValidationOptions
from tests.builders import text_table
from tests.channels.world import Desk, channel_id, item, word

HOLD_MS = 2_000

GAP_IS_FILLED = """
    ms    seq  amount  answer    missing  later
    0     1    10      accepted  -        -
    0     3    30      buffered  2        -
    1     5    50      buffered  2,4      -
    2     4    40      buffered  2        -
    3     2    20      accepted  -        1:accepted,3:accepted,2:accepted
    4     6    60      accepted  -        -
"""
GAP_TIMES_OUT = """
    ms    seq  amount  answer        missing  later
    0     2    20      buffered      1        -
    1     3    30      buffered      1        -
    2000  -    -       tick          -        0:sequence_gap
    2001  -    -       tick          -        1:sequence_gap
    2002  1    10      accepted      -        -
    2003  2    20      accepted      -        -
    2004  3    30      accepted      -        -
"""
HELD_ONE_IS_BAD = """
    ms    seq  amount  answer    missing  later
    0     2    5       buffered  1        -
    0     3    30      buffered  1        -
    0     1    10      accepted  -        0:amount_not_increasing
    1     2    20      accepted  -        1:accepted
"""
THE_ONE_BEFORE_IS_REFUSED = """
    ms    seq  amount  answer                missing  later
    0     2    20      buffered              1        -
    0     1    1001    amount_over_capacity  -        -
    0     1    10      accepted              -        0:accepted
"""
SENT_AGAIN_WHILE_HELD = """
    ms    seq  amount  answer             missing  later
    0     2    20      buffered           1        -
    0     2    21      sequence_conflict  -        -
    1     2    20      buffered           1        -
    2     1    10      accepted           -        0:accepted,2:accepted
    3     2    20      duplicate          -        -
"""
SENT_AGAIN = """
    ms      seq  amount  answer             missing  later
    0       1    10      accepted           -        -
    1       2    20      accepted           -        -
    2       1    10      duplicate          -        -
    3       2    20      duplicate          -        -
    4       1    11      sequence_conflict  -        -
    300000  1    10      duplicate          -        -
    300001  1    10      sequence_used      -        -
    300001  2    20      duplicate          -        -
    300001  3    20      amount_not_increasing  -    -
    300001  0    30      malformed          -        -
"""
STRICT = {
    "a gap is filled": GAP_IS_FILLED,
    "a gap times out": GAP_TIMES_OUT,
    "a held claim is bad": HELD_ONE_IS_BAD,
    "the one before is refused": THE_ONE_BEFORE_IS_REFUSED,
    "sent again while held": SENT_AGAIN_WHILE_HELD,
    "sent again": SENT_AGAIN,
}
BY_AMOUNT = """
    ms      seq  amount  answer                 missing  later
    0       -    10      accepted               -        -
    1       -    30      accepted               -        -
    2       -    20      amount_not_increasing  -        -
    3       -    30      duplicate              -        -
    4       -    10      duplicate              -        -
    5       9    40      accepted               -        -
    6       1    40      duplicate              -        -
    7       -    1001    amount_over_capacity   -        -
    300000  -    10      duplicate              -        -
    300001  -    10      amount_not_increasing  -        -
    300006  -    1000    accepted               -        -
"""


def play(desk, table):
    """Play a table on channel `a`; return what was told as a table of the same shape."""
    told, start, rows, batch_of_row = [], desk.clock.now, text_table(table), {}
    for number, row in enumerate(rows):
        desk.clock.now = start
        desk.clock.forward(int(row["ms"]))
        answer, missing = "tick", ()
        if row["amount"] == "-":
            desk.shard.tick()
        else:
            batch_of_row[desk.turns["gateway-a"]] = number
            sequence = None if row["seq"] in "-0" else int(row["seq"])
            (given,) = desk.submit(item("a", int(row["amount"]), sequence))
            answer, missing = word(given), given.missing
        late = [f"{batch_of_row[batch]}:{decided}" for batch, _, decided in desk.take_late()]
        told.append(
            row
            | {
                "answer": answer,
                "missing": ",".join(map(str, missing)) or "-",
                "later": ",".join(late) or "-",
            }
        )
    return told


@pytest.mark.parametrize("table", STRICT.values(), ids=STRICT)
def test_claims_that_are_numbered(tmp_path, table):
    desk = Desk(tmp_path)
    desk.open("a")
    assert play(desk, table) == text_table(table)


def test_claims_that_only_say_an_amount(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a", sequencing=Sequencing.AMOUNT)
    assert play(desk, BY_AMOUNT) == text_table(BY_AMOUNT)
    accepted = [event for event in desk.events() if type(event) is ClaimReceived]
    assert [(event.sequence, event.amount) for event in accepted] == [
        (1, 10), (2, 30), (3, 40), (4, 1000),
    ]  # fmt: skip


def test_150_after_148_is_held_149_is_named_and_both_are_decided_in_order(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a")
    desk.submit(*(item("a", number, number) for number in range(1, 149)))
    (early,) = desk.submit(item("a", 150, 150))
    assert (word(early), early.missing, early.expected) == ("buffered", (149,), 149)
    assert desk.kinds().count("ClaimReceived") == 148
    (answer,) = desk.submit(item("a", 149, 149))
    assert (word(answer), answer.sequence) == ("accepted", 149)
    ((batch, index, late),) = desk.take_late()
    assert (batch, index, late) == (1, 0, "accepted")
    accepted = [event.sequence for event in desk.events() if type(event) is ClaimReceived]
    assert accepted == list(range(1, 151))


def test_early_and_missing_in_one_batch_are_answered_together(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a")
    batch = [item("a", 20, 2), item("a", 10, 1), item("a", 30, 3)]
    assert desk.words(*batch) == ["buffered", "accepted", "accepted"]
    assert desk.take_late() == [(0, 0, "accepted")]
    assert desk.view("a").channel.sequence == 3


# Bounds -------------------------------------------------------------------------------------------


def test_a_channel_may_have_so_many_early_claims_waiting(tmp_path):
    desk = Desk(tmp_path, ValidationOptions(hold_claims_per_channel_max=2))
    desk.open("a", "b")
    early = [item("a", number * 10, number) for number in (4, 3, 5)]
    assert desk.words(*early) == ["buffered", "buffered", "sequence_gap"]
    assert desk.words(item("b", 20, 2)) == ["buffered"]
    assert desk.words(item("a", 10, 1), item("a", 20, 2)) == ["accepted", "accepted"]
    assert desk.view("a").channel.sequence == 4


def test_a_shard_may_have_so_many_early_claims_waiting(tmp_path):
    desk = Desk(tmp_path, ValidationOptions(hold_claims_max=3))
    names = [f"channel {number}" for number in range(4)]
    desk.open(*names)
    early = [item(name, 20, 2) for name in names]
    assert desk.words(*early) == ["buffered"] * 3 + ["sequence_gap"]
    assert desk.words(item(names[3], 10, 1)) == ["accepted"]
    desk.clock.forward(HOLD_MS)
    desk.shard.tick()
    assert desk.shard.held == 0
    assert desk.words(*early[:3]) == ["buffered"] * 3


def test_the_missing_are_named_up_to_a_limit(tmp_path):
    desk = Desk(tmp_path, ValidationOptions(missing_named_max=3))
    desk.open("a")
    (answer,) = desk.submit(item("a", 10, 2**62))
    assert answer.missing == (1, 2, 3)


def test_all_that_waits_can_be_released_by_one_claim(tmp_path):
    """More events than a frame of the log holds come out of one batch."""
    limits = ValidationOptions(hold_claims_per_channel_max=5_000, retry_claims_max=6_000)
    desk = Desk(tmp_path, limits)
    desk.open("a", capacity=10_000)
    for start in range(2, 4_502, 500):
        early = [item("a", number, number) for number in range(start, start + 500)]
        assert set(desk.words(*early)) == {"buffered"}
    assert desk.words(item("a", 1, 1)) == ["accepted"]
    assert {late for _, _, late in desk.take_late()} == {"accepted"}
    assert desk.view("a").channel.sequence == 4_501
    before = desk.live_hash()
    desk.restart()
    assert desk.live_hash() == before


# The retry window ---------------------------------------------------------------------------------


def test_an_answer_is_repeated_for_so_many_claims_and_then_the_mark_is_told(tmp_path):
    desk = Desk(tmp_path, ValidationOptions(retry_claims_max=2))
    desk.open("a")
    claims = [item("a", number * 10, number) for number in (1, 2, 3)]
    first = desk.submit(*claims)
    again = desk.submit(*claims)
    assert [word(answer) for answer in again] == ["sequence_used", "duplicate", "duplicate"]
    assert [answer.position for answer in again[1:]] == [answer.position for answer in first[1:]]
    assert (again[0].expected, again[0].claimed) == (4, 30)


def test_the_same_claim_signed_twice_is_the_same_claim(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a", public_key=item("a", 1).public_key)
    one, two = item("a", 10, 1), item("a", 10, 1, previous=0)
    assert desk.words(one, two) == ["accepted", "duplicate"]


@pytest.mark.parametrize("clean", [False, True], ids=["crash", "stop"])
def test_a_first_answer_survives_restarts_and_checkpoints(tmp_path, clean):
    desk = Desk(tmp_path)
    desk.open("a", "b", sequencing=Sequencing.STRICT)
    desk.open("c", sequencing=Sequencing.AMOUNT)
    claims = [item("a", 10, 1), item("a", 20, 2), item("b", 10, 1), item("c", 7)]
    first = [answer.position for answer in desk.submit(*claims)]
    desk.shard.checkpoint()
    more = item("a", 30, 3)
    first.append(desk.submit(more)[0].position)
    for _ in range(3):
        desk.restart(clean=clean)
        again = desk.submit(*claims, more)
        assert {word(answer) for answer in again} == {"duplicate"}
        assert [answer.position for answer in again] == first
    assert desk.words(item("a", 11, 1), item("a", 40, 4)) == ["sequence_conflict", "accepted"]


# `previous` ---------------------------------------------------------------------------------------


def test_a_sender_who_believes_in_the_wrong_mark_is_told_the_right_one(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a")
    desk.submit(item("a", 10, 1, previous=0))
    (answer,) = desk.submit(item("a", 30, 2, previous=20))
    assert (word(answer), answer.claimed, answer.expected) == ("conflict", 10, 10)
    assert desk.words(item("a", 30, 2, previous=10)) == ["accepted"]


def test_claims_can_be_chained_by_digest(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a")
    link, claims = bytes(32), []
    for number in (1, 2, 3):
        claims.append(item("a", number * 10, number, previous=link))
        link = claim_digest(channel_id("a"), number, number * 10, link)
    broken = item("a", 40, 4, previous=claims[2].previous)
    assert desk.words(*claims, broken) == ["accepted"] * 3 + ["conflict"]
    desk.restart()
    assert desk.words(item("a", 40, 4, previous=link)) == ["accepted"]


def test_a_held_claim_is_checked_against_the_mark_of_its_turn(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a")
    desk.submit(item("a", 20, 2, previous=10), item("a", 30, 3, previous=10))
    assert desk.words(item("a", 10, 1)) == ["accepted"]
    assert desk.take_late() == [(0, 0, "accepted"), (0, 1, "conflict")]
