"""What goes next: full frames in the order given, and nothing past what must be sent again."""

import asyncio
from random import Random

import pytest

from engine.client.options import Backoff, ClientOptions
from engine.client.order import Order
from engine.core.claim import Claim
from tests.client.double import claims_of


class Told:
    """Counts how often the order said that there is more to send."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def __call__(self) -> None:
        self.event.set()


def order_of(claims: list[Claim], told: Told | None = None, per_frame: int = 2) -> Order:
    options = ClientOptions(backoff_first_s=0.001, backoff_max_s=0.001)
    return Order(claims, per_frame, Backoff(options, Random(1)), told or Told())


def land(order: Order, *indices: int, again: bool = False) -> None:
    """Answer claims of a frame: finally, or so that they are sent again."""
    for index in indices:
        channel = order.of[index]
        channel.flying -= 1
        (order.send_again if again else order.close)(index)
        order.go_on(channel)


def test_numbered_claims_are_pipelined():
    order = order_of(claims_of(1, 5))
    assert [order.next_frame() for _ in range(4)] == [[0, 1], [2, 3], [4], []]


def test_one_frame_of_a_channel_without_numbers_is_under_way_at_a_time():
    order = order_of(claims_of(1, 5, numbered=False))
    assert [order.next_frame(), order.next_frame()] == [[0, 1], []]
    land(order, 0)
    assert order.next_frame() == []
    land(order, 1)
    assert [order.next_frame(), order.next_frame()] == [[2, 3], []]


def test_other_channels_go_on_meanwhile():
    order = order_of([*claims_of(1, 4, numbered=False), *claims_of(2, 2)])
    assert [order.next_frame(), order.next_frame()] == [[0, 1], [4, 5]]


async def test_nothing_of_a_channel_goes_until_what_is_under_way_is_answered():
    told = Told()
    order = order_of(claims_of(1, 8), told)
    assert [order.next_frame(), order.next_frame()] == [[0, 1], [2, 3]]
    land(order, 0, 1, again=True)
    assert order.next_frame() == []
    land(order, 2)
    land(order, 3, again=True)
    assert order.next_frame() == []
    await told.event.wait()
    assert [order.next_frame(), order.next_frame()] == [[0, 1], [3, 4]]


async def test_what_is_refused_while_others_of_its_channel_go_again_keeps_its_place():
    told = Told()
    order = order_of(claims_of(1, 6), told)
    for _ in range(3):
        order.next_frame()
    land(order, 0, 1, 2, 3, 4, 5, again=True)
    await told.event.wait()
    assert order.next_frame() == [0, 1]
    land(order, 1, again=True)
    assert order.next_frame() == []
    told.event.clear()
    land(order, 0)
    await told.event.wait()
    assert [order.next_frame(), order.next_frame(), order.next_frame()] == [[1, 2], [3, 4], [5]]


def test_the_first_open_claim_of_each_channel_is_known():
    order = order_of([*claims_of(1, 2), *claims_of(2, 1)], per_frame=3)
    order.next_frame()
    assert [order.is_first_open(index) for index in range(3)] == [True, False, True]
    land(order, 0)
    assert order.is_first_open(1)
    assert order.open == 2


def test_a_pause_doubles_up_to_its_limit_and_is_never_the_same_for_all():
    options = ClientOptions(backoff_first_s=0.1, backoff_max_s=1.0)
    backoff = Backoff(options, Random(1))
    for attempt, most in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (1_000_000, 1.0)):
        pauses = {backoff.pause_s(attempt) for _ in range(50)}
        assert len(pauses) > 1
        assert min(pauses) >= most / 2
        assert max(pauses) <= most


@pytest.mark.parametrize("claim", [Claim(b"c", 2**64, b"s", 1), Claim(b"c", 1, b"s", 2**63)])
def test_a_number_that_no_frame_can_carry_is_refused_at_once(claim):
    with pytest.raises(ValueError, match="claim 1"):
        order_of([*claims_of(1, 1), claim])
