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


def record(moment):
    """A stage with all remedies of a moment."""
    names = [name for name, its in treated.MOMENT.items() if its == moment]
    return stage(optim=ADAM, remedies=tuple(treated.remedy(name, **EVERY.get(name, {})) for name in names))


def test_names_are_of_one_moment_each():
    found = [name for functions in apply.BY_MOMENT.values() for name in functions]
    assert len(set(found)) == len(found) == len(treated.MOMENT)


def test_without_remedies_there_is_nothing_in_the_state_and_the_row():
    assert first_state(MLP, stage()).remedy == () and task(stage()).remedies == ()


@functools.partial(jax.jit, static_argnums=3)
def side_by_side(states, rows, until, record):
    advance = functools.partial(step.advance, images=IMAGES, model=MLP, stage=record)
    return jax.lax.map(lambda pair: advance(pair[0], (pair[1], until)), (states, rows))


@pytest.mark.parametrize("moment", ["regulariser", "update", "periodic"])
def test_a_run_is_the_same_in_any_company_and_stopped_equals_unbroken(moment):
    """All remedies of a moment on two seeds side by side, beside each other and beside themselves, and with the second
    half of the steps in a call of its own that begins with what a checkpoint holds."""
    found = record(moment)
    rows = [task(found, seed) for seed in (0, 1)]
    first = [first_state(MLP, found, seed) for seed in (0, 1)]

    def train(seeds, until, states=None):
        begun = states or run_axis.stack([first[seed] for seed in seeds])
        return side_by_side(begun, run_axis.stack([rows[seed] for seed in seeds]), until, found)

    both = train((0, 1), STEPS)
    for seed in (0, 1):
        assert same(run_axis.take(train((seed, seed), STEPS), 0), run_axis.take(both, seed))
    halfway = jax.tree.map(np.array, jax.device_get(train((0, 1), STEPS // 2)))
    assert same(train((0, 1), STEPS, halfway), both)
    finite = [np.isfinite(leaf).all() for leaf in jax.tree.leaves(both.params)]
    assert all(finite) and not same(run_axis.take(both, 0).params, first[0].params)


def test_a_memory_is_of_its_remedy_alone():
    assert set(first_state(MLP, record("periodic")).remedy) == set(apply.BY_MOMENT["periodic"])
