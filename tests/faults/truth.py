"""Know what a log of the fixed work may hold after a fault, and hold it against what it does hold.

The truth is a run without faults. After any fault the log holds the events of the first so many
steps of it, whole, at least those that were acknowledged; and when the work is sent again, every
claim gets its first answer and the end is the same as if nothing had happened.
"""

from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.nursery import Case, Nursery
from tests.faults.scorecard import Tally


class Truth(NamedTuple):
    """The run without faults.

    What was said, and what is said to the same work sent again when all of it is in the log; the
    digest of each event, and the last state hash.
    """

    said: list[Any]
    again: list[Any]
    events: list[str]
    state: str

    @property
    def ends(self) -> set[int]:
        """How many events a log may hold: none, or those of the first so many steps."""
        return {0} | {end_of(one) for one in self.said}


def end_of(said: Any) -> int:
    """Return where the log ended by what was said; 0 when it was nothing about a step."""
    return int(said["end"]) if isinstance(said, dict) and "end" in said else 0


def find_truth(nursery: Nursery, directory: Path) -> Truth:
    """Do the work without any fault."""
    done = nursery.run("work", directory)
    checked = nursery.run("check", directory)
    if done.code or checked.code:
        raise RuntimeError(f"the work fails without any fault: {done.error or checked.error}")
    found = said_of(checked, "final")
    again = said_of(checked, "resent")["resent"]
    return Truth(done.said, again, found["final"], found["state"][0])


def said_of(case: Case, key: str) -> dict[str, Any]:
    """Return the newest thing a deed said under a key; empty when it said none."""
    matching = [one for one in case.said if isinstance(one, dict) and key in one]
    return matching[-1] if matching else {}


class Judge:
    """Adds cases to a row: looks at what is on disk after a fault, with a process of its own."""

    def __init__(
        self, nursery: Nursery, truth: Truth, tally: Tally, *, is_damaged: bool = False
    ) -> None:
        """`is_damaged`: what `verify` finds before the first start is no false alarm."""
        self._is_damaged = is_damaged
        self._nursery = nursery
        self._truth = truth
        self.tally = tally

    def look(self, directory: Path, acknowledged: int, what: str) -> Case:
        """Start on what a fault left in `directory`; `acknowledged` events must be there."""
        checked = self._nursery.run("check", directory)
        self.tally.checked += acknowledged
        verdicts = [one["verify"] for one in checked.said if "verify" in one]
        if self._is_damaged:
            del verdicts[:-1]
        if checked.code or any(verdicts):
            self.tally.false_alarms += 1
            alarm = checked.error or "; ".join(filter(None, verdicts)) or f"ended {checked.code}"
            self.tally.note(f"{what}: {alarm}")
            return checked
        self._compare_found(said_of(checked, "found"), acknowledged, what)
        self._compare_resent(checked, what)
        return checked

    def wrong(self, what: str) -> None:
        """Count a fault that was met without the care it asks for."""
        self.tally.undetected += 1
        self.tally.note(what)

    def _compare_found(self, found: dict[str, Any], acknowledged: int, what: str) -> None:
        events: list[str] = self._truth.events[: found["first"] - 1] + found["found"]
        same = sum(
            1 for one, other in zip(events, self._truth.events, strict=False) if one == other
        )
        if same < acknowledged:
            self.tally.lost += acknowledged - same
            self.tally.note(f"{what}: {same} of {acknowledged} acknowledged events are there")
        elif same != len(events) or same not in self._truth.ends:
            self.wrong(f"{what}: {len(events)} events, {same} of them right, are no whole steps")
        if len(set(found["state"])) > 1:
            self.wrong(f"{what}: checkpoint and log give different states")

    def _compare_resent(self, checked: Case, what: str) -> None:
        found = said_of(checked, "found")
        cut = found["first"] - 1
        held = cut + len(found["found"])
        resent = said_of(checked, "resent")["resent"]
        first_answers = steps_of(self._truth.said)
        for first, again, answered in zip(first_answers, self._truth.again, resent, strict=True):
            expected = again if first["end"] <= held else first
            if answered["answers"] != expected["answers"]:
                self.tally.duplicates += 1
                self.tally.note(f"{what}: step {first['step']} sent again: {answered['answers']}")
                return
        final = said_of(checked, "final")
        if final["final"] != self._truth.events[cut:] or set(final["state"]) != {self._truth.state}:
            self.tally.duplicates += 1
            self.tally.note(f"{what}: sent again, the work ends in another state")


def steps_of(said: list[Any]) -> list[dict[str, Any]]:
    """Return what was said about steps."""
    return [one for one in said if end_of(one)]
