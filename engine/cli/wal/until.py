"""How a place in the log is given on the command line: a position, or a moment."""

import re
from typing import TYPE_CHECKING, Any, Final

import click

from engine.cli.arguments import MOMENT

if TYPE_CHECKING:
    from engine.channels.offline.history import Until

NS_DIGITS: Final = 9
POSITION: Final = re.compile(r"(?:[0-9]{1,4}-)?([0-9]{1,18})")
SECONDS: Final = re.compile(r"@([0-9]{1,10})(?:\.([0-9]{1,9}))?")


class Place(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 only
    """A position (1234, or 0-1234 as answers have it), ISO 8601, or @ and unix seconds."""

    name = "place"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Until":
        """Return the place."""
        from engine.channels.offline.history import Until

        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        if found := POSITION.fullmatch(value):
            if int(found[1]) < 1:
                self.fail(f"{value!r} is no position; they begin at 1", param, ctx)
            return Until(position=int(found[1]))
        if found := SECONDS.fullmatch(value):
            return Until(at=int(found[1] + (found[2] or "").ljust(NS_DIGITS, "0")))
        if value.startswith("@") or value.isdecimal():
            self.fail(f"{value!r} is neither a position nor @ and unix seconds", param, ctx)
        return Until(at=MOMENT.convert(value, param, ctx))


PLACE: Final = Place()
