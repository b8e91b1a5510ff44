"""Settings of the shell; keys carry their units."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Positive = Annotated[int, Meta(ge=1, le=1_000_000_000)]

AWAKE_MAX = 8_192
"""Channels of a shard that are kept ready for use unless told otherwise; 1 KB each."""

SLOTS = 1_024
"""Slots that channel ids hash to; moving channels between shards is moving slots."""


class ShardOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a shard keeps its log.

    Attributes:
        tick_ms: How often a shard times out held claims, and looks whether nothing came since the
            tick before: then it proves its newest frame durable. Two ticks must fit into the 50 ms
            within which a log is to be proven.
        checkpoint_events: Events between two checkpoints; each holds the channels that changed.
        checkpoint_channels: A checkpoint is made sooner when so many channels have changed: those
            are kept ready for use until then, and a shard stands still while they are gathered.
        awake_channels_max: Channels that are kept ready for use though nobody uses them; more of
            them sleep, in less than half the memory, until their next claim.
        increments_max: Checkpoints that may build on a whole one before a process of low priority
            merges them into the next; sooner when they have grown half as large.
        log_kept: `all`, or `checkpointed`: segments below the second newest whole checkpoint are
            removed once that was read back. History is evidence; remove it only if you must.
        segment_bytes: Size of a segment of the log.
        segment_age_s: Age at which a segment is closed though not full.
        pack_after_s: Age at which a closed segment is packed: the same events in fewer bytes, by a
            process of low priority. 0 packs none.
        space_soft_bytes: While less of the disk is free, new claims and channels are refused as
            `storage_full`; 0 for no such limit. Two segments' worth is the least there is.
        space_soft_percent: The same as a share of the whole disk; the smaller of both counts, so
            that a small disk can be used as well.
    """

    tick_ms: Positive = 20
    checkpoint_events: Positive = 100_000
    checkpoint_channels: Positive = 32_768
    awake_channels_max: Annotated[int, Meta(ge=0, le=1_000_000_000)] = AWAKE_MAX
    increments_max: Annotated[int, Meta(ge=2, le=1_000)] = 64
    log_kept: Literal["all", "checkpointed"] = "all"
    segment_bytes: Annotated[int, Meta(ge=65_536, le=256 << 20)] = 64 << 20
    segment_age_s: Annotated[int, Meta(ge=1, le=604_800)] = 900
    pack_after_s: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 3_600
    space_soft_bytes: Annotated[int, Meta(ge=0, le=1 << 50)] = 512 << 20
    space_soft_percent: Annotated[int, Meta(ge=1, le=50)] = 2


class LaneOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a gateway feeds a shard.

    Attributes:
        queue_claims_max: Claims that may wait for one shard; more are refused as overloaded.
        queue_ms_max: How long the claims that wait for one shard may take it, by how fast it was
            seen to take them; more are refused as overloaded. `batches_max` batches may always.
        queue_commands_max: Commands, and as many reads, that may wait for one shard.
        batch_claims_max: Claims in one batch.
        batches_max: Batches of one shard between the queue and their answers.
        commits_max: Batches that may be on their way to the shard at once.
        gather_ms: How long a small batch waits for more claims while `batches_max` are under way;
            less in proportion while fewer are.
        linger_us: How long the first claim waits for company when nothing is under way.
        queue_wait_max_ms: How long a claim waits for its turn; one that has waited longer is
            refused as overloaded.
        unavailable_after_ms: How long a claim waits for a shard that is down.
        silent_after_ms: How long a shard may owe an answer; then whoever waits is told
            `unavailable`, and nobody new waits until it answers again.
        slow_sync_ms: A commit that takes longer is logged.
        unready_sync_ms: While commits, or answers of the shard, take longer, `/readyz` says no.
        buffered_max: Early claims whose later answers one gateway keeps track of, per shard.
    """

    queue_claims_max: Positive = 16_384
    queue_ms_max: Positive = 1_000
    queue_commands_max: Positive = 8_192
    batch_claims_max: Annotated[int, Meta(ge=1, le=512)] = 510
    batches_max: Positive = 6
    commits_max: Positive = 2
    gather_ms: Positive = 12
    linger_us: Annotated[int, Meta(ge=0, le=1_000)] = 0
    queue_wait_max_ms: Positive = 5_000
    unavailable_after_ms: Positive = 10_000
    silent_after_ms: Positive = 10_000
    slow_sync_ms: Positive = 100
    unready_sync_ms: Positive = 1_000
    buffered_max: Positive = 16_384


class PlacementOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where shards run.

    Attributes:
        runtime: `ray`, or `inline` for one process without Ray.
        placement: `sharded` hosts many channels per actor, `dedicated` gives each its own.
        shards: Number of shards; fixed when a data directory is first used.
        ray_address: Cluster to join; empty starts Ray on this machine. A cluster is to be started
            with RAY_worker_niceness=0, or shards and verifiers stand behind all else (ADR 0033).
        dedicated_channels_max: Channels that may be opened with dedicated placement.
    """

    runtime: Literal["ray", "inline"] = "ray"
    placement: Literal["sharded", "dedicated"] = "sharded"
    shards: Annotated[int, Meta(ge=1, le=1_024)] = 2
    ray_address: str = ""
    dedicated_channels_max: Annotated[int, Meta(ge=1, le=10_000)] = 64
