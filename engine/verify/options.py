"""What an operator can set about checking signatures."""

from typing import Literal

import msgspec

from engine.verify.batch import EVERY_VERDICTS
from engine.verify.newest import NEWEST_VERDICTS
from engine.verify.schemes import KEY_CACHE_MAX


class VerifyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How signatures are checked.

    Attributes:
        verification: `every`: each signature is checked. `newest`: of the claims of a channel in
            one batch the newest is checked, and covers the older ones; not with risk rules.
        verifiers: Workers to start.
        verify_timeout_s: How long one worker may take over one batch, queue at its door included.
        wait_timeout_s: How long one batch waits for a worker with room.
        attempts_max: Workers asked about one batch before it is given up.
        outstanding_per_worker_max: Batches at one worker; the others wait in the pool.
        restart_timeout_s: How long a worker may take to come up.
        restart_backoff_s: Pause before a worker's second restart in a row; doubled each time.
        restart_backoff_max_s: Longest such pause.
        key_cache_max: Parsed keys a worker keeps, some 0.5 KB each.
    """

    verification: Literal["every", "newest"] = "every"
    verifiers: int = 2
    verify_timeout_s: float = 5.0
    wait_timeout_s: float = 10.0
    attempts_max: int = 3
    outstanding_per_worker_max: int = 4
    restart_timeout_s: float = 30.0
    restart_backoff_s: float = 0.2
    restart_backoff_max_s: float = 10.0
    key_cache_max: int = KEY_CACHE_MAX

    @property
    def is_newest(self) -> bool:
        """Whether the newest claim of a channel covers the older ones of its batch."""
        return self.verification == "newest"

    @property
    def known_verdicts(self) -> bytes:
        """The verdicts that verifiers give."""
        return NEWEST_VERDICTS if self.is_newest else EVERY_VERDICTS

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing would ever be checked."""
        for name in ("verifiers", "attempts_max", "outstanding_per_worker_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("verify_timeout_s", "wait_timeout_s", "restart_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.key_cache_max < 2:
            raise ValueError(f"key_cache_max must be 2 or more, got {self.key_cache_max}")
