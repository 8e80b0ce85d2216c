"""Convolutions as matrix products batched over runs equal those of `lax`: values and both gradients."""

import jax
import numpy as np
import pytest
from jax import lax

from plasticity_jax.models import convolution, products

RUNS, BATCH = 2, 3
# (size of the kernel, stride) of the stems, blocks and projections.
KINDS = [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)]
# (side of the maps, channels before and after): down to the smallest maps, those of module 5, and all widths.
MAPS = [(8, 3, 4), (5, 16, 64), (4, 64, 8), (2, 8, 16), (1, 16, 8)]
SAME_ON_BOTH_SIDES = {size: ((size // 2, size // 2),) * 2 for size in (1, 3, 7)}


def examples(size, stride, padding, maps, runs=RUNS):
    """(images, kernel, gradient of the result) for each of the maps."""
    rng = np.random.default_rng(size + 10 * stride)
    drawn = []
    for height, before, after in maps:
        shape = (height, height + height // 3)  # not square, if large enough
        pads = lax.padtype_to_pads(shape, (size, size), (stride, stride), padding) if padding in TEXTS else padding
        out = [(n + sum(pad) - size) // stride + 1 for n, pad in zip(shape, pads, strict=True)]
        sizes = (runs, BATCH, *shape, before), (runs, size, size, before, after), (runs, BATCH, *out, after)
        drawn.append(tuple(rng.standard_normal(each, np.float32) for each in sizes))
    return drawn


TEXTS = ("SAME", "VALID")


def with_gradients(conv, stride, padding):
    """All examples in one program: (result, gradients of images and kernel) of each, for every run."""

    def one(x, kernel, dy):
        options = dict(dimension_numbers=convolution.LAYOUT, precision=lax.Precision.HIGHEST)
        y, pull = jax.vjp(lambda x, kernel: conv(x, kernel, (stride, stride), padding, **options), x, kernel)
        return y, *pull(dy)

    return jax.jit(lambda given: [jax.vmap(one)(*args) for args in given])


def check(stride, padding, given):
    with products.together():
        ours = with_gradients(convolution.conv_general_dilated, stride, padding)(given)
    equal(ours, with_gradients(lax.conv_general_dilated, stride, padding)(given))


def equal(ours, theirs):
    for found, expected in zip(ours, theirs, strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(np.asarray(b)).max()))


@pytest.mark.parametrize("size, stride", KINDS)
def test_values_and_gradients_equal_those_of_lax(size, stride):
    maps = MAPS if size < 7 else [(8, 3, 4), (2, 3, 16)]  # stems only
    padding = SAME_ON_BOTH_SIDES[size]
    check(stride, padding, examples(size, stride, padding, maps))


@pytest.mark.parametrize("padding", [*TEXTS, ((0, 2), (1, 0))], ids=str)
def test_of_all_paddings(padding):
    for stride in (1, 2):
        check(stride, padding, examples(3, stride, padding, [(5, 3, 4)]))


@pytest.mark.parametrize("pads", [((2, 0), (0, 2)), ((3, -1), (0, 2))])
def test_a_map_of_one_pixel_that_the_kernel_misses_or_is_shifted_from(pads):
    check(1, pads, examples(3, 1, pads, [(1, 3, 4)]))


@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2)])
def test_an_accelerator_leaves_out_what_meets_no_image(monkeypatch, size, stride):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    padding = SAME_ON_BOTH_SIDES[size]
    given = [row for side in (1, 2) for row in examples(size, stride, padding, [(side, 3, 4)])]
    ours = with_gradients(convolution.conv_general_dilated, stride, padding)
    assert ours.lower(given[:1]).as_text().count("1x1x3x4xf32") > 0  # one of nine positions of the kernel
    equal(ours(given), with_gradients(lax.conv_general_dilated, stride, padding)(given))


@pytest.mark.parametrize("side", [1, 2, 6])
def test_nothing_is_left_of_the_convolution(side):
    """The compiled program has three matrix products, each over all runs, and no convolution."""
    ((x, kernel, dy),) = examples(3, 1, "SAME", [(side, 3, 4)], runs=5)
    with products.together():
        text = with_gradients(convolution.conv_general_dilated, 1, "SAME").lower([(x, kernel, dy)]).as_text()
    assert "stablehlo.convolution" not in text
    dots = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(dots) == 3 and all("batching_dims = [0] x [0]" in line for line in dots)


@pytest.mark.parametrize("large, times", [(0, 2), (products.LARGE, 1)])
def test_large_patches_are_laid_out_again_for_the_gradient(monkeypatch, large, times):
    monkeypatch.setattr(products, "LARGE", large)
    given = examples(3, 1, "SAME", [(6, 8, 4)])
    with products.together():
        text = with_gradients(convolution.conv_general_dilated, 1, "SAME").lower(given).as_text()
    assert text.count("stablehlo.concatenate") == times
    if times == 2:
        check(1, "SAME", given)


def test_what_is_no_plain_convolution_is_that_of_lax():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((4, 8, 8, 4)), rng.standard_normal((3, 3, 2, 6))
    options = dict(dimension_numbers=convolution.LAYOUT, feature_group_count=2)
    with products.together():
        ours = convolution.conv_general_dilated(x, kernel, (1, 1), "SAME", **options)
    np.testing.assert_array_equal(ours, lax.conv_general_dilated(x, kernel, (1, 1), "SAME", **options))


def test_runs_are_together_inside_only():
    assert not products.are_together()
    with products.together():
        assert products.are_together()
    assert not products.are_together()
