"""A report says what its lines say, and what is missing."""

import re

import pytest

from bench.report import tables
from bench.report.page import write_report
from bench.report.plots import PLOTS, draw
from tests.bench import lines


def row_of(table: str, what: str) -> list[str]:
    (found,) = [row for row in table.splitlines() if row.startswith(f"| {what} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_of_two_lines_of_a_part_the_last_counts():
    parts = tables.by_part([lines.plain("ws", 1), lines.plain("ws", 2)])

    assert parts["ws"]["accepted_per_s"] == 2


@pytest.mark.parametrize(("rate", "holds"), [(37_500, "yes"), (37_499, "**no**")])
def test_a_goal_holds_from_its_figure_on(rate, holds):
    table = tables.goals({"ws": lines.plain("ws", rate)})

    assert row_of(table, "secp256k1 over ws, of the ceiling")[-1] == holds
    assert row_of(table, "Ed25519, of its ceiling")[2:] == [tables.NOTHING, ""]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"goodput_to_maximum": 0.89}, "overload, goodput"),
        ({"refusal_p99_ms": 251.0}, "overload, a refusal, p50 / p99"),
        ({"memory_mb_end": 881.0}, "overload, memory before / full / end"),
        ({"normal_after_s": 2.25}, "overload, normal again after"),
        ({"normal_after_s": None}, "overload, normal again after"),
    ],
)
def test_an_overload_that_goes_wrong_is_seen(more, what):
    good = tables.goals({"overload": lines.overload()})
    bad = tables.goals({"overload": lines.overload(**more)})

    assert row_of(good, what)[-1] == "yes"
    assert row_of(bad, what)[-1] == "**no**"


def test_growth_of_more_than_a_twentieth_is_seen():
    name = "last to first quarter of the growth"
    assert row_of(tables.goals({"growth": lines.growth()}), name)[-1] == "yes"
    assert row_of(tables.goals({"growth": lines.growth(last=94_000)}), name)[-1] == "**no**"


def test_the_budget_sets_the_check_apart_from_what_else_a_verifier_does():
    table = tables.budget({"ws": lines.plain("ws", 30_000)})

    assert row_of(table, "checking the signature")[1] == "40.0"
    assert row_of(table, "verifiers")[2] == "2.0"
    assert row_of(table, "all")[2] == "53.0"
    assert "allows 53.3" in row_of(table, "all")[3]
    assert tables.budget({}) == tables.NOTHING


def test_rivals_are_compared_with_the_frames_of_many_claims():
    parts = tables.by_part(
        [lines.baseline(), lines.plain("ws-single", 9), lines.plain("ws", 4_000)]
    )
    table = tables.rivals(parts)

    words = tables.RIVALS["postgresql"]
    assert row_of(table, words)[1:] == ["2,000.0", "2.0 times as many"]


def test_a_table_of_points_has_the_row_of_each():
    points = [{"frames": 1, "rate": 10}, {"frames": 16, "rate": 20, "more": "so"}]
    table = tables.rows_of("frames")({"frames": lines.line("frames", rows=points)})

    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()] == [
        ["frames", "rate", "more"],
        ["---", "---", "---"],
        ["1", "10", ""],
        ["16", "20", "so"],
    ]


EVERYTHING = [
    *(lines.plain(part, 30_000) for part in tables.PLAIN),
    lines.latency(),
    lines.overload(),
    lines.growth(),
    lines.baseline(),
    *(lines.curve(part) for part in ("channels", "frames", "batches", "shards")),
]


@pytest.mark.slow
def test_a_report_has_its_tables_and_plots_and_is_the_same_every_time(tmp_path):
    written = write_report(EVERYTHING, tmp_path / "one")
    write_report(EVERYTHING, tmp_path / "two")

    assert {path.stem for path in written} == {"report", *PLOTS}
    for path in written:
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    page = (tmp_path / "one" / "report.md").read_text()
    assert set(re.findall(r"\]\((\w+)\.svg\)", page)) == set(PLOTS)
    assert "## latency" in page


def test_a_plot_is_left_out_where_its_part_was_not_measured(tmp_path):
    assert draw({}, tmp_path) == []
    (only,) = draw({"growth": lines.growth()}, tmp_path)
    assert only.name == "growth.svg"
    assert "million claims" in only.read_text()
