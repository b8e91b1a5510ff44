"""Commands cross processes: what arrives is what was sent."""

import pickle
from typing import get_args

import msgspec
import pytest

from engine.core import commands
from engine.core.commands import COMMAND_TYPES, AnyCommand
from engine.core.types import Checks, State
from tests.builders import CHANNEL_ID, NOON, claim_command, descendants, open_command

EXAMPLES = [
    open_command(cancel_after=NOON, funded=True),
    commands.ConfirmFunding(channel_id=CHANNEL_ID),
    claim_command(1, 100, previous=bytes(32), sent_at=NOON, checks=Checks.SYNTAX | Checks.KEY),
    commands.CoverClaim(
        channel_id=CHANNEL_ID, sequence=1, amount=100, signature=b"unseen", covered_by=2
    ),
    commands.FundChannel(channel_id=CHANNEL_ID, amount=5),
    commands.RequestClose(channel_id=CHANNEL_ID),
    commands.SettleChannel(channel_id=CHANNEL_ID, redeemed=7),
    commands.OpenDispute(channel_id=CHANNEL_ID, reason="late"),
    commands.ResolveDispute(channel_id=CHANNEL_ID, outcome=State.SETTLED),
]
decode_command = msgspec.msgpack.Decoder(AnyCommand).decode


@pytest.mark.parametrize("command", EXAMPLES, ids=lambda command: type(command).__name__)
def test_a_command_arrives_as_it_was_sent(command):
    for again in (
        pickle.loads(pickle.dumps(command)),
        decode_command(msgspec.msgpack.encode(command)),
    ):
        assert again == command
        assert type(again) is type(command)


def test_every_command_is_in_the_union_the_list_and_the_examples():
    assert get_args(AnyCommand) == COMMAND_TYPES
    assert tuple(type(command) for command in EXAMPLES) == COMMAND_TYPES
    assert set(descendants(commands.Command)) == set(COMMAND_TYPES)
