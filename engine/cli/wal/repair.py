"""`paychan wal repair`: what can be kept of a damaged log, what it would cost, and doing it."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
from msgspec.structs import replace

from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import directory_argument, judged, number_of

if TYPE_CHECKING:
    from engine.channels.offline.losses import Losses
    from engine.channels.recovery import Recovered
    from wal.repairs.repair import Repair, RepairPlan

LOSS_COLUMNS: Final = ("channel_id", "drops", "kept_amount", "lost_amount", "claims")
SALVAGE: Final = "salvaged-claims"


class Wish(NamedTuple):
    """How the command was called."""

    apply: bool
    copies: tuple[Path, ...]
    rebuild: bool


class Done(NamedTuple):
    """What became of a shard: files that were put aside, and where the lost claims were kept."""

    applied: bool
    frames_lost: int
    moved: tuple[str, ...]
    salvaged: str


@click.command("repair")
@directory_argument
@click.option("--dry-run", is_flag=True, help="Say what would be done and lost; change nothing.")
@click.option("--apply", "apply_", is_flag=True, help="Do it.")
@click.option(
    "--from",
    "copies",
    metavar="BACKUP",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Fetch damaged segments from this backup, so that nothing is lost; may be repeated.",
)
@click.option(
    "--rebuild-manifest", "rebuild", is_flag=True, help="Make a MANIFEST anew from the segments."
)
@json_option
def repair(
    directory: Path, *, dry_run: bool, apply_: bool, copies: tuple[Path, ...], rebuild: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Bring a damaged log back as far as can be proven, with the engine stopped.

    Give either --dry-run or --apply. It says in words what is wrong, what stays, and what would be
    lost, down to the claims and the drops of each channel. Nothing is cut in place and nothing
    deleted: all that does not stay goes to the shard's quarantine/, with a file of the best claims
    in it that could still be read, for those can be redeemed whatever becomes of the log.

    Exit code 0 when the log is sound, or is now; 6 when it needs a repair and got none.
    """
    if dry_run == apply_:
        raise click.UsageError("give either --dry-run or --apply")
    wish = Wish(apply_, copies, rebuild)
    output = Output(as_json=as_json)
    needed = [shard.name for shard in _shards(directory) if _one(shard, wish, output)]
    if needed and not apply_:
        seen = f"{', '.join(needed)}: a repair is needed"
        raise Failure(ExitCode.INTEGRITY, seen, "nothing was changed; --apply does it")


def _shards(directory: Path) -> list[Path]:
    """Return the shards meant by DIR; their MANIFEST may be what is missing.

    Raises:
        Failure: there is no log.
    """
    if (directory / "wal").is_dir():
        return [directory]
    found = sorted(path for path in directory.glob("shard-*") if (path / "wal").is_dir())
    if not found:
        advice = "DIR is the engine's --datadir, or one shard-NNNN directory in it"
        raise Failure(ExitCode.NOT_FOUND, f"no log in {directory}", advice)
    return found


def _one(shard: Path, wish: Wish, output: Output) -> bool:
    """Look at one shard, and repair it if that is wished; say whether it needed it."""
    from engine.channels.journal import EventCodec
    from wal import CorruptLogError
    from wal.repairs.repair import Repair

    with judged(shard), Repair(shard, EventCodec, wish.copies, rebuild=wish.rebuild) as work:
        finished = work.quarantine.complete() if wish.apply else ()
        try:
            with progress(shard.name) as told:
                plan = work.plan(told)
        except CorruptLogError as error:
            if wish.rebuild:
                raise
            advice = "--rebuild-manifest makes one anew from the segments that are there"
            raise Failure(ExitCode.INTEGRITY, f"{shard}: {error}", advice) from error
        kept = _kept(work, plan)
        losses, frames = _losses(shard, work, plan, kept)
        saved = _save(work, plan, losses) if wish.apply and plan.is_needed else ""
        moved = work.apply(plan) if wish.apply and plan.is_needed else ()
    done = Done(wish.apply, frames, (*finished, *moved), saved)
    _tell(shard, plan, losses, done, output)
    if wish.apply and plan.is_needed:
        _verify(shard)
    return plan.is_needed


def _kept(work: "Repair", plan: "RepairPlan") -> "Recovered":
    """Return the channels as the repaired log will have them."""
    from engine.channels.recovery import begun, replay_into
    from engine.validation.options import ValidationOptions

    recovered = begun(work.base_chunks(plan))
    limits = ValidationOptions().retries
    with progress("what stays") as told:
        for first, events in work.kept_batches(plan, recovered.position + 1):  # type: ignore[arg-type]
            replay_into(recovered, first, events, limits)
            told(recovered.position, plan.choice.end_position)
    return recovered


def _losses(
    shard: Path, work: "Repair", plan: "RepairPlan", kept: "Recovered"
) -> "tuple[Losses, int]":
    """Return what is lost with the frames beyond the end, and how many frames those are."""
    from engine.channels.offline.losses import weigh

    newest = max(plan.was_lsn, plan.choice.end_lsn)
    with progress("what is lost") as told:

        def frames() -> Iterator[Any]:
            nonlocal newest
            for frame in work.lost_frames(plan):
                newest = max(newest, frame.lsn)
                told(frame.lsn, newest)
                yield frame

        losses = weigh(kept, number_of(shard), frames())
    told_of = losses.claims + losses.other_events + losses.unproven
    unreadable = max(losses.unreadable, _known_lost(plan) - told_of)
    return replace(losses, unreadable=unreadable), newest - plan.choice.end_lsn


