"""The history decides what became of a claim whose answer was lost and is not repeated."""

import pytest

from engine.client import Problem, Refused, Status
from engine.client import lookup as lookup_module
from engine.client.lookup import look_up
from engine.client.values import Hex, PastClaim, Result
from engine.core.claim import Claim

CHANNEL = bytes(32)
USED = {True: "sequence_used", False: "amount_not_increasing"}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(lookup_module, "PAUSE_S", 0)


def past(sequence: int, amount: int) -> PastClaim:
    return PastClaim(
        sequence=sequence, amount=amount, signature=Hex(b"s"), position=f"0-{sequence}"
    )


class History:
    """Shows one more claim each time it is read, and remembers where reading began."""

    def __init__(self, *claims: PastClaim, shown: int = 99) -> None:
        self.claims = claims
        self.shown = shown
        self.begun: list[int] = []

    async def __call__(self, channel_id: bytes, after: int):
        self.begun.append(after)
        for found in self.claims[: self.shown]:
            if found.sequence > after:
                yield found
        self.shown += 1


async def ask(history, *claims: Claim, durable: int = 0) -> list[Result]:
    """Look up all but the first `durable` of `claims`, which were accepted."""
    results = [
        Result(c.channel_id, n, c.amount, Status.ACCEPTED)
        if n <= durable
        else Result(
            c.channel_id, c.sequence, c.amount, Status.REJECTED, USED[c.sequence is not None], "why"
        )
        for n, c in enumerate(claims, 1)
    ]
    await look_up(claims, results, range(durable, len(claims)), history)
    return results


def claim(amount: int, sequence: int | None = None) -> Claim:
    return Claim(CHANNEL, amount, b"s", sequence)


@pytest.mark.parametrize("numbered", [True, False])
async def test_what_the_history_has_is_a_duplicate_with_its_position(numbered):
    (result,) = await ask(History(past(1, 5), past(2, 9)), claim(9, 2 if numbered else None))
    assert (result.status, result.sequence, result.position) == (Status.DUPLICATE, 2, "0-2")
    assert (result.code, result.message) == (None, None)


@pytest.mark.parametrize("asked", [claim(8, 1), claim(9, 1), claim(8), claim(5, 2)])
async def test_what_the_history_passed_without_is_refused_indeed(asked):
    history = History(past(1, 5), past(2, 9))
    (result,) = await ask(history, asked)
    assert result.code == USED[asked.sequence is not None]
    assert len(history.begun) == 1


@pytest.mark.parametrize("numbered", [True, False])
async def test_what_the_history_does_not_show_yet_is_waited_for(numbered):
    history = History(past(1, 5), past(2, 9), past(3, 11), shown=1)
    (result,) = await ask(history, claim(11, 3 if numbered else None))
    assert result.status is Status.DUPLICATE
    assert len(history.begun) == 3


async def test_what_cannot_be_found_out_is_unknown():
    (result,) = await ask(History(past(1, 5)), claim(9, 2))
    assert (result.code, result.retryable) == ("unavailable", True)
    assert "outcome unknown" in (result.message or "")


@pytest.mark.parametrize("numbered", [True, False])
async def test_what_stood_where_the_history_was_cut_is_unknown_and_the_rest_is_settled(numbered):
    history = History(past(3, 30), past(4, 40))
    asked = [claim(amount, number if numbered else None) for number, amount in ((2, 20), (4, 40))]
    lost, found = await ask(history, *asked)
    assert (lost.status, lost.code, lost.retryable) == (Status.REJECTED, "unavailable", True)
    assert (found.status, found.position) == (Status.DUPLICATE, "0-4")
    assert len(history.begun) == 1


async def test_a_history_that_cannot_be_had_leaves_the_outcome_unknown():
    async def history(channel_id: bytes, after: int):
        raise Refused(Problem(status=503))
        yield

    (result,) = await ask(history, claim(9, 2))
    assert result.code == "unavailable"


@pytest.mark.parametrize(
    ("claims", "durable", "begins"),
    [
        ([claim(9, 7), claim(5, 3)], 0, 2),
        ([claim(5), claim(9)], 0, 0),
        ([claim(1), claim(2), claim(9)], 2, 2),
    ],
)
async def test_reading_begins_right_before_the_first_in_doubt(claims, durable, begins):
    history = History(*(past(n, n) for n in range(1, 10)))
    await ask(history, *claims, durable=durable)
    assert history.begun == [begins]


async def test_the_same_claim_twice_is_found_twice():
    results = await ask(History(past(1, 5)), claim(5, 1), claim(5, 1))
    assert [result.status for result in results] == [Status.DUPLICATE] * 2


async def test_nothing_in_doubt_reads_nothing():
    history = History()
    assert await ask(history) == []
    assert history.begun == []
