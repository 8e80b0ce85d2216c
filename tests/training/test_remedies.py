"""Every remedy: what it leaves alone, alone and in company, and stopped and gone on."""

import functools

import jax
import numpy as np
import pytest

from plasticity_jax.parallel import run_axis
from plasticity_jax.training import step
from plasticity_jax.training.remedies import apply
from tests.support import treated
from tests.support.tiny import IMAGES, MLP, OPTIM, changed, first_state, same, stage, task

ADAM = changed(OPTIM, name="adam", learning_rate=0.01)
STEPS = 6
EVERY = {name: {"every": 2} for name, moment in treated.MOMENT.items() if moment == "periodic"}
NAMES = [name for name, moment in treated.MOMENT.items() if moment != "start"]


def record(name, **numbers):
    return stage(optim=ADAM, remedies=(treated.remedy(name, **EVERY.get(name, {}) | numbers),))


def test_names_are_of_one_moment_each():
    found = [name for functions in apply.BY_MOMENT.values() for name in functions]
    assert len(set(found)) == len(found) == len(treated.MOMENT)


def test_without_remedies_there_is_nothing_in_the_state_and_the_row():
    assert first_state(MLP, stage()).remedy == () and task(stage()).remedies == ()


@functools.partial(jax.jit, static_argnums=3)
def side_by_side(states, rows, until, record):
    advance = functools.partial(step.advance, images=IMAGES, model=MLP, stage=record)
    return jax.lax.map(lambda pair: advance(pair[0], (pair[1], until)), (states, rows))


@pytest.mark.parametrize("name", NAMES)
def test_alone_equals_company_and_stopped_equals_unbroken(name):
    """Of two seeds side by side each is as alone, with the second half of the steps in a call of its own."""
    found = record(name)
    rows = [task(found, seed) for seed in (0, 1)]
    first = run_axis.stack([first_state(MLP, found, seed) for seed in (0, 1)])
    both = side_by_side(first, run_axis.stack(rows), STEPS, found)
    halfway = side_by_side(first, run_axis.stack(rows), STEPS // 2, found)
    restored = jax.tree.map(np.array, jax.device_get(halfway))
    assert same(side_by_side(restored, run_axis.stack(rows), STEPS, found), both)
    for seed in (0, 1):
        alone = side_by_side(
            jax.tree.map(lambda leaf: leaf[None], first_state(MLP, found, seed)),
            jax.tree.map(lambda leaf: leaf[None], rows[seed]),
            STEPS,
            found,
        )
        assert same(run_axis.take(alone, 0).params, run_axis.take(both, seed).params)
