"""Batches are what the recipes say: permutations, independent draws, or a blend, the same from any restart."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.data import batches as sampling

GOLDEN = "ceaba7b915ce6dcfb8c9bbf02ae3478bdf128e1a8fcfec05d94aec8e0be436da"
KEY = sampling.key(0, "stage", "train")


def source(size, padded=0, base=0, gamma=0.0, replacement=False, shuffle=True):
    """A pool of which only the size and shares matter; images and labels are not looked up."""
    nothing = np.zeros(padded or size, np.int32)
    base, gamma = np.int32(base or size), np.float32(gamma)
    return sampling.Source(nothing, nothing, np.int32(size), base, gamma, np.bool_(replacement), np.bool_(shuffle))


permutations = jax.jit(sampling.permutations, static_argnums=2)
augment = jax.jit(sampling.augment, static_argnames=("pad", "flip"))


def walk(source, batch, positions):
    """int32 [positions, batch]: all batches of an epoch."""
    return np.asarray(five(source, batch))[:positions]


@functools.partial(jax.jit, static_argnums=1)
def five(source, batch):
    """int32 [5, batch]: as many batches as the longest epoch has."""
    order = sampling.permutations(KEY, 0, 1, source)[0]
    each = functools.partial(sampling.batch_slots, KEY, order, steps=100, size=batch, source=source)
    return jax.vmap(lambda position: each(step=position, position=position))(jnp.arange(5))


def draws(source, step, steps, k=KEY):
    """int32 [20000]: one large batch of independent draws."""
    return np.asarray(many(k, source, step, steps))


@jax.jit
def many(k, source, step, steps):
    return sampling.batch_slots(k, jnp.arange(source.indices.size), step, steps, 0, 20_000, source)


def counts(slots, size):
    found = np.bincount(np.asarray(slots), minlength=size)
    assert len(found) == size
    return found


def assert_shares(found, expected):
    """Assert that each count is within five standard deviations of the expected one."""
    n, expected = found.sum(), np.asarray(expected)
    assert expected.sum() == pytest.approx(1.0)
    np.testing.assert_array_less(np.abs(found - n * expected), 5 * np.sqrt(n * expected * (1 - expected)) + 1e-9)


# ---- keys ----


def test_keys_differ_by_seed_and_by_every_name():
    names = [(0, "a", "b"), (1, "a", "b"), (0, "b", "a"), (0, "a"), (0, "ab"), (0,)]
    data = {tuple(jax.random.key_data(sampling.key(*name)).tolist()) for name in names}
    assert len(data) == len(names)
    assert (sampling.key(3, "init") == sampling.key(3, "init")).all()


# ---- permutations ----


@given(st.integers(1, 23), st.integers(0, 1000))
def test_orders_are_permutations_of_the_pool(size, epoch):
    order = np.asarray(permutations(KEY, epoch, 3, source(size, padded=23)))
    assert order.shape == (3, 23)
    for row in order:
        assert sorted(row[:size]) == list(range(size))
        assert sorted(row[size:]) == list(range(size, 23))


def test_orders_differ_between_epochs_seeds_and_stages():
    pool = source(50)
    orders = [permutations(KEY, 0, 5, pool)]
    orders += [permutations(sampling.key(*name), 0, 5, pool) for name in [(1, "stage", "train"), (0, "stage", "tune")]]
    assert len({tuple(row) for row in np.concatenate(orders).tolist()}) == 15


def test_without_shuffling_every_epoch_is_the_pool_as_it_is():
    orders = np.asarray(permutations(KEY, 3, 2, source(7, padded=9, shuffle=False)))
    assert orders.tolist() == [list(range(9))] * 2
    batches = np.asarray(walk(source(12, padded=40, shuffle=False), 6, 2))
    assert batches.tolist() == np.arange(12).reshape(2, 6).tolist()


def test_epochs_are_numbered_from_the_start_of_the_stage():
    pool = source(50)
    whole = np.asarray(permutations(KEY, 0, 5, pool))
    np.testing.assert_array_equal(permutations(KEY, 3, 2, pool), whole[3:])


@pytest.mark.parametrize("padded", [31, 200])
def test_order_does_not_depend_on_the_padding(padded):
    alone = np.asarray(permutations(KEY, 0, 2, source(30)))
    np.testing.assert_array_equal(permutations(KEY, 0, 2, source(30, padded))[:, :30], alone)


# ---- batches without replacement ----


def test_an_epoch_shows_every_image_once():
    slots = walk(source(24, padded=40), 6, 4)
    assert sorted(np.ravel(slots)) == list(range(24))


@pytest.mark.parametrize(("size", "batch", "steps"), [(25, 6, 5), (7, 6, 2), (5, 8, 1), (3, 8, 1)])
def test_last_batch_is_filled_up_from_the_beginning(size, batch, steps):
    slots = np.ravel(walk(source(size, padded=40), batch, steps))
    assert sorted(slots[:size]) == list(range(size))
    np.testing.assert_array_equal(slots[size:], np.resize(slots[:size], len(slots))[size:])


# ---- independent draws ----


def test_replacement_is_uniform_and_stays_inside_the_pool():
    drawn = draws(source(20, padded=50, base=3, replacement=True), 0, 100)
    assert_shares(counts(drawn, 20), np.full(20, 1 / 20))
    pairs = counts(np.asarray(drawn).reshape(-1, 2) @ [20, 1], 400)  # neighbours in a batch are independent
    assert_shares(pairs, np.full(400, 1 / 400))


def test_draws_depend_on_the_key_and_the_step_alone():
    pool = source(20, padded=50, replacement=True)
    first = draws(pool, 3, 100)
    np.testing.assert_array_equal(first, draws(pool, 3, 100))
    assert (first != draws(pool, 4, 100)).any()
    assert (first != draws(pool, 3, 100, sampling.key(1, "stage", "train"))).any()


@pytest.mark.parametrize("gamma", [0.5, 0.9])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.02, 0.1, 0.5, 1.0])
def test_blending_is_as_defined(share, gamma):
    """Berariu et al. 2021, appendix A.2: p = 1 - gamma^(50 n/N) of drawing from everything."""
    size, base, steps = 20, 5, 1000
    p = 1 - gamma ** (50 * share)
    drawn = counts(draws(source(size, 50, base, gamma, True), round(share * steps), steps), size)
    assert_shares(drawn, np.where(np.arange(size) < base, (1 - p) / base, 0) + p / size)


def test_blending_starts_with_the_biased_part_alone():
    assert draws(source(20, 50, 5, 0.99, True), 0, 1000).max() == 4


# ---- images ----


def test_normalise():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 2), dtype=np.uint8)
    mean, std = np.float32([0.2, 0.5]), np.float32([0.1, 2.0])
    normalised = jax.jit(sampling.normalise)(images, mean, std)
    assert normalised.dtype == jnp.float32
    np.testing.assert_allclose(normalised, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_augment_crops_the_padded_image_or_its_mirror():
    pad, side = 2, 5
    images = np.random.default_rng(0).normal(size=(400, side, 4, 3)).astype(np.float32)
    cropped = np.asarray(augment(KEY, images, pad=pad))
    assert cropped.shape == images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    crops = {
        (row, column, flip): padded[:, row : row + side, column : column + 4][:, :, :: -1 if flip else 1]
        for row in range(2 * pad + 1)
        for column in range(2 * pad + 1)
        for flip in (False, True)
    }
    matches = [[case for case, crop in crops.items() if (crop[i] == cropped[i]).all()] for i in range(len(images))]
    assert all(len(cases) == 1 for cases in matches)
    cases = np.array([case for (case,) in matches])
    for column, values in ((0, 5), (1, 5), (2, 2)):
        assert_shares(counts(cases[:, column], values), np.full(values, 1 / values))
    assert len({tuple(case) for case in cases.tolist()}) == 50  # all combinations, so the three draws are independent


def test_a_flip_moves_no_crop():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 1), np.uint8)
    cropped, flipped = (np.asarray(augment(KEY, images, flip=flip)) for flip in (False, True))
    same = [(a == b).all() for a, b in zip(cropped, flipped, strict=True)]
    mirrored = [(a[:, ::-1] == b).all() for a, b in zip(cropped, flipped, strict=True)]
    assert all(a != b for a, b in zip(same, mirrored, strict=True)) and 10 < sum(mirrored) < 40


def test_crops_and_flips_stay_what_they_were():
    """The pixels on which published studies were trained."""
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 1), np.uint8)
    found = np.asarray(augment(sampling.key(7, "golden"), images))
    assert hashlib.sha256(found.tobytes()).hexdigest() == GOLDEN


def test_augment_depends_on_the_key_alone():
    images = np.random.default_rng(0).integers(0, 256, (50, 6, 6, 1), np.uint8)
    first = np.asarray(augment(KEY, images))
    np.testing.assert_array_equal(first, augment(KEY, images))
    assert (first != augment(sampling.key(1), images)).any()