def _known_lost(plan: "RepairPlan") -> int:
    """Return how many events beyond the end there were by the MANIFEST; 0 where that is unknown."""
    pieces = (*plan.choice.kept[-1:], *plan.choice.lost)
    ends = (getattr(piece.entry, "last_position", 0) for piece in pieces)
    return max(max(ends, default=0) - plan.choice.end_position, 0)


def _save(work: "Repair", plan: "RepairPlan", losses: "Losses") -> str:
    """Keep the best claims that the log will not have; return where."""
    from engine.channels.offline.best_claims import best_claims_lines

    if not losses.redeemable:
        return ""
    lines = b"".join(best_claims_lines(losses.redeemable, {}))
    return work.quarantine.keep(f"{SALVAGE}-{plan.choice.end_lsn}.jsonl", lines)


def _tell(
    shard: Path,
    plan: "RepairPlan",
    losses: "Losses",
    done: Done,
    output: Output,
) -> None:
    """Say what was found, and what it means."""
    if output.is_json:
        output.record(_record(shard, plan, losses, done))
        return
    for line in _words(plan, losses, done):
        click.echo(f"{shard.name}: {line}")
    if losses.channels:
        output.records(losses.channels, LOSS_COLUMNS, "at stake")
    if done.salvaged:
        click.echo(
            f"{shard.name}: those claims are in {done.salvaged};"
            " `paychan best-claims check` judges it"
        )
    if done.moved:
        click.echo(f"{shard.name}: put aside: {', '.join(done.moved)}")


def _record(shard: Path, plan: "RepairPlan", losses: "Losses", done: Done) -> dict[str, Any]:
    choice = plan.choice
    return {
        "shard": shard.name,
        "needed": plan.is_needed,
        "faults": [f"{fault.path} at byte {fault.offset}: {fault.reason}" for fault in plan.faults],
        "warnings": list(plan.warnings),
        "fetched": list(plan.fetched),
        "kept_from_position": choice.begin_position,
        "kept_to_position": choice.end_position,
        "frames_lost": done.frames_lost,
        "torn_bytes": plan.torn_bytes,
        "claims_lost": losses.claims,
        "events_unreadable": losses.unreadable,
        "claims_unproven": losses.unproven,
        "drops_at_stake": str(losses.drops),
        "channels": [
            {
                "channel_id": loss.channel_id,
                "claims": loss.claims,
                "drops": str(loss.drops),
                "kept_amount": str(loss.kept_amount),
                "lost_amount": str(loss.lost_amount),
            }
            for loss in losses.channels
        ],
        "quarantined": list(plan.quarantined) if plan.is_needed else [],
        "applied": done.applied and plan.is_needed,
        "moved": list(done.moved),
        "salvaged": done.salvaged or None,
    }


def _words(plan: "RepairPlan", losses: "Losses", done: Done) -> Iterator[str]:
    """Yield the plan in sentences."""
    choice = plan.choice
    if not plan.is_needed:
        yield f"sound up to position {choice.end_position}; nothing to repair"
        if plan.torn_bytes:
            yield f"{plan.torn_bytes} bytes of an interrupted write at its end; a start cuts them"
        return
    for fault in plan.faults:
        yield f"wrong: {fault.path} at byte {fault.offset}: {fault.reason}"
    for warning in plan.warnings:
        yield f"mind: {warning}"
    for path in plan.fetched:
        yield f"fetched from a backup: {path}"
    would = "" if done.applied else "would "
    yield f"positions {choice.begin_position} to {choice.end_position} {would}stay"
    if choice.begin_position > 1:
        yield (
            f"what lies before position {choice.begin_position} {would}leave the log as history;"
            " the checkpoint there holds what it added up to, so no balance changes"
        )
    yield from _cost(losses, done)


def _cost(losses: "Losses", done: Done) -> Iterator[str]:
    if not done.frames_lost:
        yield "no claim was lost" if done.applied else "no claim would get lost"
        return
    be = "are" if done.applied else "would be"
    yield (
        f"{done.frames_lost} frames behind that {be} lost from the log:"
        f" {losses.claims} claims that can still be read (positions {losses.first} to"
        f" {losses.last}), {losses.other_events} other events,"
        f" {losses.unreadable} events in frames that cannot be read,"
        f" {losses.unproven} claims whose amount cannot be told any more"
    )
    yield (
        f"{losses.drops} drops on {len(losses.channels)} channels lie between the best claims that"
        " stay and the best that can be read"
    )


def _verify(shard: Path) -> None:
    """Judge the repaired log.

    Raises:
        Failure: it is not sound; what was put aside is all still there.
    """
    from engine.channels.journal import verify_directory

    with judged(shard), progress(f"verify {shard.name}") as told:
        report = verify_directory(shard, told)
    if not report.ok:
        damage = report.damages[0]
        seen = f"{shard}: {damage.segment} at byte {damage.offset}: {damage.reason}"
        raise Failure(ExitCode.INTEGRITY, seen, "run it again; nothing in quarantine/ was lost")
