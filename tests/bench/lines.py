"""Result lines for tests of the report, as `bench all` would write them."""

from typing import Any

ASKED = {"full": True, "seconds": 60.0, "rounds": 3}


def line(part: str, **figures: Any) -> dict[str, Any]:
    """Return a line of a part."""
    head = {"name": "claims", "commit": "abc1234", "machine": "a machine", "cores": 2}
    return head | {"config": {}, "seconds": 1.0, "part": part, "asked": ASKED} | figures


def plain(part: str, rate: int, **more: Any) -> dict[str, Any]:
    """Return a line of a plain run; the ceiling is 50,000: 40 µs a check on 2 cores."""
    figures = {
        "accepted_per_s": rate,
        "ceiling_verify_per_s": 50_000,
        "ratio_to_ceiling": rate / 50_000,
        "p50_ms": 4.0,
        "p99_ms": 40.0,
        "p999_ms": 100.0,
        "bytes_per_claim": 69.0,
        "log_holds_all": True,
        "us_per_claim": {
            "gateway": 5.0, "shards": 4.0, "verifiers": 42.0, "ray": 0.5, "load": 0.5, "idle": 1.0
        },
    }  # fmt: skip
    return line(part, **figures | more)


def growth(first: int = 100_000, last: int = 99_000) -> dict[str, Any]:
    """Return a line of the growth."""
    rows = [
        {
            "claims": claims,
            "accepted_per_s": rate,
            "p50_ms": 5.0,
            "p99_ms": 9.0,
            "memory_mb": 700.0,
        }
        for claims, rate in ((1_000_000, first), (2_000_000, last))
    ]
    ratios = {"accepted_per_s": last / first, "p50_ms": 1.0, "p99_ms": 1.0, "memory_mb": 1.0}
    return line("growth", rows=rows, last_to_first=ratios, accepted_per_s=first)


def latency() -> dict[str, Any]:
    """Return a line of latencies by rate."""
    rows = [
        {
            "loop": loop,
            "rate": rate,
            "accepted_per_s": rate,
            "p50_ms": 2.0,
            "p99_ms": 9.0,
            "p999_ms": 20.0,
            "max_ms": 30.0,
            "not_accepted": 0,
        }
        for loop, rate in (("closed loop", 30_000), ("open loop", 100), ("open loop", 20_000))
    ]
    return line("latency", rows=rows, accepted_per_s=30_000)


def overload(**more: Any) -> dict[str, Any]:
    """Return a line of an overload."""
    row = {"accepted_per_s": 29_000, "refused_per_s": 30_000, "p50_ms": 2.0, "p99_ms": 900.0}
    figures = {
        "maximum_per_s": 30_000,
        "goodput_to_maximum": 0.96,
        "refusal_p50_ms": 2.0,
        "refusal_p99_ms": 9.0,
        "memory_mb_before": 700.0,
        "memory_mb_full": 800.0,
        "memory_mb_end": 810.0,
        "accepted_p99_ms": 1_500.0,
        "normal_after_s": 1.25,
        "rows": [{"second": second, "memory_mb": 800.0} | row for second in (1, 2)],
    }
    return line("overload", **figures | more)


def baseline() -> dict[str, Any]:
    """Return a line of the rivals."""
    rates = {"xrpl-sqlite": 200.0, "postgresql": 2_000.0, "eventsourcing": 1_000.0}
    rows = [{"rival": rival, "accepted_per_s": rate} for rival, rate in rates.items()]
    return line("baseline", rows=rows)


def curve(part: str) -> dict[str, Any]:
    """Return a line of a curve."""
    rows = [{"point": f"{value} of it", "accepted_per_s": value * 1_000} for value in (1, 2)]
    return line(part, rows=rows)
