"""How commands talk to a running engine, and what its refusals mean for the exit code."""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import click

from engine.cli.arguments import SERVER
from engine.cli.failures import ExitCode, Failure
from engine.cli.output import Output, json_option

if TYPE_CHECKING:
    from engine.client import Client, ClientError, Problem

T = TypeVar("T")
DEFAULT_SERVER: Final = "http://127.0.0.1:8480"


class Connection:
    """The engine a command was told to talk to."""

    def __init__(self, server: str) -> None:
        self.server = server

    def run(self, work: "Callable[[Client], Awaitable[T]]") -> T:
        """Return what `work` makes of a client.

        Raises:
            Failure: the engine cannot be reached, or said no.
        """
        # aiohttp costs a fifth of a second: help and completion should not pay for it.
        from engine.client import Client, ClientError

        async def connected() -> T:
            async with Client(self.server) as client:
                await client.ping()
                return await work(client)

        try:
            return asyncio.run(connected())
        except ClientError as error:
            raise _failure(error) from error

    def stream(self, read: "Callable[[Client], AsyncIterator[T]]") -> Iterator[T]:
        """Yield what `read` yields, as it comes; see `run`."""
        from engine.client import Client, ClientError

        with asyncio.Runner() as runner:
            client = Client(self.server)
            runner.run(client.__aenter__())
            try:
                runner.run(client.ping())
                found = read(client)
                while (item := runner.run(_next(found))) is not None:
                    yield item
            except ClientError as error:
                raise _failure(error) from error
            finally:
                runner.run(client.__aexit__(None, None, None))


async def _next(found: AsyncIterator[T]) -> T | None:
    return await anext(found, None)


def talks_to_engine(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--server` and `--json`; it gets a `Connection` and an `Output` first."""

    @click.option(
        "--server",
        type=SERVER,
        envvar="PAYCHAN_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        show_envvar=True,
        help="Where the engine listens.",
    )
    @json_option
    @functools.wraps(command)
    def wrapped(*arguments: object, server: str, as_json: bool, **options: object) -> None:
        command(Connection(server), Output(as_json=as_json), *arguments, **options)

    return wrapped


def _failure(error: "ClientError") -> Failure:
    from engine.client import Refused, ServerUnreachable

    if isinstance(error, Refused):
        return _refusal(error.problem)
    if isinstance(error, ServerUnreachable):
        advice = "is it running? `paychan serve` starts one; --server or PAYCHAN_SERVER names it"
        return Failure(ExitCode.UNREACHABLE, str(error), advice)
    return Failure(ExitCode.FAILED, str(error))


def _refusal(problem: "Problem") -> Failure:
    name = f" ({problem.param})" if problem.param else ""
    seen = f"{problem.code or problem.title or 'refused'}{name}: {problem.detail or problem.title}"
    if problem.status == 404:
        return Failure(ExitCode.NOT_FOUND, seen, "`paychan channel list` shows what is there")
    if problem.status in (429, 503) or problem.code in ("overloaded", "unavailable"):
        return Failure(ExitCode.FAILED, seen, "send the same again a little later")
    if problem.status < 500:
        return Failure(ExitCode.REJECTED, seen)
    return Failure(ExitCode.FAILED, seen, "the engine's log says why")
