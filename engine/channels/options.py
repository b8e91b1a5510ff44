"""Settings of the shell; keys carry their units."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]

SLOTS = 1_024
"""Slots that channel ids hash to; moving channels between shards is moving slots."""


class ShardOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a shard keeps its log.

    Attributes:
        tick_ms: How often an idle shard proves its newest frame durable and times out held claims.
        checkpoint_events: Events between two checkpoints.
        segment_bytes: Size of a segment of the log.
        segment_age_s: Age at which a segment is closed though not full.
    """

    tick_ms: Positive = 25
    checkpoint_events: Positive = 500_000
    segment_bytes: Annotated[int, Meta(ge=65_536, le=1 << 30)] = 64 << 20
    segment_age_s: Positive = 900


class LaneOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a gateway feeds a shard.

    Attributes:
        queue_claims_max: Claims that may wait for one shard; more are refused as overloaded.
        queue_commands_max: Commands, and as many reads, that may wait for one shard.
        batch_claims_max: Claims in one batch.
        batches_max: Batches of one shard between the queue and their answers.
        commits_max: Batches that may be on their way to the shard at once.
        gather_ms: How long a small batch may wait for more claims while others are under way.
        linger_us: How long the first claim waits for company when nothing is under way.
        unavailable_after_ms: How long a claim waits for a shard that is down.
        buffered_max: Early claims whose later answers one gateway keeps track of, per shard.
        overloaded_retry_ms: The hint given with a refusal for overload.
    """

    queue_claims_max: Positive = 32_768
    queue_commands_max: Positive = 8_192
    batch_claims_max: Annotated[int, Meta(ge=1, le=512)] = 510
    batches_max: Positive = 6
    commits_max: Positive = 2
    gather_ms: Positive = 12
    linger_us: Annotated[int, Meta(ge=0, le=1_000)] = 500
    unavailable_after_ms: Positive = 10_000
    buffered_max: Positive = 16_384
    overloaded_retry_ms: Positive = 100


class PlacementOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where shards run.

    Attributes:
        runtime: `ray`, or `inline` for one process without Ray.
        placement: `sharded` hosts many channels per actor, `dedicated` gives each its own.
        shards: Number of shards; fixed when a data directory is first used.
        ray_address: Cluster to join; empty starts Ray on this machine.
        dedicated_channels_max: Channels that may be opened with dedicated placement.
    """

    runtime: Literal["ray", "inline"] = "ray"
    placement: Literal["sharded", "dedicated"] = "sharded"
    shards: Annotated[int, Meta(ge=1, le=1_024)] = 2
    ray_address: str = ""
    dedicated_channels_max: Annotated[int, Meta(ge=1, le=10_000)] = 64
