"""What an operator can set about checking signatures."""

import msgspec

from engine.verify.schemes import KEY_CACHE_MAX


class VerifyOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How signatures are checked.

    Attributes:
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

    verifiers: int = 2
    verify_timeout_s: float = 5.0
    wait_timeout_s: float = 10.0
    attempts_max: int = 3
    outstanding_per_worker_max: int = 4
    restart_timeout_s: float = 30.0
    restart_backoff_s: float = 0.2
    restart_backoff_max_s: float = 10.0
    key_cache_max: int = KEY_CACHE_MAX

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
