"""Say in the log what a start found on the disk that somebody should know of."""

import structlog

from engine.channels.journal import RecoveryReport

log = structlog.get_logger()


def tell_recovery(shard: int, report: RecoveryReport) -> None:
    """Log what was cut, put aside or passed over when the log of a shard was opened."""
    if report.cut_bytes:
        log.warning(
            "log_tail_cut",
            shard=shard,
            segment=report.cut_segment,
            offset=report.cut_offset,
            bytes=report.cut_bytes,
            reason=report.cut_reason,
        )
    for name, fault in report.snapshots_refused:
        log.error("checkpoint_refused", shard=shard, checkpoint=name, fault=fault)
    for path in report.quarantined:
        log.warning("put_in_quarantine", shard=shard, file=path)
