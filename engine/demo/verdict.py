"""Was anything lost or invented? Three records of the same run are held against each other.

The payers' ledger of acknowledgements, the balances the engine answers, and the log on disk.
Nothing here trusts the engine's counters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from engine.channels.feed import Feed
from engine.core.events import ClaimReceived
from engine.demo.acknowledged import read_acknowledged


class Verdict(msgspec.Struct):
    """What was compared, and every way in which the records disagree."""

    acknowledged: int = 0
    logged: int = 0
    channels: int = 0
    missing_from_log: int = 0
    never_acknowledged: int = 0
    wrong_balances: int = 0
    notes: list[str] = []

    @property
    def holds(self) -> bool:
        """Say whether nothing acknowledged is missing and nothing was invented."""
        return not (self.missing_from_log or self.never_acknowledged or self.wrong_balances)


Mark = tuple[bytes, int, int]
"""Channel id, sequence and amount of a claim."""


def reach_verdict(
    ledger: Path, datadir: Path, shards: Iterable[int], balances: Mapping[bytes, tuple[int, int]]
) -> Verdict:
    """Compare the records.

    Args:
        ledger: The payers' file.
        datadir: The engine's data directory, after it has stopped.
        shards: The shards in it.
        balances: Channel id to (claimed, sequence) as read back strongly.
    """
    acknowledged: dict[Mark, set[str]] = {}
    for ack in read_acknowledged(ledger):
        acknowledged.setdefault((ack.channel_id, ack.sequence, ack.amount), set()).add(ack.position)
    logged: dict[Mark, str] = {}
    feed = Feed(datadir)
    for shard in shards:
        for position, event in feed.events(shard):
            if isinstance(event, ClaimReceived):
                mark = (event.channel_id, event.sequence, event.amount)
                logged[mark] = f"{shard}-{position}"
    verdict = Verdict(len(acknowledged), len(logged), len(balances))
    _compare_log(verdict, acknowledged, logged)
    _compare_balances(verdict, acknowledged, balances)
    return verdict


def _compare_log(
    verdict: Verdict, acknowledged: Mapping[Mark, set[str]], logged: Mapping[Mark, str]
) -> None:
    for mark, positions in acknowledged.items():
        if positions != {logged.get(mark)}:
            verdict.missing_from_log += 1
            _note(verdict, f"acknowledged at {positions}, logged at {logged.get(mark)}", mark)
    for mark in logged:
        if mark not in acknowledged:
            verdict.never_acknowledged += 1
            _note(verdict, "logged, never acknowledged", mark)


def _compare_balances(
    verdict: Verdict,
    acknowledged: Mapping[Mark, set[str]],
    balances: Mapping[bytes, tuple[int, int]],
) -> None:
    counted: Counter[bytes] = Counter()
    highest: dict[bytes, int] = {}
    for channel_id, _, amount in acknowledged:
        counted[channel_id] += 1
        highest[channel_id] = max(amount, highest.get(channel_id, 0))
    for channel_id, (claimed, sequence) in balances.items():
        if (claimed, sequence) != (highest.get(channel_id, 0), counted[channel_id]):
            verdict.wrong_balances += 1
            mark = (channel_id, sequence, claimed)
            _note(verdict, f"balance differs from {highest.get(channel_id, 0)} acknowledged", mark)


def _note(verdict: Verdict, what: str, mark: Mark) -> None:
    if len(verdict.notes) < 10:
        channel_id, sequence, amount = mark
        verdict.notes.append(f"{channel_id.hex().upper()} #{sequence} {amount} drops: {what}")
