"""Is it alive, is it ready, what is it, and what has it done: health, server info and metrics."""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector

from engine import __version__
from engine.channels.intake.lane import Lane
from engine.channels.messages import ShardStatistics, decode_statistics
from engine.gateway.answers import STATUS_WORDS, position_of
from engine.gateway.state import GatewayState
from engine.monitor.metrics import ACK_BUCKETS_S, METRICS, SYNC_BUCKETS_US
from engine.ports import ShardDown

ASK_MAX_S: Final = 1.0
KEPT_S: Final = 1.0
"""How long the shards' statistics are good for, so that scraping does not cost them work."""


def not_ready_because(state: GatewayState) -> list[str]:
    """Return why calls should go elsewhere; empty when they may come.

    A disk without room is no reason: reads, closes and settlements go on here, and must get in.
    """
    reasons = [f"shard {lane.shard.number} is down" for lane in _lanes(state) if not lane.is_up]
    if not state.pool.statistics().workers_up:
        reasons.append("no verifier is up")
    reasons += [slow for lane in _lanes(state) if (slow := lane.vitals.slow_because())]
    if state.draining:
        reasons.append("stopping: finishing what is under way")
    return reasons


async def server_info(state: GatewayState) -> dict[str, Any]:
    """Return version, sizes and who runs where."""
    verifiers = state.pool.statistics()
    return {
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - state.started_at, 1),
        "ready": not not_ready_because(state),
        "channels_known": len(state.router.views),
        "verifiers_up": verifiers.workers_up,
        "shards": [_shard_words(lane) for lane in _lanes(state)],
    }


def _shard_words(lane: Lane) -> dict[str, Any]:
    hello, seen = lane.hello, lane.statistics()
    words: dict[str, Any] = {
        "shard": lane.shard.number,
        "up": seen.up,
        "queued": seen.queued,
        "under_way": seen.under_way,
        "reconnects": seen.reconnects,
        "storage_full": lane.vitals.is_full,
    }
    if hello is not None:
        words |= {
            "pid": hello.pid,
            "epoch": hello.epoch,
            "position_at_start": position_of(hello.shard, hello.position),
            "recovered_events": hello.recovered_events,
            "recovery_ms": hello.recovery_ms,
        }
    return words


def _lanes(state: GatewayState) -> Iterable[Lane]:
    return state.router.lanes


