"""Jobs cover every wanted run exactly once, keep to the budget where possible, and have valid names."""

import itertools
import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax import study_config
from plasticity_jax.config import names
from plasticity_jax.configs import base
from plasticity_jax.errors import ConfigError, LabError, RoomError
from plasticity_jax.launch import growth, jobs, planner
from tests.support import swept

RATES = (0.1, 0.2, 0.3, 0.4, 0.5)
BUDGETS = st.builds(
    planner.Budget, *[st.none() | st.integers(1, 30), st.none() | st.integers(1, 30), st.none() | st.integers(1, 30)]
)


def study(seeds=(0, 1), widths=(4, 8), rates=RATES[:2], **top):
    return study_config.parse(swept.config(seeds=seeds, grid=(("model.width", widths), (swept.RATE, rates)), **top))


def cells(listed, studies) -> Counter:
    """Counts how often each (study, width, rate, seed) is trained."""
    count = Counter()
    for job in listed:
        part = jobs.restrict(studies[job.study], job.pack, job.points, job.seeds)
        for hparams, _ in part.packs[0].plans:
            count.update((job.study, *dict(hparams).values(), seed) for seed in part.seeds)
    return count


def wanted(key="s", seeds=(0, 1), widths=(4, 8), rates=RATES[:2]) -> Counter:
    return Counter(itertools.product([key], widths, rates, seeds))


@given(st.sets(st.integers(0, 40), min_size=1, max_size=9), st.integers(1, 5), BUDGETS)
def test_jobs_partition_what_is_wanted(seeds, rates, limits):
    seeds = tuple(seeds)
    limits = planner.Budget(limits.memory, limits.seconds, limits.runs)
    studies = {"s": study(seeds, rates=RATES[:rates])}
    listed = planner.plan(studies, (), swept.price, limits)
    assert cells(listed, studies) == wanted(seeds=seeds, rates=RATES[:rates])
    most = min([limit for limit in (limits.memory, limits.seconds, limits.runs) if limit is not None], default=10**9)
    for job in listed:
        assert job.runs <= most or (len(job.points), len(job.seeds)) == (1, 1)
        if rates <= most:
            assert len(job.points) == rates  # seeds are dealt out first
        assert names.check(job.name, "job", commas=True) == job.name
    assert len({job.name for job in listed}) == len(listed)
    if most >= rates * len(seeds):
        assert len(listed) == 2  # a job for each shape
    assert planner.plan(studies, (), swept.price, limits) == listed


def test_shares_of_seeds_are_even_and_named():
    listed = planner.plan({"s": study(tuple(range(7)), (4,), (0.1,))}, (), swept.price, planner.Budget(runs=3))
    assert [job.name for job in listed] == ["seeds=0-1", "seeds=2-3", "seeds=4-6"]
    listed = planner.plan({"s": study((0, 1, 5))}, (), swept.price, planner.Budget())
    assert [job.name for job in listed] == ["width=4,seeds=0-1+5", "width=8,seeds=0-1+5"]
    listed = planner.plan({"s": study((3,), (4,))}, (), swept.price, planner.Budget(runs=1))
    assert [job.name for job in listed] == ["learning_rate=0.1,seeds=3", "learning_rate=0.2,seeds=3"]
    listed = planner.plan({key: study((3,), (4,)) for key in "ab"}, (), swept.price, planner.Budget())
    assert [job.name for job in listed] == ["a,seeds=3", "b,seeds=3"]


def test_long_and_odd_values_make_names_too():
    words = {word: {swept.RATE: 0.1 + i} for i, word in enumerate(["../x", "a $b", "x" * 300, "x" * 299 + "y", "é"])}
    studies = {"s": study_config.parse(swept.config(grid=(("an *axis", words),)))}
    listed = planner.plan(studies, (), swept.price, planner.Budget(runs=1))
    assert len({job.name for job in listed}) == len(listed) == 10
    for job in listed:
        assert names.check(job.name, "job", commas=True) and "/" not in job.name


def test_one_seed_of_one_point_that_does_not_fit_is_refused():
    dear = lambda *_: planner.Price(1, 1, 1.0, 3 * 10**9)  # noqa: E731
    with pytest.raises(RoomError, match=r"study s, pack width=4: .* needs 3 GB .* --memory_gb is 2"):
        planner.plan({"s": study()}, (), dear, planner.Budget(memory=2 * 10**9))


def test_what_takes_too_long_stays_whole():
    long = lambda *_: planner.Price(1, 1, 1e9, None)  # noqa: E731
    assert len(planner.plan({"s": study((0,), (4,), (0.1,))}, (), long, planner.Budget(seconds=1.0))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "rates"), [(1000, 1), (1, 500)])
