"""Settings of the edge; every one is a limit or a place."""

from typing import Annotated

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class GatewayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the gateway listens and what it puts up with.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        body_bytes_max: Largest body of a call, and largest frame on a WebSocket.
        head_bytes_max: Largest head of a call.
        head_timeout_s: How long the head of a call may take to come.
        body_timeout_s: How long a body may take to come.
        keep_alive_s: How long an unused connection is kept.
        connections_max: Connections at once.
        frames_in_flight_max: Frames of one WebSocket that may be without an answer; then its
            further frames wait in the socket.
        subscriptions_max: Channels one WebSocket may subscribe to.
        channels_known_max: Channels whose keys and balances the gateway remembers.
        page_max: Channels or claims in one page.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8480
    body_bytes_max: Positive = 2 << 20
    head_bytes_max: Positive = 64 << 10
    head_timeout_s: Positive = 10
    body_timeout_s: Positive = 10
    keep_alive_s: Positive = 60
    connections_max: Positive = 4_096
    frames_in_flight_max: Positive = 1_024
    subscriptions_max: Positive = 10_000
    channels_known_max: Positive = 1_000_000
    page_max: Positive = 1_000
