"""Settings of a client; every one is a limit or says how patient it is."""

from random import Random

import msgspec


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a client sends and how long it tries.

    Attributes:
        claims_per_frame_max: Claims in one binary frame.
        frames_in_flight_max: Frames of one submission that may be unanswered at once.
        retry_s: How long claims are sent again, and connections tried, without any progress.
        answer_timeout_s: How long a connection may owe an answer before it is given up.
        call_timeout_s: How long one HTTP call may take.
        backoff_first_s: The first pause before something is tried again; each next is twice it.
        backoff_max_s: The longest pause.
        calls_in_flight_max: HTTP calls under way at once where many are made for one request.
        heartbeat_s: How often an idle connection is asked whether it is alive.
    """

    claims_per_frame_max: int = 256
    frames_in_flight_max: int = 16
    retry_s: float = 30.0
    answer_timeout_s: float = 20.0
    call_timeout_s: float = 30.0
    backoff_first_s: float = 0.05
    backoff_max_s: float = 2.0
    calls_in_flight_max: int = 64
    heartbeat_s: float = 20.0


class Backoff:
    """How long to wait before the next try: twice as long each time, at most so long, with jitter.

    The jitter keeps many clients of a restarted engine from coming back all at once.
    """

    def __init__(self, options: ClientOptions, random: Random) -> None:
        self._options = options
        self._random = random

    def pause_s(self, attempt: int) -> float:
        """Return the pause before try number `attempt`, from 1."""
        doublings = min(attempt - 1, 16)  # further ones would only overflow
        longest = min(self._options.backoff_first_s * (1 << doublings), self._options.backoff_max_s)
        return longest * self._random.uniform(0.5, 1.0)
