"""How many signatures a second can this machine check at all?

The raw libraries in a tight loop on every core, keys parsed, digests made, nothing else: what
`bench claims` is measured against. Expected on the machine of the design pages: 25 µs with
coincurve, 41 µs with PyNaCl, times the cores.
"""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier as BarrierType

import coincurve
import nacl.bindings

from bench.signing import Curve, Payer, make_payer, sign
from engine.core.claim import signing_message

KEYS = 64
_barrier: BarrierType


def _share(barrier: BarrierType) -> None:
    global _barrier
    _barrier = barrier


def _check_once(payer: Payer, amount: int) -> Callable[[], object]:
    message, signature = signing_message(payer.channel_id, amount), sign(payer, amount)
    if payer.on_ed25519:
        key, signed = payer.public_key[1:], signature + message
        return lambda: nacl.bindings.crypto_sign_open(signed, key)
    parsed = coincurve.PublicKey(payer.public_key)
    return lambda: parsed.verify(signature, hashlib.sha512(message).digest()[:32], hasher=None)


def _one_core(curve: Curve, seconds: float) -> float:
    checks = [_check_once(make_payer(number, curve), 1_000 + number) for number in range(KEYS)]
    _barrier.wait()
    done, started = 0, time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        for check in checks:
            check()
        done += len(checks)
    return done / took


def measure_ceiling(curve: Curve, cores: int, seconds: float) -> float:
    """Return signatures a second over all cores at once."""
    context = get_context("spawn")
    barrier = context.Barrier(cores)
    with ProcessPoolExecutor(cores, context, _share, (barrier,)) as pool:
        return sum(pool.map(_one_core, [curve] * cores, [seconds] * cores))
