"""Take one safeguard away at a time and see a test notice: `python -m tests.faults.mutations`.

In a copy of the program, never where it lies. What no test notices is a test that is missing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.scorecard import Budget, CannotRun, Progress, Row, Tally

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = "python -m tests.faults.mutations"
COPIED: Final = ("engine", "wal", "bench", "tests", "docs", "pyproject.toml", "README.md")
WAIT_S: Final = 300.0
"""A mutant that makes a test hang is noticed by this; a sound run takes some seconds."""

PASSED, FAILED = 0, 1
"""What pytest returns; anything else means that no test was run."""


class Verdict(NamedTuple):
    """What the tests said of a mutant: which of them failed, empty when none did."""

    mutant: Mutant
    noticed_by: str
    seconds: float


def run(budget: Budget, progress: Progress) -> list[Row]:
    """Try every mutant, or two of them; return one row.

    Raises:
        CannotRun: the tests fail without any mutant, so that failing says nothing.
    """
    tally = Tally("a safeguard removed from the program: did the tests notice?", COMMAND)
    chosen = list(MUTANTS) if budget.full else [MUTANTS[0], MUTANTS[len(MUTANTS) // 2]]
    for verdict in verdicts(chosen):
        tally.tried += 1
        if not verdict.noticed_by:
            tally.undetected += 1
            tally.note(f"nothing noticed that this was gone: {verdict.mutant.safeguard}")
        progress(tally.tried, len(chosen), verdict.mutant.safeguard)
    return [tally.row()]


def verdicts(mutants: Iterable[Mutant]) -> Iterator[Verdict]:
    """Yield what the tests say of each mutant.

    Raises:
        CannotRun: they fail without it.
    """
    mutants = list(mutants)
    with copied() as copy:
        failed = failing(copy, sorted({path for mutant in mutants for path in mutant.tests}))
        if failed:
            raise CannotRun(f"without any mutant, {failed} fails")
        for mutant in mutants:
            started = time.perf_counter()
            with mutated(copy, mutant):
                noticed = failing(copy, mutant.tests)
            yield Verdict(mutant, noticed, time.perf_counter() - started)


@contextmanager
def copied() -> Iterator[Path]:
    """Copy the program and its tests to a folder of their own, for as long as it lasts."""
    with tempfile.TemporaryDirectory(prefix="paychan-mutants-") as folder:
        for name in COPIED:
            source, target = ROOT / name, Path(folder) / name
            if source.is_dir():
                # Compiled files come and go where tests run beside this one.
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)
        yield Path(folder)


@contextmanager
def mutated(copy: Path, mutant: Mutant) -> Iterator[None]:
    """Take the safeguard out of the copy, then put it back.

    Raises:
        CannotRun: the patch does not fit; the code has changed.
    """
    path = copy / mutant.file
    sound = path.read_text()
    if sound.count(mutant.search) != 1:
        raise CannotRun(f"{mutant.file} has not exactly one place for {mutant.safeguard!r}")
    path.write_text(sound.replace(mutant.search, mutant.replace))
    try:
        yield
    finally:
        path.write_text(sound)


def failing(copy: Path, tests: Iterable[str]) -> str:
    """Run the quick tests of some files in the copy; return the first that fails, if one does.

    Raises:
        CannotRun: the tests could not be run at all.
    """
    command = [
        sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "--no-header", "-m", "not slow",
        "-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin",
        "-o", "addopts=", *tests,  # those we have are for plugins too
    ]  # fmt: skip
    surroundings = {
        **os.environ,
        "PYTHONPATH": str(copy),
        # Compiled files are told by size and second; a mutant may share both with what it replaces.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Plugins that no test here needs take longer to load than these tests to run.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    try:
        done = subprocess.run(
            command, cwd=copy, env=surroundings, capture_output=True, text=True, timeout=WAIT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end within {WAIT_S:.0f} s"
    if done.returncode == PASSED:
        return ""
    if done.returncode != FAILED:
        raise CannotRun(f"pytest {' '.join(tests)}: {done.stdout[-2_000:]}{done.stderr[-2_000:]}")
    said = [line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    return said[0].split(" ", 1)[1].partition(" - ")[0]


def main() -> int:
    """Return 0 when every mutant was noticed, 1 when one was not, 2 when they cannot be tried."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("words", nargs="*", help="only safeguards that have one of these words")
    words = parser.parse_args().words
    chosen = [one for one in MUTANTS if not words or any(word in one.safeguard for word in words)]
    found: list[Verdict] = []
    bar = Console(stderr=True)
    try:
        found.extend(track(verdicts(chosen), "mutants", total=len(chosen), console=bar))
    except CannotRun as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        show(found)
    return 0 if all(verdict.noticed_by for verdict in found) else 1


def show(found: list[Verdict]) -> None:
    """Print one line a mutant; those that survived stand out."""
    table = Table(title="Safeguards removed, one at a time", title_justify="left")
    for column in ("removed", "file", "noticed by"):
        table.add_column(column, overflow="fold")
    table.add_column("seconds", justify="right")
    for verdict in found:
        table.add_row(
            verdict.mutant.safeguard,
            verdict.mutant.file,
            verdict.noticed_by.removeprefix("tests/") or "NOTHING",
            f"{verdict.seconds:.1f}",
            style="" if verdict.noticed_by else "red",
        )
    console = Console(markup=False, highlight=False)
    console.print(table)
    noticed = sum(bool(verdict.noticed_by) for verdict in found)
    console.print(f"{noticed} of {len(found)} noticed")


if __name__ == "__main__":
    sys.exit(main())
