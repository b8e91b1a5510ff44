"""`/v1/ws`: binary frames of claims, pipelined, and text commands in xrpld's envelope.

A connection has one reader and one writer. The reader takes frames while few enough are without an
answer that was sent; beyond that, frames wait in the socket, so a sender that does not read its
answers stops itself. A binary frame that nothing waits before is taken as it comes (`frames`); one
that no shard has room for is refused unread (`unread`). The writer sends answers in the order they
are made, and balances when there is room: of a channel only the newest, so a slow reader misses
steps but never the end.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from engine.channels.answers import OVERLOADED
from engine.channels.intake.calls import CallsFull
from engine.channels.intake.submission import Submission
from engine.core.claim import signing_message
from engine.core.types import CHANNEL_ID_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES_MAX
from engine.gateway.answers import balance, binary, channel, results
from engine.gateway.asgi import Message, Receive, Scope, Send
from engine.gateway.due import Due
from engine.gateway.edge import UNSENT_MAX
from engine.gateway.envelope import failure, success, text
from engine.gateway.following import BalancesFollowed
from engine.gateway.forms import JSON, Malformed, integer_of, octets_of
from engine.gateway.frames import FRAMES, FrameSocket
from engine.gateway.health import server_info
from engine.gateway.payments.following import PaymentsFollowed, drop
from engine.gateway.problems import Problem, malformed
from engine.gateway.reads import balance_of, channel_of
from engine.gateway.schemas import (
    JSON_READER,
    TextCommand,
    WireClaim,
    checked,
    decode_frame,
    decode_text,
    number_of,
)
from engine.gateway.state import GatewayState
from engine.gateway.unread import refused_unread
from engine.ports import ShardDown
from engine.verify.schemes import verify

CLOSE_GOING_AWAY: Final = 1001
CLAIMS_AHEAD_MAX: Final = 16_384
"""Claims of one WebSocket that may be without an answer that was sent."""

DRAIN_MAX_S: Final = 10.0
"""How long a stop waits for the answers to what was taken; for a client see `patience`."""

CLOSE_MAX_S: Final = 0.5
"""How long a client has to say that it heard of the end."""

_GOING_AWAY: Final[Message] = {"type": "websocket.close", "code": CLOSE_GOING_AWAY}

_encode: Final = msgspec.msgpack.Encoder().encode


class Connection:
    """One WebSocket from its acceptance to its end."""

    def __init__(
        self, state: GatewayState, receive: Receive, send: Send, frames: FrameSocket
    ) -> None:
        self._state = state
        self._receive = receive
        self._send = send
        self._frames = frames
        self._out: deque[Message | Due] = deque()
        self._balances = BalancesFollowed(state.router.views, self._wake)
        self._payments = PaymentsFollowed(state.payments, self._wake)
        self._frames_ahead = self._claims_ahead = self._bytes_ahead = 0
        self._to_write = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._gone = False
        self._stops = False
        self._listens = False
        self._written = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        await self._receive()
        await self._send({"type": "websocket.accept"})
        self._frames.hand_over(self._take_at_once)
        writer = asyncio.create_task(self._write())
        try:
            await self._read()
        finally:
            self._gone = True
            self._has_room.set()
            self._balances.close()
            self._payments.close()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self.ended.set()

    async def drain(self) -> None:
        """Take no more frames, and close once those that were taken have their answers."""
        self._stops, self._listens = True, False
        self._has_room.set()  # whoever waits for room is to see that
        while self._frames_ahead and not self._gone:
            self._has_room.clear()
            await self._has_room.wait()
        self.put(_GOING_AWAY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_MAX_S):
                await self._frames.lost.wait()

    # In -----------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take what comes until the connection ends; at a stop leave the rest in the socket."""
        while not self._stops:
            self._listens = True
            message = await self._receive()
            self._listens = False
            if message["type"] == "websocket.disconnect":
                return
            while self._is_full() and not self._stops:
                self._has_room.clear()
                await self._has_room.wait()
            if not self._stops:
                await self._take(message)
        await self._written.wait()

    async def _take(self, message: Message) -> None:
        octets = message.get("bytes")
        if octets is not None:
            self._take_frame(octets)
        else:
            await self._take_text(message["text"])

    def _is_full(self) -> bool:
        """Say whether enough is without an answer that was sent, or has no room to be sent."""
        most = self._state.options.frames_in_flight_max
        ahead = max(self._frames_ahead, len(self._out))
        return not self._gone and (
            ahead >= most
            or self._claims_ahead >= CLAIMS_AHEAD_MAX
            or self._bytes_ahead >= UNSENT_MAX
        )

    def _take_at_once(self, frame: bytes) -> bool:
        """Take a frame that came while the reader waits for one; see `frames.Take`."""
        if not self._listens or self._is_full():
            return False
        self._take_frame(frame)
        return True

    def _take_frame(self, frame: bytes) -> None:
        refused = refused_unread(frame) if self._state.router.is_full else None
        if refused is not None:
            answer, count = refused
            self._state.router.count(OVERLOADED, count)
            self.answered(0.0)
            if not self._frames.send_frame(answer):
                self.put({"type": "websocket.send", "bytes": answer})
            return
        try:
            number, claims = decode_frame(frame)
        except Malformed as error:
            asked = TextCommand(command="", id=number_of(frame))
            self._fail(asked, malformed(error.param, error.detail))
            return

        def render(submission: Submission) -> Message:
            answers = binary(submission.answers, submission.shards)
            return {"type": "websocket.send", "bytes": _encode((number, answers))}

        self._submit(claims, render)

    def _submit(self, claims: Sequence[Any], render: Callable[[Submission], Message]) -> None:
        self._frames_ahead += 1
        self._claims_ahead += len(claims)
        due = Due(self, len(claims), render)
        submission = Submission(len(claims), due.first, due.again)
        if not claims:
            due.first(submission)
        elif type(claims[0]) is WireClaim and not self._state.draining:
            self._state.router.submit(claims, submission)
        else:
            self._state.submit(claims, submission)

    def answered(self, took_s: float) -> None:
        """Count a frame whose claims all have an answer."""
        self._state.acks.add(took_s)

    # Out ----------------------------------------------------------------------------------------

    def put(self, message: Message | Due) -> None:
        """Have something sent, after what waits already."""
        if not self._gone:
            if not isinstance(message, Due):
                self._bytes_ahead += _size_of(message)
            self._out.append(message)
            self._to_write.set()

    def _say(self, answer: dict[str, Any]) -> None:
        self.put(text(answer))

    async def _write(self) -> None:
        try:
            await self._write_until_gone()
        finally:
            # The reader may wait for room that nobody makes any more.
            self._gone = True
            self._has_room.set()
            self._written.set()

    async def _write_until_gone(self) -> None:
        while True:
            while self._out:
                message = self._out.popleft()
                await self._send_next(message)
                if message is _GOING_AWAY:
                    return
            told = False
            # In turn: neither balances nor payments that change all the time starve the others.
            for next_message in (self._balances.next_message, self._payments.next_message):
                news = next_message()
                if news is not None:
                    told = True
                    await self._send(text(news))
            if told:
                continue
            self._to_write.clear()
            await self._to_write.wait()

    async def _send_next(self, message: Message | Due) -> None:
        if not isinstance(message, Due):
            await self._deliver(message)
            self._bytes_ahead -= _size_of(message)
        else:
            await self._deliver(message.message())
            if not message.is_sent:
                message.is_sent = True
                self._frames_ahead -= 1
                self._claims_ahead -= message.count
        self._has_room.set()

    async def _deliver(self, message: Message) -> None:
        octets = message.get("bytes")
        if octets is None or not self._frames.send_frame(octets):
            await self._send(message)

    def _wake(self) -> None:
        self._to_write.set()

    # Text commands ------------------------------------------------------------------------------

    async def _take_text(self, text: str) -> None:
        asked = TextCommand(command="")
        try:
            asked = checked(decode_text, text)
            command = COMMANDS.get(asked.command)
            if command is None:
                raise Problem(400, "unknownCmd", f"no command {asked.command!r}")
            answer = await command(self, asked)
        except Malformed as error:
            self._fail(asked, malformed(error.param, error.detail))
        except Problem as problem:
            self._fail(asked, problem)
        except (ShardDown, CallsFull):
            self._fail(asked, Problem(503, "unavailable", "the shard does not answer; try again"))
        else:
            if answer is not None:
                self._say(success(asked, answer))

    def _fail(self, asked: TextCommand, problem: Problem) -> None:
        self._say(failure(asked, problem))

    async def _command_submit(self, asked: TextCommand) -> None:
        if asked.claims is None:
            raise Malformed("claims", "missing")
        claims = [JSON_READER.one_or_why(raw) for raw in asked.claims]

        def render(submission: Submission) -> Message:
            return text(success(asked, {"results": results(claims, submission, JSON)}))

        self._submit(claims, render)

    async def _command_channel_info(self, asked: TextCommand) -> dict[str, Any]:
        return channel(*await channel_of(self._state, _id_of(asked.channel_id)), JSON)

    async def _command_balance(self, asked: TextCommand) -> dict[str, Any]:
        consistency = asked.consistency or "strong"
        seen = await balance_of(self._state, _id_of(asked.channel_id), consistency, None)
        return balance(seen, consistency, JSON)

    async def _command_channel_verify(self, asked: TextCommand) -> dict[str, Any]:
        if asked.amount is None or asked.public_key is None or asked.signature is None:
            raise Malformed("channel_verify", "needs channel_id, amount, public_key and signature")
        message = signing_message(_id_of(asked.channel_id), integer_of("amount", asked.amount))
        key = octets_of("public_key", asked.public_key, PUBLIC_KEY_BYTES, PUBLIC_KEY_BYTES)
        signature = octets_of("signature", asked.signature, 1, SIGNATURE_BYTES_MAX)
        return {"signature_verified": verify(key, message, signature)}

    async def _command_subscribe(self, asked: TextCommand) -> dict[str, Any]:
        ids = [_id_of(text) for text in asked.channels or ()]
        if self._balances.count_with(ids) > self._state.options.subscriptions_max:
            most = self._state.options.subscriptions_max
            raise Problem(400, "malformed", f"a connection follows at most {most} channels")
        payments = [] if asked.payments is None else await self._payments.open(asked.payments)
        try:
            unique = dict.fromkeys(ids)
            read = [await balance_of(self._state, one, "eventual", None) for one in unique]
        except BaseException:
            drop(payments)
            raise
        # From here on nothing else runs: no change comes between what is told and what is heard.
        self._payments.follow(payments)
        for seen in read:
            self._balances.follow(seen)
        return self._counts(asked)

    def _counts(self, asked: TextCommand) -> dict[str, Any]:
        counts = {"subscribed": len(self._balances)}
        return counts if asked.payments is None else counts | self._payments.counts()

    async def _command_unsubscribe(self, asked: TextCommand) -> dict[str, Any]:
        self._balances.unfollow([_id_of(text) for text in asked.channels or ()])
        self._payments.unfollow(asked.payments or ())
        return self._counts(asked)

    async def _command_server_info(self, asked: TextCommand) -> dict[str, Any]:
        return await server_info(self._state)

    async def _command_ping(self, asked: TextCommand) -> dict[str, Any]:
        return {}


