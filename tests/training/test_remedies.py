"""Every remedy: what it leaves unchanged, its results alone and beside others, and after a resume."""

import functools

import jax
import numpy as np
import pytest

from plasticity_jax.parallel import run_axis
from plasticity_jax.training import step
from plasticity_jax.training.remedies import apply
from tests.support import treated
from tests.support.tiny import IMAGES, MLP, OPTIM, RESNET, changed, first_state, same, stage, task

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


@pytest.mark.parametrize(
    "moment", ["update", *(pytest.param(name, marks=pytest.mark.slow) for name in ("regulariser", "periodic"))]
)
def test_a_run_is_the_same_in_any_company_and_stopped_equals_unbroken(moment):
    """All remedies of a moment on two seeds side by side, beside each other and beside themselves, and with the second
    half of the steps in a call of its own that begins with what a checkpoint holds."""
    plan = record(moment)
    rows = [task(plan, seed) for seed in (0, 1)]
    first = [first_state(MLP, plan, seed) for seed in (0, 1)]

    def train(seeds, until, states=None):
        begun = states or run_axis.stack([first[seed] for seed in seeds])
        return side_by_side(begun, run_axis.stack([rows[seed] for seed in seeds]), until, plan)

    both = train((0, 1), STEPS)
    for seed in (0, 1):
        assert same(run_axis.take(train((seed, seed), STEPS), 0), run_axis.take(both, seed))
    halfway = jax.tree.map(np.array, jax.device_get(train((0, 1), STEPS // 2)))
    assert same(train((0, 1), STEPS, halfway), both)
    finite = [np.isfinite(leaf).all() for leaf in jax.tree.leaves(both.params)]
    assert all(finite) and not same(run_axis.take(both, 0).params, first[0].params)


def test_a_memory_is_of_its_remedy_alone():
    assert set(first_state(MLP, record("periodic")).remedy) == set(apply.BY_MOMENT["periodic"])


def test_of_runs_that_are_mapped_at_once_each_is_treated_at_its_own_time():
    """Under `vmap`, what is due for one run is computed for all and applied to that one."""
    record = stage(optim=ADAM, remedies=tuple(treated.remedy(name) for name in ("redo", "shrink_and_perturb")))
    network = treated.network_of(MLP, optim=ADAM)
    now = treated.now_of(MLP, network, {"layer1": np.float32([0, 0, 1, 1, 1, 1, 1, 1])}, at=6)
    periods = [(2, 4), (5, 3), (4, 5)]  # of the two, after six steps: redo, the other, none
    numbers = [apply.rows(record) for _ in periods]
    for (redo, other), (first, second) in zip(periods, numbers, strict=True):
        first["every"], second["every"] = np.int32(redo), np.int32(other)

    def act(numbers):
        return apply.after_step(network, now, numbers, record)

    at_once, one = jax.jit(jax.vmap(act))(run_axis.stack(numbers)), jax.jit(act)
    for row, own_numbers in enumerate(numbers):
        together, alone = run_axis.take(at_once, row), jax.device_get(one(own_numbers))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    silent = [int(np.sum(~np.any(at_once.params["head"]["kernel"][row], -1))) for row in range(3)]
    assert silent == [2, 0, 0] and same(run_axis.take(at_once, 2).params, network.params)
    assert not np.allclose(at_once.params["head"]["kernel"][1], network.params["head"]["kernel"])


@pytest.mark.long
def test_every_remedy_trains_a_residual_network():
    """All at once, in two steps; at the second, every periodic remedy is due."""
    names = [name for name, moment in treated.MOMENT.items() if moment != "start"]
    chosen = tuple(treated.remedy(name, **EVERY.get(name, {})) for name in names)
    plan = stage(optim=ADAM, remedies=chosen, micro_batch=8)
    began = treated.state_of(RESNET, plan)
    after = treated.train(began, task(plan), 2, RESNET, plan)
    assert after.step == 2 and not after.failed
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.params, after.stats, after.remedy)))
    assert all(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (after.params, began.params)), strict=True))
