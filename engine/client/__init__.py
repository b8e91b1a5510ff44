"""What a payment gateway imports: an async client of an engine, over WebSocket and HTTP."""

from engine.client.client import DEFAULT_SERVER, Client
from engine.client.errors import (
    ClientError,
    Problem,
    ProtocolViolated,
    Refused,
    ServerUnreachable,
)
from engine.client.options import ClientOptions
from engine.client.pipe import Answer, Pipe, decode_answers, encode_claims, open_pipe
from engine.client.values import (
    BalanceChange,
    BalanceInfo,
    BestClaim,
    ChannelInfo,
    PastClaim,
    Result,
    Status,
)

__all__ = [
    "DEFAULT_SERVER",
    "Answer",
    "BalanceChange",
    "BalanceInfo",
    "BestClaim",
    "ChannelInfo",
    "Client",
    "ClientError",
    "ClientOptions",
    "PastClaim",
    "Pipe",
    "Problem",
    "ProtocolViolated",
    "Refused",
    "Result",
    "ServerUnreachable",
    "Status",
    "decode_answers",
    "encode_claims",
    "open_pipe",
]
