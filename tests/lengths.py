"""How long a test goes on that has no end of its own: a while, or with `make long` much longer.

Where a number decides what is tried, the usual ones are the first of the others, so that a long
run tries all that a usual one does.
"""

import os
from typing import Final

VARIABLE: Final = "TESTS_LENGTH"
"""Not `PAYCHAN_…`: an engine that is started by a test would take it for a setting."""


def often(usual: int, long: int) -> int:
    """Return how often to do what could be done for ever."""
    return long if os.environ.get(VARIABLE) == "long" else usual
