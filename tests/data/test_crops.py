"""Random parts of images, and images of one size, equal what torchvision makes with pillow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from plasticity_jax.data import batches, crops, resize
from plasticity_jax.data.batches import key
from plasticity_jax.training.inputs import Images

KEY = key(0)
HEIGHT, WIDTH = 40, 30
PICTURES = np.random.default_rng(0).integers(0, 256, (24, HEIGHT, WIDTH, 3), np.uint8)
resized_crop = jax.jit(crops.resized_crop, static_argnums=(2, 3, 4))
parts = jax.jit(crops.parts, static_argnums=(1, 2, 3))


def bilinear(picture, width, height):
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("height, width", [(12, 16), (48, 32)])  # most parts become smaller, or larger
def test_a_part_is_resized_as_by_pillow(height, width):
    resized = np.asarray(resized_crop(KEY, PICTURES, height, width, False))
    assert resized.shape == (24, height, width, 3) and resized.dtype == np.float32
    drawn = np.asarray(parts(jax.random.split(KEY)[0], 24, HEIGHT, WIDTH)).T
    for image, picture, (top, left, rows, columns) in zip(resized, PICTURES, drawn, strict=True):
        expected = bilinear(picture[top : top + rows, left : left + columns], width, height)
        np.testing.assert_allclose(image, expected, atol=1.01)  # pillow rounds twice


def test_half_of_the_parts_are_mirrored_and_none_is_moved():
    plain, flipped = (np.asarray(resized_crop(KEY, PICTURES, 12, 16, flip)) for flip in (False, True))
    mirrored = [np.allclose(a[:, ::-1], b, atol=1e-3) for a, b in zip(plain, flipped, strict=True)]
    same = [np.allclose(a, b, atol=1e-3) for a, b in zip(plain, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True)) and 5 < sum(mirrored) < 19


def test_parts_are_drawn_as_they_should_be():
    """The share of the area and the logarithm of the ratio are uniform, and all positions are equally likely."""
    top, left, rows, columns = np.asarray(parts(KEY, 20_000, 1000, 1000))
    assert np.all((top >= 0) & (left >= 0) & (top + rows <= 1000) & (left + columns <= 1000))
    area, ratio = rows * columns / 1e6, columns / rows
    assert 0.079 < area.min() < 0.082 and 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    small = area < 0.5  # small parts always fit into the image
    assert np.mean(area[small]) == pytest.approx((0.08 + 0.5) / 2, abs=0.005)
    assert np.mean(np.log(ratio[small])) == pytest.approx(0, abs=0.005)
    where = top[rows < 1000] / (1000 - rows[rows < 1000])
    np.testing.assert_allclose(np.histogram(where, 4, (0, 1))[0] / len(where), 0.25, atol=0.02)


def test_a_draw_that_never_lies_inside_takes_the_whole_image():
    top, left, rows, columns = np.asarray(parts(KEY, 400, 2, 400))  # ratios that no part of this image has
    whole = columns == 400
    assert whole.any() and np.all(rows[whole] == 2) and np.all(rows <= 2) and np.all(top + rows <= 2)


def test_images_are_seen_in_the_middle_and_cropped_from_all_of_them():
    data = Images(PICTURES, np.zeros(3, np.float32), np.full(3, 1 / 255, np.float32), side=20)
    assert data.shape == (20, 20, 3)
    indices = jnp.arange(24)
    shown = jax.jit(lambda images, i: images.take(i))(data, indices)
    np.testing.assert_allclose(shown, PICTURES[:, 10:30, 5:25], rtol=1e-5)
    draw = jax.jit(lambda images, i, how: images.augmented(KEY, i, how), static_argnums=2)
    np.testing.assert_array_equal(
        draw(data, indices, "resized_crop"), resized_crop(KEY, jnp.asarray(PICTURES), 20, 20, False)
    )
    plain = jax.jit(batches.augment, static_argnames="flip")(KEY, PICTURES[:, 10:30, 5:25], flip=True)
    np.testing.assert_array_equal(draw(data, indices, "crop_flip"), plain)


@pytest.mark.parametrize("height, width, side", [(40, 60, 20), (61, 40, 20), (10, 14, 20), (20, 20, 20)])
def test_the_shorter_side_is_resized_and_the_longer_one_cut(height, width, side):
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    fitted = resize.fit(picture, side)
    across, down = (side * width // min(height, width), side * height // min(height, width))
    top, left = (down - side) // 2, (across - side) // 2
    np.testing.assert_array_equal(fitted, bilinear(picture, across, down)[top : top + side, left : left + side])
    grey = resize.fit(picture[..., :1], side)
    assert grey.shape == (side, side, 1)
    np.testing.assert_array_equal(grey[..., 0], fitted[..., 0])


def test_runs_side_by_side_draw_as_alone():
    one = functools.partial(crops.resized_crop, height=8, width=8, flip=True)
    keys = jax.random.split(KEY, 2)
    together = jax.jit(jax.vmap(one, (0, None)))(keys, PICTURES[:4])
    for k, images in zip(keys, together, strict=True):
        np.testing.assert_allclose(images, resized_crop(k, PICTURES[:4], 8, 8, True), atol=1e-3)
