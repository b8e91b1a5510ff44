"""Payments as somebody makes them over HTTP: bodies, paths and what comes back."""

from typing import Any

from engine.gateway.payments import answers
from engine.payments import PaymentDB, Route
from tests.gateway.world import Answer, Door
from tests.payments.builders import R2, fresh

CREATED = "2026-01-02T03:04:05.123456789Z"
CREATED_NS = 1_767_323_045_123_456_789
PREIMAGE = "33" * 32
INVOICE = "lnbc5550p1paychan"
UNKNOWN = "00" * 32


class Shop:
    """A gateway with payments, and the calls that tests make."""

    def __init__(self, door: Door, store: PaymentDB) -> None:
        self.door = door
        self.store = store
        self.socket = door.socket

    async def get(self, path: str = "", **query: Any) -> Answer:
        return await self.door.get(f"/v1/payments{path}", **query)

    async def post(self, path: str = "", body: Any = None) -> Answer:
        return await self.door.post(f"/v1/payments{path}", body)

    async def delete(self, path: str = "", **query: Any) -> Answer:
        return await self.door.call("DELETE", f"/v1/payments{path}", params=query)

    async def begun(self, **changes: Any) -> str:
        """Begin a payment; return its identifier."""
        body = creation(**changes)
        answer = await self.post(body=body)
        assert answer.status == 201, answer.body
        return str(body["identifier"])

    async def tried(self, one: str, **changes: Any) -> int:
        """Make an attempt; return its index."""
        answer = await self.post(f"/{one}/attempts", attempt(**changes))
        assert answer.status == 201, answer.body
        return int(answer.json["attempt_index"])

    async def settle(self, one: str, index: int, **changes: Any) -> Answer:
        return await self.post(f"/{one}/attempts/{index}/settle", {"preimage": PREIMAGE} | changes)

    async def fail(self, one: str, index: int, **changes: Any) -> Answer:
        return await self.post(f"/{one}/attempts/{index}/fail", {"reason": "UNREADABLE"} | changes)

    async def give_up(self, one: str, reason: str = "NO_ROUTE") -> Answer:
        return await self.post(f"/{one}/fail", {"reason": reason})

    async def made(self, word: str) -> str:
        """Return a payment of this status, of one attempt."""
        one = await self.begun()
        if word == "Initiated":
            return one
        index = await self.tried(one)
        if word == "Succeeded":
            await self.settle(one, index)
        if word == "Failed":
            await self.fail(one, index)
            await self.give_up(one)
        return one

    async def refused(self, answer: Answer) -> tuple[int, str]:
        """Return the status and the code of a problem."""
        return answer.status, answer.code


def creation(**changes: Any) -> dict[str, Any]:
    """Return the body that begins a payment; a field that is None is left out."""
    body = {
        "identifier": fresh().hex().upper(),
        "value_msat": "555",
        "created_at": CREATED,
        "payment_request": INVOICE,
        "first_hop_custom_records": {"65537": "AB12", "65538": ""},
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


def attempt(route: Route = R2, **changes: Any) -> dict[str, Any]:
    """Return the body of an attempt with a session key of its own."""
    body = {"session_key": fresh().hex().upper(), "route": answers.route(route)}
    return {name: value for name, value in (body | changes).items() if value is not None}
