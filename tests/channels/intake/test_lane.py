"""A lane: in order and bounded, whatever dies on the way."""

import asyncio

import msgspec
import pytest

from engine.channels.intake.lane import ATTEMPTS_MAX
from engine.channels.messages import Refused, Reply, Status, encode
from engine.core.events import ClaimReceived
from engine.core.types import Sequencing
from engine.verify.worker import VerifierWorker
from tests.channels.mortal import QUICK, MortalShard, Office
from tests.channels.world import channel_id, item, spoiled, word

CLAIMS = 40


@pytest.fixture
def shard(tmp_path):
    shard = MortalShard(tmp_path)
    shard.desk.open("a", "b")
    shard.desk.open("c", sequencing=Sequencing.AMOUNT)
    return shard


def numbered(name, count, start=1):
    return [item(name, number, number) for number in range(start, start + count)]


def by_amount(count):
    return [item("c", number) for number in range(1, count + 1)]


def taken(desk, name):
    """Return the amounts accepted on a channel, in the order of the log."""
    wanted = channel_id(name)
    return [
        event.amount
        for event in desk.events()
        if type(event) is ClaimReceived and event.channel_id == wanted
    ]


def options(**changes):
    return msgspec.structs.replace(QUICK, **changes)


async def test_claims_are_answered_each_in_its_place(shard):
    async with Office(shard).open() as office:
        told = office.submit(item("a", 1, 1), spoiled(item("b", 1, 1)), item("nobody", 1, 1))
        assert await told.words() == ["accepted", "bad_signature", "unknown_channel"]
        assert told.times_done == 1
        assert [answer for _, answer in office.seen] == await told.answers()


async def test_batches_keep_their_order_and_their_size(shard):
    async with Office(shard).open() as office:
        told = [office.submit(one) for one in numbered("a", CLAIMS)]
        assert [await one.words() for one in told] == [["accepted"]] * CLAIMS
        batches = [call for call in shard.asked if call[0] == "commit"]
        assert len(batches) == CLAIMS / QUICK.batch_claims_max
        assert [call[3] for call in batches] == list(range(len(batches)))


async def test_verifiers_that_answer_in_another_order_change_nothing(shard):
    """Batches are checked side by side; they reach the shard as they were cut."""
    first = asyncio.Event()
    office = Office(shard)
    verify = office.verifier.verify

    async def slow_first(blob):
        if office.verifier.calls == 0:
            office.verifier.calls += 1
            await first.wait()
        elif office.verifier.calls == 3:
            first.set()
        return await verify(blob)

    office.verifier.verify = slow_first
    async with office.open():
        told = office.submit(*by_amount(16))
        assert await told.words() == ["accepted"] * 16


# The shard dies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
async def test_nothing_is_lost_or_doubled_or_reordered_when_the_shard_dies(shard, when, every):
    """Every n-th commit kills the process, before or after the claims were taken."""
    shard.trouble = lambda step, count: (
        when if step == "commit" and count % (every + 1) == 0 else ""
    )
    async with Office(shard).open() as office:
        told = office.submit(*numbered("a", CLAIMS), *by_amount(CLAIMS))
        assert set(await told.words()) <= {"accepted", "duplicate"}
        assert taken(shard.desk, "a") == taken(shard.desk, "c") == list(range(1, CLAIMS + 1))
        positions = [answer.position for answer in await told.answers()]
        log = shard.desk.events()
        assert [log[position - 1].amount for position in positions] == [
            one.amount for one in told.items
        ]
        assert shard.deaths > 0


async def test_the_same_claims_are_sent_to_the_next_incarnation(shard):
    shard.trouble = lambda step, count: "after" if (step, count) == ("commit", 0) else ""
    async with Office(shard).open() as office:
        assert await office.submit(item("a", 1, 1)).words() == ["duplicate"]
        first, second = (call for call in shard.asked if call[0] == "commit")
        assert first[4:] == second[4:]
        assert second[2] > first[2]
        assert office.lane.statistics().reconnects == 2


async def test_an_old_incarnation_is_never_believed(shard):
    """The shard starts again between two batches and nobody was told."""
    async with Office(shard).open() as office:
        assert await office.submit(item("a", 1, 1)).words() == ["accepted"]
        shard.desk.restart()
        assert await office.submit(item("a", 2, 2)).words() == ["accepted"]
        assert office.lane.statistics().reconnects == 2


