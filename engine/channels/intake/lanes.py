"""The lanes of an engine, one kind per placement. See `router.Lanes`."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from engine.channels.intake.lane import Lane
from engine.channels.intake.router import NoShardLeft
from engine.channels.messages import decode_views
from engine.channels.placement import slot_of

StartLane = Callable[[int], Awaitable[Lane]]
"""Starts shard number n and the lane to it; returns once the shard has said hello."""


class ShardedLanes:
    """A fixed row of shards; a table says which one has a channel's slot."""

    def __init__(self, lanes: Sequence[Lane], slots: Sequence[int]) -> None:
        self._lanes = lanes
        self._by_slot = [lanes[shard] for shard in slots]

    def all(self) -> Sequence[Lane]:
        """Return every lane, by number of shard."""
        return self._lanes

    def find(self, channel_id: bytes) -> Lane | None:
        """Return the lane of the channel's slot."""
        return self._by_slot[slot_of(channel_id)]

    async def for_opening(self, channel_id: bytes) -> Lane:
        """Return the lane of the channel's slot."""
        return self._by_slot[slot_of(channel_id)]

    def opened(self, channel_id: bytes, *, is_open: bool) -> None:
        """See `router.Lanes`; a slot has its shard, open or not."""


class DedicatedLanes:
    """A shard for each channel, started when the channel is opened."""

    def __init__(self, start: StartLane, channels_max: int) -> None:
        self._start = start
        self._channels_max = channels_max
        self._by_channel: dict[bytes, Lane] = {}
        self._lanes: list[Lane] = []
        self._open: set[bytes] = set()
        self._asked: Counter[bytes] = Counter()
        self._opening = asyncio.Lock()

    async def adopt(self, lanes: Sequence[Lane]) -> None:
        """Take over the shards that the data directory held already."""
        self._lanes = list(lanes)
        for lane in self._lanes:
            for view in decode_views(await lane.shard.ask("page", b"", 1, "")):
                if view is not None:
                    self._by_channel[view.channel.terms.channel_id] = lane
                    self._open.add(view.channel.terms.channel_id)

    def all(self) -> Sequence[Lane]:
        """Return every lane, by number of shard."""
        return self._lanes

    def find(self, channel_id: bytes) -> Lane | None:
        """Return the channel's own lane, if it was ever opened."""
        return self._by_channel.get(channel_id)

    async def for_opening(self, channel_id: bytes) -> Lane:
        """Return the channel's own lane, starting its shard where there is none yet."""
        async with self._opening:
            lane = self._by_channel.get(channel_id)
            if lane is None:
                if len(self._by_channel) >= self._channels_max:
                    raise NoShardLeft(
                        f"{self._channels_max} channels have a shard of their own, and no more may:"
                        " `placement.dedicated_channels_max`"
                    )
                lane = await self._empty_lane()
                self._by_channel[channel_id] = lane
            self._asked[channel_id] += 1
        return lane

    def opened(self, channel_id: bytes, *, is_open: bool) -> None:
        """Let another channel have the shard of one that was never opened."""
        self._asked[channel_id] -= 1
        if is_open:
            self._open.add(channel_id)
        if not self._asked[channel_id]:
            del self._asked[channel_id]
            if channel_id not in self._open:
                del self._by_channel[channel_id]

    async def _empty_lane(self) -> Lane:
        """Return a shard that was started for an opening which never came, else a new one."""
        taken = set(self._by_channel.values())
        for lane in self._lanes:
            if lane not in taken:
                return lane
        number = max((lane.shard.number for lane in self._lanes), default=-1) + 1
        lane = await self._start(number)
        self._lanes.append(lane)
        return lane
