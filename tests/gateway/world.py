"""An engine of one process behind a real socket, and payers who sign."""

import contextlib
import io
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

import aiohttp
import msgspec

from engine import app
from engine.channels.options import LaneOptions, PlacementOptions
from engine.config import Config
from engine.core.claim import signing_message
from engine.gateway.options import GatewayOptions
from engine.gateway.server import Gateway, listening
from engine.gateway.state import GatewayState
from engine.validation.options import ValidationOptions
from engine.verify.options import VerifyOptions
from tests.builders import DESTINATION, SOURCE
from tests.verify.payers import make_payer

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
PATIENT: Final = LaneOptions(linger_us=0, unready_sync_ms=30_000)
"""It is ready also on a disk that is slow for a moment, as with other tests beside this one."""

_numbers = itertools.count(1)


class Payer:
    """A channel of its own, with the key that signs for it."""

    def __init__(self, door: "Door", curve: str = "secp256k1") -> None:
        number = next(_numbers)
        self.door = door
        self.key = make_payer(curve, number % 4)
        self.channel_id = sha256(b"channel %d" % number).digest()
        self.id = self.channel_id.hex().upper()
        self.path = f"/v1/channels/{self.id}"

    def opening(self, **changes: Any) -> dict[str, Any]:
        body = {
            "channel_id": self.id,
            "source": SOURCE,
            "destination": DESTINATION,
            "public_key": self.key.public_key.hex().upper(),
            "capacity": "1000",
            "settle_delay": 3_600,
            "funded": True,
        }
        return {name: value for name, value in (body | changes).items() if value is not None}

    def sign(self, amount: int) -> bytes:
        return self.key.sign(signing_message(self.channel_id, amount))

    def claim(self, sequence: int | None, amount: int, **changes: Any) -> dict[str, Any]:
        """A claim as JSON has it."""
        body = {
            "channel_id": self.id,
            "amount": str(amount),
            "signature": self.sign(amount).hex().upper(),
            "sequence": sequence,
        }
        return {name: value for name, value in (body | changes).items() if value is not None}

    def wire(self, sequence: int | None, amount: int) -> list[Any]:
        """A claim as a binary frame has it."""
        return [self.channel_id, sequence, amount, self.sign(amount)]

    async def balance(self) -> dict[str, Any]:
        return (await self.door.get(f"{self.path}/balance")).json


@dataclass
class Answer:
    """What an HTTP call was answered."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def msgpack(self) -> Any:
        return msgspec.msgpack.decode(self.body)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        return self.json["code"]


class Door:
    """A running gateway, and the calls that tests make."""

    def __init__(self, url: str, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.gateway = gateway
        self.state = gateway.state
        self.session = session
        self.host, _, port = url.removeprefix("http://").partition(":")
        self.port = int(port)

    async def call(self, method: str, path: str, data: Any = None, **options: Any) -> Answer:
        if isinstance(data, bytes) and len(data) > 1 << 20:
            data = io.BytesIO(data)  # or the client warns that sending it takes long
        async with self.session.request(method, self.url + path, data=data, **options) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.call("GET", path, params=query)

    async def post(self, path: str, body: Any = None) -> Answer:
        data = b"" if body is None else body if isinstance(body, bytes) else encoded(body)
        return await self.call("POST", path, data=data, headers={"content-type": JSON})

    async def pack(self, path: str, body: Any) -> Answer:
        data = body if isinstance(body, bytes) else msgspec.msgpack.encode(body)
        return await self.call("POST", path, data=data, headers={"content-type": MSGPACK})

    async def payer(self, curve: str = "secp256k1", **changes: Any) -> Payer:
        """A payer whose channel is open."""
        payer = Payer(self, curve)
        answer = await self.post("/v1/channels", payer.opening(**changes))
        assert answer.status == 201, answer.body
        return payer

    async def results(self, *claims: Any) -> list[dict[str, Any]]:
        answer = await self.post("/v1/claims", {"claims": list(claims)})
        assert answer.status == 200, answer.body
        return answer.json["results"]

    @contextlib.asynccontextmanager
    async def socket(self) -> AsyncIterator["Socket"]:
        async with self.session.ws_connect(f"{self.url}/v1/ws", max_msg_size=0) as socket:
            yield Socket(socket)


class Socket:
    """A WebSocket and the two languages spoken on it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.raw = socket

    async def frame(self, number: int, *claims: Any) -> list[Any]:
        await self.post(number, *claims)
        return await self.answers(number)

    async def post(self, number: int, *claims: Any) -> None:
        await self.raw.send_bytes(msgspec.msgpack.encode([number, claims]))

    async def answers(self, number: int) -> list[Any]:
        got, answers = msgspec.msgpack.decode(await self.raw.receive_bytes(timeout=10))
        assert got == number
        return answers

    async def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        await self.raw.send_str(encoded({"id": 7, "command": command} | fields).decode())
        while (heard := await self.heard()).get("type") != "response":
            pass
        return heard

    async def heard(self) -> dict[str, Any]:
        return msgspec.json.decode(await self.raw.receive_str(timeout=10))


def encoded(body: Any) -> bytes:
    return msgspec.json.encode(body)


@contextlib.asynccontextmanager
async def door_to_engine(
    datadir: Path, verification: Literal["every", "newest"] = "every", **changes: Any
) -> AsyncIterator[Door]:
    """Run an engine and its gateway; `changes` are fields of the gateway's options."""
    config = Config(
        datadir=str(datadir),
        gateway=GatewayOptions(port=0, **changes),
        placement=PlacementOptions(runtime="inline", shards=2),
        lane=PATIENT,
        validation=ValidationOptions(hold_ms=300),
        verify=VerifyOptions(verifiers=1, verification=verification),
    )
    async with app.running(config) as engine, aiohttp.ClientSession() as session:
        state = GatewayState(engine.router, engine.pool, engine.feed, config.gateway)
        gateway = Gateway(state)
        async with listening(gateway) as url:
            yield Door(url, gateway, session)