COMMANDS: Final[dict[str, Callable[[Connection, TextCommand], Any]]] = {
    "submit": Connection._command_submit,
    "channel_info": Connection._command_channel_info,
    "channel_verify": Connection._command_channel_verify,
    "balance": Connection._command_balance,
    "subscribe": Connection._command_subscribe,
    "unsubscribe": Connection._command_unsubscribe,
    "server_info": Connection._command_server_info,
    "ping": Connection._command_ping,
}


def _size_of(message: Message) -> int:
    return len(message.get("bytes") or message.get("text") or b"")


def _id_of(text: str | None) -> bytes:
    if text is None:
        raise Malformed("channel_id", "missing")
    return octets_of("channel_id", text, CHANNEL_ID_BYTES, CHANNEL_ID_BYTES)


class WebSocketDoor:
    """Accepts WebSockets and lets them finish when the engine stops."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._connections: set[Connection] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection; ASGI."""
        if self._state.draining:
            await receive()
            await send({"type": "websocket.accept"})
            await send(_GOING_AWAY)
            return
        connection = Connection(self._state, receive, send, scope["extensions"][FRAMES])
        self._connections.add(connection)
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)

    async def drain(self) -> None:
        """Close every connection once its frames are answered."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_MAX_S):
                await asyncio.gather(*(connection.drain() for connection in self._connections))
