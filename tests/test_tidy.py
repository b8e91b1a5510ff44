"""The gate: what CI runs is what a newcomer runs, and all of it is here."""

import ast
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest

ROOT = Path(__file__).parents[1]
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
TEST_LINES_MAX = 600
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc"}
OUTSIDE = {"time", "os", "io", "pathlib", "socket", "asyncio", "threading", "random", "logging"}
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))")
SILENCED = re.compile(r"#\s*(?:noqa|type:\s*ignore)\s*(?:$|[^:\[\s])")
SKIPPED = re.compile(r"pytest\.(?:mark\.)?(?:skip|xfail)(?:\(\))?\s*$", re.MULTILINE)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


PROGRAM = sources("engine", "wal", "bench")
EVERYTHING = [*PROGRAM, *sources("tests", "docs")]
PAYMENT_RULES = ("checking", "compatibility", "errors", "paging", "records", "rules", "state")
PURE = [
    *sources("engine/core", "engine/validation"),
    *(ROOT / "engine" / "payments" / f"{rule}.py" for rule in PAYMENT_RULES),
]


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text(), filename=str(path))))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def found(paths: Iterable[Path], is_wrong: Callable[[ast.AST], bool]) -> list[str]:
    """Return where in `paths` a node of the syntax tree is wrong."""
    return [
        f"{name(path)}:{getattr(node, 'lineno', 1)}"
        for path in paths
        for node in nodes(path)
        if is_wrong(node)
    ]


def run_tool(tool: str, *arguments: str) -> None:
    """Run a tool of this environment over the repository; fail with all it said."""
    program = Path(sys.executable).parent / tool
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{tool} says:\n{done.stdout}{done.stderr}"


# What the tools find ------------------------------------------------------------------------------


def test_ruff_finds_nothing():
    run_tool("ruff", "check", "--quiet", ".")


def test_the_code_is_formatted():
    run_tool("ruff", "format", "--check", "--quiet", ".")


def test_the_types_hold():
    run_tool("mypy")


def test_imports_point_down():
    run_tool("lint-imports", "--no-logo")


def test_the_gate_looks_at_the_program():
    assert {"engine/core/transition.py", "engine/core/types.py"} <= {name(path) for path in PURE}
    assert {name(path).partition("/")[0] for path in PROGRAM} == {"engine", "wal", "bench"}


@pytest.mark.parametrize(
    ("named", "processes"),
    [
        (["tests"], 3),
        (["tests/wal"], 3),
        (["tests/wal", "tests/test_tidy.py"], 3),
        (["tests/test_tidy.py"], 0),
        (["tests/test_tidy.py::test_the_types_hold"], 0),
    ],
)
def test_folders_are_run_side_by_side_and_files_that_are_named_are_not(named, processes):
    invocation = SimpleNamespace(dir=ROOT)
    config = SimpleNamespace(args=named, invocation_params=invocation)
    assert conftest.pytest_xdist_auto_num_workers(config) == processes


# Size and shape -----------------------------------------------------------------------------------


def test_a_file_is_short():
    def limit(path: Path) -> int:
        return TEST_LINES_MAX if name(path).startswith("tests/") else FILE_LINES_MAX

    sizes = {path: len(path.read_text().splitlines()) for path in EVERYTHING}
    assert {name(path): size for path, size in sizes.items() if size > limit(path)} == {}


def test_a_function_is_short():
    assert found(EVERYTHING, is_long_function) == []


def is_long_function(node: ast.AST) -> bool:
    """Count from `def` to the end, without the docstring."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    lines = lines_of(node)
    if ast.get_docstring(node) is not None:
        lines -= lines_of(node.body[0])
    return lines > FUNCTION_LINES_MAX


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_a_module_says_what_it_is_for():
    def is_silent(node: ast.AST) -> bool:
        return isinstance(node, ast.Module) and bool(node.body) and not ast.get_docstring(node)

    assert found(EVERYTHING, is_silent) == []


def test_a_module_has_a_name_that_says_something():
    assert [name(path) for path in EVERYTHING if path.stem in VAGUE] == []


def test_every_folder_of_tests_is_a_package():
    """Two test files may then share a name, and the folder `tests/wal` never hides `wal`."""
    folders = {path.parent for path in sources("tests")}
    assert [name(path) for path in sorted(folders) if not (path / "__init__.py").exists()] == []


# Nothing hidden -----------------------------------------------------------------------------------


def comments(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def commented(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name(path)}:{line} {text}"
        for path in EVERYTHING
        if any(map(pattern.search, path.read_text().splitlines()))  # or it need not be read closely
        for line, text in comments(path)
        if pattern.search(text)
    ]


def test_unfinished_work_names_its_issue():
    assert commented(UNFINISHED) == []


def test_a_silenced_tool_says_which_rule():
    assert commented(SILENCED) == []


def test_a_skipped_test_says_why():
    assert [name(path) for path in sources("tests") if SKIPPED.search(path.read_text())] == []


def test_a_wide_net_for_exceptions_raises_again_or_says_why():
    nets = found(PROGRAM, is_wide_net)
    assert [place for place in nets if "#" not in line_at(place)] == []


def is_wide_net(node: ast.AST) -> bool:
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    last = node.body[-1]
    raises_again = isinstance(last, ast.Raise) and last.exc is None
    return not raises_again and any(is_everything(kind) for kind in caught)


def is_everything(kind: ast.expr | None) -> bool:
    return kind is None or (
        isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")
    )


def line_at(place: str) -> str:
    path, _, line = place.rpartition(":")
    return (ROOT / path).read_text().splitlines()[int(line) - 1]


def test_an_assert_only_narrows_a_type():
    """`python -O` removes asserts, so none may guard anything."""
    assert found(PROGRAM, is_guarding_assert) == []


def is_guarding_assert(node: ast.AST) -> bool:
    match node:
        case ast.Assert(test=ast.Call(func=ast.Name(id="isinstance"))):
            return False
        case ast.Assert(test=ast.Compare(ops=[ast.IsNot()])):
            return False
        case _:
            return isinstance(node, ast.Assert)


# The pure core ------------------------------------------------------------------------------------


def test_pure_code_never_waits():
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert found(PURE, lambda node: isinstance(node, waiting)) == []


def test_pure_code_knows_no_clock_file_or_socket():
    assert found(PURE, lambda node: not OUTSIDE.isdisjoint(imported(node))) == []


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        return {(node.module or "").partition(".")[0]}
    return set()


def test_money_is_whole_numbers():
    assert found(PURE, is_inexact) == []


def is_inexact(node: ast.AST) -> bool:
    match node:
        case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
            return True
        case ast.Constant(value=float()) | ast.Name(id="float" | "Decimal"):
            return True
        case _:
            return False
