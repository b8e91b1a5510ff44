"""The plots of a report, as SVG: the same lines give the same bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.report.tables import BUDGET_US, SHARE_TO_REACH, Line, Lines, check_us, rival_rates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, GREEN, RED = "#2a6f97", "#e07a1f", "#8d99a6", "#4c956c", "#b23a48"
ROLES: Final = {
    "check": ("the signature itself", GREY),
    "verifiers": ("verifiers, beside it", "#b8c4cf"),
    "gateway": ("gateway", BLUE),
    "shards": ("shards", ORANGE),
    "ray": ("Ray's processes", GREEN),
    "load": ("the load", RED),
    "idle": ("idle", "#e5e5e5"),
}
STYLE: Final[dict[Any, Any]] = {
    "svg.hashsalt": "paychan",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def new_figure(width: float = 7.5, height: float = 4.0) -> "Figure":
    """Return an empty figure; inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def latency(lines: Lines) -> "Figure":
    """Draw latency against the rate that came in."""
    figure = new_figure()
    axes = figure.subplots()
    rows = [row for row in lines["latency"]["rows"] if row["loop"] == "open loop"]
    taken = [row["accepted_per_s"] for row in rows]
    for name, words, colour in (
        ("p50_ms", "p50", BLUE), ("p99_ms", "p99", ORANGE), ("p999_ms", "p99.9", RED)
    ):  # fmt: skip
        axes.plot(taken, [row[name] for row in rows], "o-", color=colour, label=words)
    most = lines["latency"]["accepted_per_s"]
    axes.axvline(most, color=GREY, linestyle="--", linewidth=1)
    axes.text(most, axes.get_ylim()[1], " closed loop", va="top", fontsize=8, color=GREY)
    axes.set(yscale="log", xlabel="claims accepted a second", ylabel="ms from when it was due")
    axes.set_title("Latency against rate, open loop, every signature checked")
    axes.legend()
    return figure


def baselines(lines: Lines) -> "Figure":
    """Draw rivals and paychan beside the ceiling."""
    figure = new_figure(8.5, 3.0)
    axes = figure.subplots()
    found = rival_rates(lines)
    names = [words.replace(", a commit a claim", "") for words, _ in found]
    rates = [rate for _, rate in found]
    colours = [BLUE if name.startswith("paychan") else GREY for name in names]
    bars = axes.barh(names, rates, color=colours)
    axes.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
    ceiling = lines.get("ws", {}).get("ceiling_verify_per_s")
    if ceiling:
        words = "signatures checked, nothing else"
        axes.axvline(ceiling, color=ORANGE, linestyle="--", linewidth=1, label=words)
        figure.legend(loc="outside lower right", fontsize=8)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="claims a second, each on disk before its answer")
    axes.set_title("The same claims on the same cores")
    return figure


def budget(lines: Lines) -> "Figure":
    """Draw the microseconds of a claim by role: as planned, and as measured."""
    figure = new_figure(8.5, 2.6)
    axes = figure.subplots()
    line = lines["ws"]
    check = check_us(line)
    spent = dict(line["us_per_claim"])
    spent["idle"] = spent.get("idle", 0.0) + spent.pop("stolen", 0.0)
    spent["check"] = min(check, spent.get("verifiers", check))
    spent["verifiers"] = max(0.0, spent.get("verifiers", 0.0) - check)
    planned = {role: us for role, (us, _) in BUDGET_US.items()} | {"check": check}
    for place, values in enumerate((spent, planned)):
        begin = 0.0
        for role, (words, colour) in ROLES.items():
            width = values.get(role, 0.0)
            label = words if not place else None
            axes.barh(place, width, left=begin, color=colour, label=label)
            begin += width
    allowed = check / SHARE_TO_REACH
    axes.axvline(allowed, color="black", linestyle="--", linewidth=1)
    axes.set(yticks=(0, 1), yticklabels=("measured", "budget"), xlabel="µs of a core for a claim")
    axes.set_title(f"Where a claim's time goes; dashed: {SHARE_TO_REACH} of the ceiling")
    figure.legend(loc="outside lower center", ncols=7, fontsize=7)
    return figure


def growth(lines: Lines) -> "Figure":
    """Draw rate, latency and memory against claims so far."""
    figure = new_figure(7.5, 5.0)
    rows = lines["growth"]["rows"]
    claims = [row["claims"] / 1e6 for row in rows]
    panels = (
        ("accepted_per_s", "claims a second"), ("p99_ms", "p99, ms"), ("memory_mb", "MB in RAM")
    )  # fmt: skip
    for axes, (name, words) in zip(figure.subplots(3, 1, sharex=True), panels, strict=True):
        values = [row[name] for row in rows]
        axes.plot(claims, values, "o-", color=BLUE, markersize=3)
        axes.set(ylim=(0, 1.1 * max(values)), ylabel=words)
    axes.set_xlabel("million claims, signatures prechecked")
    figure.suptitle("Growth")
    return figure


def overload(lines: Lines) -> "Figure":
    """Draw what was accepted and refused, second by second."""
    figure = new_figure(7.5, 4.5)
    line = lines["overload"]
    rows = line["rows"]
    seconds = [row["second"] for row in rows]
    upper, lower = figure.subplots(2, 1, sharex=True)
    for name, words, colour in (
        ("accepted_per_s", "accepted", BLUE), ("refused_per_s", "refused", ORANGE)
    ):  # fmt: skip
        upper.plot(seconds, [row[name] for row in rows], color=colour, label=words)
    upper.axhline(line["maximum_per_s"], color=GREY, linestyle="--", linewidth=1, label="maximum")
    upper.set_ylabel("claims a second")
    upper.set_ylim(bottom=0)
    upper.legend(fontsize=8)
    lower.plot(seconds, [row["p99_ms"] for row in rows], color=BLUE)
    lower.set(xlabel="second", ylabel="p99 of all answers, ms")
    lower.set_ylim(bottom=0)
    figure.suptitle("Twice the maximum is offered")
    return figure


CURVES: Final = ("channels", "frames", "connections", "batches", "shards", "verifiers")


def curves(lines: Lines) -> "Figure":
    """Draw the rate against each knob that was turned."""
    figure = new_figure(9.0, 5.0)
    for axes, name in zip(figure.subplots(2, 3, sharey=True).flat, CURVES, strict=True):
        line = lines.get(name)
        axes.set_title(name)
        if line:
            _curve(axes, line)
    figure.axes[0].set_ylim(bottom=0)
    figure.supylabel("claims a second")
    return figure


def _curve(axes: "Axes", line: Line) -> None:
    rows = line["rows"]
    points = [row["point"].partition(" ")[0] for row in rows]
    axes.plot(points, [row["accepted_per_s"] for row in rows], "o-", color=BLUE)
    axes.tick_params(axis="x", labelsize=7)


PLOTS: Final[dict[str, tuple[str, Callable[[Lines], Any]]]] = {
    "latency": ("latency", latency),
    "baselines": ("baseline", baselines),
    "budget": ("ws", budget),
    "growth": ("growth", growth),
    "overload": ("overload", overload),
    "curves": ("channels", curves),
}
"""Each plot: the part it cannot do without, and what draws it."""


def draw(lines: Lines, folder: Path) -> list[Path]:
    """Write every plot that the lines are enough for.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib import rc_context

    written = []
    with rc_context(STYLE):
        for name, (part, make) in PLOTS.items():
            if part in lines:
                path = folder / f"{name}.svg"
                make(lines).savefig(path, format="svg", metadata={"Date": None})
                written.append(path)
    return written
