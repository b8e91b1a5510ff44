"""What may stand behind the `?` of a call about payments; a name that is not known is refused.

A filter that nobody reads would be worse than none: a bulk delete takes its limits from here.
"""

from typing import Final

from starlette.requests import Request

from engine.gateway.forms import Malformed
from engine.gateway.payments.texts import number_in
from engine.payments import Query

FLAGS: Final = {"true": True, "false": False}
FILTERS: Final = Query.__struct_fields__


class Asked:
    """The query string of a call.

    Raises:
        Malformed: it has a name that is not among `known`, or one twice.
    """

    def __init__(self, request: Request, *known: str) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in known:
                names = ", ".join(known) or "nothing"
                raise Malformed(name[:64], f"not known here; there is {names}")
            if name in self._values:
                raise Malformed(name, "given twice")
            self._values[name] = value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether something is wanted.

        Raises:
            Malformed: neither true nor false.
        """
        text = self._values.get(name)
        if text is None:
            return default
        if text not in FLAGS:
            raise Malformed(name, f"true or false; got {text[:32]!r}")
        return FLAGS[text]

    def number(self, name: str, default: int = 0) -> int:
        """Return a number.

        Raises:
            Malformed: it is none.
        """
        text = self._values.get(name)
        return default if text is None else number_in(name, text)

    def limit(self, name: str, default: int, most: int) -> int:
        """Return how many are wanted.

        Raises:
            Malformed: more than there may be in one answer.
        """
        number = self.number(name, min(default, most))
        if number > most:
            raise Malformed(name, f"at most {most}; got {number}")
        return number


def query_of(asked: Asked, page_max: int) -> Query:
    """Return the query that the names of its fields say; `max_payments` 0 is the default.

    Raises:
        Malformed: a value that is none, or a larger page than there is.
    """
    default = Query()
    return Query(
        index_offset=asked.number("index_offset"),
        max_payments=asked.limit("max_payments", default.max_payments, page_max)
        or min(default.max_payments, page_max),
        reversed=asked.flag("reversed"),
        include_incomplete=asked.flag("include_incomplete", default=default.include_incomplete),
        creation_date_start=asked.number("creation_date_start"),
        creation_date_end=asked.number("creation_date_end"),
        count_total=asked.flag("count_total"),
        omit_hops=asked.flag("omit_hops"),
    )
