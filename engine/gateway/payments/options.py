"""Settings of the payments database behind the gateway."""

from typing import Annotated

import msgspec
from msgspec import Meta


class PaymentsOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which payments database the engine serves, and how much of it at once.

    Attributes:
        url: Where the payments are: `lmdb:///DIRECTORY`, `sqlite:///FILE` or
            `postgresql://HOST/DATABASE`; made where there is none. Empty: no payments over HTTP and
            WebSocket.
        threads: Calls to the database that run at once.
        calls_waiting_max: Calls that may wait for one of these threads; further ones are refused as
            `overloaded`.
        followed_max: Payments one WebSocket may subscribe to.
    """

    url: Annotated[str, Meta(max_length=4_096)] = ""
    threads: Annotated[int, Meta(ge=1, le=256)] = 8
    calls_waiting_max: Annotated[int, Meta(ge=0, le=1_000_000)] = 256
    followed_max: Annotated[int, Meta(ge=1, le=1_000)] = 100
