"""The demo's verdict can fail: each kind of disagreement between the three records is seen."""

from pathlib import Path

import pytest

from engine.channels.host import shard_directory
from engine.channels.journal import LogOptions, ShardJournal
from engine.core.events import ClaimReceived
from engine.demo.acknowledged import Acknowledged, AckWriter, read_acknowledged
from engine.demo.verdict import Verdict, reach_verdict

CHANNEL = bytes(31) + b"\1"
SIGNATURE = b"s" * 70
SHARD = 0


def log_of(datadir: Path, amounts: list[int]) -> None:
    """Write a log whose claims, numbered from 1, have these amounts."""
    directory = shard_directory(datadir, SHARD)
    directory.mkdir(parents=True)
    journal = ShardJournal(directory, LogOptions(shard_id=SHARD))
    for sequence, amount in enumerate(amounts, 1):
        event = ClaimReceived(
            channel_id=CHANNEL,
            version=sequence + 2,
            at=1_000,
            sequence=sequence,
            amount=amount,
            signature=SIGNATURE,
        )
        journal.append([event])
    journal.commit()
    journal.close()


def acknowledge(path: Path, amounts: dict[int, int], position: str = "0-{}") -> None:
    """Write the payers' ledger: claim number to amount."""
    writer = AckWriter(path)
    writer.write(
        [
            Acknowledged(CHANNEL, number, amount, position.format(number))
            for number, amount in amounts.items()
        ]
    )
    writer.close()


def verdict(tmp_path: Path, balance: tuple[int, int]) -> Verdict:
    return reach_verdict(tmp_path / "acks", tmp_path / "data", [SHARD], {CHANNEL: balance})


def test_three_records_that_agree_hold(tmp_path):
    log_of(tmp_path / "data", [10, 20, 30])
    acknowledge(tmp_path / "acks", {1: 10, 2: 20, 3: 30})

    assert verdict(tmp_path, (30, 3)).holds


def test_a_claim_acknowledged_but_not_logged_is_missing(tmp_path):
    log_of(tmp_path / "data", [10, 20])
    acknowledge(tmp_path / "acks", {1: 10, 2: 20, 3: 30})

    found = verdict(tmp_path, (30, 3))

    assert (found.missing_from_log, found.never_acknowledged, found.holds) == (1, 0, False)


def test_a_claim_logged_but_never_acknowledged_was_invented(tmp_path):
    log_of(tmp_path / "data", [10, 20, 30])
    acknowledge(tmp_path / "acks", {1: 10, 2: 20})

    found = verdict(tmp_path, (20, 2))

    assert (found.missing_from_log, found.never_acknowledged, found.holds) == (0, 1, False)


def test_a_claim_logged_at_another_position_than_acknowledged_is_missing(tmp_path):
    log_of(tmp_path / "data", [10])
    acknowledge(tmp_path / "acks", {1: 10}, position="0-7")

    assert verdict(tmp_path, (10, 1)).missing_from_log == 1


def test_a_claim_acknowledged_twice_at_different_positions_is_missing(tmp_path):
    log_of(tmp_path / "data", [10])
    acknowledge(tmp_path / "acks", {1: 10})
    acknowledge(tmp_path / "acks", {1: 10}, position="0-2")

    assert verdict(tmp_path, (10, 1)).missing_from_log == 1


@pytest.mark.parametrize("balance", [(20, 2), (40, 3), (30, 4)])
def test_a_balance_that_differs_from_what_was_acknowledged_is_seen(tmp_path, balance):
    log_of(tmp_path / "data", [10, 20, 30])
    acknowledge(tmp_path / "acks", {1: 10, 2: 20, 3: 30})

    assert verdict(tmp_path, balance).wrong_balances == 1


def test_the_ledger_reads_back_in_the_order_it_was_written(tmp_path):
    acknowledge(tmp_path / "acks", {2: 20})
    acknowledge(tmp_path / "acks", {1: 10})

    assert [ack.sequence for ack in read_acknowledged(tmp_path / "acks")] == [2, 1]
