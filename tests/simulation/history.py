"""Hold the engine to what it said: a second, simple account of all that was sent and answered.

Nothing here asks the engine's own rules. What was answered is a fact; after each start the log must
hold every fact, nothing that was never sent, and the state must be the sum of the log.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Final

from engine.channels.journal import CorruptLogError, ShardJournal
from engine.channels.messages import Answer, Status
from engine.channels.recovery import begun, replay_into, state_hash
from engine.core import events as ev
from engine.core.channel import Channel
from engine.core.rejections import RejectCode
from engine.core.types import Position, State
from tests.simulation.signed import CHANNELS, channel_id_of, signature_of
from tests.simulation.world import Broken, World

if TYPE_CHECKING:
    from tests.simulation.processes import SimShard

NUMBERS: Final = {channel_id_of(number): number for number in range(CHANNELS)}
UNDECIDED: Final = frozenset(
    {RejectCode.UNAVAILABLE, RejectCode.OVERLOADED, RejectCode.STORAGE_FULL}
)
FORGOTTEN: Final = frozenset({RejectCode.SEQUENCE_USED, RejectCode.AMOUNT_NOT_INCREASING})
NEVER: Final = frozenset(
    {
        RejectCode.MALFORMED,
        RejectCode.BAD_SIGNATURE,
        RejectCode.WRONG_KEY,
        RejectCode.SEQUENCE_CONFLICT,
        RejectCode.CONFLICT,
        RejectCode.CLOCK_SKEW,
        RejectCode.CHANNEL_EXPIRED,
        RejectCode.RISK_REFUSED,
    }
)
"""What an honest claim is never refused with in these histories."""


class Account:
    """What the log says of one channel, added up without the engine's help."""

    __slots__ = ("at", "capacity", "claimed", "sequence", "state", "version")

    def __init__(self, opened: ev.ChannelOpened) -> None:
        self.state = State.PENDING
        self.version = 1
        self.capacity = opened.capacity
        self.claimed = self.sequence = 0
        self.at = opened.at


class Sent:
    """A claim as a client sent it; `kind` is `honest`, `forged` or `other` (signed, too late).

    `floor` is the mark that was promised when it was sent, `promised` whether it was itself,
    `behind` whether a higher one had been sent before.
    """

    __slots__ = ("amount", "behind", "claim", "floor", "kind", "number", "promised", "sequence")

    def __init__(self, number: int, sequence: int, amount: int, claim: object, kind: str) -> None:
        self.number = number
        self.sequence = sequence
        self.amount = amount
        self.claim = claim
        self.kind = kind
        self.floor = 0
        self.behind = self.promised = False


class Promise:
    """A claim that was answered `accepted`: where the log must have it for ever."""

    __slots__ = ("amount", "position", "sequence", "shard")

    def __init__(self, sequence: int, amount: int, shard: int, position: int) -> None:
        self.sequence = sequence
        self.amount = amount
        self.shard = shard
        self.position = position


