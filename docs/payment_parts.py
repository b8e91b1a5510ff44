"""The parts of the payment pages that are drawn from the code."""

import inspect
import re
from collections.abc import Iterator
from typing import get_type_hints

import msgspec

from engine.payments import errors, values
from engine.payments.interface import (
    PaymentControl,
    PaymentDB,
    PaymentReader,
    PaymentWriter,
    RecordMover,
    Sequencer,
)

INTERFACES = (PaymentReader, PaymentControl, PaymentWriter, Sequencer, RecordMover, PaymentDB)


def payment_methods() -> str:
    """Return a chapter for each part of the interface, with what each method promises."""
    return "\n\n".join(chapter for part in INTERFACES for chapter in chapters_of(part))


def chapters_of(part: type) -> Iterator[str]:
    """Yield the head of one part, and each method it declares itself."""
    yield f"### {part.__name__}\n\n{inspect.getdoc(part)}"
    for name, method in vars(part).items():
        if getattr(method, "__isabstractmethod__", False):
            yield f"#### `{name}{short_signature(method)}`\n\n{prose_of(inspect.getdoc(method))}"


def short_signature(method: object) -> str:
    """Return the arguments of a method, without their types."""
    assert callable(method)
    names = [
        parameter.name
        if parameter.default is parameter.empty
        else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(method).parameters.values()
        if parameter.name != "self"
    ]
    return f"({', '.join(names)})"


def prose_of(text: str | None) -> str:
    """Return a docstring as Markdown: its sections as list items, its codes as links."""
    blocks = re.split(r"\n(Args|Returns|Raises):\n", text or "")
    parts = [blocks[0].strip()]
    for title, body in zip(blocks[1::2], blocks[2::2], strict=True):
        parts.append(f"{title}:\n\n{items(body)}")
    return "\n\n".join(parts)


def items(body: str) -> str:
    """Return the entries of a docstring's section as a list."""
    entries = re.split(r"^    (?=\S)", body, flags=re.MULTILINE)[1:]
    flat = (" ".join(entry.split()) for entry in entries)
    named = (re.sub(r"^([a-z_]+):", r"`\1`:", entry) for entry in flat)
    return "\n".join(f"- {linked(entry)}" for entry in named)


def linked(text: str) -> str:
    """Return text in which each code leads to its chapter."""
    codes = {code.value for code in errors.PaymentDBCode}
    return re.sub(
        r"\b[a-z]+(?:_[a-z]+)+\b",
        lambda word: f"[{word[0]}](payment-codes.md#{word[0]})" if word[0] in codes else word[0],
        text,
    )


def payment_values() -> str:
    """Return a table of fields for each value."""
    structs = [
        kind
        for kind in vars(values).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind is not msgspec.Struct
    ]
    return "\n\n".join(value_chapter(kind) for kind in structs)


def value_chapter(kind: type[msgspec.Struct]) -> str:
    """Return the fields of one value, with their defaults and what is said of them."""
    text = inspect.getdoc(kind) or ""
    intro = text.partition("\nAttributes:")[0].strip()
    said = attribute_texts(text)
    hints = get_type_hints(kind)
    lines = ["| field | type | default | |", "| --- | --- | --- | --- |"]
    for field in msgspec.structs.fields(kind):
        default = "" if field.required else f"`{default_of(field)}`"
        shown = type_text(hints[field.name])
        lines.append(f"| `{field.name}` | {shown} | {default} | {said.get(field.name, '')} |")
    return f"### {kind.__name__}\n\n{intro}\n\n" + "\n".join(lines)


def attribute_texts(text: str) -> dict[str, str]:
    """Return the texts of the "Attributes" of a docstring, by name."""
    body = text.partition("Attributes:\n")[2]
    entries = re.split(r"^    (?=\w+: )", body, flags=re.MULTILINE)[1:]
    pairs = (entry.partition(": ") for entry in entries)
    return {name: " ".join(meaning.split()) for name, _, meaning in pairs}


def default_of(field: "msgspec.structs.FieldInfo") -> object:
    """Return the default of a field as one would write it."""
    return "{}" if field.default is msgspec.NODEFAULT else repr(field.default)


def type_text(hint: object) -> str:
    """Return a type as a reader knows it."""
    text = re.sub(r"\b(?:[a-z_]+\.)+", "", str(getattr(hint, "__name__", "") or hint))
    if "[" in str(hint) or "|" in str(hint):
        text = re.sub(r"\b(?:[a-z_]+\.)+", "", str(hint))
    return f"`{text}`".replace("|", "or")


def store_errors() -> str:
    """Return a table of the faults of a store."""
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.StoreError)
    ]
    lines = ["| error | means |", "| --- | --- |"]
    lines += [f"| `{kind.__name__}` | {' '.join((kind.__doc__ or '').split())} |" for kind in kinds]
    return "\n".join(lines)
