"""`paychan payments verify`: is what is kept for speed what the attempts say?"""

from typing import Final

import click

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, progress
from engine.cli.payments.stores import Place, on_store

PROBLEM_COLUMNS: Final = ("identifier", "what", "kept", "computed")


@click.command("verify")
@on_store
def verify(place: Place, output: Output) -> None:
    """Compute anew all that is kept for speed; exit code 6 where it differs.

    Reads everything: statuses, counts, sums and indexes are held against the attempts they come
    from. Changes nothing.
    """
    with place.reading() as store, progress("payments") as seen:
        report = store.verify(seen)
    counts = {
        "ok": report.is_sound,
        "payments": report.payments,
        "attempts": report.attempts,
        "duplicates": report.duplicates,
        "problem_count": report.problem_count,
    }
    if output.is_json:
        output.record(counts | {"problems": report.problems})
    else:
        output.record(counts)
        if report.problems:
            output.records(report.problems, PROBLEM_COLUMNS)
    if not report.is_sound:
        seen_ = f"{report.problem_count} things are kept that the attempts do not say"
        advice = "migrate into a new store: that writes all of it anew"
        raise Failure(ExitCode.INTEGRITY, seen_, advice)
