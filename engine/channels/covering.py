"""Batches in which the newest claim of a channel speaks for the older ones.

A verifier that checks only the newest claim calls the others `COVERED`: nobody looked at them. The
shard accepts such claims only as a run that ends with the checked claim: each of them as the next
of its channel, then the checked one over more drops, all in the same frame. So at every durable
moment the newest accepted amount is one whose signature was checked.

The one rule: whatever does not go as plainly as that is decided on the claim's own signature, and
is then as in an engine that checks every one. A run is foreseen on values, since a channel is one,
so there is nothing to undo when it comes to nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from engine.channels.actor import ChannelActor
from engine.channels.actors import Actors
from engine.channels.answers import covered, repeated
from engine.channels.messages import Answer
from engine.channels.plain import plain_claim, plain_covered
from engine.core.channel import Channel
from engine.core.commands import CoverClaim, SubmitClaim
from engine.core.events import AnyEvent, ClaimCovered, ClaimReceived
from engine.core.rejections import Rejected
from engine.core.transition import apply, decide
from engine.core.types import ChannelId, Checks, Drops, Sequencing, TimeNs
from engine.core.types import Sequence as ClaimSequence
from engine.validation.dedup import FirstAnswer, RetryWindow
from engine.validation.pipeline import Pipeline
from engine.validation.rules import refuse_key, refuse_skew
from engine.verify.batch import Item
from engine.verify.newest import COVERED
from engine.verify.signed import is_signed

Step = tuple[int, AnyEvent, Channel]
"""A claim that is accepted: its index in the batch, its event, and the channel after it."""

Repeated = tuple[int, FirstAnswer]
"""A claim that was accepted earlier: its index in the batch, and what it was answered."""

Decide = Callable[[list[int], list[Item], bytes], list[Answer]]
"""Decides claims, each with its index in the batch and a verdict on its own signature."""

_NO_WINDOW: Final = RetryWindow()
_ALL: Final = Checks.ALL
_COVERED: Final = bytes((COVERED,))


def _alike(items: Sequence[Item], verdicts: bytes) -> Iterable[list[int]]:
    """Return the indexes of the claims that are not bad, for each channel with a covered one."""
    by_channel: dict[bytes, list[int]] = {}
    with_covered: dict[bytes, list[int]] = {}
    for index, verdict in enumerate(verdicts):
        if verdict:
            channel_id = items[index].channel_id
            indexes = by_channel.setdefault(channel_id, [])
            indexes.append(index)
            if verdict == COVERED:
                with_covered[channel_id] = indexes
    return with_covered.values()


class Covering:
    """Takes what is covered in a batch into the channels of a shard.

    Attributes:
        covered: Claims accepted on the strength of a newer one.
        checked: Covered claims whose own signature had to be checked here.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        actors: Actors,
        take: Callable[[ChannelActor, AnyEvent, Channel], None],
    ) -> None:
        self._pipeline = pipeline
        self._actors = actors
        self._take = take
        self.covered = self.checked = 0

    def decide(
        self,
        items: Sequence[Item],
        verdicts: bytes,
        at: TimeNs,
        decide: Decide,
        *,
        room: bool,
    ) -> list[Answer]:
        """Take the runs of a batch, and let `decide` decide all other claims.

        Args:
            items: The batch, probes included.
            verdicts: On each claim; some are `COVERED`.
            at: The shard's clock.
            decide: Decides claims that are good or bad, one by one.
            room: Whether anything can be accepted; where not, nothing needs a proof, and `decide`
                must accept nothing either.
        """
        if room:
            answers, verdicts = self._take_runs(items, verdicts, at)
        else:
            answers, verdicts = {}, verdicts.replace(_COVERED, b"\1")
        rest = [index for index in range(len(verdicts)) if index not in answers]
        decided = decide(rest, [items[i] for i in rest], bytes([verdicts[i] for i in rest]))
        answers.update(zip(rest, decided, strict=True))
        return [answers[index] for index in range(len(verdicts))]

    def _take_runs(
        self, items: Sequence[Item], verdicts: bytes, at: TimeNs
    ) -> tuple[dict[int, Answer], bytes]:
        """Take every run of a batch.

        Returns:
            Answers to the claims that this decides, by index, and verdicts on all of the batch.
            No `COVERED` is among those: what is still to be decided is good or bad.
        """
        answers: dict[int, Answer] = {}
        checked = bytearray(verdicts)
        for indexes in _alike(items, verdicts):
            actor = self._actors.get(items[indexes[0]].channel_id)
            if actor is None:
                continue
            known, run = self._judge(actor, items, indexes, checked, at)
            for index, first in known:
                answers[index] = repeated(actor.channel, first)
            for index, event, after in run:
                self._take(actor, event, after)
                by = event.covered_by if type(event) is ClaimCovered else 0
                answers[index] = covered(after, actor.position, by)
        # On unknown channels and with foreign keys: refused for that, whatever the verdict.
        return answers, bytes(checked).replace(_COVERED, b"\0")

    def _judge(
        self,
        actor: ChannelActor,
        items: Sequence[Item],
        indexes: list[int],
        verdicts: bytearray,
        at: TimeNs,
    ) -> tuple[list[Repeated], list[Step]]:
        """Return the claims that are repeated, and those that are accepted as one run.

        Of covered claims that are neither, the verdict becomes that on their own signature: they
        are to be decided one by one.

        Args:
            actor: The channel; it is not changed.
            items: The batch.
            indexes: Its claims on this channel that are not bad.
            verdicts: On all of the batch; changed in place.
            at: The shard's clock.
        """
        channel = actor.channel
        ours = [index for index in indexes if refuse_key(channel, items[index].public_key) is None]
        repeated = [
            (index, first)
            for index in ours
            if verdicts[index] == COVERED
            and (first := self._answered(actor, items[index], at)) is not None
        ]
        if repeated:
            known = {index for index, _ in repeated}
            ours = [index for index in ours if index not in known]
        steps = self._foresee(channel, items, ours, verdicts, at)
        if not steps:
            for index in ours:
                if verdicts[index] == COVERED:
                    verdicts[index] = is_signed(items[index])
                    self.checked += 1
        self.covered += max(0, len(steps) - 1)
        return repeated, steps

    def _answered(self, actor: ChannelActor, item: Item, at: TimeNs) -> FirstAnswer | None:
        """Return what exactly this claim was answered when it was accepted, where that is known."""
        channel = actor.channel
        is_new = item.amount > channel.claimed
        if channel.terms.sequencing is Sequencing.STRICT:
            is_new = (item.sequence or 0) > channel.sequence
        if is_new:
            return None
        window = actor.window or _NO_WINDOW
        return self._pipeline.recall(channel, window, _command(item, item.sequence or 0), at)

    def _foresee(
        self,
        channel: Channel,
        items: Sequence[Item],
        indexes: list[int],
        verdicts: bytearray,
        at: TimeNs,
    ) -> list[Step]:
        """Return the run that the claims are; empty where they are none."""
        pipeline = self._pipeline
        if pipeline.risk.rules or pipeline.held.holds(channel.terms.channel_id):
            return []  # what a rule will say, or what is released in between, nobody can foresee
        if channel.terms.sequencing is Sequencing.STRICT:
            indexes = sorted(indexes, key=lambda index: items[index].sequence or 0)
        *covered, newest = [verdicts[index] for index in indexes] or [0]
        if newest == COVERED or not covered or covered.count(COVERED) != len(covered):
            return []
        covering = ClaimSequence(channel.sequence + len(indexes))
        steps: list[Step] = []
        for index in indexes:
            item = items[index]
            event = self._event(channel, item, covering, at)
            if event is None:
                return []
            channel = apply(channel, event)
            steps.append((index, event, channel))
        return steps

    def _event(
        self, channel: Channel, item: Item, covering: ClaimSequence, at: TimeNs
    ) -> AnyEvent | None:
        """Return the event of a claim that is accepted as the next of a run that `covering` ends.

        None where it is not accepted, or something else than a claim would come of it.
        """
        sequence = channel.sequence + 1
        if sequence == covering:
            plain: ClaimReceived | None = plain_claim(channel, item, at)
        else:
            plain = plain_covered(channel, item, at, covering)
        if plain is not None:
            return plain
        if channel.terms.sequencing is Sequencing.STRICT and item.sequence != sequence:
            return None
        claim = _command(item, sequence, covering)
        if refuse_skew(claim, at, self._pipeline.options.clock_skew_max_s) is not None:
            return None
        decision = decide(channel, claim, at)
        return None if isinstance(decision, Rejected) else decision[0]


def _command(item: Item, sequence: int, covered_by: int = 0) -> SubmitClaim:
    """Return the command to take a claim, covered where `covered_by` is another claim."""
    channel_id, amount = ChannelId(item.channel_id), Drops(item.amount)
    sent_at = None if item.sent_at is None else TimeNs(item.sent_at)
    if covered_by > sequence:
        return CoverClaim(
            channel_id=channel_id,
            sequence=ClaimSequence(sequence),
            amount=amount,
            signature=item.signature,
            previous=item.previous,
            sent_at=sent_at,
            covered_by=ClaimSequence(covered_by),
        )
    return SubmitClaim(
        channel_id=channel_id,
        sequence=ClaimSequence(sequence),
        amount=amount,
        signature=item.signature,
        previous=item.previous,
        sent_at=sent_at,
        checks=_ALL,
    )