class History:
    """The checker of one history. See `world.Checker`."""

    def __init__(self, world: World, *, newest: bool = False) -> None:
        self.counts: Counter[str] = Counter()
        self.opened: set[int] = set()
        self.closing: set[int] = set()
        self.capacity: dict[int, int] = {}
        self.promises: dict[int, dict[int, Promise]] = defaultdict(dict)
        self.marks: Counter[int] = Counter()
        self.logs: dict[int, list[ev.AnyEvent]] = defaultdict(list)
        self.accounts: dict[int, Account] = {}
        self.homes: dict[int, int] = {}
        self._written: dict[int, list[ev.AnyEvent]] = defaultdict(list)
        self._world = world
        self._newest = newest
        self._accepted: dict[int, set[int]] = defaultdict(set)
        self._promised_claims: dict[int, set[tuple[int, int]]] = defaultdict(set)
        self._highest: Counter[int] = Counter()
        self._signed: set[tuple[int, int]] = set()
        self._tops: dict[tuple[int, int], int] = {}
        self._unmet: dict[int, list[tuple[int, Promise]]] = defaultdict(list)
        self._commands: Counter[tuple[int, str]] = Counter()

    # What clients send and hear -----------------------------------------------------------------

    def sends(self, claims: Iterable[Sent]) -> list[Sent]:
        """Return the claims as they are sent this time, with what is promised by now."""
        sent = [copy(one) for one in claims]
        for one in sent:
            one.floor = self.marks[one.number]
            one.promised = (one.sequence, one.amount) in self._promised_claims[one.number]
            self.counts["sent"] += 1
            if one.kind != "forged":
                self._signed.add((one.number, one.amount))
                one.behind = one.amount < self._highest[one.number]
                self._highest[one.number] = max(self._highest[one.number], one.amount)
        return sent

    def commands(self, number: int, kind: str) -> None:
        """A client asks for something else than a claim."""
        self._commands[number, kind] += 1

    def hears(self, sent: Sent, answer: Answer, shard: int) -> None:
        """Hold an answer against everything that was said before."""
        self.counts[answer.code or answer.status.name.lower()] += 1
        if (answer.claimed or answer.available) and answer.claimed < sent.floor:
            self._broken(sent, answer, f"the mark fell below {sent.floor}")
        if answer.status is Status.BUFFERED or answer.code in UNDECIDED:
            if sent.kind == "forged" and answer.status is Status.BUFFERED:
                self._broken(sent, answer, "a forged claim is held")
            return
        if answer.status is Status.REJECTED:
            self._hears_refusal(sent, answer)
            return
        self.counts["covered"] += answer.covered_by != 0
        # Nobody looks at what a newer claim covers, nor when it is sent once more.
        unseen = self._newest and (answer.covered_by or answer.status is Status.DUPLICATE)
        if sent.kind != "honest" and not (unseen and sent.kind == "forged"):
            self._broken(sent, answer, f"the {sent.kind} claim was accepted")
        self._promised(sent, answer, shard)

    def _promised(self, sent: Sent, answer: Answer, shard: int) -> None:
        if sent.sequence and answer.sequence != sent.sequence:
            self._broken(sent, answer, f"another sequence than {sent.sequence}")
        known = self.promises[sent.number].get(answer.sequence)
        if known is None:
            promise = Promise(answer.sequence, sent.amount, shard, answer.position)
            self.promises[sent.number][answer.sequence] = promise
            self._unmet[shard].append((sent.number, promise))
        elif answer.status is Status.ACCEPTED and known.sequence in self._accepted[sent.number]:
            self._broken(sent, answer, "one claim was accepted twice")
        elif (known.amount, known.position) != (sent.amount, answer.position):
            self._broken(sent, answer, f"before it was {known.amount} at {known.position}")
        if answer.status is Status.ACCEPTED:
            self._accepted[sent.number].add(answer.sequence)
        self._promised_claims[sent.number].add((sent.sequence, sent.amount))
        self.marks[sent.number] = max(self.marks[sent.number], sent.amount)
        self.counts["promises"] += 1

    def _hears_refusal(self, sent: Sent, answer: Answer) -> None:
        code = answer.code
        if code is RejectCode.UNKNOWN_CHANNEL and sent.number in self.opened:
            self._broken(sent, answer, "the channel was opened")
        if sent.kind != "honest":
            return
        if code in NEVER:
            self._broken(sent, answer, "an honest claim")
        if code is RejectCode.NOT_ACTIVE and sent.number not in self.closing:
            self._broken(sent, answer, "nobody closed the channel")
        held = self.capacity.get(sent.number, 0)
        if code is RejectCode.AMOUNT_OVER_CAPACITY and sent.amount <= held:
            self._broken(sent, answer, f"the capacity was {held}")
        if code in FORGOTTEN and self._world.clock.leapt:  # the retry windows may be over
            return
        if code is not RejectCode.NOT_ACTIVE:
            self._was_promised(sent, answer)

    def _was_promised(self, sent: Sent, answer: Answer) -> None:
        """Refuse the refusal of a claim that was accepted, or of a number nothing else has."""
        if sent.sequence and answer.code in FORGOTTEN:
            self._broken(sent, answer, "nothing else has this number")
        if answer.code is RejectCode.AMOUNT_NOT_INCREASING and not sent.behind:
            self._broken(sent, answer, "a later claim has overtaken it")
        if sent.promised:
            self._broken(sent, answer, "it had been accepted")

    def sees(self, number: int, channel: Channel | None, floor: int) -> None:
        """A client reads a channel; `floor` is what it was told before it asked."""
        if channel is None:
            if number in self.opened:
                raise Broken(f"channel {number} was opened, and now nobody knows it")
        elif channel.claimed < floor:
            raise Broken(f"channel {number} reads {channel.claimed}, but {floor} was promised")

    # What a shard holds -------------------------------------------------------------------------

    def stepped(self, shard: "SimShard") -> None:
        """After every step: no drop appears or vanishes, and no mark falls."""
        assert shard.host is not None
        self.counts["steps"] += 1
        for channel_id, actor in shard.host._shard._actors.items():
            _conserves(actor.channel)
            key = (shard.life, NUMBERS[channel_id])
            if actor.channel.claimed < self._tops.get(key, 0):
                raise Broken(f"the mark of channel {key[1]} fell to {actor.channel.claimed}")
            self._tops[key] = actor.channel.claimed

    def recovered(self, shard: "SimShard") -> None:
        """After every start: the log holds every promise and no more; the state is its sum."""
        assert shard.host is not None
        self.counts["starts"] += 1
        journal = shard.host._journal
        before = self.logs[shard.number]
        try:
            now = self._whole_log(shard.number, journal)
        except CorruptLogError as error:
            self._world.refused(shard, error)
            shard.kill("is stopped by the operator")
            return
        self._world.nemesis.forgive(shard)
        if now[: len(before)] != before:
            raise Broken(f"the log of shard {shard.number} is another than it was")
        for event in now[len(before) :]:
            self._take(event, shard.number)
        self.logs[shard.number] = now
        self._follow(shard.number, journal)
        for number, promise in self._unmet.pop(shard.number, ()):
            self._meets(now, number, promise)
        self._is_the_sum(shard, now)

    def ended(self, shard: "SimShard") -> None:
        """Count what a life of a shard was good for, so that nobody takes idling for soundness."""
        assert shard.host is not None
        did = shard.host._journal._log.statistics()
        self.counts["rotations"] += did.rotations
        self.counts["checkpoints"] += did.snapshots
        self.counts["segments cut"] += did.segments_cut
        self.counts["bases"] += shard.host._merger.bases
        self.counts["segments packed"] += shard.host._packer.packed

    def _whole_log(self, shard: int, journal: ShardJournal) -> list[ev.AnyEvent]:
        """Return every event; what was cut away is taken from what was seen before it went."""
        manifest = journal._log._live.manifest
        entries = [*manifest.sealed, manifest.live]
        first = entries[0].first_position
        seen = [*self.logs[shard], *self._written[shard]][: first - 1]
        if len(seen) < first - 1:
            raise Broken(f"the log of shard {shard} begins at {first}; {len(seen)} came before")
        return [*seen, *(event for _, batch in journal.read_batches(first) for event in batch)]

    def _follow(self, shard: int, journal: ShardJournal) -> None:
        """Keep what is written from now on, because it may be cut before the next start."""
        written = self._written[shard] = []
        append = journal.append

        def appending(events: Sequence[ev.AnyEvent]) -> Position:
            written.extend(events)
            return append(events)

        journal.append = appending  # type: ignore[method-assign]

    def _is_the_sum(self, shard: "SimShard", now: list[ev.AnyEvent]) -> None:
        host = shard.host
        assert host is not None
        actors = host._shard._actors
        here = {number for number, home in self.homes.items() if home == shard.number}
        if {NUMBERS[channel_id] for channel_id in actors} != here:
            raise Broken(f"shard {shard.number} has other channels than its log")
        for channel_id, actor in actors.items():
            channel, account = actor.channel, self.accounts[NUMBERS[channel_id]]
            _conserves(channel)
            self._is_redeemable(NUMBERS[channel_id], channel)
            said = (channel.version, channel.capacity, channel.claimed, channel.sequence)
            summed = (account.version, account.capacity, account.claimed, account.sequence)
            if said != summed or channel.state is not account.state:
                raise Broken(f"channel {NUMBERS[channel_id]} is {said}, its log says {summed}")
        genesis = begun()
        replay_into(genesis, 1, now, host._settings.validation.retries)
        if state_hash(genesis.actors) != state_hash(actors) or genesis.position != len(now):
            raise Broken(f"shard {shard.number}: another state from its first event than at start")
        self.counts["proofs"] += 1

    def _is_redeemable(self, number: int, channel: Channel) -> None:
        """Refuse a channel that owes more than its signature proves, at a durable moment."""
        proved = signature_of(number, channel.claimed) if channel.claimed else b""
        if channel.best != (channel.claimed, channel.sequence) or channel.signature != proved:
            raise Broken(f"no signature proves {channel.claimed} drops: {channel!r}")

    def _meets(self, now: list[ev.AnyEvent], number: int, promise: Promise) -> None:
        event = now[promise.position - 1] if promise.position <= len(now) else None
        kept = (
            isinstance(event, ev.ClaimReceived)
            and NUMBERS.get(event.channel_id) == number
            and (event.sequence, event.amount) == (promise.sequence, promise.amount)
        )
        if not kept:
            raise Broken(
                f"claim {promise.sequence} of channel {number} ({promise.amount} drops) was "
                f"accepted at {promise.shard}-{promise.position}; the log has {event!r} there"
            )
        self.counts["met"] += 1

    def _take(self, event: ev.AnyEvent, shard: int) -> None:
        """Add an event of the log to the accounts; it must have been sent, and be the next."""
        number = NUMBERS.get(event.channel_id)
        if number is None:
            raise Broken(f"an event of a channel that was never opened: {event!r}")
        account = self.accounts.get(number)
        if account is None:
            if not isinstance(event, ev.ChannelOpened) or not self._commands[number, "open"]:
                raise Broken(f"invented: {event!r}")
            self.accounts[number] = Account(event)
            self.homes[number] = shard
            return
        if event.version != account.version + 1 or event.at < account.at:
            raise Broken(f"out of order after version {account.version}: {event!r}")
        account.version, account.at = event.version, event.at
        self._take_into(account, number, event)

    def _take_into(self, account: Account, number: int, event: ev.AnyEvent) -> None:
        match event:
            case ev.ClaimReceived():
                self._is_signed(number, event)
                rises = account.claimed < event.amount <= account.capacity
                if event.sequence != account.sequence + 1 or not rises:
                    raise Broken(
                        f"does not follow {account.sequence}, {account.claimed}: {event!r}"
                    )
                account.sequence, account.claimed = event.sequence, event.amount
            case ev.ClaimRejected():
                self._is_signed(number, event)
            case ev.FundingConfirmed():
                account.state = State.ACTIVE
            case ev.ChannelFunded():
                account.capacity += event.amount
                self._was_asked(number, f"fund to {account.capacity}", event)
            case ev.CloseRequested():
                account.state = State.SETTLING
                self._was_asked(number, "close", event)
            case ev.ChannelSettled():
                account.state = State.SETTLED
                self._was_asked(number, "settle", event)
            case _:
                raise Broken(f"nobody asked for {event!r}")

    def _was_asked(self, number: int, kind: str, event: ev.AnyEvent) -> None:
        if not self._commands[number, kind]:
            raise Broken(f"nobody asked for {event!r}")

    def _is_signed(self, number: int, event: ev.ClaimReceived | ev.ClaimRejected) -> None:
        if isinstance(event, ev.ClaimCovered):  # which says that nobody looked
            return
        sent = (number, event.amount) in self._signed
        if not sent or event.signature != signature_of(number, event.amount):
            raise Broken(f"never sent, or never signed: {event!r}")

    def _broken(self, sent: Sent, answer: Answer, why: str) -> None:
        raise Broken(
            f"{why}: {sent.kind} claim {sent.sequence or '-'} of channel {sent.number} over "
            f"{sent.amount} drops was answered {answer!r}"
        )


def _conserves(channel: Channel) -> None:
    total = channel.available + channel.unredeemed + channel.redeemed + channel.returned
    if total != channel.capacity or channel.claimed > channel.capacity:
        raise Broken(f"drops appear or vanish: {channel!r}")