async def test_a_batch_that_kills_every_shard_it_meets_is_given_up(shard):
    """Else one claim nobody can decide would hold up all the others for ever."""
    poison = item("b", 1, 1)

    def kills(step, count):
        blob = shard.asked[-1][4] if step == "commit" else b""
        return "before" if poison.signature in blob else ""

    shard.trouble = kills
    async with Office(shard, options(batch_claims_max=1)).open() as office:
        told = [office.submit(one) for one in (poison, item("a", 1, 1), item("a", 2, 2))]
        assert await told[0].words() == ["unavailable"]
        assert [await one.words() for one in told[1:]] == [["accepted"]] * 2
        assert shard.deaths == ATTEMPTS_MAX


async def test_a_shard_that_stays_down_is_said_to_be_unavailable(shard):
    async with Office(shard, options(unavailable_after_ms=1)).open() as office:
        await office.lane.wait_up()
        shard.down = True
        told = office.submit(*numbered("a", 12))
        assert await told.words() == ["unavailable"] * 12
        assert [word(answer) for _, answer in office.seen] == ["unavailable"] * 12
        assert not office.lane.is_up
        assert await office.submit(item("a", 1, 1)).words() == ["unavailable"]
        await office.lane.idle()
        assert len(taken(shard.desk, "a")) == 0
        shard.down = False
        await asyncio.wait_for(office.lane.wait_up(), 10)
        assert await office.submit(*numbered("a", 12)).words() == ["accepted"] * 12


# Order and trust ----------------------------------------------------------------------------------


async def test_a_batch_out_of_turn_is_sent_again_with_all_behind_it(shard):
    def forgets(step, count):
        if (step, count) == ("commit", 1):
            shard.desk.shard.greet("gateway-a", 77)
        return ""

    shard.trouble = forgets
    async with Office(shard).open() as office:
        assert await office.submit(*by_amount(CLAIMS)).words() == ["accepted"] * CLAIMS
        assert shard.deaths == 0


async def test_verdicts_under_a_foreign_seal_are_asked_for_again(shard):
    office = Office(shard)
    office.verifier.answers.append(VerifierWorker(bytes(32)).verify)
    async with office.open():
        assert await office.submit(*by_amount(12)).words() == ["accepted"] * 12
        assert office.verifier.calls == 4
        assert shard.desk.shard.verdicts_refused == 1


async def test_a_verifier_with_another_key_is_replaced_and_the_claim_is_accepted(shard):
    office = Office(shard)
    honest, restart = office.verifier.verify, office.verifier.restart

    async def replaced():
        await restart()
        office.verifier.verify = honest

    office.verifier.verify = async_of(VerifierWorker(bytes(32)).verify)
    office.verifier.restart = replaced
    async with office.open():
        assert await office.submit(item("a", 1, 1)).words() == ["accepted"]
        assert shard.desk.shard.verdicts_refused == 1


async def test_verdicts_that_are_never_believed_are_given_up(shard):
    office = Office(shard)
    office.verifier.verify = async_of(VerifierWorker(bytes(32)).verify)
    async with office.open():
        assert await office.submit(item("a", 1, 1)).words() == ["unavailable"]
        assert shard.desk.shard.verdicts_refused == ATTEMPTS_MAX
        assert shard.desk.shard.position == 6


def async_of(function):
    async def answer(blob):
        return function(blob)

    return answer


async def test_claims_nobody_can_check_are_unavailable_and_the_lane_goes_on(shard):
    async with Office(shard).open() as office:
        office.verifier.alive.clear()
        told = office.submit(*numbered("a", 8))
        assert await told.words() == ["unavailable"] * 8
        assert "commit" not in shard.calls
        office.verifier.alive.set()
        assert await office.submit(*numbered("a", 8)).words() == ["accepted"] * 8


async def test_what_no_gateway_may_let_through_is_answered_and_the_lane_goes_on(shard):
    async with Office(shard).open() as office:
        for one in (item("a", 1, 1, sent_at=2**64), item("a", 1, 1, previous=bytes(200_000))):
            assert await office.submit(one).words() == ["malformed"]
        assert await office.submit(item("a", 1, 1)).words() == ["accepted"]
        await office.lane.idle()


async def test_a_shard_that_calls_a_batch_malformed_is_believed(shard):
    refusal = encode(Reply(Refused.MALFORMED))
    shard.trouble = lambda step, count: refusal if (step, count) == ("commit", 0) else ""
    async with Office(shard).open() as office:
        assert await office.submit(item("a", 1, 1)).words() == ["unavailable"]
        assert await office.submit(item("a", 1, 1)).words() == ["accepted"]


# Bounds -------------------------------------------------------------------------------------------


