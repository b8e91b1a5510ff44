"""An engine behind a real socket in a thread of its own, and payers who speak to it over the wire.

Clients are synchronous and know nothing of the program but its protocol.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from websockets.sync.client import ClientConnection, connect

from bench.signing import DESTINATION, SOURCE, Curve, make_payer, sign
from engine.app import running
from engine.channels.options import PlacementOptions
from engine.config import Config
from engine.gateway.options import GatewayOptions
from engine.gateway.payments.desk import payments_desk
from engine.gateway.payments.options import PaymentsOptions
from engine.gateway.server import Gateway, listening
from engine.gateway.state import GatewayState
from engine.validation.options import ValidationOptions
from engine.verify.options import VerifyOptions
from tests.gateway.world import PATIENT

JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"
PROBLEM: Final = "application/problem+json"
WAIT_S: Final = 20.0
_numbers = itertools.count()


class Server:
    """An engine and its gateway, in a thread; `with` starts and drains it."""

    def __init__(self, datadir: Path, hold_ms: int = 1_000, **gateway: Any) -> None:
        self._config = Config(
            datadir=str(datadir),
            gateway=GatewayOptions(port=0, **gateway),
            placement=PlacementOptions(runtime="inline", shards=2),
            lane=PATIENT,
            validation=ValidationOptions(hold_ms=hold_ms),
            verify=VerifyOptions(verifiers=1),
            payments=PaymentsOptions(url=f"lmdb:///{datadir}/payments"),
        )
        self.gateway: Gateway
        self.port = 0
        self.failure: BaseException | None = None
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway under test")

    def __enter__(self) -> "Server":
        self._thread.start()
        assert self._up.wait(WAIT_S)
        if self.failure is not None:
            raise self.failure
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Tell the server to drain and end, and return at once."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self.loop.call_soon_threadsafe(self._told_to_stop.set)

    def inside(self, what: Any) -> Any:
        """Return what a coroutine comes to in the server's own loop."""
        return asyncio.run_coroutine_threadsafe(what, self.loop).result(WAIT_S)

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # handed to the thread that waits
            self.failure = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._told_to_stop = asyncio.Event()
        async with (
            payments_desk(self._config.payments) as payments,
            running(self._config) as engine,
        ):
            options = self._config.gateway
            state = GatewayState(engine.router, engine.pool, engine.feed, options, payments)
            self.gateway = Gateway(state)
            async with listening(self.gateway) as url:
                self.port = int(url.rpartition(":")[2])
                self._up.set()
                await self._told_to_stop.wait()


@dataclass(frozen=True)
class Reply:
    """What a call was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["content-type"] == JSON, self
        return json.loads(self.body)

    @property
    def msgpack(self) -> Any:
        assert self.headers["content-type"] == MSGPACK, self
        return msgspec.msgpack.decode(self.body)

    @property
    def problem(self) -> dict[str, Any]:
        """The problem document; every one must be complete."""
        assert self.headers["content-type"] == PROBLEM, self
        problem: dict[str, Any] = json.loads(self.body)
        assert problem["status"] == self.status >= 400
        assert problem["type"] == f"urn:paychan:problem:{problem['code']}"
        assert isinstance(problem["retryable"], bool)
        assert problem["title"]
        assert problem["detail"]
        assert problem["request_id"]
        if self.status in (429, 503):
            assert int(self.headers["retry-after"]) >= 1
            assert problem["retry_after_ms"] > 0
        return problem


class Client:
    """One kept connection over HTTP; `connections` counts how often it had to be made."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connections = 0
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Reply:
        if self._http.sock is None:
            self.connections += 1
        self._http.request(method, path, body, headers or {})
        answer = self._http.getresponse()
        reply = Reply(
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )
        assert reply.status not in (500, 502, 504), reply
        return reply

    def get(self, path: str) -> Reply:
        return self.call("GET", path)

    def post(self, path: str, body: Any = None, kind: str = JSON) -> Reply:
        """Post `body`, encoded unless it is bytes already."""
        encode = msgspec.msgpack.encode if kind == MSGPACK else msgspec.json.encode
        octets = body if isinstance(body, bytes) else b"" if body is None else encode(body)
        return self.call("POST", path, octets, {"content-type": kind})

    def results(self, *claims: Any) -> list[dict[str, Any]]:
        reply = self.post("/v1/claims", {"claims": claims})
        assert reply.status == 200, reply
        results: list[dict[str, Any]] = reply.json["results"]
        return results

    def payer(self, curve: Curve = "secp256k1", **opening: Any) -> "Payer":
        """A new payer whose channel of 1,000 drops is open and funded."""
        payer = Payer(self, curve)
        reply = self.post("/v1/channels", payer.opening(**opening))
        assert reply.status == 201, reply
        return payer

    @contextlib.contextmanager
    def raw(self, sent: bytes = b"") -> Iterator[socket.socket]:
        """A bare connection on which `sent` was sent."""
        with socket.create_connection(("127.0.0.1", self.port), WAIT_S) as bare:
            bare.sendall(sent)
            yield bare

    @contextlib.contextmanager
    def websocket(self) -> Iterator["Speaker"]:
        url = f"ws://127.0.0.1:{self.port}/v1/ws"
        with connect(url, max_size=None, compression=None, proxy=None) as connection:
            yield Speaker(connection)


