"""What a run of `bench claims` is: the load, the channels, and the engine it meets."""

from collections.abc import Callable
from typing import Final, Literal

import msgspec

from bench.frames import Spread
from bench.signing import Curve
from bench.wire import Transport
from engine.channels.options import PlacementOptions

CLAIMS_PER_FRAME: Final = {
    "ws": 256, "ws-single": 1, "http": 256, "http-single": 1, "inprocess": 256
}  # fmt: skip
CONNECTIONS: Final = {"ws": 4, "ws-single": 4, "http": 16, "http-single": 64, "inprocess": 4}
WINDOW_CLAIMS: Final = {
    "ws": 12_288, "ws-single": 2_048, "http": 4_096, "http-single": 64, "inprocess": 12_288
}  # fmt: skip
"""Claims under way over all connections in a closed loop."""

AT_A_RATE: Final = 16
Told = Callable[[int, int], None]
"""Hears of steps done and in all."""


class ClaimsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: see `paychan bench claims --help`.

    Attributes:
        transport: How claims come in.
        curve: Of the payers' keys.
        channels: That claims come on.
        open_channels: Others that are open and quiet.
        spread: Of claims over channels.
        sequencing: Of the channels; by `amount`, a claim may be left out.
        rate: Claims a second that are due; 0 = as many as are answered.
        seconds: How long claims are sent.
        connections: 0 = as suits the transport.
        window: Claims under way where no rate is given; 0 = as suits.
        claims_per_frame: 0 = as suits.
        claims: Made ready; 0 = as many as there could be use for.
        signatures: `prechecked` leaves out the check; no served configuration can.
        runtime: Of the engine.
        placement: Of the engine.
        shards: Of the engine.
        verifiers: Of the engine.
        settings: Further ones of the engine, `PAYCHAN_PART__NAME=value`.
        ceiling_s: How long the bare libraries are measured, before and after.
    """

    transport: Transport = "ws"
    curve: Curve = "secp256k1"
    channels: int = 1_000
    open_channels: int = 0
    spread: Spread = "uniform"
    sequencing: Literal["strict", "amount"] = "strict"
    rate: float = 0.0
    seconds: float = 5.0
    connections: int = 0
    window: int = 0
    claims_per_frame: int = 0
    claims: int = 0
    signatures: Literal["checked", "prechecked"] = "checked"
    runtime: Literal["ray", "inline"] = "ray"
    placement: Literal["sharded", "dedicated"] = "sharded"
    shards: int = 2
    verifiers: int = 2
    settings: tuple[str, ...] = ()
    ceiling_s: float = 2.0

    @property
    def per_frame(self) -> int:
        """Claims in one frame or call; smaller where a rate is given, as senders would."""
        usual = CLAIMS_PER_FRAME[self.transport]
        return self.claims_per_frame or (min(usual, AT_A_RATE) if self.rate else usual)

    @property
    def connection_count(self) -> int:
        """How many connections there are: a channel is on one of them."""
        return min(self.connections or CONNECTIONS[self.transport], self.channels)

    @property
    def window_frames(self) -> int:
        """Messages of one connection that may be without an answer in a closed loop."""
        if self.transport.startswith("http"):
            return 1
        claims = self.window or WINDOW_CLAIMS[self.transport]
        return max(1, claims // self.connection_count // self.per_frame)

    @property
    def placed(self) -> PlacementOptions:
        """Where the engine's parts run."""
        return PlacementOptions(runtime=self.runtime, placement=self.placement, shards=self.shards)

    def environment(self) -> list[str]:
        """Return the settings of the engine."""
        return [
            f"PAYCHAN_PLACEMENT__RUNTIME={self.runtime}",
            f"PAYCHAN_PLACEMENT__PLACEMENT={self.placement}",
            f"PAYCHAN_PLACEMENT__SHARDS={self.shards}",
            f"PAYCHAN_VERIFY__VERIFIERS={self.verifiers}",
            *self.settings,
        ]
