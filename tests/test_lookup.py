"""Functions by name: of a dict, or `module:function` of a user's own."""

import pytest

from plasticity_jax.errors import ConfigError
from plasticity_jax.lookup import lookup

KNOWN = {"double": lambda x: 2 * x}


@pytest.fixture(autouse=True)
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_functions.py").write_text("def triple(x):\n    return 3 * x\n")
    (tmp_path / "my_broken.py").write_text("import a_package_that_nobody_has\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_known_name_and_one_of_a_module():
    assert lookup(KNOWN, "double", "here")(2) == 4
    assert lookup(KNOWN, "my_functions:triple", "here")(2) == 6


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("dubble", "here='dubble': choose one of double, or give module:function of your own"),
        ("my_functions:", "here='my_functions:': choose one of double"),
        ("my_function:triple", "here='my_function:triple': there is no module my_function; is it in this directory"),
        ("my.functions:triple", "there is no module my; is it"),
        ("my_functions:tripel", "here='my_functions:tripel': the module my_functions has no tripel"),
    ],
)
def test_what_is_not_there_is_one_line(name, problem):
    with pytest.raises(ConfigError) as error:
        lookup(KNOWN, name, "here")
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_a_module_that_lacks_something_itself_says_so():
    with pytest.raises(ModuleNotFoundError, match="a_package_that_nobody_has"):
        lookup(KNOWN, "my_broken:anything", "here")
