"""Contrasts of tables whose numbers are known, and the rule that turns intervals into verdicts."""

import dataclasses

import numpy as np
import pytest

from plasticity_jax.analysis import studies
from plasticity_jax.analysis.effects import contrasts, derived, stats, transitions
from plasticity_jax.analysis.effects.contrasts import (
    Sum,
    Term,
    average,
    family,
    largest,
    measured,
    minus,
    slope,
    spread,
    the,
    times,
)
from plasticity_jax.analysis.effects.stats import INCONCLUSIVE, REPRODUCED
from plasticity_jax.analysis.effects.transitions import At
from plasticity_jax.storage import results
from tests.support import synthetic

KNOWN = [("", label) for label in ("fresh", "warm", "k-2", "k-10", "k-5", "k-5-x-50", "s[d=1,w=4]", "s[d=2,w=4]")]


def weights(contrast, known=KNOWN):
    return {term.label: pytest.approx(term.weight) for term in contrast(known).terms}


def study(**by_label):
    seeds = 1 + max(seed for values in by_label.values() for seed in values)
    named = {label.replace("_", "-"): values for label, values in by_label.items()}
    return synthetic.study(synthetic.branches("", *named, seeds=seeds), synthetic.values(named))


def effects(found, contrast):
    return contrasts.by_seed(found, contrast(contrasts.known(found)))


def verdict(values, direction="above", margin=1.0, level=0.95):
    return stats.verdict(direction, margin, *results.interval(values, level))


def test_a_difference_is_taken_seed_by_seed():
    found = study(fresh={0: 80.0, 1: 20.0, 2: 50.0}, warm={0: 77.0, 1: 16.0, 2: 45.0})
    assert effects(found, minus("fresh", "warm")) == {0: 3.0, 1: 4.0, 2: 5.0}


def test_pairing_finds_what_the_scatter_of_seeds_would_hide():
    rng = np.random.default_rng(0)
    seeds = dict(enumerate(rng.normal(50, 20, 5)))
    example = study(fresh=seeds, warm={s: v - 2 + rng.normal(0, 0.3) for s, v in seeds.items()})
    paired = effects(example, minus("fresh", "warm"))
    assert verdict(list(paired.values())) == REPRODUCED
    shuffled = [seeds[s] - (seeds[(s + 1) % 5] - 2) for s in seeds]  # the same numbers, another seed's partner
    assert verdict(shuffled) == INCONCLUSIVE


def test_a_seed_that_misses_any_term_drops_out():
    found = study(fresh={0: 3.0, 1: 3.0, 2: 3.0}, warm={0: 1.0, 2: 1.5}, other={0: 0.0, 1: 0.0})
    assert effects(found, minus("fresh", "warm")) == {0: 2.0, 2: 1.5}
    assert effects(found, minus(minus("fresh", "warm"), "other")) == {0: 2.0}


def test_a_failed_run_drops_out_with_its_seed():
    config = synthetic.branches("", "fresh", "warm", seeds=3)
    world = synthetic.values({"fresh": {0: 3, 1: 3, 2: 3}, "warm": {0: 1, 1: 1, 2: 1}})
    example = synthetic.study(config, world, failed=["warm/seed1"])
    assert effects(example, minus("fresh", "warm")) == {0: 2.0, 2: 2.0}


def test_a_difference_of_differences():
    found = study(a={0: 10.0, 1: 11.0}, b={0: 7.0, 1: 6.0}, c={0: 20.0, 1: 20.0}, d={0: 19.0, 1: 18.5})
    assert effects(found, minus(minus("a", "b"), minus("c", "d"))) == {0: 2.0, 1: 3.5}


def test_a_measurement_that_is_in_twice_counts_once():
    assert weights(minus(minus("fresh", "warm"), minus("k-2", "fresh"))) == {"fresh": 2.0, "warm": -1.0, "k-2": -1.0}


def test_a_measurement_that_cancels_is_not_needed():
    assert weights(minus(minus("fresh", "warm"), minus("fresh", "k-2"))) == {"warm": -1.0, "k-2": 1.0}
    assert weights(slope(family("k-{}", also={6: "fresh", 7: "warm"}))).keys() == {"k-2", "k-5", "k-10", "warm"}


def test_a_constant_is_added_once():
    assert minus("fresh", 99.0)(KNOWN) == Sum((Term(1.0, "fresh"),), -99.0)
    assert minus(99.0, "fresh")(KNOWN) == Sum((Term(-1.0, "fresh"),), 99.0)
    example = study(fresh={0: 99.5, 1: 98.0})
    assert effects(example, minus("fresh", 99.0)) == {0: 0.5, 1: -1.0}


def test_a_slope_is_exact_on_a_line():
    line = {x: {0: 70.0 - 0.5 * x, 1: 40.0 + 2.0 * x} for x in (2, 5, 10)}
    by_label = {**{f"k-{x}": values for x, values in line.items()}, "fresh": {0: 69.5, 1: 42.0}}
    example = synthetic.study(synthetic.branches("", *by_label, seeds=2), synthetic.values(by_label))
    contrast = slope(family("k-{}", also={1: "fresh"}))
    assert effects(example, contrast) == {0: -0.5, 1: 2.0}
    assert effects(example, slope(family("k-{}", also={1: "fresh"}), per=100)) == {0: -50.0, 1: 200.0}
    assert sum(term.weight for term in contrast(contrasts.known(example)).terms) == pytest.approx(0.0)


