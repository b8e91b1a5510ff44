"""Processes that a test started, found by their names below the test's own."""

import asyncio
import os
from pathlib import Path


def descendants() -> dict[int, str]:
    """Return pid and command line of every process below this one."""
    parents, names = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                status = (folder / "stat").read_text()
                names[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            state, parent = status.rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(folder.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return {pid: names[pid] for pid in found - {os.getpid()}}


def named(word: str) -> list[int]:
    return sorted(pid for pid, name in descendants().items() if word in name)


async def until(condition, timeout_s: float = 30) -> None:
    """Return once `condition()` holds; what is asked about gives no event to wait for."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
