"""The client: one object per engine, for one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from random import Random
from typing import Any, Final, Literal, Self

import aiohttp
import msgspec

from engine.client.calls import Calls
from engine.client.errors import ServerUnreachable
from engine.client.lookup import look_up
from engine.client.options import Backoff, ClientOptions
from engine.client.pipe import Pipe, open_pipe
from engine.client.submission import Progress, Submission
from engine.client.subscription import changes
from engine.client.values import (
    BalanceChange,
    BalanceInfo,
    BestClaim,
    ChannelInfo,
    Hex,
    PastClaim,
    Result,
    Status,
    claim_body,
    opening_body,
)
from engine.core.claim import Claim
from engine.core.commands import OpenChannel
from engine.core.types import State

DEFAULT_SERVER: Final = "http://127.0.0.1:8480"
PAGE: Final = 200
HISTORY_PAGE: Final = 1_000
"""Few and large ones: each is read from the log of a shard."""

Consistency = Literal["strong", "session", "eventual"]


class _WireResult(msgspec.Struct):
    """A result as JSON has it; what could not be read of a claim is null."""

    status: Status
    channel_id: Hex | None = None
    amount: int | None = None
    sequence: int | None = None
    code: str | None = None
    message: str | None = None
    expected: int | None = None
    actual: int | None = None
    missing: tuple[int, ...] = ()
    retryable: bool = False
    position: str | None = None
    claimed: int | None = None
    available: int | None = None
    covered_by: int | None = None


class _Results(msgspec.Struct):
    results: list[_WireResult]


class _ChannelPage(msgspec.Struct):
    channels: list[ChannelInfo]


class _ClaimPage(msgspec.Struct):
    claims: list[PastClaim]


class Client:
    """Talks to one engine: claims through a pipelined WebSocket, everything else over HTTP.

    async with Client("http://127.0.0.1:8480") as client:
        results = await client.submit(claims)

    Raises, from every method, `Refused` when the engine says no and `ServerUnreachable` when nobody
    answers for `options.retry_s`; both are `ClientError`.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        options: ClientOptions | None = None,
        random: Random | None = None,
    ) -> None:
        self.server = server.rstrip("/")
        self.options = options or ClientOptions()
        self._backoff = Backoff(self.options, random or Random())
        self._session: aiohttp.ClientSession
        self._calls: Calls
        self._pipe: Pipe | None = None
        self._connecting = asyncio.Lock()
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=self.options.call_timeout_s)
        self._session = aiohttp.ClientSession(timeout=timeout)
        self._calls = Calls(self._session, self.server, self.options, self._backoff)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()
        await self._session.close()

    # Claims -------------------------------------------------------------------------------------

    async def submit(
        self, claims: Sequence[Claim], progress: Progress | None = None
    ) -> list[Result]:
        """Have claims taken; return once each has a final answer, in the order given.

        What is refused for the moment or lost on the way is sent again, a channel's claims always
        in their order; a buffered claim's later decision is awaited.

        Args:
            claims: Of any channels; those of one channel in their order.
            progress: Called now and then with (answered, all).

        Returns:
            A result per claim. Where patience ended first it is `rejected` with `unavailable`
            (outcome unknown) or the last thing the engine said of it.
        """
        submission = Submission(claims, self.options, self._backoff, progress)
        results = await submission.run(self._connected)
        await look_up(claims, results, submission.doubtful(), self.history)
        return results

    async def submit_one(self, claim: Claim) -> Result:
        """Have one claim taken over HTTP; the result has all that the engine says of it.

        A claim that came early is answered `buffered` at once.
        """
        body = {"claims": [claim_body(claim)]}
        answer = await self._calls.post(_Results, "/v1/claims", body, repeatable=True)
        wire = answer.results[0]
        fields = {name: getattr(wire, name) for name in wire.__struct_fields__}
        return Result(**fields | {"channel_id": claim.channel_id, "amount": claim.amount})

    async def _connected(self) -> Pipe:
        """Return the pipe of this client, a new one where it broke."""
        async with self._connecting:
            if self._pipe is None or self._pipe.is_broken:
                await self._open.aclose()
                opening = open_pipe(
                    self._session, self.server, heartbeat_s=self.options.heartbeat_s
                )
                self._pipe = await self._open.enter_async_context(opening)
            return self._pipe

    # Commands -----------------------------------------------------------------------------------

    async def open_channel(self, command: OpenChannel) -> ChannelInfo:
        """Open a channel; the same again is no error."""
        body = opening_body(command)
        return await self._calls.post(ChannelInfo, "/v1/channels", body, repeatable=True)

    async def open_channels(
        self, commands: Sequence[OpenChannel], progress: Progress | None = None
    ) -> list[ChannelInfo]:
        """Open many channels at once; the first that is refused ends it."""
        found: list[ChannelInfo | None] = [None] * len(commands)
        left = iter(range(len(commands)))
        done = 0

        async def work() -> None:
            nonlocal done
            for index in left:
                found[index] = await self.open_channel(commands[index])
                done += 1
                if progress is not None:
                    progress(done, len(commands))

        await _together(work, min(self.options.calls_in_flight_max, len(commands)))
        return [info for info in found if info is not None]

    async def confirm_funding(self, channel_id: bytes) -> ChannelInfo:
        """Say that the ledger holds the channel."""
        return await self._command(channel_id, "confirm-funding", {})

    async def fund(
        self, channel_id: bytes, amount: int, previous: int | None = None
    ) -> ChannelInfo:
        """Add drops to the capacity; with `previous`, the capacity believed in, at most once."""
        body = {"amount": str(amount)} | _drops("previous", previous)
        return await self._command(channel_id, "fund", body)

    async def request_close(self, channel_id: bytes) -> ChannelInfo:
        """Ask for the close."""
        return await self._command(channel_id, "request-close", {})

    async def settle(self, channel_id: bytes, redeemed: int | None = None) -> ChannelInfo:
        """End the channel; `redeemed` is what the ledger paid, None for all that was claimed."""
        return await self._command(channel_id, "settle", _drops("redeemed", redeemed))

    async def dispute(self, channel_id: bytes, reason: str = "") -> ChannelInfo:
        """Stop the channel because the parties disagree."""
        return await self._command(channel_id, "dispute", {"reason": reason})

    async def resolve(
        self, channel_id: bytes, outcome: State, redeemed: int | None = None
    ) -> ChannelInfo:
        """End the dispute: Active, Settling, or Settled with what the ledger paid."""
        body = {"outcome": outcome.value} | _drops("redeemed", redeemed)
        return await self._command(channel_id, "resolve", body)

    async def _command(self, channel_id: bytes, verb: str, body: Mapping[str, Any]) -> ChannelInfo:
        return await self._calls.post(ChannelInfo, f"{_path(channel_id)}/{verb}", body)

    # Reads --------------------------------------------------------------------------------------

    async def channel(self, channel_id: bytes) -> ChannelInfo:
        """Return a channel as its shard has it on disk."""
        return await self._calls.get(ChannelInfo, _path(channel_id))

    async def channels(
        self, state: State | None = None, page: int = PAGE
    ) -> AsyncIterator[ChannelInfo]:
        """Yield every channel by id, fetching `page` at a time."""
        after: str | None = None
        while True:
            answer = await self._calls.get(
                _ChannelPage, "/v1/channels", limit=page, starting_after=after, state=state
            )
            for info in answer.channels:
                yield info
            if len(answer.channels) < page:
                return
            after = answer.channels[-1].channel_id.hex().upper()

    async def balance(
        self,
        channel_id: bytes,
        consistency: Consistency = "strong",
        at_least: str | None = None,
    ) -> BalanceInfo:
        """Return a balance.

        Args:
            channel_id: Whose.
            consistency: `strong` asks the shard; `session` and `eventual` take what is at hand.
            at_least: For `session`: the position last seen.
        """
        path = f"{_path(channel_id)}/balance"
        return await self._calls.get(BalanceInfo, path, consistency=consistency, at_least=at_least)

    async def best_claim(self, channel_id: bytes) -> BestClaim:
        """Return the claim to redeem on the ledger."""
        return await self._calls.get(BestClaim, f"{_path(channel_id)}/best-claim")

    async def history(
        self, channel_id: bytes, after: int = 0, page: int = HISTORY_PAGE
    ) -> AsyncIterator[PastClaim]:
        """Yield the accepted claims of a channel with sequences above `after`, oldest first.

        They have no holes but where the engine's log was cut: what it let go is not among them.
        """
        path = f"{_path(channel_id)}/claims"
        while True:
            answer = await self._calls.get(_ClaimPage, path, limit=page, starting_after=after)
            for claim in answer.claims:
                yield claim
            if len(answer.claims) < page:
                return
            after = answer.claims[-1].sequence

    def subscribe(self, channel_ids: Collection[bytes]) -> AsyncGenerator[BalanceChange, None]:
        """Yield balances as they become durable, the present ones first, across reconnections."""
        return changes(self._session, self.server, channel_ids, self.options, self._backoff)

    async def server_info(self) -> dict[str, Any]:
        """Return version, sizes and health of the engine."""
        return await self._calls.get(dict[str, Any], "/v1/server")

    async def ping(self) -> None:
        """Return at once when an engine's process answers; no patience here."""
        status = await self._calls.once("/livez")
        if status != 200:
            raise ServerUnreachable(self.server, f"/livez says HTTP {status}")


def _path(channel_id: bytes) -> str:
    return f"/v1/channels/{channel_id.hex().upper()}"


def _drops(name: str, amount: int | None) -> dict[str, str]:
    return {} if amount is None else {name: str(amount)}


async def _together(work: Callable[[], Any], count: int) -> None:
    """Run `count` workers; the first failure ends the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(work())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
