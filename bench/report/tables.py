"""The tables of a report, drawn from result lines; no figure is ever copied by hand."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

Line = Mapping[str, Any]
Lines = Mapping[str, Line]
"""The newest line of each part."""

NOTHING: Final = "not measured"
SMALL: Final = "at smoke size no figure says anything"

PLAIN: Final = {
    "ws": "WebSocket, 256 claims a frame, secp256k1",
    "ed25519": "the same, Ed25519",
    "mixed": "the same, both curves",
    "http": "HTTP, 256 claims a call",
    "ws-single": "WebSocket, one claim a frame",
    "http-single": "HTTP, one claim a call, 64 connections",
    "rate": "open loop, 16 claims a frame",
    "idle": "open loop, one claim at a time",
    "prechecked": "WebSocket, signatures prechecked",
    "newest": "WebSocket, the newest proves all",
}
"""Parts that are one run, in words."""

BUDGET_US: Final = {
    "gateway": (3.2, "read a frame 0.3, queue 0.7, batch 0.5, three calls 1.2, answer 0.5"),
    "shards": (3.1, "a call 0.3, batch 0.3, decide and apply 1.8, columns and zstd 0.7"),
    "verifiers": (1.0, "a call 0.3, batch and verdicts 0.7; beside the check itself"),
    "ray": (0.2, "its own processes"),
    "load": (0.3, "it shares the cores"),
}
"""Microseconds of a core for a claim beside the check of its signature, and their sum in words."""

SHARE_TO_REACH: Final = 0.75


def by_part(lines: Iterable[Line]) -> dict[str, Line]:
    """Return the last line of each part that was really run."""
    return {line["part"]: line for line in lines if "part" in line}


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def shown(value: Any) -> str:
    """Return what a cell says."""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, int | float):
        return f"{value:,}"
    return "" if value is None else str(value)


def runs(lines: Lines) -> str:
    """Return with what, where and how everything was measured: a line for each kind of run."""
    kinds: dict[str, list[str]] = {}
    for name, line in lines.items():
        asked = line["asked"]
        said = (
            f"{line['machine']}, {line['cores']} cores, commit `{line['commit']}`, "
            f"{'full' if asked['full'] else 'smoke'} size, {asked['seconds']:g} s a run, "
            f"median of {asked['rounds']}"
        )
        kinds.setdefault(said, []).append(name)
    told = [f"- {', '.join(names)}: {words}" for words, names in kinds.items()]
    return "\n".join(told) or NOTHING


def rates(lines: Lines) -> str:
    """Return what the plain runs reached."""
    head = (
        "what", "claims a second", "of the ceiling", "p50, ms", "p99, ms", "p99.9, ms",
        "bytes a claim in the log", "all in the log",
    )  # fmt: skip
    names = (
        "accepted_per_s", "ratio_to_ceiling", "p50_ms", "p99_ms", "p999_ms", "bytes_per_claim",
        "log_holds_all",
    )  # fmt: skip
    return markdown(
        head,
        (
            (words, *(shown(lines[part].get(name)) for name in names))
            for part, words in PLAIN.items()
            if part in lines
        ),
    )


# The budget ---------------------------------------------------------------------------------------


def check_us(line: Line) -> float:
    """Return the microseconds of a core that the bare libraries need for a signature."""
    return float(line["cores"] * 1e6 / line["ceiling_verify_per_s"])


def budget(lines: Lines) -> str:
    """Return where the microseconds of a claim should go, and where they went."""
    line = lines.get("ws")
    if line is None:
        return NOTHING
    check = check_us(line)
    rows = [("checking the signature", f"{check:.1f}", "", "the ceiling of the same run")]
    spent = line["us_per_claim"]
    for role, (us, words) in BUDGET_US.items():
        used = spent.get(role, 0.0) - (check if role == "verifiers" else 0.0)
        rows.append((role, f"{us:.1f}", f"{used:.1f}", words))
    in_all = check + sum(us for us, _ in BUDGET_US.values())
    rows.append(("idle, or the host's", "", f"{_unused(spent):.1f}", "cores that nobody used"))
    rows.append(("all", f"{in_all:.1f}", f"{sum(spent.values()):.1f}", _allowed(line, check)))
    return markdown(("for each claim, µs of a core", "budget", "measured", "sum"), rows)


def _unused(spent: Mapping[str, float]) -> float:
    return spent.get("idle", 0.0) + spent.get("stolen", 0.0)


def _allowed(line: Line, check: float) -> str:
    return f"{SHARE_TO_REACH} of the ceiling allows {check / SHARE_TO_REACH:.1f}"


# What is to be reached ----------------------------------------------------------------------------

Look = Callable[[Line], tuple[str, bool]]


def at_least(name: str, goal: float) -> Look:
    """Look whether a figure is at least so much."""
    return lambda line: (shown(line[name]), line[name] >= goal)


def below(**goals: float) -> Look:
    """Look whether figures are below what is named."""
    return lambda line: (
        " / ".join(shown(line[name]) for name in goals),
        all(line[name] is not None and line[name] < goal for name, goal in goals.items()),
    )


def _flat_memory(line: Line) -> tuple[str, bool]:
    before, full, end = (line[f"memory_mb_{name}"] for name in ("before", "full", "end"))
    return f"{before:,} / {full:,} / {end:,} MB", end <= full * 1.1


def _normal(line: Line) -> tuple[str, bool]:
    after = line["normal_after_s"]
    return ("never", False) if after is None else (f"{after} s", after < 2)


def _worst_skew(line: Line) -> tuple[str, bool]:
    rows = [row for row in line["rows"] if not row["point"].startswith("uniform")]
    said = ", ".join(f"{row['point']} {row['to_uniform']}" for row in rows)
    return said, all(row["to_uniform"] >= 0.8 for row in rows)


def _grown(line: Line) -> tuple[str, bool]:
    ratios = line["last_to_first"]
    said = ", ".join(f"{name} {ratio}" for name, ratio in ratios.items())
    good = ratios["accepted_per_s"] >= 0.95
    return said, good and all(
        ratio <= 1.05 for name, ratio in ratios.items() if name != "accepted_per_s"
    )


GOALS: Final[tuple[tuple[str, str, str, Look], ...]] = (
    ("secp256k1 over ws, of the ceiling", "0.75", "ws", at_least("ratio_to_ceiling", 0.75)),
    ("Ed25519, of its ceiling", "0.75", "ed25519", at_least("ratio_to_ceiling", 0.75)),
    ("both curves, of their ceiling", "0.75", "mixed", at_least("ratio_to_ceiling", 0.75)),
    ("prechecked, a second", "350,000", "prechecked", at_least("accepted_per_s", 350_000)),
    ("one claim a frame, a second", "20,000", "ws-single", at_least("accepted_per_s", 20_000)),
    ("one claim a POST, a second", "10,000", "http-single", at_least("accepted_per_s", 10_000)),
    ("the same, p99", "250 ms", "http-single", below(p99_ms=250)),
    (
        "10,000 a second, p50 / p99 / p99.9",
        "10 / 50 / 150 ms",
        "rate",
        below(p50_ms=10, p99_ms=50, p999_ms=150),
    ),
    ("one a second, p50", "5 ms", "idle", below(p50_ms=5)),
    ("overload, goodput", "0.9", "overload", at_least("goodput_to_maximum", 0.9)),
    ("overload, a refusal, p50 / p99", "at once", "overload",
     below(refusal_p50_ms=50, refusal_p99_ms=250)),
    ("overload, memory before / full / end", "flat", "overload", _flat_memory),
    ("overload, p99 of what is taken", "bounded", "overload", below(accepted_p99_ms=5_000)),
    ("overload, normal again after", "2 s", "overload", _normal),
    ("skew, of uniform", "0.8", "skew", _worst_skew),
    ("bytes a channel", "600", "memory", below(bytes_per_channel=600)),
    ("last to first quarter of the growth", "within 5 %", "growth", _grown),
    ("newest proves all, a second", "150,000", "newest", at_least("accepted_per_s", 150_000)),
    ("start on an empty directory", "6 s", "start-stop", below(start_s=6)),
    ("stop under load", "2 s", "start-stop", below(stop_s=2)),
)  # fmt: skip
"""What, how much, which part shows it, and how."""


def goals(lines: Lines) -> str:
    """Return what is to be reached beside what was."""
    return markdown(
        ("what", "to reach", "measured", "holds"),
        ((what, goal, *_looked(lines.get(part), look)) for what, goal, part, look in GOALS),
    )


def _looked(line: Line | None, look: Look) -> tuple[str, str]:
    if line is None:
        return NOTHING, ""
    said, holds = look(line)
    return said, shown(holds) if line["asked"]["full"] else SMALL


# Rivals and rows ----------------------------------------------------------------------------------

RIVALS: Final = {
    "xrpl-sqlite": "xrpl-py and a SQLite commit a claim",
    "postgresql": "coincurve and a row lock of PostgreSQL, a commit a claim",
    "eventsourcing": "coincurve and the library eventsourcing on SQLite, a commit a claim",
}


def rival_rates(lines: Lines) -> list[tuple[str, float]]:
    """Return every rival and paychan, in words, with claims a second."""
    found = [
        (RIVALS[row["rival"]], row["accepted_per_s"])
        for row in lines.get("baseline", {}).get("rows", ())
    ]
    ours = {"ws-single": "paychan, one claim a frame", "ws": "paychan, 256 claims a frame"}
    return found + [
        (words, lines[part]["accepted_per_s"]) for part, words in ours.items() if part in lines
    ]


def rivals(lines: Lines) -> str:
    """Return the simplest programs beside paychan."""
    found = rival_rates(lines)
    if not found:
        return NOTHING
    ours = found[-1][1]
    return markdown(
        ("what, on all cores", "claims a second", "paychan takes"),
        ((words, shown(rate), f"{ours / rate:,.1f} times as many") for words, rate in found),
    )


def rows_of(name: str) -> Callable[[Lines], str]:
    """Return what makes a table of all rows of a part."""

    def table(lines: Lines) -> str:
        rows: Sequence[Line] = lines.get(name, {}).get("rows", ())
        if not rows:
            return NOTHING
        head = list(dict.fromkeys(key for row in rows for key in row))
        words = (key.replace("_", " ") for key in head)
        # A list, not a generator: by the time that one is read, `row` would be the last.
        return markdown(words, ([shown(row.get(key)) for key in head] for row in rows))

    return table


ROWS: Final = (
    "latency", "overload", "skew", "growth", "channels", "frames", "batches", "connections",
    "shards", "verifiers", "start-stop",
)  # fmt: skip
"""Parts with a row for each point."""
