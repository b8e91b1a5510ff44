"""The list of mutants fits the code, and removing a safeguard makes a test fail."""

import ast

import pytest

from tests.faults import mutations
from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.scorecard import CannotRun

EVERY = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.safeguard)


@EVERY
def test_a_mutant_fits_in_one_place_and_is_still_a_program(mutant):
    sound = (mutations.ROOT / mutant.file).read_text()
    assert sound.count(mutant.search) == 1
    mutated = sound.replace(mutant.search, mutant.replace)
    assert mutated != sound
    ast.parse(mutated)


def test_the_tests_that_should_notice_exist():
    named = {path for mutant in MUTANTS for path in mutant.tests}
    assert [path for path in named if not (mutations.ROOT / path).is_file()] == []


def test_each_safeguard_is_removed_once():
    assert len({mutant.safeguard for mutant in MUTANTS}) == len(MUTANTS)


@pytest.fixture
def small_copy(tmp_path):
    """A program of one line, with a test that sees it and one that does not."""
    (tmp_path / "program.py").write_text("ANSWER = 42\n")
    (tmp_path / "test_seeing.py").write_text(
        "from program import ANSWER\n\ndef test_it():\n    assert ANSWER == 42\n"
    )
    (tmp_path / "test_blind.py").write_text("def test_nothing():\n    pass\n")
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\nmarkers = ["slow: takes long"]\n'
    )
    return tmp_path


def test_a_mutant_is_put_back_and_one_that_does_not_fit_is_named(small_copy):
    program = small_copy / "program.py"
    with mutations.mutated(small_copy, Mutant("the answer", "program.py", "42", "41", ())):
        assert program.read_text() == "ANSWER = 41\n"
    assert program.read_text() == "ANSWER = 42\n"
    gone = Mutant("the question", "program.py", "6 * 9", "42", ())
    with pytest.raises(CannotRun, match="the question"), mutations.mutated(small_copy, gone):
        pass


@pytest.mark.slow
def test_a_test_that_sees_is_told_from_one_that_does_not(small_copy):
    with mutations.mutated(small_copy, Mutant("the answer", "program.py", "42", "41", ())):
        assert mutations.failing(small_copy, ["test_seeing.py"]) == "test_seeing.py::test_it"
        assert mutations.failing(small_copy, ["test_blind.py"]) == ""
    with pytest.raises(CannotRun, match="missing"):
        mutations.failing(small_copy, ["test_missing.py"])


@pytest.mark.slow
def test_two_of_the_safeguards_are_missed():
    chosen = [
        mutant._replace(tests=mutant.tests[:1])
        for mutant in MUTANTS
        if mutant.safeguard in ("the data sync of a frame", "amounts that rise")
    ]
    found = list(mutations.verdicts(chosen))
    assert len(found) == 2
    assert all(verdict.noticed_by for verdict in found)
