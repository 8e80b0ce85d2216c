"""Studies survive a round trip through JSON; other content, or a path out of the directory, is one line of error."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax import study_config
from plasticity_jax.config import legacy, parse
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import ConfigError
from tests.support import small

CONFIG = small.config(grid=(("model.width", (4, 8)), ("stages.tune.optim.learning_rate", (0.1, 0.2))))
STUDY = study_config.parse(CONFIG)
DESCRIBED = parse.describe(STUDY)
PUBLISHED = sorted((Path(__file__).parents[2] / "analysis").glob("results*/*/config.json"))
UNSAFE = ["..", ".", "", "/etc/x", "a/b", "../x", "a\nb", "a\x00", "-x", "x" * 101, "a b", "$(x)", "é", None, 3, ["a"]]


def changed(path: str, value) -> dict:
    """The description with the value at `path` replaced; numbers in the path are positions in lists."""
    description = copy.deepcopy(DESCRIBED)
    *way, last = (int(key) if key.isdigit() else key for key in path.split("."))
    holder = description
    for key in way:
        holder = holder[key]
    holder[last] = value
    return description


def refused(described) -> str:
    with pytest.raises(ConfigError) as caught:
        restore_study(described, "here")
    assert str(caught.value).startswith("here") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def test_there_and_back():
    assert restore_study(json.loads(json.dumps(DESCRIBED))) == STUDY


@pytest.mark.parametrize(("old", "new"), [(True, "crop_flip"), (False, "none")])
def test_a_truth_value_of_augment_is_what_it_meant(old, new):
    restored = restore_study(changed("packs.1.plans.0.1.0.augment", old))
    assert [stage.augment for stage in restored.packs[1].plans[0][1]] == [new, "none", "none"]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_a_published_study_comes_back(path):
    study = restore_study(json.loads(path.read_text()))
    augmented = {stage.augment for pack in study.packs for _, plan in pack.plans for stage in plan}
    mirrored = ("autodecay", "noise", "remedies_half", "remedies_tenth", "stepdecay", "transfer", "when_to_regularise")
    assert ("crop_flip" in augmented) == (path.parent.name in mirrored)
    assert augmented <= {"none", "crop_flip"}


@pytest.mark.parametrize("path", ["packs.0.name", "packs.1.plans.0.1.0.name", "packs.0.plans.1.1.2.branch"])
@pytest.mark.parametrize("value", UNSAFE, ids=repr)
def test_names_that_could_leave_the_directory(path, value):
    refused(changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("seeds", [], "here.seeds=[]: must have at least 1"),
        ("seeds", 3, "here.seeds=3: must be a tuple"),
        ("seeds.0", "0", "here.seeds[0]"),
        ("seeds.0", True, "here.seeds[0]"),
        ("seeds.0", 2**40, "here.seeds[0]"),
        ("packs", [], "the study has no packs"),
        ("packs", None, "here.packs"),
        ("packs.0", [], "must be a group"),
        ("packs.0.plans", [], "has no plans"),
        ("packs.0.plans.0", [[]], "a tuple of 2"),
        ("packs.0.plans.0.1", [], "a plan has no stages"),
        ("packs.1.name", "width=4", "the name of another pack"),
        ("packs.0.model.width", "8", "here.packs[0].model.width"),
        ("packs.0.model.width", 8.0, "here.packs[0].model.width"),
        ("packs.0.plans.0.0.0.0", "a/b", "hyper-parameter"),
        ("packs.0.plans.0.0.0.1", {"a": 1}, "must be a string, a number, a bool or None"),
        ("packs.0.plans.0.0.0.1", "a\nb", "control"),
        ("packs.0.plans.0.1.0.optim.learning_rate", float("nan"), "must be in (0, inf)"),
        ("packs.0.plans.0.1.0.optim.learning_rate", -0.1, "must be in (0, inf)"),
        ("packs.0.plans.0.1.0.augment", 1, "must be a string"),
        ("packs.0.plans.0.1.0.extra", 1, "extra: there is no such key"),
        ("data_dir", "a\x00b", "control"),
        ("window", [0.2], "here.window"),
    ],
)
def test_what_is_no_study(path, value, message):
    assert message in refused(changed(path, value))


@pytest.mark.parametrize("key", sorted(DESCRIBED.keys() - legacy.ADDED.keys()))
def test_a_missing_key_is_named(key):
    described = dict(DESCRIBED)
    del described[key]
    assert f"the key {key} is missing" in refused(described)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=5), inside, max_size=3),
    )
)
def test_anything_else_is_refused(value):
    refused(value)
