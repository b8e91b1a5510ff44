"""The card says what was found, and a broken promise decides."""

import sys

import msgspec
import pytest

from tests.faults import __main__ as program
from tests.faults import pages, scorecard
from tests.faults.scorecard import Budget, CannotRun, Row

GOOD = Row(name="a kill", tried=9, acknowledged_checked=1_000, recovery_ms=(12.3, 99.9))
LOST = Row(name="a kill", tried=9, lost=1)
RIVAL = Row(name="rot", tried=9, undetected=2, lost=5, system="SQLite")
BUDGET = Budget()


@pytest.mark.parametrize(
    ("row", "breaks"),
    [
        (GOOD, False),
        (LOST, True),
        (Row(name="nothing", tried=0), True),
        (Row(name="rot", tried=1, undetected=1), True),
        (Row(name="rot", tried=1, undetected=1, is_promised=False), False),
        (RIVAL, False),
    ],
)
def test_only_our_promises_can_be_broken(row, breaks):
    assert row.breaks_promise is breaks


def test_a_spread_has_the_first_and_the_last_and_is_the_same_each_time():
    cases = list(range(1_000))
    chosen = Budget(share=0.01).choose(cases)
    assert len(chosen) == 10
    assert (chosen[0], chosen[-1]) == (0, 999)
    assert Budget(full=True).choose(cases) == cases
    assert BUDGET.chance("a").random() == BUDGET.chance("a").random() != BUDGET.chance("b").random()


def test_a_card_is_read_back_and_goes_into_the_place_a_page_has(tmp_path):
    card = scorecard.make_card([GOOD, RIVAL], BUDGET, "a command")
    file, page = tmp_path / "card.json", tmp_path / "page.md"
    pages.write(file, card)
    assert scorecard.merged([scorecard.read(file)], scorecard.make_card([], BUDGET, "")) == card
    page.write_text("# T\n\n<!-- scorecard: all -->\nold\n<!-- end of scorecard -->\n\nrest\n")
    pages.write(page, card)
    pages.write(page, card)
    text = page.read_text()
    assert text.startswith("# T\n")
    assert text.endswith("\nrest\n")
    assert "old" not in text
    assert text.count("| a kill | 9 | 1,000 | 0 | 0 | 0 | 0 | 12 ms / 100 ms |") == 1
    assert "9 tried: 2 unnoticed, 5 records lost" in text


def test_cards_of_different_commits_are_not_one():
    card = scorecard.make_card([GOOD], BUDGET, "")
    other = msgspec.structs.replace(card, commit="0123456")
    with pytest.raises(CannotRun):
        scorecard.merged([card, other], card)


def test_a_card_is_of_everything_only_if_all_its_parts_are():
    spread = scorecard.make_card([GOOD], BUDGET, "")
    whole = scorecard.make_card([RIVAL], Budget(full=True), "")
    assert scorecard.merged([whole], whole).full
    both = scorecard.merged([whole, spread], scorecard.make_card([], BUDGET, ""))
    assert (both.full, both.rows) == (False, (RIVAL, GOOD))


@pytest.mark.parametrize(("row", "code"), [(GOOD, 0), (LOST, 1), (None, 2)])
def test_the_exit_code_says_whether_we_kept_our_promises(monkeypatch, capsys, row, code):
    def run(name, budget, progress):
        if row is None:
            raise CannotRun("strace is missing")
        progress(1, 2, "a case")
        return [row]

    monkeypatch.setattr(scorecard, "run_campaign", run)
    monkeypatch.setattr(sys, "argv", ["faults", "syscalls"])
    assert program.main() == code
    said = capsys.readouterr()
    assert "a kill" in said.out or "strace is missing" in said.err


def test_a_campaign_that_lacks_something_says_what(monkeypatch):
    monkeypatch.setitem(scorecard.CAMPAIGNS, "gone", "tests.faults.gone")
    with pytest.raises(CannotRun, match=r"tests\.faults\.gone is missing"):
        scorecard.run_campaign("gone", BUDGET, lambda done, total, what: None)


def test_a_campaign_that_breaks_off_is_told_and_takes_no_other_with_it(monkeypatch):
    def run(name, budget, progress):
        raise RuntimeError("the work fails")

    monkeypatch.setattr(scorecard, "run_campaign", run)
    rows, unable = program.run_all(["syscalls"], BUDGET)
    assert rows == []
    assert "syscalls broke off" in unable[0]
    assert "the work fails" in unable[0]


@pytest.mark.slow
def test_campaigns_run_side_by_side_and_keep_their_order():
    rows, unable = program.run_all(["limits", "shortage"], Budget(share=0.003))
    assert unable == []
    names = [row.name for row in rows]
    assert names[0] == "a write cut short, then refused"
    assert names[-1] == "no further thread or process"
    assert not any(row.breaks_promise for row in rows)
