"""One rule decides which names a directory may have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.config import names
from plasticity_jax.errors import ConfigError


@pytest.mark.parametrize("name", ["a", "_", "0", "pretrain+tune", "width=8", "x.1-y", "a" * names.LONGEST])
def test_names(name):
    assert names.check(name, "here") == name


@given(st.text() | st.integers() | st.none() | st.sampled_from(["..", ".", "a/b", "-a", "a\n", "a,b", "a" * 101]))
def test_what_is_no_name_cannot_leave_a_directory(name):
    try:
        names.check(name, "here")
    except ConfigError as error:
        assert str(error).startswith("here: ") and "\n" not in str(error)
    else:
        assert name.isascii() and name.isprintable() and len(name) <= names.LONGEST
        assert not set(name) & set("/\\ '\"$`;&|<>*?,~") and name[0] not in ".-"


@given(st.text(), st.booleans())
def test_anything_can_be_made_safe(text, commas):
    found = names.safe(text, commas)[: names.LONGEST]
    assert names.check(found, "here", commas=commas) == found