async def test_what_does_not_fit_is_refused_at_once_and_the_rest_is_answered(shard):
    shard.trouble = lambda step, count: "hold" if (step, count) == ("commit", 0) else ""
    limits = options(queue_claims_max=10, batches_max=2)
    async with Office(shard, limits).open() as office:
        first = office.submit(*numbered("a", 8))
        await asyncio.wait_for(shard.held.wait(), 10)
        second = office.submit(*numbered("a", 4, 9))
        third = office.submit(*numbered("a", 8, 13))
        fourth = office.submit(*numbered("b", 3))
        assert await fourth.words() == ["overloaded"] * 3
        assert [word(answer) for _, answer in office.seen[-3:]] == ["overloaded"] * 3
        statistics = office.lane.statistics()
        assert (statistics.queued, statistics.under_way) == (10, 2)
        for _ in range(1_000):
            office.submit(item("b", 1, 1))
        assert office.lane.statistics().queued == 10
        shard.release()
        assert await first.words() == ["accepted"] * 8
        assert await second.words() == ["accepted"] * 4
        assert await third.words() == ["accepted"] * 6 + ["overloaded"] * 2


async def test_no_more_commits_are_under_way_than_allowed(shard):
    shard.trouble = lambda step, count: "hold" if (step, count) == ("commit", 0) else ""
    async with Office(shard, options(commits_max=2, batches_max=6)).open() as office:
        told = office.submit(*numbered("a", CLAIMS))
        await asyncio.wait_for(shard.held.wait(), 10)
        for _ in range(50):
            await asyncio.sleep(0)
        assert sum(step == "commit" for step, *_ in shard._queue) == 2
        shard.release()
        assert await told.words() == ["accepted"] * CLAIMS


# Early claims -------------------------------------------------------------------------------------


async def test_a_buffered_claim_is_decided_with_the_batch_that_fills_the_gap(shard):
    async with Office(shard).open() as office:
        early = office.submit(item("a", 2, 2), item("b", 1, 1))
        assert await early.words() == ["buffered", "accepted"]
        assert await office.submit(item("a", 1, 1)).words() == ["accepted"]
        assert await early.words_later() == ["accepted", "accepted"]
        assert office.lane.statistics().buffered == 0
        assert [answer.status for one, answer in office.seen if one.amount == 2] == [
            Status.BUFFERED, Status.ACCEPTED,
        ]  # fmt: skip


async def test_a_buffered_claim_is_decided_though_no_other_batch_comes(shard):
    async with Office(shard).open() as office:
        early = office.submit(item("a", 2, 2))
        assert await early.words() == ["buffered"]
        shard.desk.clock.forward(2_000)
        shard.desk.shard.tick()
        assert await early.words_later() == ["sequence_gap"]


async def test_early_and_missing_in_one_submission(shard):
    async with Office(shard).open() as office:
        told = office.submit(item("a", 2, 2), item("a", 1, 1))
        assert await told.words() == ["buffered", "accepted"]
        assert await told.words_later() == ["accepted", "accepted"]


async def test_a_buffered_claim_is_unavailable_after_a_restart_and_may_be_sent_again(shard):
    async with Office(shard).open() as office:
        early = office.submit(item("a", 2, 2))
        assert await early.words() == ["buffered"]
        shard.desk.restart()
        assert await office.submit(item("b", 1, 1)).words() == ["accepted"]
        assert await early.words_later() == ["unavailable"]
        assert office.lane.statistics().buffered == 0
        told = office.submit(item("a", 2, 2), item("a", 1, 1))
        await told.words()
        assert await told.words_later() == ["accepted", "accepted"]


async def test_early_claims_kept_track_of_are_bounded_and_forgotten_ones_harm_nobody(shard):
    async with Office(shard, options(buffered_max=2)).open() as office:
        early = office.submit(*numbered("a", 4, 2))
        assert await early.words() == ["buffered"] * 4
        assert office.lane.statistics().buffered == 2
        assert await office.submit(item("a", 1, 1)).words() == ["accepted"]
        await early.words_later()
        assert office.lane.statistics().buffered == 0
        assert taken(shard.desk, "a") == [1, 2, 3, 4, 5]


# The end ------------------------------------------------------------------------------------------


async def test_a_lane_that_is_stopped_with_claims_under_way_leaves_no_task(shard):
    shard.trouble = lambda step, count: "hold" if (step, count) == ("commit", 0) else ""
    async with Office(shard).open() as office:
        office.submit(*numbered("a", CLAIMS))
        await asyncio.wait_for(shard.held.wait(), 10)


async def test_a_lane_is_idle_when_all_is_answered(shard):
    async with Office(shard).open() as office:
        told = office.submit(*numbered("a", CLAIMS))
        await asyncio.wait_for(office.lane.idle(), 10)
        assert told.whole.is_set()
