"""A verifier: batches in, sealed verdicts out, no state but parsed keys."""

from functools import partial
from typing import Final

from engine.verify.batch import Item, decode_batch
from engine.verify.newest import judge_newest
from engine.verify.schemes import KEY_CACHE_MAX, SignatureChecker
from engine.verify.seal import SEAL_KEY_BYTES, seal
from engine.verify.selftest import run_self_test
from engine.verify.signed import is_signed

GOOD: Final = 1
"""The verdict byte of a claim the ledger would take; `newest.COVERED` is none."""


class VerifierWorker:
    """Checks signatures and seals what it found. A plain class; `channels.cluster` wraps it.

    With `newest` it checks one claim of each channel in a batch (`newest.py`).

    Raises:
        SelfTestFailedError: the libraries of this machine judge wrongly; do not serve with them.
    """

    def __init__(
        self, seal_key: bytes, key_cache_max: int = KEY_CACHE_MAX, *, newest: bool = False
    ) -> None:
        if len(seal_key) != SEAL_KEY_BYTES:
            raise ValueError(f"a seal key is {SEAL_KEY_BYTES} bytes, got {len(seal_key)}")
        self._seal_key = seal_key
        self._newest = newest
        self._checker = SignatureChecker(key_cache_max)
        # Nothing inside one item may raise: it would cost all claims of the batch their verdict.
        self._is_good = partial(is_signed, check_of=self._checker.check_of)
        run_self_test(self._checker.verify)

    def verify(self, blob: bytes) -> bytes:
        """Return one verdict byte an item, in order, and their seal.

        Raises:
            MalformedBatchError: `blob` is no batch.
        """
        return seal(self._seal_key, blob, self._judge(decode_batch(blob)))

    def _judge(self, items: list[Item]) -> bytes:
        if self._newest:
            return judge_newest(items, self._is_good)
        return bytes(map(self._is_good, items))
