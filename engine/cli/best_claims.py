"""`paychan best-claims …`: the least that is needed to recover the money, in one small file."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.arguments import SERVER
from engine.cli.connection import Connection
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option, progress
from engine.cli.wal.shards import judged, number_of, shards_of

if TYPE_CHECKING:
    from engine.channels.offline.best_claims import Contents, Redeemable
    from engine.client import ChannelInfo, Client

ASKED_AT_ONCE: Final = 64
DIFFERENCE_COLUMNS: Final = ("channel_id", "difference", "in_file", "in_directory")

datadir_type = click.Path(path_type=Path, file_okay=False)
file_type = click.Path(path_type=Path, dir_okay=False)


@click.group("best-claims")
def best_claims() -> None:
    """Keep the best claim of every channel apart, and check such a file offline."""


@best_claims.command("export")
@click.argument("directory", metavar="[DATADIR]", required=False, type=datadir_type)
@click.option("--server", type=SERVER, help="Ask a running engine instead of reading a directory.")
@click.option("--output", "target", type=file_type, required=True, help="The file to write.")
@json_option
def export(directory: Path | None, server: str | None, target: Path, *, as_json: bool) -> None:
    """Write the best claim of every channel to one file.

    Reads DATADIR, also while an engine runs on it, or asks --server. Every signature is checked
    before it is written; the file is replaced in one step. Keep it on another machine.
    """
    from engine.channels.offline.best_claims import unsigned_of, write_best_claims

    if (directory is None) == (server is None):
        raise click.UsageError("give either DATADIR or --server")
    positions: dict[str, int] = {}
    if directory is not None:
        claims = list(_of_directory(directory, positions))
    else:
        with progress("channels") as told:
            claims = Connection(server or "").run(
                lambda client: _of_engine(client, positions, lambda done: told(done, None))
            )
    with progress("signatures") as told:
        unsigned = unsigned_of(claims, lambda done: told(done, len(claims)))
    if unsigned:
        seen = f"the ledger would refuse the signature of {len(unsigned)} claims: {unsigned[0]} …"
        raise Failure(ExitCode.INTEGRITY, seen, "nothing was written; `paychan wal verify` first")
    try:
        sha256 = write_best_claims(target, claims, positions)
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{target}: {error.strerror or error}") from error
    Output(as_json=as_json).record(
        {
            "file": str(target),
            "channels": len(claims),
            "total": str(sum(claim.drops for claim in claims)),
            "bytes": target.stat().st_size,
            "sha256": sha256,
        }
    )


@best_claims.command("check")
@click.argument("file", metavar="FILE", type=file_type)
@click.option(
    "--against", "directory", metavar="DATADIR", type=datadir_type, help="Compare with its claims."
)
@json_option
def check(file: Path, directory: Path | None, *, as_json: bool) -> None:
    """Check every signature in FILE as the ledger would, its sums and its hash. Needs no network.

    With --against, lists the channels that differ: `older` where DATADIR has a better claim, which
    is what happens when payments go on; `better` or `missing` where FILE has more than DATADIR,
    which is money that DATADIR lost. Exit code 6 for that, and for a file that does not check out.
    """
    contents = _contents(file)
    output = Output(as_json=as_json)
    differences = list(_differences(contents, directory)) if directory is not None else []
    output.record(
        {
            "file": str(file),
            "ok": not contents.unsigned,
            "channels": len(contents.claims),
            "total": str(contents.total),
            "redeemed": str(contents.redeemed),
            "positions": contents.head.get("positions", {}),
            "unsigned": list(contents.unsigned),
            "sha256": contents.sha256,
        }
    )
    if differences:
        output.records(differences, DIFFERENCE_COLUMNS)
    if contents.unsigned:
        seen = f"the ledger would refuse {len(contents.unsigned)} of {len(contents.claims)} claims"
        raise Failure(ExitCode.INTEGRITY, seen)
    lost = [row for row in differences if row["difference"] != "older"]
    if lost:
        drops = sum(int(row["in_file"]) - int(row["in_directory"]) for row in lost)
        seen = f"{directory} lacks claims over {drops} drops on {len(lost)} channels"
        raise Failure(ExitCode.INTEGRITY, seen, "submit the claims of the file again, or redeem")


def _contents(file: Path) -> "Contents":
    """Read a file of best claims.

    Raises:
        Failure: it is not there, or not what it says.
    """
    from engine.channels.offline.best_claims import BestClaimsBroken, read_best_claims

    try:
        with progress("signatures") as told:
            return read_best_claims(file, lambda done: told(done, None))
    except FileNotFoundError as error:
        raise Failure(ExitCode.NOT_FOUND, f"no file {file}") from error
    except BestClaimsBroken as error:
        raise Failure(ExitCode.INTEGRITY, f"{file}, {error}") from error
    except OSError as error:
        raise Failure(ExitCode.FAILED, f"{file}: {error.strerror or error}") from error


def _differences(contents: "Contents", directory: Path) -> Iterator[dict[str, Any]]:
    """Yield the channels whose best claim is another one in the directory."""
    there = {claim.channel_id: claim for claim in _of_directory(directory, {})}
    for name in sorted(contents.claims.keys() | there.keys()):
        ours, theirs = contents.claims.get(name), there.get(name)
        in_file = ours.drops if ours is not None else 0
        in_directory = theirs.drops if theirs is not None else 0
        if in_file != in_directory:
            missing = "missing" if theirs is None else "better"
            yield {
                "channel_id": name,
                "difference": "older" if in_file < in_directory else missing,
                "in_file": str(in_file),
                "in_directory": str(in_directory),
            }


def _of_directory(directory: Path, positions: dict[str, int]) -> Iterator["Redeemable"]:
    """Yield the best claims of a data directory; note how far each log was read."""
    from engine.channels.offline.best_claims import redeemable
    from engine.channels.recovery import recover_committed
    from engine.validation.options import ValidationOptions

    limits = ValidationOptions().retries
    for shard in shards_of(directory):
        with judged(shard), progress(shard.name) as told:
            recovered = recover_committed(shard, limits, progress=lambda done: told(done, None))
        positions[shard.name] = recovered.position
        for actor in recovered.actors.values():
            if actor.claim_position:
                yield redeemable(actor.channel, f"{number_of(shard)}-{actor.claim_position}")


async def _of_engine(
    client: "Client", positions: dict[str, int], told: Callable[[int], None]
) -> list["Redeemable"]:
    """Ask an engine for the best claim of every channel, some at once."""
    from engine.channels.offline.best_claims import Redeemable

    async def ask(info: "ChannelInfo") -> Redeemable:
        claim = await client.best_claim(info.channel_id)
        return Redeemable(
            channel_id=info.channel_id.hex().upper(),
            public_key=info.public_key.hex().upper(),
            amount=str(claim.amount),
            signature=claim.signature.hex().upper(),
            sequence=claim.sequence,
            position=claim.position,
            destination=info.destination,
            source=info.source,
            capacity=str(info.capacity),
            redeemed=str(info.redeemed),
            state=info.state.value,
        )

    claims: list[Redeemable] = []
    seen = 0
    async for group in _groups(client.channels(), ASKED_AT_ONCE):
        wanted = [info for info in group if info.sequence]
        claims += await asyncio.gather(*(ask(info) for info in wanted))
        for info in group:
            shard, _, number = (info.position or "").partition("-")
            if number:
                name = f"shard-{int(shard):04d}"
                positions[name] = max(positions.get(name, 0), int(number))
        seen += len(group)
        told(seen)
    return claims


async def _groups(
    found: AsyncIterator["ChannelInfo"], size: int
) -> AsyncIterator[list["ChannelInfo"]]:
    group: list[ChannelInfo] = []
    async for info in found:
        group.append(info)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
