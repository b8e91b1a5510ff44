"""Play histories by number: `--number N` tells the story of one, `--from N` plays many."""

import argparse
import sys
import time

from tests.simulation.play import Played, play, stage, totals


def main() -> int:
    """Return 1 when a promise was broken in any history that was played."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--number", type=int, help="play this one and tell its story")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first number")
    parser.add_argument("--count", type=int, default=1_000, help="how many")
    parser.add_argument("--minutes", type=float, help="play on for so long, whatever the count")
    parser.add_argument("--stop", action="store_true", help="stop at the first that is broken")
    options = parser.parse_args()
    with stage():
        if options.number is not None:
            return tell(play(options.number))
        return campaign(options.first, options.count, options.minutes, stop=options.stop)


def tell(played: Played) -> int:
    """Print the story of one history."""
    sys.stdout.write("\n".join(played.story) + "\n\n")
    counts = ", ".join(f"{count} {name}" for name, count in sorted(played.counts.items()))
    sys.stdout.write(f"{counts}\n{played.broken or 'every promise held'}\n")
    return 1 if played.broken else 0


def campaign(first: int, count: int, minutes: float | None, *, stop: bool) -> int:
    """Play one history after the other; print the numbers of those that broke a promise."""
    started = time.perf_counter()
    played: list[Played] = []
    while len(played) < count if minutes is None else _minutes_since(started) < minutes:
        one = play(first + len(played))
        played.append(one)
        if one.broken:
            sys.stdout.write(f"\r{one.number}: {one.broken}\n")
            sys.stdout.flush()
            if stop:
                break
        if len(played) % 20 == 0 and sys.stderr.isatty():
            sys.stderr.write(f"\r{len(played)} histories, {_broken(played)} broken")
    took_s = time.perf_counter() - started
    counts = ", ".join(f"{total} {name}" for name, total in sorted(totals(played).items()))
    sys.stdout.write(
        f"\r{len(played)} histories in {took_s:.1f} s, {_broken(played)} broken: {counts}\n"
    )
    return 1 if _broken(played) else 0


def _broken(played: list[Played]) -> int:
    return sum(bool(one.broken) for one in played)


def _minutes_since(started: float) -> float:
    return (time.perf_counter() - started) / 60


if __name__ == "__main__":
    sys.exit(main())
