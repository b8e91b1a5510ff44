"""Log lines: one line each, key=value, event names that do not change, on standard error."""

import sys

import structlog


def logs_to_stderr() -> None:
    """Make every log line of this process go to standard error, with the time in UTC."""
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
