"""A shard: what it looks at, what it answers, and what it writes down."""

from types import SimpleNamespace

import pytest

from engine.channels.direct import FRAME_BYTES_MAX
from engine.channels.messages import LATE_MAX, Answer, Late, Refused, Status, encode
from engine.channels.shard import OUTBOX_MAX
from engine.core.commands import (
    ConfirmFunding,
    FundChannel,
    OpenDispute,
    RequestClose,
    ResolveDispute,
    SettleChannel,
    SubmitClaim,
)
from engine.core.events import ClaimReceived, ClaimRejected
from engine.core.rejections import RejectCode
from engine.core.types import Checks, State
from engine.validation.options import ValidationOptions
from engine.verify.seal import seal
from engine.verify.worker import VerifierWorker
from tests.builders import NOON
from tests.channels.world import (
    ED25519,
    GATEWAY,
    SEAL_KEY,
    SECP256K1,
    VERIFIER,
    Desk,
    blob_of,
    channel_id,
    item,
    payer_of,
    spoiled,
    word,
)


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    desk.open("a", "b")
    return desk


def unchanged(desk):
    """Return a function that says whether log and channels are still as they are now."""
    position, state = desk.shard.position, desk.live_hash()
    return lambda: (desk.shard.position, desk.live_hash()) == (position, state)


# Durable before it is told ------------------------------------------------------------------------


class WatchedJournal:
    """A journal that writes down what it was asked, and how far the disk was at each moment."""

    def __init__(self, journal):
        self._journal = journal
        self.calls = []
        self.durable = journal.last

    def append(self, events):
        self.calls.append(("append", [type(event).__name__ for event in events]))
        return self._journal.append(events)

    def commit(self):
        self.durable = self._journal.commit()
        self.calls.append(("commit", self.durable))
        return self.durable

    def idle(self):
        self.calls.append(("idle",))
        return self._journal.idle()

    def checkpoint(self, state, *, wait=False):
        self.calls.append(("checkpoint",))
        return self._journal.checkpoint(state, wait=wait)

    def close(self):
        self._journal.close()


@pytest.fixture
def watched(tmp_path):
    seen = SimpleNamespace()

    def wrap(journal):
        seen.journal = WatchedJournal(journal)
        return seen.journal

    desk = Desk(tmp_path, wrap=wrap)
    desk.open("a", "b")
    seen.journal.calls.clear()
    return desk, seen.journal


def test_a_batch_is_one_append_and_one_commit_before_any_answer(watched):
    desk, journal = watched
    answers = desk.submit(item("a", 10, 1), item("b", 20, 1), spoiled(item("a", 20, 2)))
    assert journal.calls == [("append", ["ClaimReceived", "ClaimReceived"]), ("commit", 6)]
    assert [answer.position for answer in answers] == [5, 6, 0]
    assert max(answer.position for answer in answers) <= journal.durable


def test_a_refusal_that_rests_on_a_claim_waits_for_the_same_commit(watched):
    desk, journal = watched
    assert desk.words(item("a", 10, 1), item("a", 5, 2)) == ["accepted", "amount_not_increasing"]
    assert journal.calls == [("append", ["ClaimReceived", "ClaimRejected"]), ("commit", 6)]


def test_commands_are_on_disk_before_they_are_answered(watched):
    desk, journal = watched
    desk.open("c", "d")
    assert [call[0] for call in journal.calls] == ["append", "commit"]


def test_a_late_decision_is_on_disk_before_it_can_be_collected(watched):
    desk, journal = watched
    desk.submit(item("a", 30, 3))
    journal.calls.clear()
    desk.clock.forward(desk.validation.hold_ms)
    desk.shard.tick()
    assert journal.calls == [("append", ["ClaimRejected"]), ("commit", 5), ("idle",)]
    assert desk.take_late() == [(0, 0, "sequence_gap")]


def test_nothing_is_written_where_nothing_happened(watched):
    desk, journal = watched
    desk.submit(spoiled(item("a", 10, 1)), item("nobody", 10, 1))
    desk.shard.execute([])
    assert journal.calls == []


