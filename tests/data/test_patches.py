"""Patches are those of Li, Wei & Ma 2019: z + s v on the image, or z + s 1.75 u v on nothing, in the middle."""

import functools

import jax
import numpy as np
import pytest

from plasticity_jax.data import patches
from tests.support.tiny import PATCH, changed

PUBLISHED = changed(PATCH, share=0.8, size=7, shared=1.25, own=0.1, patterns=1, alone=0.2, stretch=1.75)
CLASSES, N = 10, 400
paste = jax.jit(patches.paste)


@functools.cache
def pasted(patch=PUBLISHED, only=False, key=0):
    """(patches, labels, images before, images after) of N images of 32x32."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(N, 32, 32, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, N)
    flags = patches.carried(patch, 3, N, "train")
    drawn = patches.patches(patch, 3, CLASSES, 3, flags, only)
    slots = np.arange(N)
    after = paste(drawn, jax.random.key(key), slots, slots, images, labels)
    return drawn, labels, images, np.asarray(after)


def inside(images):
    """The 7x7 pixels of the patch, from row and column int(16 - 7/2) = 12 on."""
    return np.asarray(images)[:, 12:19, 12:19]


def outside(images):
    """The images with zeros in place of the patch."""
    copy = np.array(images)
    copy[:, 12:19, 12:19] = 0
    return copy


def scales(drawn, labels, after):
    """The factor of the class's own pattern in each patch, and the largest deviation of the patch from z plus that."""
    v = drawn.own[np.asarray(labels), 0]
    rest = inside(after) - drawn.shared
    scale = np.sum(rest * v, axis=(1, 2, 3)) / np.sum(v * v, axis=(1, 2, 3))
    return scale, np.abs(rest - scale[:, None, None, None] * v).max(axis=(1, 2, 3))


def test_every_patched_image_is_one_of_the_two_kinds():
    drawn, labels, before, after = pasted()
    patched = drawn.flags
    alone = patched & (np.abs(outside(after)).max(axis=(1, 2, 3)) == 0)
    scale, off = scales(drawn, labels, after)
    assert np.all(off[patched] < 1e-6)
    np.testing.assert_allclose(np.abs(scale[patched & ~alone]), 1.0, atol=1e-4)
    np.testing.assert_array_equal(outside(after)[patched & ~alone], outside(before)[patched & ~alone])
    assert np.all(np.abs(scale[alone]) < 1.75) and np.abs(scale[alone]).max() > 1.0
    np.testing.assert_array_equal(np.asarray(after)[~patched], np.asarray(before)[~patched])


def test_shares_signs_and_stretch_are_as_published():
    drawn, labels, _, after = pasted()
    patched = drawn.flags
    alone = patched & (np.abs(outside(after)).max(axis=(1, 2, 3)) == 0)
    scale, _ = scales(drawn, labels, after)
    assert patched.mean() == pytest.approx(0.8, abs=0.06)
    assert alone.sum() / patched.sum() == pytest.approx(0.2, abs=0.06)
    assert (scale[patched] > 0).mean() == pytest.approx(0.5, abs=0.08)
    assert np.abs(scale[alone]).mean() == pytest.approx(1.75 / 2, abs=0.15)  # the mean of a uniform number


def test_patterns_are_as_published():
    drawn = patches.patches(PUBLISHED, 0, 1000, 3, np.ones(1), False)
    assert drawn.shared.shape == (7, 7, 3) and drawn.own.shape == (1000, 1, 7, 7, 3)
    assert drawn.shared.std() == pytest.approx(1.25, rel=0.15)
    assert np.abs(drawn.own).max() <= 0.1 and drawn.own.std() == pytest.approx(0.1 / 3**0.5, rel=0.01)
    assert abs(drawn.own.mean()) < 1e-3


def test_black_images_have_patches_of_both_kinds():
    drawn, labels, _, after = pasted(changed(PUBLISHED, share=1.0), only=True)
    assert np.abs(outside(after)).max() == 0
    scale, off = scales(drawn, labels, after)
    full = np.isclose(np.abs(scale), 1.0, atol=1e-4)
    assert np.all(off < 1e-6) and full.mean() == pytest.approx(0.8, abs=0.06)


def test_a_class_may_have_several_patterns():
    patch = changed(PUBLISHED, share=1.0, patterns=3, alone=0.0)
    drawn, labels, _, after = pasted(patch)
    patterns = drawn.own[np.asarray(labels)]  # [N, 3, 7, 7, 3]
    off = np.abs((inside(after) - drawn.shared)[:, None] ** 2 - patterns**2).max(axis=(2, 3, 4))
    assert np.all(off.min(axis=1) < 1e-6)
    assert np.bincount(off.argmin(axis=1), minlength=3).min() > N / 5


def test_draws_are_new_at_each_step_and_the_same_in_each_evaluation():
    assert not np.array_equal(pasted(key=0)[3], pasted(key=1)[3])
    drawn, labels, images, _ = pasted()
    key, slots = patches.evaluation_key(drawn), np.arange(N)
    first = np.asarray(paste(drawn, key, slots, slots, images, labels))
    half = slots[N // 2 :]
    again = paste(drawn, key, half, half, images[N // 2 :], labels[N // 2 :])
    np.testing.assert_array_equal(first[N // 2 :], again)  # whatever the batches of the evaluation


def test_which_images_are_patched_depends_on_the_seed_and_the_split_alone():
    def carried(seed, split, share=0.8):
        return patches.carried(changed(PUBLISHED, share=share), seed, N, split)

    assert np.array_equal(carried(0, "train"), carried(0, "train"))
    assert not np.array_equal(carried(0, "train"), carried(1, "train"))
    assert not np.array_equal(carried(0, "train"), carried(0, "test"))
    assert np.all(carried(0, "train", 0.9)[carried(0, "train", 0.3)])  # a smaller share is a subset of a larger one


def test_seeds_have_patterns_of_their_own_and_amplitudes_share_them():
    def own(seed, scale):
        return patches.patches(changed(PUBLISHED, own=scale), seed, CLASSES, 3, np.ones(1), False).own

    assert not np.allclose(own(0, 0.1), own(1, 0.1))
    np.testing.assert_allclose(own(0, 0.4), 4 * own(0, 0.1), rtol=1e-5)


@pytest.mark.parametrize("side, size, start", [(32, 7, 12), (8, 3, 2), (8, 8, 0), (9, 2, 3)])
def test_the_patch_is_in_the_middle(side, size, start):
    patch = changed(PUBLISHED, share=1.0, size=size, alone=0.0)
    drawn = patches.patches(patch, 0, CLASSES, 1, np.ones(1, bool), False)
    slots = np.arange(1)
    after = paste(drawn, jax.random.key(0), slots, slots, np.full((1, side, side, 1), 9, np.float32), slots)
    where = np.argwhere(np.asarray(after)[0, :, :, 0] != 9.0)
    assert where.min(axis=0).tolist() == [start, start] and where.max(axis=0).tolist() == [start + size - 1] * 2
