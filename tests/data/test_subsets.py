"""Pools: each recipe is held to its definition in Berariu et al. 2021 (section 2, appendices A.2 and A.3)."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from plasticity_jax.data import subsets
from plasticity_jax.errors import ConfigError
from tests.support import tiny

EVERYTHING = tiny.DATA
seeds, shares = st.integers(0, 2**31), st.floats(0, 1)


def recipe(**changed):
    return dataclasses.replace(EVERYTHING, **changed)


@st.composite
def problems(draw):
    """(labels, classes, train_images, validation_images) with every class present at least once."""
    classes = draw(st.integers(2, 12))
    n = draw(st.integers(2 * classes, 300))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    labels = rng.permutation(np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)]))
    validation = draw(st.integers(0, n // 3))
    train = draw(st.one_of(st.just(0), st.integers(n // 3, n - validation)))
    return labels, classes, train, validation


def pool(data, seed, problem):
    return subsets.pool(data, seed, *problem)


def members(made):
    return set(made.indices.tolist())


# ---- the order ----


@given(problems(), seeds)
def test_everything_is_all_but_the_validation_images(problem, seed):
    labels, _, train, validation = problem
    everything, held = pool(EVERYTHING, seed, problem), subsets.held_out(seed, len(labels), validation)
    assert len(held) == len(set(held.tolist())) == validation
    assert len(everything.indices) == len(members(everything)) == (train or len(labels) - validation)
    assert not members(everything) & set(held.tolist())
    assert (members(everything) | set(held.tolist())) <= set(range(len(labels)))
    np.testing.assert_array_equal(everything.labels, labels[everything.indices])
    assert everything.indices.dtype == everything.labels.dtype == held.dtype == np.int32
    assert everything.base == len(everything.indices)


@given(problems(), seeds, shares, shares)
def test_halves_nest_in_the_whole(problem, seed, a, b):
    whole = pool(EVERYTHING, seed, problem).indices
    for fraction in (a, b):
        size = round(fraction * len(whole))
        if size:
            made = pool(recipe(fraction=fraction), seed, problem)
            np.testing.assert_array_equal(made.indices, whole[:size])
            assert made.base == size
        else:
            with pytest.raises(ConfigError, match="no image is left"):
                pool(recipe(fraction=fraction), seed, problem)


def test_order_depends_on_the_seed_only_and_is_uniform():
    labels = np.arange(40) % 4
    firsts = []
    for seed in range(2000):
        half = subsets.pool(recipe(fraction=0.5), seed, labels, 4)
        if seed % 10 == 0:
            noisy = subsets.pool(recipe(fraction=0.5, label_noise=0.5, gamma=0.9, replacement=True), seed, labels, 4)
            np.testing.assert_array_equal(half.indices, noisy.indices)
        firsts.append(np.bincount(half.indices, minlength=40))
    share = np.mean(firsts, axis=0)  # each image is in the half for half of the seeds, +-4.5 deviations
    assert np.abs(share - 0.5).max() < 4.5 * 0.5 / np.sqrt(2000)


@given(problems(), seeds)
def test_pools_are_functions_of_recipe_and_seed(problem, seed):
    for data in (recipe(fraction=0.7), recipe(recipe="split", splits=2, uniform=0.4), recipe(recipe="blend")):
        data = dataclasses.replace(data, label_noise=0.3)
        first, second = pool(data, seed, problem), pool(data, seed, problem)
        np.testing.assert_array_equal(first.indices, second.indices)
        np.testing.assert_array_equal(first.labels, second.labels)


# ---- split (A.3) ----


@st.composite
def splits(draw):
    problem = draw(problems())
    count = draw(st.integers(1, problem[1]))
    return problem, count, draw(st.one_of(st.sampled_from([0.0, 1.0]), shares)), draw(seeds)


def parts_of(problem, count, uniform, seed):
    """{part: the set of its indices, perhaps empty}, and everything in the order of the seed."""
    labels, classes, train, validation = problem
    parts = {0: set()}
    for part in range(1, count + 1):
        try:
            made = pool(recipe(recipe="split", splits=count, part=part, uniform=uniform), seed, problem)
            parts[part] = members(made)
            assert len(parts[part]) == len(made.indices) == made.base
        except ConfigError:
            parts[part] = set()
    return parts, subsets.everything(seed, len(labels), train, validation)


@given(splits())
def test_split_is_cumulative_and_ends_with_everything(case):
    problem, count, uniform, seed = case
    parts, everything = parts_of(*case)
    for part in range(1, count + 1):
        assert parts[part - 1] <= parts[part]
    assert parts[count] == set(everything.tolist())


@given(splits())
def test_split_is_the_union_of_an_even_and_a_class_part(case):
    problem, count, uniform, seed = case
    labels, classes = np.asarray(problem[0]), problem[1]
    parts, everything = parts_of(*case)
    arrival = subsets.arrivals(seed, labels[everything], classes, count, uniform)
    by_class = subsets.arrivals(seed, np.arange(classes), classes, count, 0.0)  # the groups C_i
    sizes = np.bincount(by_class, minlength=count + 1)[1:]
    assert sizes.sum() == classes and sizes.max() - sizes.min() <= 1 and sizes.min() >= 1
    # images that did not arrive with their class belong to D_u; some of D_u arrive with it by chance
    strays = {int(i) for i, when in zip(everything, arrival, strict=True) if when != by_class[labels[i]]}
    assert len(strays) <= round(uniform * len(everything))
    new = [parts[i] - parts[i - 1] for i in range(1, count + 1)]
    dealt = round(uniform * len(everything))
    for i, arrived in enumerate(new, start=1):
        with_class = {x for x in everything.tolist() if by_class[labels[x]] == i}
        assert len(arrived - with_class) <= -(-dealt // count)  # never more than the even share
        assert with_class - strays <= arrived


@given(problems(), st.integers(1, 20), seeds)
def test_split_with_everything_uniform_is_iid_increments_of_equal_size(problem, count, seed):
    labels, classes = problem[:2]
    everything = subsets.everything(seed, len(labels), *problem[2:])
    arrival = subsets.arrivals(seed, labels[everything], classes, count, 1.0)  # also with more parts than classes
    sizes = np.bincount(arrival, minlength=count + 1)
    assert sizes[0] == 0 and sizes[1:].max() - sizes[1:].min() <= 1
    shuffled = subsets.arrivals(seed, labels[everything][::-1], classes, count, 1.0)
    np.testing.assert_array_equal(arrival, shuffled)  # labels have no effect


@given(problems(), seeds, st.data())
def test_split_with_nothing_uniform_is_class_incremental(problem, seed, data):
    labels, classes = problem[:2]
    count = data.draw(st.integers(1, classes))
    parts, everything = parts_of(problem, count, 0.0, seed)
    earlier = set()
    for part in range(1, count + 1):
        arrived = parts[part] - parts[part - 1]
        fresh = {int(labels[i]) for i in arrived}
        assert not fresh & earlier
        assert arrived == {i for i in everything.tolist() if labels[i] in fresh}
        earlier |= fresh


@given(splits())
def test_split_sizes_of_the_uniform_part_are_exact(case):
    """With a single label, all images outside the first group are those of the uniform part."""
    problem, count, uniform, seed = case
    n, classes = len(problem[0]), problem[1]
    home = int(subsets.arrivals(seed, np.zeros(1, int), classes, count, 0.0)[0])
    arrival = subsets.arrivals(seed, np.zeros(n, int), classes, count, uniform)
    dealt = round(uniform * n)
    sizes = np.bincount(arrival, minlength=count + 1)[1:]
    sizes[home - 1] -= n - dealt
    assert sizes.sum() == dealt and sizes.max() - sizes.min() <= 1


def test_split_class_order_and_uniform_part_are_random_per_seed():
    labels = np.arange(1000) % 10
    firsts, dealt = np.zeros(10), np.zeros(1000)
    for seed in range(1000):
        firsts[np.flatnonzero(subsets.arrivals(seed, np.arange(10), 10, 5, 0.0) == 1)] += 1
        groups = subsets.arrivals(seed, np.arange(10), 10, 5, 0.0)[labels]
        dealt += subsets.arrivals(seed, labels, 10, 5, 0.5) != groups
    assert np.abs(firsts / 1000 - 0.2).max() < 4.5 * 0.4 / np.sqrt(1000)
    assert np.abs(dealt / 1000 - 0.4).max() < 5 * 0.49 / np.sqrt(1000)  # in D_u (1/2) and in another part (4/5)


def test_split_groups_are_of_true_classes():
    """Noise changes labels, but an image still arrives with its true class."""
    labels = np.arange(100) % 10
    data = recipe(recipe="split", splits=5, part=2, uniform=0.0)
    clean, noisy = (subsets.pool(d, 3, labels, 10) for d in (data, dataclasses.replace(data, label_noise=0.8)))
    np.testing.assert_array_equal(clean.indices, noisy.indices)
    assert (clean.labels != noisy.labels).any()


# ---- blend (A.2) ----


@given(problems(), seeds, st.floats(0.1, 1))
def test_blend_is_everything_with_the_biased_half_in_front(problem, seed, fraction):
    everything = pool(EVERYTHING, seed, problem).indices
    assume(round(fraction * len(everything)) > 0)
    made = pool(recipe(recipe="blend", fraction=fraction), seed, problem)
    np.testing.assert_array_equal(made.indices, everything)
    assert made.base == round(fraction * len(everything))
    np.testing.assert_array_equal(made.indices[: made.base], pool(recipe(fraction=fraction), seed, problem).indices)


# ---- label noise ----


@given(problems(), seeds, shares, shares)
def test_noise_is_exact_another_class_and_nested(problem, seed, a, b):
    labels, classes = np.asarray(problem[0]), problem[1]
    wrong, made = {}, {}
    for noise in sorted((a, b)):
        made[noise] = pool(recipe(label_noise=noise), seed, problem)
        differs = made[noise].labels != labels[made[noise].indices]
        assert differs.sum() == round(noise * len(made[noise].indices))
        assert made[noise].labels.min() >= 0 and made[noise].labels.max() < classes
        wrong[noise] = dict(
            zip(made[noise].indices[differs].tolist(), made[noise].labels[differs].tolist(), strict=True)
        )
    low, high = wrong[min(a, b)], wrong[max(a, b)]
    assert low.items() <= high.items()
    for data in (recipe(fraction=0.5), recipe(recipe="split", splits=2, uniform=1.0), recipe(recipe="blend")):
        part = pool(dataclasses.replace(data, label_noise=max(a, b)), seed, problem)
        for index, label in zip(part.indices.tolist(), part.labels.tolist(), strict=True):
            assert label == high.get(index, labels[index])


def test_noise_is_uniform_over_the_other_classes():
    labels = np.zeros(6000, int)
    made = subsets.pool(recipe(label_noise=1.0), 0, labels, 4)
    counts = np.bincount(made.labels, minlength=4)
    assert counts[0] == 0
    assert np.abs(counts[1:] / 6000 - 1 / 3).max() < 4.5 * np.sqrt(2 / 9 / 6000)


def test_noise_falls_anywhere_in_the_order():
    """The half has its share of the noisy labels, not all of them."""
    labels = np.arange(2000) % 4
    half = subsets.pool(recipe(fraction=0.5, label_noise=0.4), 0, labels, 4)
    share = np.mean(half.labels != labels[half.indices])
    assert abs(share - 0.4) < 4.5 * np.sqrt(0.4 * 0.6 / 1000)


def test_noise_leaves_the_labels_given_alone():
    labels = np.arange(20, dtype=np.int32) % 4
    subsets.pool(recipe(label_noise=1.0), 0, labels, 4)
    np.testing.assert_array_equal(labels, np.arange(20) % 4)


# ---- errors ----


@pytest.mark.parametrize(
    ("changed", "arguments", "expected"),
    [
        ({}, {"train_images": 31}, "train_images=31"),
        ({}, {"train_images": 20, "validation_images": 11}, "validation_images=11 exceed the 30"),
        ({}, {"validation_images": 30}, "validation_images=30"),
        ({}, {"train_images": -1}, "train_images=-1"),
        ({}, {"validation_images": -1}, "validation_images=-1"),
        ({}, {"seed": -1}, "seed=-1"),
        ({"recipe": "half"}, {}, "'half'"),
        ({"fraction": 0.01}, {}, "no image is left"),
        ({"recipe": "blend", "fraction": 0.01}, {}, "no image is left"),
        ({"fraction": 1.5}, {}, "fraction=1.5"),
        ({"label_noise": -0.1}, {}, "label_noise=-0.1"),
        ({"label_noise": float("nan")}, {}, "label_noise=nan"),
        ({"label_noise": 0.5}, {"labels": np.zeros(30, int), "classes": 1}, "second class"),
        ({"recipe": "split", "splits": 2, "part": 3}, {}, "part=3"),
        ({"recipe": "split", "splits": 2, "part": 0}, {}, "part=0"),
        ({"recipe": "split", "splits": 0, "part": 0}, {}, "splits=0"),
        ({"recipe": "split", "splits": 4, "uniform": 0.9}, {}, "more than the 3 classes"),
        ({"recipe": "split", "splits": 2, "uniform": 1.1}, {}, "uniform=1.1"),
    ],
)
def test_what_cannot_be_done_is_said(changed, arguments, expected):
    arguments = {"seed": 0, "labels": np.arange(30) % 3, "classes": 3} | arguments
    with pytest.raises(ConfigError) as caught:
        subsets.pool(recipe(**changed), **arguments)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


# ---- the random stream ----


@pytest.mark.parametrize(
    ("seed", "indices", "labels", "held_out", "classes", "parts"),
    [
        (0, "0 19 4 18 22 1 23 8 3 16", "0332331333", "9 17 2", "03", "222122111221122121212221"),
        (1, "8 9 16 11 21 0 10 14 13 3", "0123202212", "15 19 18", "01", "112211221122112211211122"),
    ],
)
def test_what_a_seed_draws_stays_what_it_was(seed, indices, labels, held_out, classes, parts):
    """If this fails, NumPy's random stream has changed: no study can be resumed, and seeds draw other images."""

    def text(numbers, between=" "):
        return between.join(map(str, numbers))

    every = np.arange(24) % 4
    drawn = subsets.pool(recipe(fraction=0.5, label_noise=0.5), seed, every, 4, 20, 3)
    assert (text(drawn.indices), text(drawn.labels, "")) == (indices, labels)
    assert text(subsets.held_out(seed, 24, 3)) == held_out
    span = subsets.Span((0, 24), (0, 0), (0, 4))
    assert text(subsets.told_apart(recipe(classes=(0, 2)), seed, span), "") == classes
    assert text(subsets.arrivals(seed, every, 4, 2, 0.5), "") == parts


