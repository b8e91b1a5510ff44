"""How many claims a second can be made durable, by batch size, beside what else would hold them?

The sum before the run: a sync takes 0.1 to 1 ms whatever is asked of it. A frame costs the log some
10 µs of CPU and a claim in it half a microsecond, so a log is as fast as a bare append until the
claims of a batch weigh as much as its sync; what it writes less, 70 bytes a claim and not 120,
is on its side.

All stores take the same claims on the same disk in one run, by turns: a round is one short slice of
each, and the next round begins with another. What is compared is medians over the rounds.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from bench.harness import machine_line, scratch
from bench.signing import STEP_DROPS, make_payer, sign
from bench.stores import STORES, Store
from engine.core.events import AnyEvent, ClaimReceived
from engine.core.types import ChannelId, Drops, TimeNs
from engine.core.types import Sequence as ClaimSequence

BATCHES: Final = (1, 8, 32, 128, 512)
SIGNATURES: Final = 2_048
"""Real ones, made before the run and used in turn; no batch sees one twice."""

CALIBRATION: Final = 8
SLICE_COMMITS_MAX: Final = 4_096
AT: Final = 1_700_000_000_000_000_000
LOG: Final = "paychan"
FLOORS: Final = ("append", "prepared")


class WalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run.

    Attributes:
        batches: Claims committed at once.
        channels: How many channels the claims are of, in turn.
        rounds: Slices of each store at each batch size.
        slice_s: About how long a slice of the log takes.
        without: Stores left out.
    """

    batches: tuple[int, ...] = BATCHES
    channels: int = 1_000
    rounds: int = 5
    slice_s: float = 0.05
    without: tuple[str, ...] = ()


class Slice(msgspec.Struct, frozen=True):
    """What one store did with the batches of a round: seconds by the clock and of CPU, bytes."""

    seconds: float
    cpu_s: float
    size: int | None


class Claims:
    """Claims without end that continue their channels, each channel in turn."""

    def __init__(self, channels: int) -> None:
        payers = [make_payer(number, "ed25519", "wal") for number in range(channels)]
        self._ids = [ChannelId(payer.channel_id) for payer in payers]
        self._signatures = [sign(payers[n % channels], n + 1) for n in range(SIGNATURES)]
        self._made = 0

    def batch(self, size: int) -> list[AnyEvent]:
        """Return the next `size` claims; all of a batch come at one time, as in a shard."""
        claims: list[AnyEvent] = []
        at = TimeNs(AT + self._made * 1_000)
        for made in range(self._made, self._made + size):
            sequence = made // len(self._ids) + 1
            claims.append(
                ClaimReceived(
                    channel_id=self._ids[made % len(self._ids)],
                    version=sequence + 2,
                    at=at,
                    sequence=ClaimSequence(sequence),
                    amount=Drops(sequence * STEP_DROPS),
                    signature=self._signatures[made % SIGNATURES],
                )
            )
        self._made += size
        return claims


def run(
    config: WalConfig,
    datadir: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Run the benchmark; return its result line. `progress` is told slices done and in all."""
    started = time.perf_counter()
    names = [name for name in STORES if name not in config.without]
    with scratch(datadir) as folder:
        stores = {name: STORES[name](folder / name) for name in names}
        claims = Claims(config.channels)
        openings = claims.batch(config.channels)
        for store in stores.values():
            store.append(openings)  # so that each channel has appeared
        rows: list[dict[str, Any]] = []
        total = len(config.batches) * config.rounds
        for index, size in enumerate(config.batches):
            slices: dict[str, list[Slice]] = {name: [] for name in names}
            commits = _commits(stores[LOG], claims, size, config.slice_s)
            for number in range(config.rounds):
                _round(stores, [claims.batch(size) for _ in range(commits)], slices, number)
                progress(index * config.rounds + number + 1, total)
            rows += _rows(size, commits, slices)
        for store in stores.values():
            store.close()
    line = machine_line("wal", msgspec.to_builtins(config), time.perf_counter() - started)
    return line | {"rows": rows}


def _commits(log: Store, claims: Claims, size: int, slice_s: float) -> int:
    """Return how many batches the log takes in about `slice_s`."""
    batches = [claims.batch(size) for _ in range(CALIBRATION)]
    took = _slice(log, batches).seconds / CALIBRATION
    return max(2, min(SLICE_COMMITS_MAX, round(slice_s / took)))


def _round(
    stores: dict[str, Store],
    batches: Sequence[list[AnyEvent]],
    slices: dict[str, list[Slice]],
    number: int,
) -> None:
    """Give each store the same batches; each round begins with the next store."""
    names = list(stores)
    first = number % len(names)
    for name in names[first:] + names[:first]:
        slices[name].append(_slice(stores[name], batches))


def _slice(store: Store, batches: Sequence[list[AnyEvent]]) -> Slice:
    before, cpu, started = store.size, time.process_time(), time.perf_counter()
    for batch in batches:
        store.append(batch)
    seconds = time.perf_counter() - started
    cpu_s = time.process_time() - cpu
    after = store.size
    return Slice(seconds, cpu_s, None if before is None or after is None else after - before)


def _rows(size: int, commits: int, slices: dict[str, list[Slice]]) -> list[dict[str, Any]]:
    """Return a row for each store; the ratios compare medians over the same rounds."""
    took = {name: median(one.seconds for one in each) for name, each in slices.items()}
    rows: list[dict[str, Any]] = []
    for name, each in slices.items():
        sizes = [one.size for one in each if one.size is not None]
        cpu_s = median(one.cpu_s for one in each)
        rows.append(
            {
                "store": name,
                "batch": size,
                "commits_per_s": round(commits / took[name], 1),
                "appends_per_s": round(commits * size / took[name], 1),
                "cpu_us_per_append": round(cpu_s / commits / size * 1e6, 2),
                "bytes_per_claim": round(median(sizes) / commits / size, 1) if sizes else None,
            }
            | {
                f"ratio_to_{floor}": round(took[floor] / took[name], 3)
                for floor in FLOORS
                if floor in took
            }
        )
    return rows
