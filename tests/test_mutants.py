"""The deliberate faults of `tests.mutants` can still be inserted; `make mutants` checks that tests catch them."""

import ast
from pathlib import Path

import pytest

from tests.mutants import __main__ as main
from tests.mutants import copies
from tests.mutants.faults import FAULTS, Fault
from tests.support.sources import holds_for_all

ROOT = Path(__file__).parents[1]
LEAST = 60  # faults
TOY = Fault("wrong", "toy.py", "a + b", "a - b", "toy")


def test_every_fault_fits_its_file():
    holds_for_all(fits_its_file, FAULTS, lambda fault: fault.name)


def fits_its_file(fault):
    text = (ROOT / fault.file).read_text()
    ast.parse(changed := copies.changed(text, fault))
    assert changed != text
    assert fault.files and all((ROOT / file).is_file() for file in fault.files)


def test_there_are_many_with_names_of_their_own_over_the_whole_project():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= LEAST
    assert {"plasticity_jax", "launch", "analysis"} == {fault.file.partition("/")[0] for fault in FAULTS}


@pytest.mark.parametrize("text", ["b + a", "a + b + a + b"])
def test_a_fault_that_could_be_put_nowhere_or_anywhere_is_an_error(text):
    with pytest.raises(ValueError, match=r"wrong: 'a \+ b' occurs . times in toy.py"):
        copies.changed(text, TOY)


def test_a_fault_is_there_while_inside_and_no_longer(tmp_path):
    (tmp_path / "toy.py").write_text("a + b\n")
    compiled = tmp_path / "__pycache__" / "toy.cpython-311.pyc"
    compiled.parent.mkdir()
    compiled.touch()
    with copies.mutated(tmp_path, TOY):
        assert (tmp_path / "toy.py").read_text() == "a - b\n"
        assert not compiled.exists()  # otherwise Python could use the compiled file of the fault
        compiled.touch()
    assert (tmp_path / "toy.py").read_text() == "a + b\n"
    assert not compiled.exists()


def test_what_failed_is_read_from_what_pytest_prints():
    printed = """E   FAILED no test
ERROR    root:job.py:77 a failed
FAILED tests/a.py::test_b[x y] - AssertionError: 1 - 2
ERROR tests/a.py::test_c
1 failed"""
    assert main.failures(printed) == ["tests/a.py::test_b[x y]", "tests/a.py::test_c"]


def test_a_name_that_no_fault_has_is_one_line(capsys):
    with pytest.raises(SystemExit):
        main.parse(["--only", "nothing of this name"])
    assert "no fault is called so" in capsys.readouterr().err
    assert [fault.name for fault in main.parse(["--only", "reset subtracts"]).faults] == ["a reset subtracts"]
