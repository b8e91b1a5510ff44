"""Write the parts of the pages that are drawn from the code: `python -m docs.generate`.

A page keeps its own words; what stands between `<!-- generated: NAME -->` and
`<!-- end of NAME -->` is replaced. `tests/test_docs.py` fails while a page is behind the code.
"""

import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import click
import msgspec
from msgspec import inspect as shapes

from docs.payment_parts import payment_methods, payment_values, store_errors
from docs.payments_speed import SPEED_PARTS
from docs.schema_parts import schema_diagram, schema_tables
from docs.throughput import THROUGHPUT_PARTS
from engine.cli.main import cli
from engine.config import Config
from engine.core.commands import COMMAND_TYPES, Command
from engine.core.events import EVENT_TYPES, ClaimRejected, Event
from engine.core.transition import COMMANDS, TRANSITIONS
from engine.core.types import State

DOCS: Final = Path(__file__).parent
PAGES: Final = (
    "reference/states.md",
    "reference/events.md",
    "reference/config.md",
    "reference/cli.md",
    "reference/payments.md",
    "reference/payment-codes.md",
    "explanation/payments-speed.md",
    "explanation/throughput.md",
    "reference/payments-schema.md",
)

EFFECTS: Final = {
    "_keep": "nothing",
    "take_claim": "the increment goes from available to claimed-unredeemed",
    "_take_covered": "the increment goes from available to claimed-unredeemed",
    "_add_funds": "the amount is added to available, and to the capacity",
    "_set_expiration": "nothing; the expiration is set",
    "_pay_out": "all goes to redeemed and, the rest, to returned",
}
"""What each function of the transition table does to the accounts, in words."""


def diagram() -> str:
    """Draw the states; a refusal that is kept moves nothing and is left out."""
    arrows: dict[tuple[State, State], list[str]] = defaultdict(list)
    for (state, event), (after, _) in TRANSITIONS.items():
        if event is not ClaimRejected:
            arrows[state, after].append(event.__name__)
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> Pending: ChannelOpened"]
    lines += [
        f"    {before} --> {after}: {', '.join(names)}" for (before, after), names in arrows.items()
    ]
    lines += [f"    {state} --> [*]" for state in State if not any(leads_on(state))]
    return "\n".join([*lines, "```"])


def leads_on(state: State) -> Iterable[bool]:
    """Say for each event that `state` knows whether it leads to another state."""
    return (
        after is not state for (before, _), (after, _) in TRANSITIONS.items() if before is state
    )


def transitions() -> str:
    """Return the table of events: where each leads and which drops it moves."""
    rows = [
        (before, event.__name__, after, EFFECTS[does.__name__])
        for (before, event), (after, does) in TRANSITIONS.items()
    ]
    return table(("in state", "event", "leads to", "moves"), rows)


def commands() -> str:
    """Return the matrix of commands and states: ● may be done, · is refused."""
    rows = [
        (command.__name__, *(mark(state, command) for state in State))
        for command in COMMAND_TYPES
        if any((state, command) in COMMANDS for state in State)
    ]
    return table(("command", *State), rows)


def mark(state: State, command: type[Command]) -> str:
    """Return the sign for one command in one state."""
    return "●" if (state, command) in COMMANDS else "·"


def events() -> str:
    """Return a chapter for every event: its tag, what it says and its fields in order."""
    return "\n\n".join(chapter(kind) for kind in EVENT_TYPES)


def chapter(kind: type[Event]) -> str:
    """Return what a reader of the log needs to know of one event."""
    hints = get_type_hints(kind)
    fields = [name for name in kind.__struct_fields__ if name not in Event.__struct_fields__]
    parts = [f"### {kind.__name__}", f"Tag {tag_of(kind)}. {inspect.getdoc(kind)}"]
    if fields:
        parts.append(table(("field", "type"), [(f"`{n}`", type_name(hints[n])) for n in fields]))
    return "\n\n".join(parts)


def tag_of(kind: type[Event]) -> int:
    """Return the number that names the event in the log."""
    return int(kind.__struct_config__.tag or 0)


