"""A covered claim is accepted only with the checked claim that covers it, in the same frame."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from engine.channels.messages import Refused
from engine.channels.offline.losses import weigh
from engine.channels.recovery import begun, replay_into
from engine.core import commands
from engine.core.claim import NO_CLAIM_DIGEST, claim_digest, signing_message
from engine.core.events import ClaimCovered, ClaimReceived, ClaimRejected
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import Sequencing
from engine.validation.options import RiskOptions
from engine.validation.risk import VelocityRule
from engine.verify.batch import Item
from engine.verify.options import VerifyOptions
from engine.verify.seal import seal
from engine.verify.signed import is_signed
from tests.channels.world import (
    ED25519,
    NEWEST_VERIFIER,
    SEAL_KEY,
    Desk,
    blob_of,
    channel_id,
    item,
    spoiled,
    word,
)

NEWEST = VerifyOptions(verification="newest")


@pytest.fixture
def desk(tmp_path) -> Desk:
    desk = Desk(tmp_path / "shard", verify=NEWEST)
    desk.open("a", "e")
    return desk


def claims(text: str, name: str = "a") -> list[Item]:
    """Return the claims of a line: `sequence:amount`, behind it `!` for a bad signature."""
    found = []
    for each in text.split():
        sequence, amount = map(int, each.removesuffix("!").split(":"))
        one = item(name, amount, sequence or None)
        if each.endswith("!"):
            one = spoiled(item(name, amount - 1, sequence or None))
        found.append(one)
    return found


def told(desk: Desk, text: str, name: str = "a") -> str:
    """Return the answers to a line in words; behind an accepted claim the one that covers it."""
    answers = desk.submit(*claims(text, name))
    return " ".join(
        word(answer) + (f"<{answer.covered_by}" if answer.covered_by else "") for answer in answers
    )


def logged(desk: Desk) -> str:
    """Return the claims of the log, as `sequence:amount`: `<` covered, `x` refused."""
    marks = {ClaimReceived: "", ClaimCovered: "<", ClaimRejected: "x"}
    return " ".join(
        f"{event.sequence}:{event.amount}{marks[type(event)]}"
        for event in desk.events()
        if type(event) in marks
    )


RUNS = {
    "in order": (
        "1:10 2:20 3:30",
        "accepted<3 accepted<3 accepted",
        "1:10< 2:20< 3:30",
    ),
    "nobody looks at a bad older signature": (
        "1:10! 2:20! 3:30",
        "accepted<3 accepted<3 accepted",
        "1:10< 2:20< 3:30",
    ),
    "out of order in the batch": (
        "3:30 1:10 2:20",
        "accepted accepted<3 accepted<3",
        "1:10< 2:20< 3:30",
    ),
    "the newest is bad": (
        "1:10 2:20 3:30!",
        "accepted<2 accepted bad_signature",
        "1:10< 2:20",
    ),
    "one": ("1:10", "accepted", "1:10"),
    "the newest is over the capacity": (
        "1:10 2:20 3:1001",
        "accepted accepted amount_over_capacity",
        "1:10 2:20 3:1001x",
    ),
    "the newest is over the capacity, and one it covers is bad": (
        "1:10 2:20! 3:1001",
        "accepted bad_signature buffered",
        "1:10",
    ),
    "the newest comes early": (
        "1:10! 3:30",
        "bad_signature buffered",
        "",
    ),
    "the newest has a number that is taken": (
        "1:10 1:30",
        "accepted sequence_conflict",
        "1:10 1:30x",
    ),
    "a stranger's claim in the place of the payer's": (
        "1:5! 1:10 2:20",
        "bad_signature accepted accepted",
        "1:10 2:20",
    ),
    "a smaller amount with a higher number": (
        "1:20 2:10",
        "accepted amount_not_increasing",
        "1:20 2:10x",
    ),
    "the same amount twice": (
        "1:10 2:10",
        "accepted amount_not_increasing",
        "1:10 2:10x",
    ),
    "without a number": ("0:10 1:20", "malformed accepted", "1:20"),
    "the same claim twice": ("1:10 1:10 2:20", "accepted duplicate accepted", "1:10 2:20"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_batch_is_a_run_or_decided_on_each_signature(desk: Desk, name: str):
    sent, answers, log = RUNS[name]
    assert told(desk, sent) == answers
    assert logged(desk) == log
    best, sequence = desk.view("a").channel.best
    assert (best, sequence) == (desk.view("a").channel.claimed, desk.view("a").channel.sequence)
    desk.restart()
    assert logged(desk) == log


def test_a_run_goes_on_from_the_claims_of_earlier_batches(desk: Desk):
    assert told(desk, "1:10 2:20") == "accepted<2 accepted"
    assert told(desk, "3:30 4:40 5:50") == "accepted<5 accepted<5 accepted"
    assert told(desk, "6:60") == "accepted"


def test_runs_of_several_channels_and_bad_claims_share_a_batch(desk: Desk):
    a, b = claims("1:10 2:20 3:30!"), claims("1:5 2:6", "e")
    answers = desk.words(a[0], b[0], a[2], b[1], a[1], item("nobody", 1, 1), item("nobody", 2, 2))
    assert answers == [
        "accepted",
        "accepted",
        "bad_signature",
        "accepted",
        "accepted",
        "unknown_channel",
        "unknown_channel",
    ]
    assert logged(desk) == "1:10< 2:20 1:5< 2:6"


def test_no_key_covers_claims_of_another(desk: Desk):
    foreign = [replace(one, public_key=ED25519.public_key) for one in claims("1:10 2:20")]
    signature = ED25519.sign(signing_message(channel_id("a"), 20))
    foreign[1] = replace(foreign[1], signature=signature)
    assert is_signed(foreign[1])
    assert desk.words(*foreign) == ["wrong_key", "wrong_key"]
    assert desk.words(foreign[0], *claims("1:10!"), foreign[1]) == [
        "wrong_key",
        "bad_signature",
        "wrong_key",
    ]
    assert logged(desk) == ""


def test_the_amount_is_the_order_where_nothing_else_is(desk: Desk):
    desk.open("c", sequencing=Sequencing.AMOUNT)
    assert told(desk, "0:10 0:20 0:30", "c") == "accepted<3 accepted<3 accepted"
    assert told(desk, "0:50 0:40 0:60", "c") == "accepted amount_not_increasing accepted"
    assert told(desk, "0:10! 0:20", "c") == "duplicate duplicate"
    assert logged(desk) == "1:10< 2:20< 3:30 4:50 0:40x 5:60"


def test_a_claim_sent_again_gets_its_first_answer(desk: Desk):
    first = desk.submit(*claims("1:10 2:20! 3:30"))
    again = desk.submit(*claims("1:10 2:20! 3:30"))
    assert [word(answer) for answer in again] == ["duplicate"] * 3
    assert [answer.position for answer in again] == [answer.position for answer in first]
    assert told(desk, "2:20") == "duplicate"
    assert told(desk, "2:20!") == "bad_signature"
    assert told(desk, "3:30 4:40 5:50") == "duplicate accepted<5 accepted"
    desk.restart()
    assert told(desk, "1:10 2:20! 3:30") == "duplicate duplicate duplicate"


def test_an_older_claim_with_other_content_is_looked_at(desk: Desk):
    told(desk, "1:10 2:20 3:30")
    assert told(desk, "2:21! 4:40") == "bad_signature accepted"
    assert told(desk, "2:21 5:50") == "sequence_conflict accepted"
    assert told(desk, "1:10 6:60 9:90") == "duplicate accepted buffered"
    assert logged(desk) == "1:10< 2:20< 3:30 4:40 2:21x 5:50 6:60"


def test_while_a_claim_is_held_every_signature_counts(desk: Desk):
    assert told(desk, "3:30") == "buffered"
    assert told(desk, "1:10! 4:40") == "bad_signature buffered"
    assert told(desk, "1:10 2:20") == "accepted accepted"
    assert sorted(one[2] for one in desk.take_late()) == ["accepted", "accepted"]
    assert logged(desk) == "1:10 2:20 3:30 4:40"


def test_claims_that_were_held_were_looked_at(desk: Desk):
    assert told(desk, "2:20! 3:30! 4:40") == "bad_signature bad_signature buffered"
    assert told(desk, "1:10 2:20 3:30") == "accepted accepted accepted"
    assert logged(desk) == "1:10 2:20 3:30 4:40"


def test_a_chain_of_digests_is_followed(desk: Desk):
    mark, chain = NO_CLAIM_DIGEST, []
    for number in (1, 2, 3):
        chain.append(item("a", 10 * number, number, previous=mark))
        mark = claim_digest(channel_id("a"), number, 10 * number, mark)
    assert desk.words(*chain) == ["accepted"] * 3
    assert logged(desk) == "1:10< 2:20< 3:30"
    wrong = [item("a", 40, 4, previous=bytes(32)), item("a", 50, 4, previous=30)]
    assert desk.words(*wrong) == ["conflict", "accepted"]


@pytest.mark.parametrize("skewed", [0, 1])
def test_a_skewed_clock_is_refused_as_ever(desk: Desk, skewed: int):
    sent = [replace(one, sent_at=desk.clock.now_ns()) for one in claims("1:10 2:20")]
    assert desk.words(*sent) == ["accepted", "accepted"]
    late = claims("3:30 4:40")
    late[skewed] = replace(late[skewed], sent_at=1)
    assert desk.words(*late)[skewed] == "clock_skew"


def test_a_channel_that_takes_no_claims_takes_no_covered_ones(desk: Desk):
    desk.do(commands.RequestClose, "a")
    assert told(desk, "1:10 2:20! 3:30") == "not_active bad_signature not_active"
    assert logged(desk) == "1:10x 3:30x"


def test_an_expired_channel_takes_no_covered_claims(tmp_path):
    desk = Desk(tmp_path, verify=NEWEST)
    desk.open("a", cancel_after=desk.clock.now_ns() + 1)
    desk.clock.forward(1)
    assert told(desk, "1:10! 2:20") == "bad_signature buffered"
    assert told(desk, "1:10 2:20") == "channel_expired buffered"


def test_a_full_disk_refuses_all_and_repeats_what_was_said(desk: Desk):
    told(desk, "1:10 2:20")
    desk.shard.no_room = Rejected(RejectCode.STORAGE_FULL)
    assert told(desk, "2:20 3:30 4:40") == "duplicate storage_full storage_full"
    desk.shard.no_room = None
    assert told(desk, "3:30 4:40") == "accepted<4 accepted"


def test_with_risk_rules_every_signature_is_checked(tmp_path):
    desk = Desk(tmp_path, verify=NEWEST, rules=(VelocityRule(RiskOptions(velocity_claims_max=2)),))
    desk.open("a")
    assert told(desk, "1:10 2:20! 3:30") == "accepted bad_signature buffered"
    assert told(desk, "2:20 3:30") == "accepted risk_refused"
    assert logged(desk) == "1:10 2:20 3:30x 3:30x"
    assert desk.shard.covering.covered == 0


def test_what_was_covered_and_what_was_checked_after_all_is_counted(desk: Desk):
    told(desk, "1:10 2:20 3:30")
    told(desk, "4:40 5:50 6:1001")
    covering = desk.shard.covering
    assert (covering.covered, covering.checked) == (2, 2)


def test_only_an_engine_that_was_told_so_believes_covered_verdicts(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a")
    batch = claims("1:10 2:20")
    reply = desk.send(batch, sealed=NEWEST_VERIFIER.verify(blob_of(batch)))
    assert reply.refused is Refused.FOREIGN_VERDICTS
    assert desk.words(*batch) == ["accepted", "accepted"]
    assert logged(desk) == "1:10 2:20"


def test_what_no_checked_claim_covers_is_looked_at_whoever_says_it_is_covered(desk: Desk):
    batch = claims("1:10 2:20!")
    reply = desk.send(batch, sealed=seal(SEAL_KEY, blob_of(batch), b"\2\2\0\1"))
    assert [word(answer) for answer in reply.answers] == ["accepted", "bad_signature"]
    batch = claims("2:20 3:30 4:40!")
    reply = desk.send(batch, sealed=seal(SEAL_KEY, blob_of(batch), b"\2\1\2\0\1"))
    assert [word(answer) for answer in reply.answers] == ["accepted", "accepted", "bad_signature"]


def test_an_engine_goes_from_one_way_to_the_other_on_one_log(tmp_path):
    for number, verification in enumerate(("every", "newest", "every")):
        desk = Desk(tmp_path, verify=VerifyOptions(verification=verification))
        if not number:
            desk.open("a")
        start = 2 * number + 1
        words = told(desk, f"{start}:{start * 10} {start + 1}:{start * 10 + 10}")
        assert words.replace(f"<{start + 1}", "") == "accepted accepted"
        desk.shard.close()
    desk = Desk(tmp_path)
    assert logged(desk) == "1:10 2:20 3:30< 4:40 5:50 6:60"


def test_the_answer_names_the_claim_that_covers_and_the_marks_of_its_own(desk: Desk):
    first, second = desk.submit(*claims("1:10 2:20"))
    assert (first.claimed, first.available, first.sequence) == (10, 990, 1)
    assert (first.covered_by, second.covered_by) == (2, 0)
    assert second.position == first.position + 1


def test_of_a_log_that_is_lost_only_signatures_that_hold_are_saved(desk: Desk):
    told(desk, "1:10! 2:20 3:30! 4:40")
    records = [event for event in desk.events() if isinstance(event, ClaimReceived)]
    opened = [event for event in desk.events() if event not in records]
    for sound in (True, False):
        kept = begun()
        replay_into(kept, 1, opened, desk.validation.retries)
        lost = SimpleNamespace(lsn=2, first=5, count=3, records=records[:3], sound=sound)
        losses = weigh(kept, 0, [lost])
        (line,) = losses.redeemable
        assert (line.amount, line.sequence) == ("20", 2)
        assert line.is_signed()
        assert losses.unproven == 2