@pytest.mark.parametrize("seed", range(3))
def test_a_slope_is_that_of_least_squares(seed):
    rng = np.random.default_rng(seed)
    y = rng.normal(50, 10, 3)
    named = {f"k-{x}": {0: value} for x, value in zip((2, 5, 10), y, strict=True)}
    example = synthetic.study(synthetic.branches("", *named, seeds=1), synthetic.values(named))
    expected = np.polyfit([2, 5, 10], y, 1)[0]
    assert effects(example, slope(family("k-{}")))[0] == pytest.approx(expected)


def test_a_family_is_read_by_its_numbers():
    assert weights(largest(family("k-{}"))) == {"k-10": 1.0}  # not the last as text
    assert weights(spread(family("k-{}"))) == {"k-10": 1.0, "k-2": -1.0}
    assert weights(average(family("k-{}"))) == {"k-2": 1 / 3, "k-5": 1 / 3, "k-10": 1 / 3}
    assert weights(average(family("k-{}", least=5))) == {"k-5": 1 / 2, "k-10": 1 / 2}
    assert weights(largest(family("k-{}-x-*", take=lambda n: minus("fresh", f"k-{n}")))) == {"fresh": 1.0, "k-5": -1.0}
    assert weights(largest(family("s[d={},w={}]"))) == {"s[d=2,w=4]": 1.0}
    averages = family("s[d=*,w={}]", take=lambda w: average(family(f"s[d={{}},w={w}]")))
    assert weights(largest(averages)) == {"s[d=1,w=4]": 1 / 2, "s[d=2,w=4]": 1 / 2}
    decimals = [("", "b[gamma=0.5]"), ("", "b[gamma=1e-05]"), ("", "b[gamma=x]")]
    assert weights(spread(family("b[gamma={}]")), decimals) == {"b[gamma=0.5]": 1.0, "b[gamma=1e-05]": -1.0}


@pytest.mark.parametrize(
    "contrast",
    [
        the("nowhere"),
        the("fresh", stage="pretrain"),
        minus("fresh", "nowhere"),
        minus("nowhere", "fresh"),
        measured("nowhere", "train_loss"),
        largest(family("j-{}")),
        largest(family("k-{}", take=lambda n: minus("nowhere", f"k-{n}"))),
        average(family("k-{}"), least=4),
        average(family("j-{}")),
        spread(family("k-{}-x-50")),
        slope(family("k-{}-x-50")),
        slope(family("s[d={},w=4]", least=2)),
    ],
)
def test_what_a_study_lacks_is_none(contrast):
    assert contrast(KNOWN) is None


def test_a_member_that_is_only_on_the_way_is_left_out():
    assert weights(largest(family("k-{}")), [*KNOWN, ("part1", "k-20")]) == {"k-10": 1.0}
    on_the_way = family("k-{}", take=lambda n: the(f"k-{n}", stage="part1"))
    assert on_the_way([("part1", "k-20")]) == {}


def test_a_member_that_lacks_something_is_left_out():
    known = [*KNOWN, ("", "cold-2"), ("", "cold-5")]
    contrast = largest(family("k-{}", take=lambda n: minus(f"cold-{n}", f"k-{n}")))
    assert weights(contrast, known) == {"cold-5": 1.0, "k-5": -1.0}


def test_another_metric_another_time_another_stage():
    config = synthetic.branches("", "fresh", "warm", seeds=2)
    config.stages.pretrain = config.stages.tune.copy_and_resolve_references()
    config.stages.pretrain.branches = {"start": {}}
    config.stages.tune.branches.warm.after = "pretrain"
    numbers = {
        ("start", "test_accuracy", 10.0): 1.0,
        ("start", "train_accuracy", 10.0): 2.0,
        ("warm", "test_accuracy", float("inf")): 3.0,
        ("warm", "train_accuracy", float("inf")): 4.0,
    }
    numbers["warm", "steps", float("inf")] = 150.0
    example = synthetic.study(config, lambda label, stage, seed, *what: numbers.get((label, *what), 9.0))
    assert effects(example, the("start", at=10.0, stage="pretrain")) == {0: 1.0, 1: 1.0}
    assert effects(example, the("start", "train_accuracy", 10.0, "pretrain"))[0] == 2.0
    assert effects(example, measured("warm", "train_accuracy", "end"))[0] == 4.0
    assert effects(example, minus("fresh", "warm"))[0] == 6.0
    assert effects(example, measured(minus("warm", 7.0), "steps"))[0] == 143.0
    assert the("start")(contrasts.known(example)) is None  # others continue from it
    assert the("start", at=10.0, stage="tune")(contrasts.known(example)) is None


