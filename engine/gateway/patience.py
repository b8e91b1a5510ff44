"""How long an engine that stops, or ends a connection, waits for the other end of it.

To close a connection is to wait until all that was written has been taken, and whoever takes
nothing would decide how long that is.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

STUCK_MAX_S: Final = 1.0
LOOK_EVERY_S: Final = 0.2


class Patience:
    """Cuts a connection off once its peer has kept it waiting for `STUCK_MAX_S` without progress.

    Args:
        loop: Whose timers are used.
        transport: The connection.
        awaited: Returns what the peer has to do, as a value that is another one with all progress;
            None where it has nothing to do.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        awaited: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._awaited = awaited
        self._seen: object = None
        self._since = loop.time()
        self._timer = loop.call_soon(self._look)

    def end(self) -> None:
        """Look no more; to be called when the connection is lost."""
        self._timer.cancel()

    def _look(self) -> None:
        awaited, now = self._awaited(), self._loop.time()
        if awaited is None or awaited != self._seen:
            self._seen, self._since = awaited, now
        elif now - self._since >= STUCK_MAX_S:
            self._transport.abort()
            return
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)


class Hurried:
    """A protocol of uvicorn whose peer need not be waited for any longer."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _patience: Patience | None = None

    def hurry(self) -> None:
        """Wait no longer for the peer from now on than an engine that stops may."""
        if self._patience is None:
            self._patience = Patience(self.loop, self.transport, self._awaited)

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.end()

    def _awaited(self) -> object:
        """Return what the peer has not taken."""
        return self.transport.get_write_buffer_size() or None