# ---- some classes, joined data sets, no shuffling ----

SPAN = subsets.Span((40, 140), (10, 60), (4, 14))  # 100 train images, 50 test images and 10 classes among others
LABELS = np.concatenate([np.arange(40) % 4, 4 + np.arange(100) % 10])
TESTS = np.concatenate([np.arange(10) % 4, 4 + np.arange(50) % 10])


@given(seeds, st.integers(1, 9))
def test_ranges_of_classes_share_none_and_leave_none_out(seed, cut):
    low, high = (subsets.told_apart(recipe(classes=each), seed, SPAN) for each in ((0, cut), (cut, 10)))
    assert len(low) == cut and sorted([*low, *high]) == list(range(4, 14))
    assert np.array_equal(low, np.sort(low)) and low.dtype == np.int32


@given(seeds, st.floats(0.1, 1), shares)
def test_images_of_some_classes_keep_the_order_and_the_share_is_of_them(seed, fraction, noise):
    def of(classes, fraction, noise=0.0):
        data = recipe(classes=classes, fraction=fraction, label_noise=noise)
        return subsets.pool(data, seed, LABELS, 14, span=SPAN)

    everything, half = of((), 1.0), of((0, 5), 1.0)
    chosen = subsets.told_apart(recipe(classes=(0, 5)), seed, SPAN)
    kept = everything.indices[np.isin(LABELS[everything.indices], chosen)]
    assert half.indices.tolist() == kept.tolist() and len(kept) == 50
    assert half.labels.tolist() == LABELS[kept].tolist()
    part = of((0, 5), fraction, noise)
    assert part.indices.tolist() == kept[: round(50 * fraction)].tolist()
    assert set(part.labels) <= set(chosen.tolist())  # noisy labels are among these classes too
    wrong = of((0, 5), 1.0, noise)
    assert np.sum(wrong.labels != LABELS[wrong.indices]) == round(50 * noise)