class Payer:
    """A channel of its own and the key that signs for it."""

    def __init__(self, client: Client, curve: Curve = "secp256k1") -> None:
        self._client = client
        self.key = make_payer(next(_numbers), curve, "wire")
        self.channel_id = self.key.channel_id
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

    def pays(self) -> int:
        """Begin a payment that is called as the channel is; return the index of its attempt."""
        path, hop = f"/v1/payments/{self.id}", {"pub_key": "02" * 33, "channel_id": "1"}
        hop |= {"outgoing_time_lock": 1, "amount_to_forward_msat": "1000"}
        route = {"total_time_lock": 1, "total_amount_msat": "1001", "source_pub_key": "02" * 33}
        self._client.post("/v1/payments", {"identifier": self.id, "value_msat": "1000"})
        body = {"session_key": self.id, "route": route | {"hops": [hop]}}
        reply = self._client.post(f"{path}/attempts", body)
        assert reply.status == 201, reply
        return int(reply.json["attempt_index"])

    def claim(self, sequence: int | None, amount: int, **changes: Any) -> dict[str, Any]:
        """A claim as JSON has it; a field that is None is left out."""
        body = {
            "channel_id": self.id,
            "amount": str(amount),
            "signature": sign(self.key, amount).hex().upper(),
            "sequence": sequence,
        }
        return {name: value for name, value in (body | changes).items() if value is not None}

    def packed(self, sequence: int | None, amount: int, **changes: Any) -> dict[str, Any]:
        """A claim as a msgpack map."""
        body = {
            "channel_id": self.channel_id,
            "amount": amount,
            "signature": sign(self.key, amount),
            "sequence": sequence,
        }
        return {name: value for name, value in (body | changes).items() if value is not None}

    def wire(self, sequence: int | None, amount: int) -> list[Any]:
        """A claim as a binary frame has it."""
        return [self.channel_id, sequence, amount, sign(self.key, amount)]

    @property
    def channel(self) -> dict[str, Any]:
        shown: dict[str, Any] = self._client.get(self.path).json
        return shown

    def balance(self, query: str = "") -> dict[str, Any]:
        seen: dict[str, Any] = self._client.get(f"{self.path}/balance{query}").json
        return seen

    def command(self, name: str, body: Any = None) -> Reply:
        return self._client.post(f"{self.path}/{name}", body)

    @contextlib.contextmanager
    def unchanged(self, noted: bool = False) -> Iterator[None]:
        """Fail if the channel is another one after the block.

        Args:
            noted: The log may say that a claim with a good signature was refused.
        """
        before = self.channel
        yield
        after = self.channel
        for name in ("position", "version", "updated_at") if noted else ():
            before[name] = after[name]
        assert after == before


class Speaker:
    """A WebSocket and the two languages spoken on it."""

    def __init__(self, connection: ClientConnection) -> None:
        self.raw = connection

    def frame(self, number: int, *claims: Any) -> None:
        self.raw.send(msgspec.msgpack.encode([number, claims]))

    def answer(self) -> tuple[int, list[list[Any]]]:
        """Return the next message, which must be a binary answer."""
        message = self.raw.recv(WAIT_S)
        assert isinstance(message, bytes), message
        number, answers = msgspec.msgpack.decode(message)
        return number, answers

    def told(self) -> dict[str, Any]:
        """Return the next message, which must be text."""
        message = self.raw.recv(WAIT_S)
        assert isinstance(message, str), message
        told: dict[str, Any] = json.loads(message)
        return told

    def ask(self, command: str, **fields: Any) -> dict[str, Any]:
        """Send a command and return its answer; what else is told meanwhile is passed over."""
        self.raw.send(json.dumps({"id": command, "command": command} | fields))
        while True:
            told = self.told()
            if told.get("id") == command:
                return told


class Alarms(logging.Handler):
    """Collects what no input may cause: errors of the server, tasks that ended in an exception."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))
