"""Payers' clients: in order mostly, but they retry, repeat, overtake themselves, and some forge.

Each speaks for one channel through the router, as a gateway does. It believes an answer it heard;
what it did not hear, or was told is undecided, it sends again, the same claim to the drop.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from engine.app import Engine
from engine.channels.intake.calls import CallsFull
from engine.channels.intake.submission import Submission
from engine.channels.messages import Answer, Status
from engine.core import commands
from engine.core.claim import Claim
from engine.core.rejections import RejectCode
from engine.core.types import Sequencing, State
from engine.ports import ShardDown
from tests.builders import DESTINATION, SOURCE
from tests.simulation.history import UNDECIDED, History, Sent
from tests.simulation.signed import channel_id_of, claim_of, payer_of, signature_of
from tests.simulation.world import Broken, World

PATIENCE_S = 3.0
AGAIN_S = 0.2
STEP = 10
"""Drops between two honest claims."""

OPENING = 600
FUNDS = 400

ROUNDS: Final = (
    "next", "next", "next", "next", "burst", "again", "again", "repeat", "repeat",
    "overtake", "forge", "forge", "other", "fund", "read", "close",
)  # fmt: skip

Told = TypeVar("Told")


class Post:
    """Claims sent together, and what was heard of each; `done` when all had an answer once."""

    def __init__(
        self, client: "Client", engine: Engine, sent: Sequence[Sent], *, listens: bool
    ) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._client = client
        self._engine = engine
        self._sent = sent
        self._listens = listens
        self._told: list[Answer | None] = [None] * len(sent)
        client.say("sends", [_claim_in_words(one) for one in sent])

    def take(self, submission: Submission) -> None:
        """Hear what is new in the answers; the history hears it even if the client does not."""
        world, history = self._client.world, self._client.history
        if self._engine is not world.engine:
            return  # whoever tells this is gone, and was when it told
        news = []
        for index, answer in enumerate(submission.answers):
            if answer is self._told[index]:
                continue
            news.append(_answer_in_words(answer, submission.shards[index]))
            self._told[index] = answer
            try:
                history.hears(self._sent[index], answer, submission.shards[index])
            except Broken as broken:  # the engine that calls us here is not to blame
                world.fail(broken)
            if self._listens:
                self._client.hear(self._sent[index], answer)
        self._client.say("hears" if self._listens else "misses", news)
        if not self.done.done():
            self.done.set_result(None)


class Client:
    """The payer of one channel."""

    def __init__(self, world: World, history: History, number: int) -> None:
        self.number = number
        self.world = world
        self.history = history
        self._chance = world.draw(f"client {number}")
        self._strict = bool(self._chance.getrandbits(1))
        self._made = 0
        self._open: dict[int, Sent] = {}
        self._done: list[Sent] = []
        self._is_closed = False

    async def run(self, rounds: int) -> None:
        """Open the channel, then send claims for so many rounds."""
        await self._open_channel()
        for _ in range(rounds):
            await self._round()
            await asyncio.sleep(self._chance.choice((0.0, 0.001, 0.01, 0.05)))

    async def finish(self) -> None:
        """Ask until every claim is decided, then read the channel."""
        await self._open_channel()
        while self._open:
            await self._send([*self._open.values()][:8], heard=True)
            await asyncio.sleep(AGAIN_S)
        await self._read()

    def say(self, what: str, parts: Sequence[str]) -> None:
        """Tell the story of this client."""
        self.world.say(f"client {self.number}", f"{what} {', '.join(parts)}")

    # One round ----------------------------------------------------------------------------------

    async def _round(self) -> None:
        what = self._chance.choice(ROUNDS)
        if what in ("fund", "read", "close"):
            await self._ask(what)
        else:
            await self._send(self._claims_for(what))

    def _claims_for(self, what: str) -> Sequence[Sent]:
        """Return the claims of a round, in the order in which they are sent."""
        chance = self._chance
        match what:
            case "next":
                return self._make(chance.randint(1, 6))
            case "burst":  # more than one batch, so that several are on their way at once
                return self._make(chance.randint(9, 20))
            case "again":
                return [*self._open.values()][:8]
            case "overtake":
                new = self._make(chance.randint(2, 4))
                return new[::-1] if chance.getrandbits(1) else new[1:]
            case "repeat":
                return chance.sample(self._done, min(len(self._done), 3))
            case "forge":
                return [self._forged()]
            case _:
                return self._other()

    def _make(self, count: int) -> list[Sent]:
        """Return the next claims, in order, as far as the capacity that was promised reaches."""
        made = []
        for _ in range(count):
            amount = (self._made + 1) * STEP
            if amount > self.history.capacity.get(self.number, 0) or self._is_closed:
                break
            self._made += 1
            sequence = self._made if self._strict else 0
            sent = Sent(self.number, sequence, amount, self._claim(amount, sequence), "honest")
            self._open[self._made] = sent
            made.append(sent)
        return made

    def _claim(self, amount: int, sequence: int) -> Claim:
        return claim_of(self.number, amount, sequence or None)

    def _forged(self) -> Sent:
        """Return a claim that its payer never signed, over an amount that would be welcome."""
        amount = (self._made + self._chance.randint(1, 2)) * STEP
        sequence = self._made + 1 if self._strict else 0
        match self._chance.choice(("amount", "channel", "old", "cut")):
            case "amount":
                signature = signature_of(self.number, amount + 1)
            case "channel":
                signature = signature_of((self.number + 2) % 8, amount)
            case "old":
                signature = signature_of(self.number, STEP)
                amount = max(amount, 2 * STEP)
            case _:
                signature = signature_of(self.number, amount)[:-1]
        claim = Claim(channel_id_of(self.number), amount, signature, sequence or None)
        return Sent(self.number, sequence, amount, claim, "forged")

    def _other(self) -> list[Sent]:
        """Return a signed claim that comes too late: a decided number, or amount, once more."""
        if not self._done:
            return []
        decided = self._chance.choice(self._done)
        amount = decided.amount - 1
        return [
            Sent(
                self.number,
                decided.sequence,
                amount,
                self._claim(amount, decided.sequence),
                "other",
            )
        ]

    # Claims -------------------------------------------------------------------------------------

    async def _send(self, sent: Sequence[Sent], *, heard: bool = False) -> None:
        """Send claims together and wait a while; sometimes the answers go unheard."""
        if not sent:
            return
        engine = await self._engine()
        listens = heard or self._chance.random() < 0.8
        sent = self.history.sends(sent)
        post = Post(self, engine, sent, listens=listens)
        submission = Submission(len(sent), post.take, post.take)
        engine.router.submit([one.claim for one in sent], submission)
        if listens or self._chance.getrandbits(1):
            await asyncio.wait((post.done,), timeout=PATIENCE_S)

    def hear(self, sent: Sent, answer: Answer) -> None:
        """Take in an answer: a claim that is decided need not be sent again."""
        if sent.kind != "honest":
            return
        undecided = answer.status is Status.BUFFERED or answer.code in UNDECIDED
        if undecided or answer.code is RejectCode.SEQUENCE_GAP:
            return
        place = sent.amount // STEP
        if self._open.pop(place, None) is not None and answer.status is not Status.REJECTED:
            self._done.append(sent)

    # Commands and reads -------------------------------------------------------------------------

    async def _open_channel(self) -> None:
        opening = commands.OpenChannel(
            channel_id=channel_id_of(self.number),  # type: ignore[arg-type]
            source=SOURCE,
            destination=DESTINATION,
            public_key=payer_of(self.number).public_key,
            capacity=OPENING,  # type: ignore[arg-type]
            settle_delay_s=3_600,
            sequencing=Sequencing.STRICT if self._strict else Sequencing.AMOUNT,
            funded=True,
        )
        while self.number not in self.history.opened:
            self.history.commands(self.number, "open")
            if await self._command(opening):
                self.history.opened.add(self.number)
                self.history.capacity.setdefault(self.number, OPENING)
            else:
                await asyncio.sleep(AGAIN_S)

    async def _ask(self, what: str) -> None:
        if what == "read":
            await self._read()
        elif what == "fund":
            had = self.history.capacity[self.number]
            self.history.commands(self.number, f"fund to {had + FUNDS}")
            fund = commands.FundChannel(
                channel_id=channel_id_of(self.number),  # type: ignore[arg-type]
                amount=FUNDS,  # type: ignore[arg-type]
                previous=had,  # type: ignore[arg-type]
            )
            await self._command(fund)
            await self._read()
        elif self._chance.random() < 0.2:
            await self._close()

    async def _close(self) -> None:
        """Close the channel, and settle it if that was done."""
        self._is_closed = True
        self.history.closing.add(self.number)
        channel_id = channel_id_of(self.number)
        self.history.commands(self.number, "close")
        await self._command(commands.RequestClose(channel_id=channel_id))  # type: ignore[arg-type]
        if self._chance.getrandbits(1):
            self.history.commands(self.number, "settle")
            await self._command(commands.SettleChannel(channel_id=channel_id))  # type: ignore[arg-type]

    async def _command(self, command: commands.AnyCommand) -> bool:
        """Return whether the command is known to be done."""
        engine = await self._engine()
        self.say("asks for", [type(command).__name__])
        outcome = await self._in_time(engine.router.execute(command))
        if engine is not self.world.engine or outcome is None:
            return False
        self.say("is told", [outcome.rejected.code if outcome.rejected else "done"])
        return outcome.rejected is None

    async def _read(self) -> None:
        """Read the channel as whoever authorises money does, and believe what it says."""
        engine = await self._engine()
        floor = self.history.marks[self.number]
        found = None
        with suppress(ShardDown, CallsFull):
            found = await self._in_time(self._view(engine))
        if found is None or engine is not self.world.engine:
            return
        view = found[0]
        channel = None if view is None else view[1].channel
        self.history.sees(self.number, channel, floor)
        if channel is not None:
            self.history.capacity[self.number] = max(
                self.history.capacity.get(self.number, 0), channel.capacity
            )
            if channel.state is not State.ACTIVE and self.number not in self.history.closing:
                raise Broken(f"channel {self.number} is {channel.state}")

    async def _view(self, engine: Engine) -> "tuple[object]":
        return (await engine.router.read(channel_id_of(self.number)),)

    async def _engine(self) -> Engine:
        await self.world.up.wait()
        assert self.world.engine is not None
        return self.world.engine

    async def _in_time(self, asked: Awaitable[Told]) -> Told | None:
        try:
            return await asyncio.wait_for(asked, PATIENCE_S)
        except TimeoutError:
            return None


def _claim_in_words(sent: Sent) -> str:
    kind = "" if sent.kind == "honest" else f"{sent.kind} "
    return f"{kind}{sent.sequence or '-'}:{sent.amount}"


def _answer_in_words(answer: Answer, shard: int) -> str:
    if answer.status in (Status.ACCEPTED, Status.DUPLICATE):
        return f"{answer.status.name.lower()} {answer.sequence} at {shard}-{answer.position}"
    return answer.code.value if answer.code is not None else answer.status.name.lower()
