"""Reads the tables that tests are written as: a head line, then a row a line."""

import re

import pytest
from _pytest.mark.structures import ParameterSet


def cells(table: str) -> list[list[str]]:
    """Return the cells of a table, columns two spaces apart, the head line first."""
    lines = [re.split(r" {2,}", line.strip()) for line in table.strip().splitlines()]
    assert {len(line) for line in lines} == {len(lines[0])}, "a row has too few or many columns"
    return lines


def rows(table: str) -> list[ParameterSet]:
    """Return the rows of a table as the arguments of a test; the first column names the row."""
    return [pytest.param(*row[1:], id=row[0]) for row in cells(table)[1:]]


def named_rows(table: str) -> list[ParameterSet]:
    """Return the rows of a table as one argument each: cell by column."""
    head, *lines = cells(table)
    return [pytest.param(dict(zip(head, row, strict=True)), id=row[0]) for row in lines]


def number(word: str) -> int:
    """Read a number, or 2^n, or 2^n-1; - is 0."""
    if word == "-":
        return 0
    power, _, less = word.partition("-")
    base, _, exponent = power.partition("^")
    return int(base) ** int(exponent or 1) - int(less or 0)


def numbers(word: str) -> list[int]:
    """Read numbers with commas between them; - is none."""
    return [] if word == "-" else [int(part) for part in word.split(",")]