class Refusing:
    """A journal whose disk refuses one thing."""

    def __init__(self, journal, step, error):
        self._journal = journal
        self._step = step
        self._error = error
        self.armed = False

    def __getattr__(self, name):
        if self.armed and name == self._step:
            raise self._error
        return getattr(self._journal, name)


@pytest.mark.parametrize("step", ["append", "commit"])
@pytest.mark.parametrize("error", [OSError(5, "EIO"), MemoryError()])
def test_a_disk_that_refuses_leaves_nobody_answered(tmp_path, step, error):
    seen = SimpleNamespace()

    def wrap(journal):
        seen.journal = Refusing(journal, step, error)
        return seen.journal

    desk = Desk(tmp_path, wrap=wrap)
    desk.open("a")
    seen.journal.armed = True
    with pytest.raises(type(error)):
        desk.submit(item("a", 10, 1))
    with pytest.raises(type(error)):
        desk.open("b")


# Who may ask, and when ----------------------------------------------------------------------------

OTHER_KEY = bytes(32)
BATCH = [item("a", 10, 1), item("b", 20, 1)]
OTHER = [item("a", 11, 1), item("b", 20, 1)]


@pytest.mark.parametrize(
    "sealed",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\1\1\0\1", id="no seal"),
        pytest.param(b"\1\1\0\1" + bytes(32), id="zeros for a seal"),
        pytest.param(VerifierWorker(OTHER_KEY).verify(blob_of(BATCH)), id="a foreign key"),
        pytest.param(VERIFIER.verify(blob_of(OTHER)), id="another batch"),
        pytest.param(VERIFIER.verify(blob_of(BATCH[::-1])), id="another order"),
        pytest.param(VERIFIER.verify(blob_of(BATCH[:1])), id="a part of it"),
        pytest.param(b"\0" + VERIFIER.verify(blob_of(BATCH))[1:], id="a verdict turned"),
        pytest.param(seal(SEAL_KEY, blob_of(BATCH), b"\1\1\1\1"), id="a verifier that says yes"),
        pytest.param(seal(SEAL_KEY, blob_of(BATCH), b"\1\1\0\0"), id="a verifier that says no"),
        pytest.param(seal(SEAL_KEY, blob_of(BATCH), b"\2\1\0\1"), id="a verdict of 2"),
        pytest.param(seal(SEAL_KEY, blob_of(BATCH), b"\1\0\1"), id="a verdict too few"),
    ],
)
def test_without_a_true_seal_on_these_very_claims_nothing_is_looked_at(desk, sealed):
    same = unchanged(desk)
    reply = desk.send(BATCH, sealed=sealed)
    assert (reply.refused, reply.answers) == (Refused.FOREIGN_VERDICTS, [])
    assert same()
    assert desk.shard.verdicts_refused == 1
    assert desk.words(*BATCH) == ["accepted", "accepted"]


@pytest.mark.parametrize("blob", [b"", b"\xc0", b"\x93\1\2\3", blob_of(BATCH)[:-1] + b"\0"])
def test_a_true_seal_on_no_batch_is_refused(desk, blob):
    same = unchanged(desk)
    assert desk.send([], blob=blob, sealed=seal(SEAL_KEY, blob, b"\0\1")).refused is not None
    assert same()


def test_a_batch_without_probes_proves_nothing(desk):
    from msgspec.msgpack import encode

    blob = encode(BATCH)
    reply = desk.send(BATCH, blob=blob, sealed=seal(SEAL_KEY, blob, b"\1\1"))
    assert reply.refused is Refused.FOREIGN_VERDICTS


@pytest.mark.parametrize("away", [-1, 1])
def test_a_call_for_another_incarnation_is_refused(desk, away):
    same = unchanged(desk)
    assert desk.send(BATCH, epoch=desk.shard.epoch + away).refused is Refused.STALE_EPOCH
    assert same()


