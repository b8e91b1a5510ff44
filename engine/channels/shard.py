"""A shard: the channels of some slots and the one log they share.

One step at a time, no locks: whoever hosts it makes sure of that. Within a step events are decided
and taken, then committed in one frame, then answered; so an answer, yes or no, never rests on
anything that is not on disk. Whatever escapes a step ends the process (`host.py`), and recovery
decides what had happened.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from engine.channels.actor import ChannelActor
from engine.channels.answers import UNKNOWN_CHANNEL, accepted, buffered, refused, repeated
from engine.channels.checkpoint import CheckpointHead, as_claimed_sum, encode_checkpoint
from engine.channels.codec import EVENT_SCHEMA_VERSION
from engine.channels.covering import Covering
from engine.channels.messages import LATE_MAX, Answer, ChannelView, Late, Outcome, Refused, Reply
from engine.channels.plain import plain_claim
from engine.channels.recovery import Recovered
from engine.core.channel import Channel
from engine.core.commands import AnyCommand, OpenChannel, SubmitClaim
from engine.core.events import AnyEvent
from engine.core.opening import decide_open, terms_of
from engine.core.rejections import RejectCode, Rejected
from engine.core.transition import ACTIVE, apply, decide_refusal, take_claim
from engine.core.types import ChannelId, Checks, Drops, Sequence, State, TimeNs
from engine.ports import Clock, Journal
from engine.validation.dedup import FirstAnswer, RetryWindow
from engine.validation.pipeline import Buffered, Pipeline
from engine.validation.reorder import Ticket
from engine.validation.rules import refuse_key
from engine.verify.batch import EVERY_VERDICTS, Item, decode_batch
from engine.verify.errors import MalformedBatchError, SealRefusedError
from engine.verify.newest import COVERED
from engine.verify.seal import open_sealed

OUTBOX_MAX: Final = 65_536
"""Late decisions kept for a gateway that does not come for them."""

_NO_WINDOW: Final = RetryWindow()
_ALL: Final = Checks.ALL
"""What a claim has passed when it is decided: whatever fails a layer never gets that far."""


class Shard:
    """Channels, their log, and the pipeline that every claim passes."""

    def __init__(
        self,
        journal: Journal,
        epoch: int,
        seal_key: bytes,
        pipeline: Pipeline,
        clock: Clock,
        recovered: Recovered,
    ) -> None:
        self._journal = journal
        self._seal_key = seal_key
        self._pipeline = pipeline
        self.covering = Covering(pipeline, recovered.actors, self._take)
        self._clock = clock
        self._actors = recovered.actors
        self._last_at = recovered.last_at
        self._last = recovered.position
        self._kept_position = recovered.checkpoint_position
        self._changed = recovered.changed()
        self._claimed = recovered.claimed_sum
        self._staged: list[AnyEvent] = []
        self._limits = pipeline.options.retries
        self._turns: dict[str, int] = {}
        self._outbox: defaultdict[str, deque[Late]] = defaultdict(partial(deque, maxlen=OUTBOX_MAX))
        self.epoch = epoch
        self.known_verdicts = EVERY_VERDICTS
        """The verdicts that verifiers of this engine give; no others are believed."""
        self.no_room: Rejected | None = None
        """What new claims and channels are refused with, without room; set between steps only."""
        self.events_since_checkpoint = recovered.events
        self.verdicts_refused = 0

    # What gateways ask --------------------------------------------------------------------------

    def greet(self, gateway: str, turn: int) -> None:
        """Begin, or begin again, with a gateway whose next batch has number `turn`."""
        self._turns[gateway] = turn

    def commit(self, gateway: str, epoch: int, turn: int, blob: bytes, sealed: bytes) -> Reply:
        """Answer every claim of a batch once everything the answers rest on is on disk.

        Args:
            gateway: Who asks.
            epoch: The incarnation the gateway believes it speaks to.
            turn: Number of the batch; they are taken in order only.
            blob: The claims (`verify.batch`).
            sealed: A verdict on each, sealed by a verifier.

        Raises:
            Exception: the disk refused or an invariant broke; nobody was answered and this
                process must end.
        """
        if epoch != self.epoch:
            return Reply(Refused.STALE_EPOCH)
        if turn != self._turns.get(gateway):
            return Reply(Refused.OUT_OF_TURN)
        try:
            verdicts = open_sealed(self._seal_key, blob, sealed, self.known_verdicts)
            items = decode_batch(blob)
        except SealRefusedError:
            self.verdicts_refused += 1
            return Reply(Refused.FOREIGN_VERDICTS)
        except MalformedBatchError:
            return Reply(Refused.MALFORMED)
        self._turns[gateway] = turn + 1
        at = self._now()
        decide = partial(self._decide_all, (gateway, turn), at)
        if COVERED in verdicts:
            answers = self.covering.decide(items, verdicts, at, decide, room=self.no_room is None)
        else:
            answers = decide(range(len(verdicts)), items, verdicts)
        self._commit_staged()
        return Reply(None, answers, self.collect(gateway))

    def collect(self, gateway: str) -> list[Late]:
        """Hand over the decisions on claims that were buffered earlier, the oldest first."""
        outbox = self._outbox[gateway]
        return [outbox.popleft() for _ in range(min(len(outbox), LATE_MAX))]

    def execute(self, commands: list[AnyCommand]) -> list[Outcome]:
        """Do what each command asks, in order, and answer once all of it is on disk."""
        at = self._now()
        outcomes = [self._execute(command, at) for command in commands]
        self._commit_staged()
        return outcomes

    def read(self, channel_ids: list[bytes]) -> list[ChannelView | None]:
        """Return each channel as it is on disk, None for unknown ones."""
        actors = map(self._actors.look, channel_ids)
        return [actor.view() if actor is not None else None for actor in actors]

    def page(self, after: bytes, limit: int, state: str) -> list[ChannelView | None]:
        """Return up to `limit` channels with ids above `after`, in order; `state` "" for all."""
        return [actor.view() for actor in self._actors.page(after, limit, state)]

    # What the shell asks ------------------------------------------------------------------------

    def tick(self) -> None:
        """Time out held claims, prove the newest frame durable, and let channels sleep."""
        at = self._now()
        for held in self._pipeline.held.expired(at):
            actor = self._actors[held.claim.channel_id]
            gap = Rejected(RejectCode.SEQUENCE_GAP, actor.channel.sequence + 1, held.claim.sequence)
            self._tell_later(held.tickets, self._refuse(actor, held.claim, gap, at))
        self._commit_staged()
        self._journal.idle()
        self._actors.rest(self._last, self._kept_position)

    def checkpoint(self, *, wait: bool = False) -> bool:
        """Begin to write the state as of the last commit beside the log; `wait` for one under way.

        Returns:
            Whether it was begun.
        """
        if self._last == self._kept_position:
            return False
        if not self._journal.checkpoint(self._state, wait=wait):
            return False
        self._kept_position = self._last
        self._changed.clear()
        self.events_since_checkpoint = 0
        return True

    def close(self) -> None:
        """Checkpoint and seal the log; no step may follow."""
        self.checkpoint(wait=True)
        self._journal.close()

    @property
    def position(self) -> int:
        """Position of the newest durable event, 0 before the first."""
        return self._last

    @property
    def channels(self) -> int:
        """How many channels live here."""
        return len(self._actors)

    @property
    def awake(self) -> int:
        """How many of them are kept as objects."""
        return self._actors.awake

    @property
    def changed_since_checkpoint(self) -> int:
        """How many channels the next checkpoint will hold, where it is no base."""
        return len(self._changed)

    @property
    def held(self) -> int:
        """How many early claims wait."""
        return len(self._pipeline.held)

    @property
    def risk_refused(self) -> dict[str, int]:
        """Refusals by risk rule."""
        return dict(self._pipeline.risk.refused)

    # One claim ----------------------------------------------------------------------------------

    def _decide_all(
        self,
        batch: tuple[str, int],
        at: TimeNs,
        indexes: Iterable[int],
        items: list[Item],
        verdicts: bytes,
    ) -> list[Answer]:
        """Decide the claims with these `indexes` in a batch; `items` may have probes behind."""
        find, held, staged = self._actors.find, self._pipeline.held.waiting, self._staged
        last, limits, kept = self._last, self._limits, self._kept_position
        no_rules = self.no_room is None and not self._pipeline.risk.rules
        answers: list[Answer] = []
        for index, item, good in zip(indexes, items, verdicts, strict=False):
            actor = find(item.channel_id)
            if isinstance(actor, bytes):
                actor = self._actors.wake(item.channel_id, actor)
            if good and no_rules and actor is not None and not held:
                event = plain_claim(actor.channel, item, at)
                if event is not None:
                    self._claimed += event.amount - actor.channel.claimed
                    if actor.position <= kept:
                        self._changed.add(event.channel_id)
                    staged.append(event)
                    position = last + len(staged)
                    after = take_claim(actor.channel, event, ACTIVE)
                    actor.take(event, position, limits, after)
                    answers.append(accepted(after, position))
                    continue
            answers.append(self._claim(actor, item, good, (*batch, index), at))
        return answers

    def _claim(
        self, actor: ChannelActor | None, item: Item, good: int, ticket: Ticket, at: TimeNs
    ) -> Answer:
        if actor is None:
            return UNKNOWN_CHANNEL
        wrong = refuse_key(actor.channel, item.public_key)
        if wrong is not None:
            return refused(actor.channel, wrong, item.sequence or 0)
        if not good:
            self._pipeline.risk.saw_bad_signature(item.channel_id, at)
            bad = Rejected(RejectCode.BAD_SIGNATURE)
            return refused(actor.channel, bad, item.sequence or 0)
        claim = SubmitClaim(
            channel_id=ChannelId(item.channel_id),
            sequence=Sequence(item.sequence or 0),
            amount=Drops(item.amount),
            signature=item.signature,
            previous=item.previous,
            sent_at=None if item.sent_at is None else TimeNs(item.sent_at),
            checks=_ALL,
        )
        window = actor.window or _NO_WINDOW
        if self.no_room is not None:
            return self._recall(actor, window, claim, at, self.no_room)
        admission = self._pipeline.admit(actor.channel, window, claim, ticket, at)
        if type(admission) is SubmitClaim:
            answer = self._decide(actor, admission, at)
            self._release(actor, at)
            return answer
        if type(admission) is FirstAnswer:
            return repeated(actor.channel, admission)
        if type(admission) is Buffered:
            return buffered(actor.channel, claim.sequence, admission)
        return self._refuse(actor, claim, admission, at)  # type: ignore[arg-type]

    def _recall(
        self, actor: ChannelActor, window: RetryWindow, claim: SubmitClaim, at: TimeNs, no: Rejected
    ) -> Answer:
        """Answer a claim without the log: what it was answered before, else `no`."""
        first = self._pipeline.recall(actor.channel, window, claim, at)
        if first is not None:
            return repeated(actor.channel, first)
        return refused(actor.channel, no, claim.sequence)

    def _decide(self, actor: ChannelActor, claim: SubmitClaim, at: TimeNs) -> Answer:
        decision = actor.step(claim, at)
        if isinstance(decision, Rejected):
            return self._refuse(actor, claim, decision, at)
        for event in decision:
            self._take(actor, event)
        return accepted(actor.channel, actor.position)

    def _release(self, actor: ChannelActor, at: TimeNs) -> None:
        """Decide the held claims whose turn has come, in order."""
        held_claims = self._pipeline.held
        channel_id = actor.channel.terms.channel_id
        while held := held_claims.take(channel_id, actor.channel.sequence + 1):
            weighed = self._pipeline.weigh(actor.channel, held.claim, at)
            if isinstance(weighed, Rejected):
                answer = self._refuse(actor, held.claim, weighed, at)
            else:
                answer = self._decide(actor, weighed, at)
            self._tell_later(held.tickets, answer)

    def _refuse(
        self, actor: ChannelActor, claim: SubmitClaim, rejected: Rejected, at: TimeNs
    ) -> Answer:
        """Refuse a claim that its payer signed; that goes into the log."""
        if rejected.code is not RejectCode.MALFORMED:
            self._take(actor, decide_refusal(actor.channel, claim, rejected.code, at))
        return refused(actor.channel, rejected, claim.sequence)

    def _take(self, actor: ChannelActor, event: AnyEvent, after: Channel | None = None) -> None:
        """Stage an event and make it part of the state; `after` as `ChannelActor.take` has it."""
        self._staged.append(event)
        position = self._last + len(self._staged)
        claimed = actor.channel.claimed
        if actor.position <= self._kept_position:
            self._changed.add(event.channel_id)
        actor.take(event, position, self._limits, after)
        self._claimed += actor.channel.claimed - claimed

    def _tell_later(self, tickets: list[Ticket], answer: Answer) -> None:
        for gateway, turn, index in tickets:
            self._outbox[gateway].append(Late(turn, index, answer))

    # One command --------------------------------------------------------------------------------

    def _execute(self, command: AnyCommand, at: TimeNs) -> Outcome:
        actor = self._actors.get(command.channel_id)
        if isinstance(command, OpenChannel):
            return self._open(actor, command, at)
        if isinstance(command, SubmitClaim):  # only `commit` sees a seal, so only it takes claims
            return Outcome(rejected=Rejected(RejectCode.MALFORMED, detail="a claim is no command"))
        if actor is None:
            return Outcome(rejected=Rejected(RejectCode.UNKNOWN_CHANNEL))
        decision = actor.step(command, at)
        if isinstance(decision, Rejected):
            return Outcome(actor.view(), decision)
        for event in decision:
            self._take(actor, event)
        if actor.channel.state is not State.ACTIVE:
            self._give_up_held(actor, at)
        return Outcome(actor.view())

    def _open(self, actor: ChannelActor | None, command: OpenChannel, at: TimeNs) -> Outcome:
        if actor is not None:
            return _opened_before(actor, command)
        if self.no_room is not None:
            return Outcome(rejected=self.no_room)
        decision = decide_open(command, at)
        if isinstance(decision, Rejected):
            return Outcome(rejected=decision)
        opened, *rest = decision
        self._staged.append(opened)
        actor = ChannelActor(apply(None, opened), self._last + len(self._staged))
        self._actors.add(actor)
        self._changed.add(command.channel_id)
        for event in rest:
            self._take(actor, event)
        return Outcome(actor.view(), created=True)

    def _give_up_held(self, actor: ChannelActor, at: TimeNs) -> None:
        for held in self._pipeline.held.withdraw(actor.channel.terms.channel_id):
            gone = Rejected(RejectCode.NOT_ACTIVE, detail=actor.channel.state.value)
            self._tell_later(held.tickets, self._refuse(actor, held.claim, gone, at))

    # The disk -----------------------------------------------------------------------------------

    def _state(self, whole: bool) -> Iterator[bytes]:
        """Return all channels, or those that changed since the last checkpoint, as of now."""
        since = 0 if whole else self._kept_position
        actors, changed = self._actors, self._changed
        records = actors.records_since(since, changed) if since else actors.records()
        claimed = as_claimed_sum(self._claimed)
        head = CheckpointHead(
            EVENT_SCHEMA_VERSION, self._last, len(actors), claimed, self._last_at, since
        )
        return encode_checkpoint(head, records)

    def _commit_staged(self) -> None:
        if not self._staged:
            return
        self._journal.append(self._staged)
        self._last = self._journal.commit()
        self.events_since_checkpoint += len(self._staged)
        self._staged = []

    def _now(self) -> TimeNs:
        self._last_at = max(self._last_at, self._clock.now_ns())
        return self._last_at


def _opened_before(actor: ChannelActor, command: OpenChannel) -> Outcome:
    if actor.channel.terms == terms_of(command):
        return Outcome(actor.view())
    detail = "a channel with this id is open on other terms"
    return Outcome(actor.view(), Rejected(RejectCode.CONFLICT, detail=detail))
