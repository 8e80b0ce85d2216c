"""Everything that is written as JSON follows the standard: no NaN and no infinity."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax import strict_json
from plasticity_jax.storage import timers, workdir
from tests.support.sources import holds_for_all, tree

ROOT = Path(__file__).parents[1]
FOLDERS = ("plasticity_jax", "launch", "analysis", "configs", "tests/benchmarks", "tests/faults")
WRITERS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=True)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


def finite(value):
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


@given(values, st.sampled_from([None, 1]))
def test_anything_comes_back_but_what_is_not_finite_as_none(value, indent):
    text = strict_json.dumps(value, indent)
    assert json.loads(text, parse_constant=refuse) == finite(value) == strict_json.loads(text)
    assert strict_json.loads(json.dumps(value)) == finite(value)  # as earlier versions wrote it


@pytest.mark.parametrize("number", [np.float32("nan"), np.float64("inf"), np.array(-np.inf)])
def test_scalars_that_are_not_finite_are_null(number):
    assert strict_json.dumps({"a": [number, np.int64(3), (number,)]}) == '{"a": [null, 3, [null]]}'


@pytest.mark.parametrize("value", [{"a": object()}, {"a": object(), "b": math.nan}])
def test_what_is_no_json_is_refused(value):
    with pytest.raises(TypeError, match="object cannot be written as JSON|not JSON serializable"):
        strict_json.dumps(value)


def test_nobody_writes_json_that_is_not_strict():
    holds_for_all(writes_strict_json, WRITERS)


def writes_strict_json(path):
    """Each call of the library says `allow_nan=False`; `strict_json.dumps` writes non-finite numbers as null."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dump", "json.dumps"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert given.get("allow_nan") == "False", f"line {node.lineno}: {ast.unparse(node)}"


def test_files_of_the_working_directory_are_strict(tmp_path):
    workdir.write_json(tmp_path / "a.json", {"rate": math.nan, "most": [math.inf]})
    assert json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse) == {"rate": None, "most": [None]}
    (tmp_path / "a.json").write_text('{"rate": NaN}')
    assert workdir.read_json(tmp_path / "a.json") == {"rate": None}


@pytest.mark.parametrize("text", ['{"total": NaN}', '{"total": null}', '{"total": 1.0, "train": Infinity}'])
def test_a_clock_that_is_not_finite_begins_anew(tmp_path, text):
    (tmp_path / "clock.json").write_text(text)
    saved = timers.Clock(tmp_path / "clock.json").save()
    assert list(saved) == ["total"] and 0 <= saved["total"] < 60
