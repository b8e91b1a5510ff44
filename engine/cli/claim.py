"""`paychan claim …`: what is made and checked offline, and what is sent and asked for."""

import itertools
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from engine.cli.arguments import CHANNEL_ID, DROPS, SEQUENCE, SIGNATURE, parse_hex
from engine.cli.connection import Connection, talks_to_engine
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, progress
from engine.cli.signing import sign, verify
from engine.core.claim import Claim
from engine.core.rejections import NOT_NOW

if TYPE_CHECKING:
    from engine.client import Result

RESULT_COLUMNS: Final = ("channel_id", "sequence", "amount", "status", "code", "position")
CLAIM_COLUMNS: Final = ("sequence", "amount", "position", "at")


@click.group()
def claim() -> None:
    """Make, check, submit and look at claims."""


claim.add_command(sign)
claim.add_command(verify)


@claim.command("submit")
@click.option("--channel-id", type=CHANNEL_ID, help="Whose claim it is.")
@click.option("--amount", type=DROPS, help="Drops owed in all.")
@click.option("--signature", type=SIGNATURE, help="Its proof.")
@click.option("--sequence", type=SEQUENCE, help="Its number, where the channel is strict.")
@click.option("--previous", type=DROPS, help="The amount you believe is claimed so far.")
@click.option(
    "--stdin", "from_stdin", is_flag=True, help="Read claims, one JSON object a line, instead."
)
@talks_to_engine
def submit(connection: Connection, output: Output, *, from_stdin: bool, **fields: Any) -> None:
    """Send claims to a running engine.

    Exit code 0 only if every claim is on disk; 4 if one was refused; 1 if one is undecided: it
    came early, or the outcome is unknown.
    """
    if from_stdin:
        _submit_many(connection, output)
        return
    missing = [name for name in ("channel_id", "amount", "signature") if fields[name] is None]
    if missing:
        names = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise click.UsageError(f"give {names}, or --stdin")
    result = connection.run(lambda client: client.submit_one(Claim(**fields)))
    output.record(result, "drops")
    code = _verdict(result)
    if code is not ExitCode.DONE:
        raise Failure(code, _why(result), _next_step(code))


def _submit_many(connection: Connection, output: Output) -> None:
    lines = enumerate(sys.stdin, 1)
    claims = [_read_claim(number, line) for number, line in lines if line.strip()]
    with progress("claims") as told:
        results = connection.run(lambda client: client.submit(claims, told))
    output.records(results, RESULT_COLUMNS)
    count = Counter(map(_verdict, results))
    code = max(count, default=ExitCode.DONE)  # a refusal weighs more than not knowing
    if code is not ExitCode.DONE:
        seen = (
            f"{count[ExitCode.DONE]} on disk, {count[ExitCode.REJECTED]} refused,"
            f" {count[ExitCode.FAILED]} undecided"
        )
        raise Failure(code, seen, _next_step(code) if count[ExitCode.FAILED] else "")


class _ClaimLine(msgspec.Struct):
    """A claim on standard input, as `claim sign` writes it and the HTTP API takes it."""

    channel_id: str
    amount: str | int
    signature: str
    sequence: int | None = None
    previous: str | None = None


def _read_claim(number: int, line: str) -> Claim:
    try:
        read = msgspec.json.decode(line, type=_ClaimLine)
        previous = read.previous
        return Claim(
            parse_hex(read.channel_id),
            DROPS.convert(str(read.amount), None, None),
            parse_hex(read.signature),
            read.sequence,
            None if previous is None else _previous(previous),
        )
    except (msgspec.DecodeError, ValueError, click.BadParameter) as error:
        advice = 'a line is {"channel_id": …, "amount": "…", "signature": …, "sequence": …}'
        raise Failure(
            ExitCode.USAGE, f"line {number}: {error}; nothing was sent", advice
        ) from error


def _previous(text: str) -> bytes | int:
    """Return a digest or an amount; only the first has 64 digits."""
    return parse_hex(text) if len(text) == 64 else DROPS.convert(text, None, None)


def _verdict(result: "Result") -> ExitCode:
    if result.is_durable:
        return ExitCode.DONE
    if result.status == "buffered" or result.code in NOT_NOW:
        return ExitCode.FAILED
    return ExitCode.REJECTED


def _why(result: "Result") -> str:
    if result.status == "buffered":
        missing = ", ".join(str(number) for number in result.missing)
        return f"not on disk yet: claim {result.sequence} waits for {missing or 'those before it'}"
    return f"{result.code}: {result.message or 'refused'}"


def _next_step(code: ExitCode) -> str:
    return "send the same again; a claim is never taken twice" if code is ExitCode.FAILED else ""


@claim.command("best")
@click.argument("channel_id", type=CHANNEL_ID)
@talks_to_engine
def best(connection: Connection, output: Output, channel_id: bytes) -> None:
    """Show the claim to redeem on the ledger."""
    output.record(connection.run(lambda client: client.best_claim(channel_id)))


@claim.command("history")
@click.argument("channel_id", type=CHANNEL_ID)
@click.option("--after", type=click.IntRange(0), default=0, help="Only sequences above this.")
@click.option("--limit", type=click.IntRange(1), help="At most so many; without it, all.")
@talks_to_engine
def history(
    connection: Connection, output: Output, channel_id: bytes, after: int, limit: int | None
) -> None:
    """List the accepted claims of a channel, newest last."""
    found = connection.stream(lambda client: client.history(channel_id, after))
    output.records(itertools.islice(found, limit), CLAIM_COLUMNS)
