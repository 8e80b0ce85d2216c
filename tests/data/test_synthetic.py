"""The data set of graded complexity: one block of each image shows its class, by one of several words."""

import numpy as np
import pytest

from plasticity_jax.data import datasets, synthetic

DATA = datasets.load("graded")


def nearest(images, labels):
    """Accuracy per block of one half's labels predicted by the nearest neighbour in the other half."""
    x = images.reshape(len(images), 4, 16).astype(np.float64)
    half, shares = len(x) // 2, []
    for block in range(4):
        reference, asked = x[:half, block], x[half:, block]
        distance = (reference**2).sum(1) + (asked**2).sum(1)[:, None] - 2 * asked @ reference.T
        shares.append(np.mean(labels[:half][distance.argmin(1)] == labels[half:]))
    return shares


def test_it_is_a_data_set_with_a_test_set_for_each_block():
    assert DATA.train_images.shape == (20_000, 4, 16, 1) and DATA.classes == 10
    assert DATA.tests == 2000 and DATA.probes == {
        "bits0": (2000, 4000),
        "bits2": (4000, 6000),
        "bits4": (6000, 8000),
        "bits6": (8000, 10_000),
    }
    assert len(DATA.test_labels) == 10_000


@pytest.mark.parametrize("block, name", [(0, "bits0"), (1, "bits2"), (2, "bits4"), (3, "bits6")])
def test_one_block_shows_the_class_and_the_others_do_not(block, name):
    first, last = DATA.probes[name]
    shares = nearest(DATA.test_images[first:last], DATA.test_labels[first:last])
    assert shares[block] > (0.99 if block < 3 else 0.8)  # a thousand examples lack some words of the last block
    assert all(share < 0.2 for other, share in enumerate(shares) if other != block)


def test_a_class_has_as_many_words_as_its_block_says():
    words = {}
    for block, count in enumerate(synthetic.WORDS):
        first, last = list(DATA.probes.values())[block]
        chosen = DATA.test_images[first:last, block, :, 0][DATA.test_labels[first:last] == 3].astype(int)
        distinct = []
        for row in chosen:  # noise is a tenth of the difference between words
            if all(np.abs(row - each).mean() > 12 for each in distinct):
                distinct.append(row)
        words[count] = len(distinct)
    assert [words[count] for count in (1, 4, 16)] == [1, 4, 16] and 55 <= words[64] <= 64


def test_classes_and_blocks_are_balanced_and_it_is_always_the_same():
    assert np.bincount(DATA.train_labels).tolist() == [2000] * 10
    again, _ = synthetic.images()
    assert np.array_equal(again[0], DATA.train_images[..., :]) and np.array_equal(again[3], DATA.test_labels)
