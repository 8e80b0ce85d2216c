"""The images that steps use are known before training, for every way in which batches are drawn."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.training import step as train
from plasticity_jax.training.ahead import Ahead
from tests.support import treated
from tests.support.tiny import IMAGES, MLP, first_state, same, stage, task

REMEDIES = (treated.remedy("redo"),)  # which use further images
EPOCHS = {"shuffled": {}, "in order": {"shuffle": False}}
DRAWN = {
    "replacement": {"replacement": True},
    "blend": {"recipe": "blend", "fraction": 0.3, "gamma": 0.5},
    "remedies": {"remedies": REMEDIES},
}
CASES = EPOCHS | DRAWN


@functools.partial(jax.jit, static_argnums=(3,))
def advance(state, row, images, stage):
    return train.advance(state, row, images, model=MLP, stage=stage)


@pytest.mark.parametrize("name", CASES)
@given(first=st.integers(0, 9), count=st.integers(1, 8), seed=st.integers(0, 3))
def test_an_image_that_is_not_looked_at_may_be_any_other(name, first, count, seed):
    """And in an epoch, any other image changes the result."""
    chosen = stage(batch_size=8, **CASES[name])
    shared = stage(batch_size=8, remedies=chosen.remedies)  # what is compiled
    row, last = task(chosen, seed, n=60, steps=10), np.int32(min(10, first + count))
    looked = Ahead(row, chosen).looked_at(first, first + count)
    assert set(looked) <= set(row.source.indices[:60])
    start, images = first_state(MLP, shared).replace(step=np.int32(first)), np.asarray(IMAGES.images)
    blank = np.full_like(images, 255)
    blank[looked] = images[looked]
    whole = advance(start, (row, last), IMAGES, shared)
    assert same(whole, advance(start, (row, last), IMAGES.replace(images=blank), shared))
    if name in EPOCHS:
        assert len(looked) <= (last - first) * 8
        blank[looked[seed]] = 255
        assert not same(whole, advance(start, (row, last), IMAGES.replace(images=blank), shared))


def test_a_window_is_looked_up_by_the_indices_of_the_data_set():
    chosen = np.array([7, 3, 30])
    where = np.zeros(len(IMAGES.images), np.int32)
    where[chosen] = np.arange(3)
    window = IMAGES.replace(images=IMAGES.images[chosen], where=where)
    for index in (np.array([3, 30, 3, 7]), np.array([30])):
        for look_up in (lambda images: images.seen(index), lambda images: images.take(index)):  # noqa: B023
            np.testing.assert_array_equal(look_up(window), look_up(IMAGES))