class MetricsPage:
    """The text of `/metrics`, from the gateway's own counters and the shards'."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state
        self._shards: list[ShardStatistics] = []
        self._asked_at = -KEPT_S
        self._asking = asyncio.Lock()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    async def text(self) -> bytes:
        """Return the page; a shard that does not answer in time is left out of it."""
        async with self._asking:  # who comes meanwhile gets the same answers, not half a page
            if time.monotonic() - self._asked_at >= KEPT_S:
                asked = await asyncio.gather(*(_ask(lane) for lane in _lanes(self._state)))
                self._shards = [statistics for statistics in asked if statistics is not None]
                self._asked_at = time.monotonic()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of our own; called by the registry."""
        yield from self._of_claims()
        yield from self._of_verifiers()
        yield from self._of_lanes()
        yield from self._of_disks()
        yield from self._of_shards()

    def _of_claims(self) -> Iterator[Metric]:
        claims = _counter("paychan_claims_total", "result", "code")
        for (status, code), count in self._state.router.answered.items():
            claims.add_metric([STATUS_WORDS[status], code or ""], count)
        yield claims
        acks = _histogram("paychan_claim_ack_duration_seconds")
        times = self._state.acks
        acks.add_metric([], _buckets(ACK_BUCKETS_S, times.counts), times.sum_s)
        yield acks

    def _of_verifiers(self) -> Iterator[Metric]:
        seen = self._state.pool.statistics()
        up = _gauge("paychan_verifiers_up")
        up.add_metric([], seen.workers_up)
        queue = _gauge("paychan_verify_queue_length")
        queue.add_metric([], seen.queue_length)
        batches = _counter("paychan_verify_batches_total")
        batches.add_metric([], seen.batches)
        retries = _counter("paychan_verify_retries_total", "reason")
        for reason, count in seen.retries.items():
            retries.add_metric([reason], count)
        yield from (up, queue, batches, retries)

    def _of_lanes(self) -> Iterator[Metric]:
        queued = _gauge("paychan_lane_queue_claims", "shard")
        reconnects = _counter("paychan_lane_reconnects_total", "shard")
        up = _gauge("paychan_shard_up", "shard")
        silent = _gauge("paychan_shard_silent_seconds", "shard")
        for lane in _lanes(self._state):
            shard, seen = [str(lane.shard.number)], lane.statistics()
            queued.add_metric(shard, seen.queued)
            reconnects.add_metric(shard, seen.reconnects)
            up.add_metric(shard, seen.up)
            silent.add_metric(shard, lane.vitals.silent_s)
        yield from (queued, reconnects, up, silent)

    def _of_disks(self) -> Iterator[Metric]:
        slowest = _gauge("paychan_wal_sync_slowest_seconds", "shard")
        free = _gauge("paychan_disk_free_bytes", "shard")
        full = _gauge("paychan_storage_full", "shard")
        for lane in _lanes(self._state):
            shard, pulse = [str(lane.shard.number)], lane.vitals.pulse
            if pulse is not None:
                slowest.add_metric(shard, lane.vitals.slowest_sync_s)
                free.add_metric(shard, pulse.free_bytes)
                full.add_metric(shard, pulse.storage_full)
        yield from (slowest, free, full)

    def _of_shards(self) -> Iterator[Metric]:
        syncs = _histogram("paychan_wal_sync_duration_seconds", "shard")
        channels = _gauge("paychan_channels", "shard")
        awake = _gauge("paychan_channels_awake", "shard")
        held = _gauge("paychan_held_claims", "shard")
        position = _gauge("paychan_log_position", "shard")
        written = _counter("paychan_log_bytes_total", "shard")
        risk = _counter("paychan_risk_refused_total", "shard", "rule")
        verdicts = _counter("paychan_verdicts_refused_total", "shard")
        covered = _counter("paychan_covered_claims_total", "shard")
        checked = _counter("paychan_covered_claims_checked_total", "shard")
        spares = _counter("paychan_log_spare_failures_total", "shard")
        checkpoints = _counter("paychan_checkpoints_total", "shard")
        resident = _gauge("paychan_shard_resident_bytes", "shard")
        packed = _counter("paychan_log_packed_segments_total", "shard")
        saved = _counter("paychan_log_packed_saved_bytes_total", "shard")
        failures = _counter("paychan_log_packing_failures_total", "shard")
        bounds = [bound / 1_000_000 for bound in SYNC_BUCKETS_US]
        for seen in self._shards:
            shard = [str(seen.shard)]
            syncs.add_metric(shard, _buckets(bounds, seen.sync_us), seen.sync_us_sum / 1_000_000)
            channels.add_metric(shard, seen.channels)
            awake.add_metric(shard, seen.awake)
            held.add_metric(shard, seen.held)
            position.add_metric(shard, seen.position)
            written.add_metric(shard, seen.log_bytes)
            verdicts.add_metric(shard, seen.verdicts_refused)
            covered.add_metric(shard, seen.covered)
            checked.add_metric(shard, seen.covered_checked)
            spares.add_metric(shard, seen.spare_failures)
            checkpoints.add_metric(shard, seen.checkpoints)
            resident.add_metric(shard, seen.rss_bytes)
            packed.add_metric(shard, seen.packed_segments)
            saved.add_metric(shard, seen.packed_saved_bytes)
            failures.add_metric(shard, seen.packing_failures)
            for rule, count in seen.risk_refused.items():
                risk.add_metric([*shard, rule], count)
        yield from (syncs, channels, awake, held, position, written, risk, verdicts)
        yield from (covered, checked, spares, checkpoints, resident, packed, saved, failures)


async def _ask(lane: Lane) -> ShardStatistics | None:
    try:
        async with asyncio.timeout(ASK_MAX_S):
            return decode_statistics(await lane.shard.ask("statistics"))
    except (ShardDown, TimeoutError):
        return None


def _counter(name: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name.removesuffix("_total"), METRICS[name], labels=labels)


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, METRICS[name], labels=labels)


def _histogram(name: str, *labels: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, METRICS[name], labels=labels)


def _buckets(bounds: Iterable[float], counts: Iterable[int]) -> list[tuple[str, float]]:
    """Return Prometheus buckets, each with all that is at or below it, "+Inf" last."""
    total = 0.0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