@given(seeds, st.integers(0, 40))
def test_a_member_has_the_images_that_it_has_alone(seed, held):
    data, alone = recipe(fraction=0.5), LABELS[40:] - 4
    joined = subsets.pool(data, seed, LABELS, 14, 0, held, SPAN)
    separate = subsets.pool(data, seed, alone, 10, 0, held)
    assert (joined.indices - 40).tolist() == separate.indices.tolist() and (
        joined.labels - 4
    ).tolist() == separate.labels.tolist()
    validation = subsets.validation(data, seed, LABELS, SPAN, held)
    assert (validation - 40).tolist() == subsets.held_out(seed, 100, held).tolist()


def test_test_images_are_those_of_the_classes():
    whole = subsets.test_images(recipe(), 0, TESTS, SPAN, 0)
    assert whole.tolist() == list(range(10, 60))
    assert subsets.test_images(recipe(), 0, TESTS, SPAN, 20).tolist() == list(range(10, 30))
    some = subsets.test_images(recipe(classes=(3, 5)), 0, TESTS, SPAN, 0)
    assert set(TESTS[some]) == set(subsets.told_apart(recipe(classes=(3, 5)), 0, SPAN)) and len(some) == 10
    few = np.full(60, 4)
    with pytest.raises(ConfigError, match="none of the test images"):
        for cut in range(9):
            subsets.test_images(recipe(classes=(cut, cut + 1)), 0, few, SPAN, 0)


def test_parts_by_class_are_groups_of_the_same_order():
    """The classes (0, 5) of a seed are those of the first of two parts."""
    first = subsets.pool(recipe(recipe="split", splits=2, part=1, uniform=0.0), 0, LABELS[40:] - 4, 10)
    chosen = subsets.told_apart(recipe(classes=(0, 5)), 0, subsets.Span((0, 100), (0, 50), (0, 10)))
    assert set(first.labels) == set(chosen.tolist())