def test_a_stage_on_the_way_is_not_taken_for_the_end():
    """`warm` is in both stages; before the second has begun, the first must not be used in its place."""
    config = synthetic.branches("", "fresh", "warm", seeds=2)
    config.stages.more = config.stages.tune.copy_and_resolve_references()
    config.stages.more.branches = {"warm": {"after": "tune/warm"}}
    world = lambda label, stage, seed, metric, epoch: None if stage == "more" else 50.0  # noqa: E731
    example = synthetic.study(config, world, finished=False)
    assert minus("fresh", "warm")(contrasts.known(example)) is None
    assert the("warm", stage="tune")(contrasts.known(example)) is not None


def at_epoch(label, stage, seed, metric, epoch):
    return None if metric == "steps" else min(epoch, 20.0)


def test_the_start_of_a_stage_is_known_when_it_has_ended():
    """Before that, the first third of the rows so far, perhaps one evaluation, is not the first third of the stage."""
    config = synthetic.branches("", "fresh", seeds=2)
    made = synthetic.study(config, at_epoch, False, epochs=lambda end: (3, 6, 9))
    late = made.table.epoch.astype(float) > 9
    begun = dataclasses.replace(made, table=made.table[~(late & (made.table.seed == 1))])
    start = the("fresh", at=studies.START)
    assert effects(made, start) == {0: 4.5, 1: 4.5}
    assert effects(begun, start) == {0: 4.5}


@pytest.mark.parametrize("second", [10.0, 90.0])
def test_ties_on_validation_are_not_broken_by_the_test_images(second):
    """The first label wins a tie, whatever the test accuracies of the others; a higher validation accuracy wins."""
    numbers = {("k-1", "validation_accuracy"): 70.0, ("k-2", "validation_accuracy"): 70.0}
    numbers |= {("k-1", "test_accuracy"): 50.0, ("k-2", "test_accuracy"): second, ("k-3", "test_accuracy"): 99.0}
    metrics = ("test_accuracy", "validation_accuracy")

    def chosen(third):
        values = {**numbers, ("k-3", "validation_accuracy"): third}
        config = synthetic.branches("", "k-1", "k-2", "k-3", seeds=1)
        made = synthetic.study(
            config, lambda label, stage, seed, metric, epoch: values.get((label, metric)), metrics=metrics
        )
        return effects(made, derived.best(family("k-{}"), "validation_accuracy"))

    assert chosen(third=69.0) == {0: 50.0}
    assert chosen(third=71.0) == {0: 99.0}


@pytest.mark.parametrize(
    "contrast, expected",
    [
        (minus("fresh", "warm"), True),
        (minus(minus("fresh", "warm"), minus("k-2", "k-5")), True),
        (slope(family("k-{}")), True),
        (minus(average(family("k-{}")), "fresh"), True),
        (the("fresh", at=At(transitions.JUMP, 1)), True),
        (minus(the("fresh", at=At(transitions.JUMP, 1)), the("warm", at=At(transitions.JUMP, 1))), True),
        (the("fresh", at=At(transitions.AFTER, 1)), False),
        (minus("fresh", 99.0), False),
        (minus(times(0.9, "fresh"), "warm"), False),
        (minus(minus("fresh", "warm"), 1.0), False),
    ],
)
def test_where_nothing_has_an_effect_zero_comes_out_of_differences_only(contrast, expected):
    assert contrasts.is_difference(contrast(KNOWN)) is expected


def test_rounding_decides_nothing():
    same = {0: 0.1 + 0.2, 1: 0.1 + 0.2, 2: 0.1 + 0.2}
    found = study(fresh=same, warm=dict.fromkeys(same, 0.3))
    assert set(effects(found, minus("fresh", "warm")).values()) == {0.0}


@pytest.mark.parametrize(
    "contrast, expected",
    [
        (minus("fresh", "warm"), "fresh - warm"),
        (minus(minus("fresh", "warm"), minus("k-2", "k-5")), "fresh + k-5 - warm - k-2"),
        (minus(99.0, the("fresh", "train_accuracy", "end")), "99 - fresh (train_accuracy at the end)"),
        (minus(measured("fresh", "train_accuracy", 10.0), 1.0), "fresh - 1 (train_accuracy at epoch 10)"),
        (minus("fresh", average(family("k-{}", least=5))), "fresh - 0.5 k-5 - 0.5 k-10"),
        (minus("fresh", average(family("s[d={},w=4]"))), "fresh - 0.5 s[d=1,w=4] - 0.5 s[d=2,w=4]"),
        (average(family("k-{}", also={1: "fresh", 3: "warm"})), "a weighted sum of 5 measurements"),
    ],
)
def test_a_formula_can_be_read(contrast, expected):
    assert contrasts.formula(contrast(KNOWN)) == expected


def test_a_formula_names_stages():
    contrast = measured(minus(the("a", stage="one"), the("b", stage="one")), "steps")
    assert contrasts.formula(contrast([("one", "a"), ("one", "b")])) == "a - b (steps in one)"
    contrast = minus(minus(the("a", stage="two"), the("a", stage="one")), "a")
    assert contrasts.formula(contrast([("one", "a"), ("two", "a"), ("", "a")])) == "two/a - one/a - a"
