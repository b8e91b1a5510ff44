"""A real shard on a real log, real payers and verifiers, and a clock that the test moves."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from engine.channels.journal import OS_FILES, Files, LogOptions, ShardJournal, read_committed
from engine.channels.messages import Answer, ChannelView, Late, Outcome, Reply
from engine.channels.options import AWAKE_MAX
from engine.channels.recovery import recover, state_hash
from engine.channels.shard import Shard
from engine.core.claim import signing_message
from engine.core.commands import AnyCommand, Command
from engine.core.events import AnyEvent
from engine.core.types import NS_PER_S, TimeNs
from engine.ports import Journal
from engine.validation.options import ValidationOptions
from engine.validation.pipeline import Pipeline
from engine.validation.risk import RiskRule, RiskStage
from engine.verify.batch import Item, encode_batch, with_probes
from engine.verify.options import VerifyOptions
from engine.verify.worker import VerifierWorker
from tests.builders import NOON, open_command
from tests.verify.payers import Payer, make_payer

SEAL_KEY = bytes(range(32))
VERIFIER = VerifierWorker(SEAL_KEY)
NEWEST_VERIFIER = VerifierWorker(SEAL_KEY, newest=True)
GATEWAY = "gateway-a"
LOG = LogOptions(segment_bytes=65_536, spare_in_background=False)
SECP256K1, ED25519 = make_payer("secp256k1"), make_payer("ed25519")
MS = NS_PER_S // 1_000


@cache
def channel_id(name: str) -> bytes:
    return sha256(name.encode()).digest()


def payer_of(name: str) -> Payer:
    """Return the payer of a channel: every second name is on the other curve."""
    return ED25519 if channel_id(name)[0] % 2 else SECP256K1


def item(name: str, amount: int, sequence: int | None = None, **fields: Any) -> Item:
    """Return a claim on channel `name`, truly signed."""
    return _item(name, amount, sequence, tuple(sorted(fields.items())))


@cache
def _item(name: str, amount: int, sequence: int | None, fields: tuple[Any, ...]) -> Item:
    payer = payer_of(name)
    signed = payer.sign(signing_message(channel_id(name), amount))
    return Item(
        **{
            "channel_id": channel_id(name),
            "public_key": payer.public_key,
            "amount": amount,
            "signature": signed,
            "sequence": sequence,
        }
        | dict(fields)
    )


def spoiled(one: Item, by: int = 1) -> Item:
    """Return the claim with another amount than was signed."""
    return Item(
        one.channel_id, one.public_key, one.amount + by, one.signature, one.sequence, one.previous
    )


def blob_of(items: Sequence[Item]) -> bytes:
    return encode_batch(with_probes(items))


def word(answer: Answer) -> str:
    """Return an answer in one word, as the tables of the tests have it."""
    return answer.code.value if answer.code is not None else answer.status.name.lower()


class ManualClock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = NOON

    def now_ns(self) -> TimeNs:
        return self.now

    def forward(self, ms: int) -> None:
        self.now = TimeNs(self.now + ms * MS)


class Desk:
    """One shard and one or more gateways that ask it, step by step."""

    awake_max = AWAKE_MAX

    def __init__(
        self,
        directory: Path,
        validation: ValidationOptions | None = None,
        rules: tuple[RiskRule, ...] = (),
        wrap: Callable[[ShardJournal], Journal] | None = None,
        files: Files = OS_FILES,
        verify: VerifyOptions | None = None,
    ) -> None:
        self.verify = verify or VerifyOptions()
        self.verifier = NEWEST_VERIFIER if self.verify.is_newest else VERIFIER
        self.directory = directory
        self.clock = ManualClock()
        self.validation = validation or ValidationOptions()
        self.rules = rules
        self.late: list[Late] = []
        self._wrap = wrap
        self._files = files
        self.start()

    def start(self) -> None:
        """Recover from the log, as the constructor of a shard's process does."""
        self.log = ShardJournal(self.directory, LOG, self._files)
        recovered = recover(self.log, self.validation.retries, awake_max=self.awake_max)
        self.recovered = recovered
        journal: Journal = self.log if self._wrap is None else self._wrap(self.log)
        self.pipeline = Pipeline(self.validation, RiskStage(self.rules))
        self.shard = Shard(journal, self.log.epoch, SEAL_KEY, self.pipeline, self.clock, recovered)
        self.shard.known_verdicts = self.verify.known_verdicts
        self.turns: Counter[str] = Counter()

    def crash(self) -> None:
        """End as SIGKILL would: nothing is sealed, nothing is checkpointed."""
        self.log._log.abandon()

    def rest(self) -> None:
        """Let two ticks pass in which nothing comes: the newest frame is proven durable."""
        self.shard.tick()
        self.shard.tick()

    def restart(self, *, clean: bool = False) -> None:
        if clean:
            self.shard.close()
        else:
            self.crash()
        self.start()

    def open(self, *names: str, **changes: Any) -> list[Outcome]:
        """Open funded channels of 1,000 drops."""
        return self.shard.execute([opening(name, **changes) for name in names])

    def do(self, kind: type[Command], name: str, **fields: Any) -> Outcome:
        command: AnyCommand = kind(channel_id=channel_id(name), **fields)  # type: ignore[assignment]
        (outcome,) = self.shard.execute([command])
        return outcome

    def send(
        self,
        items: Sequence[Item],
        gateway: str = GATEWAY,
        sealed: bytes | None = None,
        **changes: Any,
    ) -> Reply:
        """Send a batch; `changes` to the call are `epoch`, `turn` and `blob`."""
        if gateway not in self.turns:
            self.shard.greet(gateway, 0)
        blob = changes.get("blob", blob_of(items))
        turn = changes.get("turn", self.turns[gateway])
        epoch = changes.get("epoch", self.shard.epoch)
        sealed = self.verifier.verify(blob) if sealed is None else sealed
        reply = self.shard.commit(gateway, epoch, turn, blob, sealed)
        self.turns[gateway] += reply.refused is None
        return reply

    def submit(self, *items: Item, gateway: str = GATEWAY) -> list[Answer]:
        """Send a batch that must be looked at; keep what is decided of earlier ones."""
        reply = self.send(items, gateway)
        assert reply.refused is None
        self.late += reply.late
        return reply.answers

    def words(self, *items: Item) -> list[str]:
        return [word(answer) for answer in self.submit(*items)]

    def take_late(self, gateway: str = GATEWAY) -> list[tuple[int, int, str]]:
        """Return (batch, index, word) of all that was decided late, and forget it."""
        late = [*self.late, *self.shard.collect(gateway)]
        self.late = []
        return [(one.number, one.index, word(one.answer)) for one in late]

    def view(self, name: str) -> ChannelView:
        (view,) = self.shard.read([channel_id(name)])
        assert view is not None
        return view

    def events(self) -> list[AnyEvent]:
        """Return every event of the log, oldest first."""
        return [event for _, events in self.log.read_batches(1) for event in events]

    def events_on_disk(self) -> list[AnyEvent]:
        """Return the same, once the log is closed."""
        return [event for _, events in read_committed(self.directory) for event in events]

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events()]

    def live_hash(self) -> str:
        return state_hash(self.shard._actors)


def opening(name: str, **changes: Any) -> Any:
    """Return the command that opens channel `name` for its payer."""
    fields = {"channel_id": channel_id(name), "public_key": payer_of(name).public_key}
    return open_command(**fields | changes)


def words_of(answers: Iterable[Answer]) -> list[str]:
    return [word(answer) for answer in answers]
