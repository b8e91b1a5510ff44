"""How much memory a move takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

MEASURE = """
import sys
from pathlib import Path
from engine.payments.lnd import import_lnd
from engine.payments.migration import migrate_store
move = migrate_store if "://" in sys.argv[1] else import_lnd
move(sys.argv[1], sys.argv[2], dry_run=sys.argv[3] == "True")
status = Path("/proc/self/status").read_text()
sys.stdout.write(status.partition("VmHWM:")[2].split()[0])
"""
"""The high-water mark of the process itself; what `getrusage` says begins at that of its parent."""


def peak_kib(source: Path | str, destination: str, *, dry_run: bool = False) -> int:
    """Return the most memory that moving a file of lnd, or a store, takes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(source), destination, str(dry_run)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)