@pytest.mark.parametrize("turn", [0, 2])
def test_a_batch_out_of_turn_is_refused(desk, turn):
    desk.submit(item("a", 5, 1))
    same = unchanged(desk)
    assert desk.send([item("a", 10, 2)], turn=turn).refused is Refused.OUT_OF_TURN
    assert same()
    assert desk.words(item("a", 10, 2)) == ["accepted"]


def test_a_refused_batch_does_not_use_up_its_turn(desk):
    assert desk.send(BATCH, sealed=b"").refused is Refused.FOREIGN_VERDICTS
    assert desk.send(BATCH, turn=0).refused is None


def test_turns_are_counted_for_each_gateway_and_begin_with_a_greeting(desk):
    assert desk.shard.commit("stranger", desk.shard.epoch, 0, b"", b"").refused is (
        Refused.OUT_OF_TURN
    )
    desk.submit(item("a", 1, 1))
    assert word(desk.submit(item("a", 2, 2), gateway="gateway-b")[0]) == "accepted"
    desk.shard.greet(GATEWAY, 7)
    assert desk.send(BATCH, turn=1).refused is Refused.OUT_OF_TURN
    assert desk.send(BATCH, turn=7).refused is None


def test_a_new_incarnation_has_a_new_epoch_and_knows_no_turns(desk):
    before = desk.shard.epoch
    desk.restart()
    assert desk.shard.epoch > before
    blob = blob_of(BATCH)
    stale = desk.shard.commit(GATEWAY, before, 0, blob, VERIFIER.verify(blob))
    assert stale.refused is Refused.STALE_EPOCH


# One claim ----------------------------------------------------------------------------------------


def test_both_curves_are_taken(desk):
    names = [f"channel {number}" for number in range(8)]
    desk.open(*names)
    assert {payer_of(name) for name in names} == {ED25519, SECP256K1}
    assert desk.words(*(item(name, 10, 1) for name in names)) == ["accepted"] * 8


def test_a_claim_checked_with_another_key_is_not_taken(desk):
    stranger = ED25519 if payer_of("a") is SECP256K1 else SECP256K1
    same = unchanged(desk)
    foreign = item("a", 10, 1, public_key=stranger.public_key, signature=stranger_signature("a"))
    assert VERIFIER.verify(blob_of([foreign]))[0] == 1
    assert desk.words(foreign) == ["wrong_key"]
    assert same()


def stranger_signature(name):
    from engine.core.claim import signing_message

    stranger = ED25519 if payer_of(name) is SECP256K1 else SECP256K1
    return stranger.sign(signing_message(channel_id(name), 10))


def test_a_claim_of_one_channel_is_worth_nothing_on_another(desk):
    same = unchanged(desk)
    desk.open("c", public_key=payer_of("a").public_key)
    moved = item("a", 10, 1, channel_id=channel_id("c"))
    assert desk.words(moved) == ["bad_signature"]
    assert not same()  # the opening, and nothing else
    assert desk.view("c").channel.claimed == 0


def test_what_nobody_signed_leaves_no_trace(desk):
    same = unchanged(desk)
    batch = [spoiled(item("a", 10, 1)), item("nobody", 10, 1), item("a", 10, None)]
    assert desk.words(*batch) == ["bad_signature", "unknown_channel", "malformed"]
    assert same()


def test_every_signed_refusal_is_written_down_with_its_code(desk):
    desk.open("closed", expiration=NOON)
    desk.submit(item("a", 100, 1))
    refused = {
        "amount_not_increasing": item("a", 100, 2),
        "amount_over_capacity": item("a", 1_001, 2),
        "sequence_conflict": item("a", 101, 1),
        "conflict": item("a", 200, 2, previous=99),
        "clock_skew": item("a", 200, 2, sent_at=NOON + 301_000_000_000),
        "channel_expired": item("closed", 5, 1),
    }
    assert desk.words(*refused.values()) == list(refused)
    written = [event for event in desk.events() if type(event) is ClaimRejected]
    assert [event.code.value for event in written] == list(refused)
    assert [event.signature for event in written] == [one.signature for one in refused.values()]
    assert [event.amount for event in written] == [one.amount for one in refused.values()]


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        (State.PENDING, []),
        (State.SETTLING, [ConfirmFunding, RequestClose]),
        (State.DISPUTED, [ConfirmFunding, OpenDispute]),
        (State.SETTLED, [ConfirmFunding, RequestClose, SettleChannel]),
    ],
)
def test_only_an_active_channel_takes_claims(desk, state, commands):
    desk.open("c", funded=False)
    for kind in commands:
        desk.do(kind, "c")
    (answer,) = desk.submit(item("c", 10, 1))
    assert (answer.code, answer.detail) == (RejectCode.NOT_ACTIVE, state.value)
    assert desk.kinds()[-1] == "ClaimRejected"


