"""What a gateway knows of channels: durable when it came, the newest wins, bounded."""

import time
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from engine.channels.answers import accepted, refused_unseen
from engine.channels.intake.views import Views
from engine.channels.messages import Answer, ChannelView, Status
from engine.core.commands import FundChannel
from engine.core.rejections import RejectCode, Rejected
from engine.core.types import State
from tests.builders import CHANNEL_ID, claim_command, make_channel, run
from tests.channels.world import item

LANE = SimpleNamespace(shard=SimpleNamespace(number=5))
OTHER_ID = bytes(32)


def view(channel, position):
    return ChannelView(channel, position, 0)


def claim_of(amount, channel_id=CHANNEL_ID):
    return item("a", amount, channel_id=channel_id)


@pytest.fixture
def views():
    views = Views(2)
    views.put(LANE, view(make_channel(claimed=100), 3))
    return views


def claimed(views):
    return views.get(CHANNEL_ID).balance(CHANNEL_ID).claimed


def test_a_balance_says_where_it_stands_and_how_old_it_is(views):
    balance = views.get(CHANNEL_ID).balance(CHANNEL_ID)
    assert (balance.shard, balance.position, balance.sequence) == (5, 3, 1)
    assert (balance.claimed, balance.available, balance.capacity) == (100, 900, 1_000)
    assert balance.age_s >= 0


def test_an_older_view_never_replaces_a_newer_one(views):
    channel = run(make_channel(claimed=100), claim_command(2, 200))
    views.put(LANE, view(channel, 4))
    views.put(LANE, view(make_channel(claimed=100), 3))
    assert claimed(views) == 200


def test_accepted_claims_are_taken_in_whatever_order_they_come(views):
    first = run(make_channel(claimed=100), claim_command(2, 200))
    second = run(first, claim_command(3, 300))
    answers = [accepted(second, 5), accepted(first, 4)]
    views.take_answers([claim_of(300), claim_of(200)], answers)
    balance = views.get(CHANNEL_ID).balance(CHANNEL_ID)
    assert (balance.claimed, balance.sequence, balance.position) == (300, 3, 5)


def test_a_funding_that_is_heard_of_late_is_in_the_capacity_all_the_same(views):
    funded = run(make_channel(claimed=100), FundChannel(channel_id=CHANNEL_ID, amount=500))
    claimed_after = run(funded, claim_command(2, 200))
    views.take_answers([claim_of(200)], [accepted(claimed_after, 5)])
    views.put(LANE, view(funded, 4))
    balance = views.get(CHANNEL_ID).balance(CHANNEL_ID)
    assert (balance.claimed, balance.available, balance.capacity) == (200, 1_300, 1_500)


def test_a_settled_channel_keeps_its_capacity(views):
    views.put(LANE, view(make_channel(State.SETTLED, claimed=100, redeemed=70), 5))
    balance = views.get(CHANNEL_ID).balance(CHANNEL_ID)
    assert (balance.claimed, balance.available, balance.redeemed) == (100, 0, 70)
    assert balance.capacity == 1_000


def test_refusals_and_early_claims_change_nothing(views):
    refusal = refused_unseen(Rejected(RejectCode.AMOUNT_NOT_INCREASING))
    held = Answer(Status.BUFFERED, claimed=900, position=9)
    views.take_answers([claim_of(200), claim_of(900)], [refusal, held])
    assert claimed(views) == 100


def test_a_claim_that_was_taken_before_its_answer_got_lost_is_the_mark_too(views):
    """After a crash the same claims come back as duplicates; no other answer will tell of them."""
    told = []
    views.listen(CHANNEL_ID, told.append)
    answers = [
        Answer(Status.DUPLICATE, None, 2, 4, 300, 700),
        Answer(Status.DUPLICATE, None, 3, 5, 300, 700),
    ]
    views.take_answers([claim_of(200), claim_of(300)], answers)
    assert [(seen.claimed, seen.sequence, seen.position) for seen in told] == [(300, 3, 5)]


def test_an_old_duplicate_changes_nothing(views):
    views.take_answers([claim_of(100)], [Answer(Status.DUPLICATE, None, 1, 3, 100, 900)])
    views.take_answers([claim_of(50)], [Answer(Status.DUPLICATE, None, 1, 2, 100, 900)])
    assert claimed(views) == 100


def test_the_table_is_bounded_and_the_longest_known_goes_first(views):
    for number in (1, 2):
        views.put(LANE, view(make_channel(channel_id=bytes([number]) * 32), 9))
    assert len(views) == 2
    assert views.get(CHANNEL_ID) is None
    views.take_answers([claim_of(200)], [accepted(make_channel(claimed=200), 4)])
    assert len(views) == 2


def test_a_full_table_takes_a_channel_in_about_the_time_that_one_with_room_does():
    count, more = 100_000, 60_000
    channel = make_channel()
    shown = [
        view(replace(channel, terms=replace(channel.terms, channel_id=number.to_bytes(32))), 3)
        for number in range(count + more)
    ]
    views = Views(count)
    began = time.process_time()
    for one in shown[:count]:
        views.put(LANE, one)
    filled = time.process_time()
    for one in shown[count:]:
        views.put(LANE, one)
    ended = time.process_time()
    assert len(views) == count
    assert (ended - filled) / more < 5 * (filled - began) / count


def test_listeners_hear_every_change_of_their_channel_and_no_other(views):
    told, gone = [], []
    views.listen(CHANNEL_ID, told.append)
    views.listen(CHANNEL_ID, gone.append)
    views.unlisten(CHANNEL_ID, gone.append)
    views.unlisten(OTHER_ID, gone.append)
    views.take_answers([claim_of(200)], [accepted(make_channel(claimed=200), 4)])
    views.put(LANE, view(make_channel(State.SETTLING, claimed=200), 5))
    views.put(LANE, view(make_channel(channel_id=OTHER_ID), 6))
    views.put(LANE, view(make_channel(claimed=100), 3))
    assert [seen.position for seen in told] == [4, 5]


def test_a_listener_that_left_is_not_called():
    views, told = Views(2), []
    listener = told.append
    views.listen(CHANNEL_ID, listener)
    views.unlisten(CHANNEL_ID, listener)
    views.put(LANE, view(make_channel(), 2))
    assert told == []
