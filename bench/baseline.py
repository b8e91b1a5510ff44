"""Compared with what? The simplest program that does the same: verify, check, commit, answer.

xrpl-py checks the signature and SQLite (write-ahead log, FULL) commits once a claim. The sum before
the run: 5 ms a check, 0.3 ms a commit, so some 190 claims a second on one core, whatever is done
about the rest.
"""

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Final

import msgspec
from xrpl.core import keypairs

from bench.harness import machine_line, scratch
from bench.signing import STEP_DROPS, Curve, Payer, make_payer, sign
from engine.core.claim import signing_message

CHANNELS: Final = 50


class BaselineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    curve: Curve = "secp256k1"
    claims: int = 500


def run(config: BaselineConfig, datadir: Path | None = None) -> dict[str, Any]:
    """Run the benchmark; return its result line."""
    payers = [make_payer(number, config.curve) for number in range(CHANNELS)]
    claims = []
    for number in range(config.claims):
        payer, sequence = payers[number % CHANNELS], number // CHANNELS + 1
        claims.append((payer, sequence, sequence * STEP_DROPS, sign(payer, sequence * STEP_DROPS)))
    with scratch(datadir) as folder:
        ledger = _open(folder / "baseline.db", payers)
        started = time.perf_counter()
        accepted = sum(_take(ledger, *claim) for claim in claims)
        took = time.perf_counter() - started
        ledger.close()
    line = machine_line("baseline", msgspec.to_builtins(config), took)
    return line | {
        "accepted_per_s": round(accepted / took, 1),
        "accepted_per_s_all_cores": round(accepted / took * (os.cpu_count() or 1), 1),
        "accepted": accepted,
    }


def _open(path: Path, payers: list[Payer]) -> sqlite3.Connection:
    ledger = sqlite3.connect(path, isolation_level=None)
    ledger.execute("PRAGMA journal_mode = WAL")
    ledger.execute("PRAGMA synchronous = FULL")
    ledger.execute(
        "CREATE TABLE channel (id BLOB PRIMARY KEY, key TEXT, sequence INTEGER, claimed INTEGER,"
        " signature BLOB)"
    )
    rows = [(payer.channel_id, payer.public_key.hex().upper(), 0, 0, b"") for payer in payers]
    ledger.executemany("INSERT INTO channel VALUES (?, ?, ?, ?, ?)", rows)
    return ledger


def _take(
    ledger: sqlite3.Connection, payer: Payer, sequence: int, amount: int, signature: bytes
) -> bool:
    found = ledger.execute(
        "SELECT key, sequence, claimed FROM channel WHERE id = ?", (payer.channel_id,)
    ).fetchone()
    key, last, claimed = found
    message = signing_message(payer.channel_id, amount)
    if sequence != last + 1 or amount <= claimed:
        return False
    if not keypairs.is_valid_message(message, signature, key):
        return False
    ledger.execute(
        "UPDATE channel SET sequence = ?, claimed = ?, signature = ? WHERE id = ?",
        (sequence, amount, signature, payer.channel_id),
    )
    return True