def test_an_answer_carries_the_marks_of_the_channel(desk):
    first, second, third = desk.submit(item("a", 10, 1), item("a", 25, 2), item("a", 9, 3))
    assert (first.sequence, first.position, first.claimed, first.available) == (1, 5, 10, 990)
    assert (second.sequence, second.position, second.claimed) == (2, 6, 25)
    assert (third.expected, third.actual, third.claimed) == (25, 9, 25)


# Commands -----------------------------------------------------------------------------------------


def test_opening_twice_on_the_same_terms_is_done_once(desk):
    (again,) = desk.open("a")
    assert (again.rejected, again.created) == (None, False)
    assert again.view.channel.version == 2
    (other,) = desk.open("a", capacity=2_000)
    assert other.rejected.code is RejectCode.CONFLICT
    assert desk.shard.channels == 2


def test_opening_again_answers_with_the_channel_as_it_is_now(desk):
    desk.submit(item("a", 10, 1))
    desk.do(RequestClose, "a")
    (again,) = desk.open("a")
    assert again.rejected is None
    assert (again.view.channel.state, again.view.channel.claimed) == (State.SETTLING, 10)


def test_a_command_for_no_channel_is_answered(desk):
    assert desk.do(RequestClose, "nobody").rejected.code is RejectCode.UNKNOWN_CHANNEL


def test_a_claim_is_no_command_whatever_it_says_of_its_checks(desk):
    """Gateways hold no seal key: what they say of a signature is worth nothing."""
    same = unchanged(desk)
    for name in ("a", "nobody"):
        outcome = desk.do(
            SubmitClaim, name, sequence=1, amount=999, signature=b"?", checks=Checks.ALL
        )
        assert outcome.rejected.code is RejectCode.MALFORMED
    assert same()


def test_funds_are_added_at_most_once_where_the_sender_says_what_they_were(desk):
    assert desk.do(FundChannel, "a", amount=500, previous=1_000).rejected is None
    again = desk.do(FundChannel, "a", amount=500, previous=1_000)
    assert again.rejected.code is RejectCode.CONFLICT
    assert again.view.channel.capacity == 1_500


def test_a_whole_life_is_in_the_log(desk):
    desk.open("life", funded=False)
    start = len(desk.events())
    desk.do(ConfirmFunding, "life")
    desk.submit(item("life", 10, 1))
    desk.do(OpenDispute, "life", reason="goods never came")
    desk.do(ResolveDispute, "life", outcome=State.ACTIVE)
    desk.do(RequestClose, "life")
    desk.do(SettleChannel, "life")
    assert desk.kinds()[start:] == [
        "FundingConfirmed", "ClaimReceived", "DisputeOpened", "ChannelReinstated",
        "CloseRequested", "ChannelSettled",
    ]  # fmt: skip
    settled = desk.view("life").channel
    assert (settled.redeemed, settled.returned) == (10, 990)


# Reading ------------------------------------------------------------------------------------------


def test_reading_keeps_the_order_asked_for(desk):
    ids = [channel_id("b"), channel_id("nobody"), channel_id("a")]
    views = desk.shard.read(ids)
    assert [view and view.channel.terms.channel_id for view in views] == [ids[0], None, ids[2]]


