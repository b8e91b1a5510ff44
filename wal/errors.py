"""Name what can go wrong with a log. Each error carries the place as attributes."""


class WalError(Exception):
    """Something is wrong with the log, or with the way it is used."""


class CorruptLogError(WalError):
    """Bytes that were once acknowledged no longer check out. Never raised for a torn tail.

    Attributes:
        segment: the file, relative to the directory of the log.
        offset: the first byte of the part that is wrong.
        reason: what is wrong with it, in words.
    """

    def __init__(self, segment: str, offset: int, reason: str) -> None:
        super().__init__(f"{segment} at byte {offset}: {reason}")
        self.segment = segment
        self.offset = offset
        self.reason = reason

    def __reduce__(self) -> tuple[type["CorruptLogError"], tuple[str, int, str]]:
        """Travel between processes whole."""
        return type(self), (self.segment, self.offset, self.reason)


class LogInUseError(WalError):
    """Another process, or another `Log` of this one, holds the directory."""


class LogFailedError(WalError):
    """The disk refused, or a commit broke off. This log answers nothing any more.

    The process must end: only a fresh start reads what the disk really holds.
    """


class LogFullError(LogFailedError):
    """The disk has no room left. Ends the log as any failed write does."""


class CutLogError(WalError, ValueError):
    """Records were asked for that were removed, because snapshots stand for them.

    Attributes:
        first: the oldest position that is kept.
    """

    def __init__(self, first: int) -> None:
        super().__init__(f"the log was cut: it begins at position {first}")
        self.first = first

    def __reduce__(self) -> tuple[type["CutLogError"], tuple[int]]:
        """Travel between processes whole."""
        return type(self), (self.first,)