def type_name(hint: Any) -> str:
    """Return a type as a reader knows it."""
    if get_args(hint):
        return " or ".join(type_name(part) for part in get_args(hint))
    if hint is type(None):
        return "nothing"
    return str(getattr(hint, "__name__", hint))


def config() -> str:
    """Return a chapter for each part of the configuration, with a heading for each key."""
    parts = {field.name: field.default for field in msgspec.structs.fields(Config)}
    own = [key(Config, name) for name, part in parts.items() if not is_part(part)]
    chapters = [options(name, type(part)) for name, part in parts.items() if is_part(part)]
    return "\n\n".join([*own, *chapters])


def is_part(value: object) -> bool:
    """Say whether a default of `Config` is itself a group of keys."""
    return isinstance(value, msgspec.Struct)


def options(part: str, kind: type[msgspec.Struct]) -> str:
    """Return the chapter of one part."""
    names = [field.name for field in msgspec.structs.fields(kind)]
    intro = (inspect.getdoc(kind) or "").partition("\n")[0]
    return "\n\n".join([f"## {part}", intro, *(key(kind, name, f"{part}.") for name in names)])


def key(kind: type[msgspec.Struct], name: str, prefix: str = "") -> str:
    """Return what an operator needs to know of one key; its struct must describe it."""
    meaning = attributes(kind)[name]
    shape = next(field for field in shapes.type_info(kind).fields if field.name == name)
    facts = f"{limits(shape.type)}; default `{msgspec.json.encode(shape.default).decode()}`."
    return f"### `{prefix}{name}`\n\n{meaning} {facts[0].upper()}{facts[1:]}"


def attributes(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the texts of the "Attributes" of a docstring, by name."""
    text = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    entries = re.split(r"^    (?=\w+: )", text, flags=re.MULTILINE)[1:]
    pairs = (entry.partition(": ") for entry in entries)
    return {name: " ".join(meaning.split()) for name, _, meaning in pairs}


def limits(shape: shapes.Type) -> str:
    """Return what a value of a key may be."""
    match shape:
        case shapes.IntType(ge=None, le=None):
            return "a whole number"
        case shapes.IntType(ge=low, le=None):
            return f"a whole number, {low:,} or more"
        case shapes.IntType(ge=low, le=high):
            return f"a whole number, {low:,} to {high:,}"
        case shapes.LiteralType(values=values):
            return " or ".join(f"`{value}`" for value in values)
        case shapes.FloatType():
            return "a number"
        case shapes.BoolType():
            return "`true` or `false`"
        case _:
            return "a text"


def cli_commands() -> str:
    """Return a chapter for every command, with its help and its options."""
    return "\n\n".join(command_chapters(cli, "paychan"))


def command_chapters(command: click.Command, words: str) -> Iterator[str]:
    """Yield the chapters of a command and of those below it."""
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from command_chapters(part, f"{words} {name}")
        return
    rows = [
        (" ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts)), option.help)
        for option in command.params
        if isinstance(option, click.Option)
    ]
    arguments = [option.make_metavar(click.Context(command)) for option in command.params
                 if isinstance(option, click.Argument)]  # fmt: skip
    parts = [f"### {words}", inspect.cleandoc(command.help or "").replace("\b\n", "")]
    if arguments:
        parts.append(f"Takes `{' '.join(arguments)}`.")
    if rows:
        parts.append(table(("option", "what it does"), [(name, text or "") for name, text in rows]))
    yield "\n\n".join(parts)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "diagram": diagram,
    "transitions": transitions,
    "commands": commands,
    "events": events,
    "config": config,
    "cli": cli_commands,
    "payment-methods": payment_methods,
    "payment-values": payment_values,
    "payment-faults": store_errors,
    "schema-diagram": schema_diagram,
    "schema-tables": schema_tables,
    **SPEED_PARTS,
    **THROUGHPUT_PARTS,
}


def renewed(text: str) -> str:
    """Return a page with its generated parts made anew."""
    for name, make in PARTS.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        if found:
            after = rest.partition(end)[2]
            text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


def main() -> None:
    """Bring every page up to date."""
    for name in PAGES:
        page = DOCS / name
        page.write_text(renewed(page.read_text()))


if __name__ == "__main__":
    main()