def test_pages_walk_through_every_channel_once_and_see_new_ones(tmp_path):
    desk = Desk(tmp_path)
    names = [f"channel {number}" for number in range(10)]
    desk.open(*names[:5])
    assert len(desk.shard.page(b"", 100, "")) == 5
    desk.open(*names[5:])
    seen, after = [], b""
    while views := desk.shard.page(after, 3, ""):
        seen += [view.channel.terms.channel_id for view in views]
        after = seen[-1]
    assert seen == sorted(channel_id(name) for name in names)


def test_a_page_of_one_state_holds_no_other(desk):
    desk.do(RequestClose, "b")
    assert [view.channel.state for view in desk.shard.page(b"", 9, "Settling")] == ["Settling"]
    assert [view.channel.state for view in desk.shard.page(b"", 9, "Active")] == ["Active"]
    assert desk.shard.page(b"", 9, "Disputed") == []


def test_a_view_says_where_the_channel_and_its_best_claim_stand_in_the_log(desk):
    desk.submit(item("a", 10, 1))
    desk.submit(item("a", 5, 2))
    view = desk.view("a")
    assert (view.claim_position, view.position) == (5, 6)


# Time ---------------------------------------------------------------------------------------------


def test_a_clock_that_steps_back_never_makes_the_log_step_back(desk):
    desk.submit(item("a", 10, 1))
    desk.clock.forward(-3_600_000)
    desk.submit(item("a", 20, 2))
    desk.restart()
    desk.clock.forward(-3_600_000)
    desk.submit(item("a", 30, 3))
    times = [event.at for event in desk.events()]
    assert times == sorted(times)
    assert times[-1] == NOON


# Late decisions -----------------------------------------------------------------------------------


def test_a_late_decision_goes_to_the_gateway_that_asked(desk):
    desk.submit(item("a", 20, 2), gateway="gateway-b")
    desk.submit(item("b", 1, 1), gateway="gateway-b")
    desk.submit(item("b", 2, 2), item("a", 10, 1))
    assert desk.take_late() == []
    assert desk.take_late("gateway-b") == [(0, 0, "accepted")]
    assert desk.take_late("gateway-b") == []


def test_two_gateways_that_sent_the_same_early_claim_are_both_told(desk):
    for gateway in ("gateway-b", "gateway-c"):
        desk.submit(item("a", 20, 2), gateway=gateway)
    desk.submit(item("a", 10, 1))
    assert desk.take_late("gateway-b") == desk.take_late("gateway-c") == [(0, 0, "accepted")]
    assert [event.amount for event in desk.events() if type(event) is ClaimReceived] == [10, 20]


def test_the_outbox_of_a_gateway_that_never_comes_is_bounded(tmp_path):
    desk = Desk(tmp_path, ValidationOptions(hold_claims_per_channel_max=1))
    held = SimpleNamespace(claim=None, tickets=[("gone", 0, 0)] * (OUTBOX_MAX + 5))
    desk.shard._tell_later(held.tickets, SimpleNamespace(status=Status.REJECTED))
    handed = iter(lambda: desk.shard.collect("gone"), [])
    assert [len(late) for late in handed] == [LATE_MAX] * (OUTBOX_MAX // LATE_MAX)


def test_as_many_late_decisions_as_a_reply_has_fit_a_frame():
    large = (1 << 63) - 1
    widest = max(map(len, RejectCode))
    answer = Answer(Status.REJECTED, "x" * widest, *[large] * 6, "x" * 40, (), large)
    late = encode([Late(large, 65_535, answer)] * LATE_MAX)
    assert len(late) * 2 < FRAME_BYTES_MAX


@pytest.mark.parametrize(
    ("kind", "state"), [(RequestClose, State.SETTLING), (OpenDispute, State.DISPUTED)]
)
def test_held_claims_are_given_up_when_the_channel_stops_taking_claims(desk, kind, state):
    desk.submit(item("a", 30, 3), item("a", 20, 2), item("b", 20, 2))
    desk.do(kind, "a")
    assert desk.take_late() == [(0, 1, "not_active"), (0, 0, "not_active")]
    assert [event.code for event in desk.events() if type(event) is ClaimRejected] == (
        [RejectCode.NOT_ACTIVE] * 2
    )
    assert desk.shard.held == 1
