"""Every metric by name, and the buckets that processes share. No channel id is ever a label."""

from bisect import bisect_left
from typing import Final

SYNC_BUCKETS_US: Final = (
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    2_500_000, 10_000_000,
)  # fmt: skip
"""Upper bounds for the time of a sync, in microseconds."""

ACK_BUCKETS_S: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds for the time from a request to its answer, in seconds."""

METRICS: Final = {
    "paychan_claims_total": "Claims answered, by result and code.",
    "paychan_claim_ack_duration_seconds": "Time from a request or frame to its answer.",
    "paychan_wal_sync_duration_seconds": "Time of a commit: one frame written and synced.",
    "paychan_verifiers_up": "Verifiers that may be asked.",
    "paychan_verify_queue_length": "Batches in the verifier pool, waiting or being checked.",
    "paychan_verify_batches_total": "Batches the verifiers have answered.",
    "paychan_verify_retries_total": "Verdicts not taken, by reason; the batch was asked again.",
    "paychan_lane_queue_claims": "Claims that wait for a shard.",
    "paychan_lane_reconnects_total": "Times a gateway had to find a shard again.",
    "paychan_shard_up": "Whether a shard answers.",
    "paychan_shard_silent_seconds": "How long a shard has owed an answer to a question of health.",
    "paychan_wal_sync_slowest_seconds": "Slowest commit of the last five seconds, if it was slow.",
    "paychan_disk_free_bytes": "What a shard's disk has free.",
    "paychan_storage_full": "Whether a shard takes nothing new because its disk is nearly full.",
    "paychan_channels": "Channels of a shard.",
    "paychan_channels_awake": "Channels of a shard that are ready for use; the others sleep.",
    "paychan_held_claims": "Claims that came early and wait for the ones before them.",
    "paychan_log_position": "Position of a shard's newest durable event.",
    "paychan_log_bytes_total": "Bytes put into a shard's log since its process started.",
    "paychan_log_spare_failures_total": "Times no segment could be made ahead of its use.",
    "paychan_checkpoints_total": "Checkpoints written and read back.",
    "paychan_shard_resident_bytes": "Memory of a shard's process that is in RAM.",
    "paychan_log_packed_segments_total": "Closed segments that were packed.",
    "paychan_log_packed_saved_bytes_total": "Bytes that packing has freed.",
    "paychan_log_packing_failures_total": "Times a segment could not be packed; it may be damaged.",
    "paychan_risk_refused_total": "Claims refused by a risk rule.",
    "paychan_covered_claims_total": "Claims accepted on the signature of a newer one.",
    "paychan_covered_claims_checked_total": "Covered claims whose own signature a shard checked.",
    "paychan_verdicts_refused_total": "Batches a shard refused because their seal was not true.",
}
"""Name and help text of every metric of our own."""


class AckTimes:
    """How long requests took to be answered: counts by `ACK_BUCKETS_S`, one more for slower."""

    def __init__(self) -> None:
        self.counts = [0] * (len(ACK_BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, took_s: float) -> None:
        """Count one request or frame."""
        self.counts[bisect_left(ACK_BUCKETS_S, took_s)] += 1
        self.sum_s += took_s