def test_a_thousand_jobs_cost_few_questions(seeds, rates):
    """Independent of the machine: the work of planning grows linearly with the jobs."""
    widths = (4, 8) if rates > 1 else (4,)
    studies = {"s": study(tuple(range(seeds)), widths, tuple(0.001 * (i + 1) for i in range(rates)))}
    looked = []

    def price(key, pack, points, count):
        looked.append(len(points))
        return swept.price(key, pack, points, count)

    listed = planner.plan(studies, (), price, planner.Budget(runs=1))
    assert len(listed) == 1000 == len({job.name for job in listed})
    assert len(looked) < 5000 and sum(looked) < 10_000
    assert planner.plan(studies, listed, price, planner.Budget()) == listed
    assert len(looked) < 5000


# Growth.


@pytest.mark.slow
@given(
    st.sets(st.integers(0, 9), min_size=1),
    st.sets(st.integers(0, 9), min_size=1),
    st.integers(1, 5),
    st.integers(1, 5),
    BUDGETS,
    st.booleans(),
)
def test_what_is_there_stays_when_a_sweep_grows(old, more, few, many, limits, wide):
    few, many = sorted((few, many))
    rates = RATES[:many]
    seeds = (*sorted(more - old), *sorted(old))  # new ones before the old
    widths = (2, 4) if wide else (4,)
    before = study(tuple(old), (4,), rates[-few:])
    first = planner.plan({"s": before}, (), swept.price, limits)
    after = growth.grown("s", before, study(seeds, widths, rates))
    second = planner.plan({"s": after}, first, swept.price, limits)
    assert second[: len(first)] == first
    for job in first:
        args = job.pack, job.points, job.seeds
        assert jobs.restrict(before, *args) == jobs.restrict(after, *args)
    assert cells(second, {"s": after}) == wanted(seeds=seeds, widths=widths, rates=rates)
    assert growth.grown("s", after, study(seeds, widths, rates)) == after  # and again, nothing changes


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (dict(seeds=(0,)), "seed 1 is gone"),
        (dict(rates=(0.1,)), "the grid point 'width=4,learning_rate=0.2' is gone"),
        (dict(widths=(8,)), "the grid point 'width=4,learning_rate=0.1' is gone"),
        (dict(window=0.25), r"window was 0.5 and is 0.25"),
        (dict(train_images=95), "train_images was 96 and is 95"),
        (dict(seeds=(0, 1, 2), dataset="other"), "dataset was 'digits' and is 'other'"),
    ],
)
def test_any_other_change_is_named(changed, difference):
    with pytest.raises(LabError, match=f"study s: {difference}; .*use another --workdir") as caught:
        growth.grown("s", study(), study(**changed))
    assert "\n" not in str(caught.value)


def test_a_changed_stage_is_named_by_its_path():
    config = swept.config(seeds=(0, 1, 2))
    config.stages.tune.epochs = 4.0
    with pytest.raises(LabError, match=r"stages.tune.fresh.epochs was 3.0 and is 4.0"):
        growth.grown("s", study_config.parse(swept.config()), study_config.parse(config))


def test_places_and_times_may_change():
    after = study(data_dir="elsewhere", checkpoint_seconds=7.0)
    assert growth.grown("s", study(), after) == after


# Studies of a config.


def test_a_lone_study_goes_by_its_name():
    assert list(planner.studies(swept.config())) == ["study"]
    assert list(planner.studies(swept.config(name="mine"))) == ["mine"]
    assert list(planner.studies(swept.config(name="../mine"))) == ["_../mine".replace("/", "_")]


def test_several_studies():
    found = planner.studies(base.sweep({"a": swept.config(), "b": swept.config(seeds=(7,))}))
    assert {key: study.seeds for key, study in found.items()} == {"a": (0, 1), "b": (7,)}


@given(st.one_of(st.text(), st.sampled_from(["a,b", "sweep.json", "slurm", "xm", "..", "x" * 300])))
def test_a_study_of_any_name_makes_a_sweep_that_can_be_read(name):
    try:
        studies = planner.studies(swept.config(name=name))
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    listed = planner.plan(studies, (), lambda *part: planner.Price(1, 1, None, None), planner.Budget())
    with tempfile.TemporaryDirectory() as sweep:
        jobs.write(Path(sweep), listed)
        (Path(sweep) / listed[0].study).mkdir()
        assert jobs.read(Path(sweep)) == listed


@pytest.mark.parametrize("key", ["..", "a/b", "", "-x", "a b", "x" * 101, "a\n", "a,b", "sweep.json"])
def test_names_of_studies_are_checked(key):
    with pytest.raises(ConfigError, match=re.escape(f"config.studies.{key}: ")):
        planner.studies(base.sweep({key: swept.config()}))


def test_a_sweep_has_one_key_and_good_studies():
    config = base.sweep({"a": swept.config(window=2.0)})
    with pytest.raises(ConfigError, match="study a: config.window=2.0"):
        planner.studies(config)
    config.seeds = (0,)
    with pytest.raises(ConfigError, match="has only this key"):
        planner.studies(config)
    with pytest.raises(ConfigError, match="plasticity local"):
        study_config.parse(base.sweep({"a": swept.config()}))
