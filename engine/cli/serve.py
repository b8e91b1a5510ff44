"""`paychan serve`."""

import errno
import socket
from pathlib import Path
from typing import Final

import click

from engine.cli.config import config_option, load
from engine.cli.failures import ExitCode, Failure

NO_ADDRESS: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


@click.command()
@config_option
@click.option("--datadir", metavar="DIR", help="Where logs and keys lie.")
@click.option("--listen", metavar="HOST:PORT", help="Port 0 takes a free one.")
@click.option("--ray-address", metavar="ADDRESS", help="A Ray cluster to join.")
def serve(
    config_file: Path | None, datadir: str | None, listen: str | None, ray_address: str | None
) -> None:
    """Run the engine until SIGTERM.

    Then it takes no more, answers what is under way, writes a checkpoint and exits 0. It says
    "ready on URL" on standard output once it takes claims.
    """
    flags: dict[str, str] = {}
    if datadir is not None:
        flags["datadir"] = datadir
    if listen is not None:
        flags["gateway.host"], flags["gateway.port"] = _address(listen)
    if ray_address is not None:
        flags["placement.ray_address"] = ray_address
    config, _ = load(config_file, flags)
    # Everything the engine is made of comes with it.
    from engine.app import serve as run

    try:
        run(config)
    except Exception as error:  # raised again where it is none that an operator can act on
        failure = _failure(_first(error), f"{config.gateway.host}:{config.gateway.port}")
        if failure is None:
            raise
        raise failure from error


def _first(error: BaseException) -> BaseException:
    """Return what went wrong first, without the groups that tasks wrap it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _failure(error: BaseException, address: str) -> Failure | None:
    """Return what an operator should know; None for a fault of the program."""
    from engine.app import StartFailed
    from engine.channels.placement import PlacementMismatch
    from engine.cli.payments.stores import failure_of
    from engine.payments.errors import StoreError
    from engine.verify.errors import SelfTestFailedError

    match error:
        case PlacementMismatch():
            advice = "configure what the directory was laid out for, or give another --datadir"
            return Failure(ExitCode.USAGE, str(error), advice)
        case SelfTestFailedError():
            seen = f"a known signature is judged wrongly: {error}"
            advice = "nothing was taken; install again (`make setup`), then look at the memory"
            return Failure(ExitCode.INTEGRITY, seen, advice)
        case StoreError():
            return failure_of(error)
        case StartFailed():
            advice = (
                "`paychan wal verify` looks at the log; docs/how-to says what each fault asks for"
            )
            return Failure(ExitCode.FAILED, str(error), advice)
        case OSError() if error.errno in NO_ADDRESS or isinstance(error, socket.gaierror):
            seen = f"cannot listen on {address}: {error.strerror}"
            return Failure(ExitCode.FAILED, seen, "--listen HOST:PORT gives another address")
        case _:
            return None


def _address(listen: str) -> tuple[str, str]:
    """Split HOST:PORT; an IPv6 host stands in brackets."""
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit()):
        raise click.BadParameter(f"{listen!r} is not HOST:PORT, such as 127.0.0.1:8480")
    return host.removeprefix("[").removesuffix("]"), port
