"""A pipe gets JSON, a terminal gets tables, and amounts are never floats in either."""

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from engine.cli.output import Output, plain, progress
from engine.client import Result, Status
from engine.core.types import State

RESULT = Result(bytes(range(32)), 3, 2**63 + 1, Status.BUFFERED, missing=(1, 2), claimed=0)


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """`shown(lambda: …)` is what a terminal of 100 columns sees."""

    def call(write: Callable[[], None]) -> str:
        seen = Terminal()
        monkeypatch.setattr(sys, "stdout", seen)  # here: pytest sets it anew after the fixtures
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("TERM", "dumb")
        write()
        return seen.getvalue()

    return call


def test_ids_are_hex_drops_are_strings_and_what_is_not_known_is_left_out():
    assert plain(RESULT) == {
        "channel_id": bytes(range(32)).hex().upper(),
        "sequence": 3,
        "amount": "9223372036854775809",
        "status": "buffered",
        "missing": [1, 2],
        "retryable": False,
        "claimed": "0",
    }


def test_a_time_is_iso_in_utc_and_a_state_its_name():
    at = datetime(2026, 8, 1, 12, tzinfo=UTC)
    assert plain({"at": at, "state": State.ACTIVE}) == {
        "at": "2026-08-01T12:00:00Z",
        "state": "Active",
    }


def test_a_pipe_gets_one_object_a_line(capsys):
    Output(as_json=False).records([{"a": 1}, {"a": 2, "b": True}], ("a",))
    assert capsys.readouterr().out == '{"a":1}\n{"a":2,"b":true}\n'


def test_a_terminal_gets_the_columns_asked_for(shown):
    rows = [{"a": 1, "b": 2}, {"a": 3}]
    seen = shown(lambda: Output(as_json=False).records(rows, ("a",), "ttl"))
    assert "ttl" in seen
    assert "1" in seen
    assert "3" in seen
    assert "2" not in seen


def test_a_terminal_may_ask_for_json(shown):
    assert shown(lambda: Output(as_json=True).record({"a": 1})) == '{"a":1}\n'


def test_no_rows_are_still_a_table_with_its_head(shown):
    assert "sequence" in shown(lambda: Output(as_json=False).records([], ("sequence", "amount")))


def test_nothing_in_a_table_is_cut_off_or_taken_for_markup(shown):
    fields = {"signature": "AB" * 71, "note": "[bold]as it is[/bold]"}
    seen = shown(lambda: Output(as_json=False).record(fields))
    assert "".join(part for part in seen if part in "AB") == fields["signature"]
    assert fields["note"] in seen


def test_a_bar_is_only_drawn_on_a_terminal(monkeypatch, capsys):
    with progress("claims") as told:
        told(1, 2)
    assert capsys.readouterr() == ("", "")
    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setenv("TERM", "xterm")
    with progress("claims") as told:
        told(1, 2)
    assert "claims" in seen.getvalue()
