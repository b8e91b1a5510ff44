"""Name what can end a migration besides the faults of the two stores."""

from engine.payments.errors import StoreError


class MigrationError(StoreError):
    """A migration cannot begin or go on. The sentence says what to do."""


class OtherMigrationError(MigrationError):
    """The destination holds an unfinished migration that is not this one."""


class SourceChangedError(MigrationError):
    """The source is no more what it was when the migration began."""


class UnacceptableRecordError(MigrationError):
    """The source has a payment that no store takes; nothing of its batch was written."""


class ComparisonError(MigrationError):
    """What was read back from the destination is not what was written.

    Attributes:
        identifier: the first payment that differs.
        differences: what differs, each with both values, at most 20.
    """

    def __init__(self, identifier: bytes, differences: tuple[str, ...]) -> None:
        what = "; ".join(differences)
        super().__init__(
            f"payment {identifier.hex()} reads back other than it was written: {what}. Do not use "
            "the destination: remove it and migrate again, and report this if it comes again"
        )
        self.identifier = identifier
        self.differences = differences

    def __reduce__(self) -> tuple[type["ComparisonError"], tuple[object, ...]]:
        """Travel between processes whole."""
        return type(self), (self.identifier, self.differences)
