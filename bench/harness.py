"""What every benchmark needs: a served engine in processes of its own, and the line it prints."""

import asyncio
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

READY: Final = "ready on "
STOP_MAX_S: Final = 60.0
OPENINGS_AT_ONCE: Final = 128


def machine_line(name: str, config: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the fields that every result line begins with."""
    return {
        "name": name,
        "commit": commit_measured(),
        "machine": f"{_cpu_model()}, Python {platform.python_version()}",
        "cores": os.cpu_count() or 1,
        "config": config,
        "seconds": round(seconds, 2),
    }


MEASURED: Final = ("engine", "wal", "bench", ":!bench/results")
"""What a figure depends on: a commit of results or of pages does not make it an older one."""


def commit_measured() -> str:
    """Return the newest commit that changed what is measured, with -dirty where it is edited."""
    commit = _git("log", "-1", "--format=%h", "--", *MEASURED)
    edited = _git("status", "--porcelain", "--", *MEASURED)
    return f"{commit}-dirty" if commit and edited else commit or "unknown"


def _git(*arguments: str) -> str:
    """Return what git says; nothing where there is none."""
    command = ["git", "-C", str(Path(__file__).parents[1]), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


class Served(msgspec.Struct):
    """A `paychan serve` of a bench's own."""

    url: str
    datadir: Path
    process: "asyncio.subprocess.Process"

    async def stop(self) -> int:
        """Stop it as an operator would; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_MAX_S):
            return await self.process.wait()


@contextlib.contextmanager
def scratch(datadir: Path | None) -> Iterator[Path]:
    """Yield a folder for one run's data; one of our own is removed afterwards."""
    if datadir is not None:
        yield datadir
        return
    with tempfile.TemporaryDirectory(prefix="paychan-bench-") as folder:
        yield Path(folder)


@contextlib.asynccontextmanager
async def served(
    datadir: Path, settings: Sequence[str] = (), program: str = "engine.cli.main"
) -> AsyncIterator[Served]:
    """Serve an engine on loopback; `settings` are environment settings `NAME=value`.

    Raises:
        RuntimeError: it ended before it was ready; what it said is in the message.
    """
    environment = os.environ | dict(setting.split("=", 1) for setting in settings)
    command = [sys.executable, "-m", program, "serve"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--datadir",
        str(datadir),
        "--listen",
        "127.0.0.1:0",
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    said = b""
    try:
        while READY.encode() not in said:
            line = await process.stdout.readline()
            if not line:
                raise RuntimeError(f"serve ended before it was ready: {said.decode()}")
            said = line
        url = said.decode().split(READY, 1)[1].split()[0]
        yield Served(url, datadir, process)
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def open_channels(url: str, bodies: Iterable[dict[str, Any]]) -> None:
    """Open channels, many at a time; a body is made when its turn comes.

    Raises:
        RuntimeError: one was refused.
    """
    queue = iter(bodies)

    async def some(session: aiohttp.ClientSession) -> None:
        for body in queue:
            async with session.post(f"{url}/v1/channels", json=body) as response:
                if response.status not in (200, 201):
                    raise RuntimeError(f"{response.status}: {await response.text()}")

    connector = aiohttp.TCPConnector(limit=OPENINGS_AT_ONCE)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        for _ in range(OPENINGS_AT_ONCE):
            tasks.create_task(some(session))


async def metric(url: str, name: str) -> float:
    """Return a metric of a served engine, summed over its labels."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    found = (line for line in lines if line.partition("{")[0].partition(" ")[0] == name)
    return sum(float(line.rpartition(" ")[2]) for line in found)


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_seconds() -> tuple[float, float]:
    """Return the seconds of all cores so far that were idle, and that the host gave to others."""
    fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
    ticks = os.sysconf("SC_CLK_TCK")
    return (int(fields[3]) + int(fields[4])) / ticks, int(fields[7]) / ticks


def resident_mb(pid: int) -> float:
    """Return the memory of a process that is in RAM, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def descendants(pid: int) -> list[int]:
    """Return a process and all that came from it."""
    found = [pid]
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (folder / "stat").read_text(encoding="ascii", errors="replace")
            parent = int(stat.rpartition(")")[2].split()[1])
            if parent == pid:
                found += descendants(int(folder.name))
    return found


@contextlib.contextmanager
def sampled(gateway: int) -> Iterator[dict[str, Any]]:
    """Fill in, at the end, what each role's processes used meanwhile: CPU seconds and MB.

    `machine_s` are seconds of cores that nobody used, and that others than this machine had.
    """
    used: dict[str, Any] = {}
    before = {pid: cpu_seconds(pid) for pid in descendants(gateway)}
    idle, stolen = machine_seconds()
    yield used
    now_idle, now_stolen = machine_seconds()
    used["machine_s"] = {"idle": round(now_idle - idle, 2), "stolen": round(now_stolen - stolen, 2)}
    cpu: dict[str, float] = {}
    resident: dict[str, float] = {}
    for pid, started in before.items():
        with contextlib.suppress(OSError):
            role = "gateway" if pid == gateway else _role(command_of(pid))
            cpu[role] = cpu.get(role, 0.0) + cpu_seconds(pid) - started
            resident[role] = resident.get(role, 0.0) + resident_mb(pid)
    used["cpu_s"] = {role: round(seconds, 2) for role, seconds in cpu.items()}
    used["rss_mb"] = {role: round(mb) for role, mb in resident.items()}


def _role(command: str) -> str:
    if "ShardHost" in command:
        return "shards"
    return "verifiers" if "VerifierHost" in command else "ray"


def command_of(pid: int) -> str:
    """Return the command line of a process."""
    raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()
