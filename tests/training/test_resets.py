"""A reset changes the modules that it names, and no other bit."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import run_axis
from plasticity_jax.training import hyper, optimizers, resets, state
from tests.support.tiny import MLP, RESET, RESNET, SHAPE, changed, same, stage

ADAM = stage(name="train", optim=changed(stage().optim, name="adam"))
MODULES = ("stem", "module2", "module3", "module4", "module5", "head")
NOTHING = changed(RESET, modules=(), statistics="keep", optimiser="keep")


def noise(tree, seed):
    """Numbers that are never zero or one, and all different."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.uniform(1.5, 2.5, leaf.shape).astype(leaf.dtype), tree)


def shapes(model):
    return jax.eval_shape(lambda: state.create(*state.init_network(model, jax.random.key(0), SHAPE), ADAM))


LIKE = shapes(RESNET)
OLD, FRESH = noise(LIKE, 0), noise(LIKE, 1)
OLD.params["stem"]["conv"]["kernel"][0, 0, 0, 0] = -0.0  # to the bit


def begin(reset, old=OLD, function=None):
    return jax.device_get(begin_by(resets.factors(reset, LIKE), old, function))


@functools.partial(jax.jit, static_argnums=2)  # as in a study: what is reset is data
def begin_by(factors, old, function):
    return resets.begin(old.params, old.stats, old.opt, FRESH.params, FRESH.stats, factors, ADAM, function)


def moved(before, after):
    """The names of the leaves that have changed."""
    old, new = parameters.paths(before), parameters.paths(after)
    assert old.keys() == new.keys()
    return {path for path in old if not same(old[path], new[path])}


def moments(opt):
    """The first and second moments of Adam by parameter, and the counts of their steps."""
    (inner,) = (part for part in jax.tree.leaves(opt, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu"))
    return inner.mu, inner.nu, inner.count


# ---- parameters ----


@pytest.mark.parametrize("modules", [("all",), ("module3",), ("stem", "module2"), ("module5", "head"), ("head",), ()])
@pytest.mark.parametrize(("shrink", "perturb"), [(0.0, 1.0), (0.4, 0.1), (1.0, 0.0), (0.5, 0.0), (1.0, 0.5)])
def test_shrink_old_plus_perturb_fresh(modules, shrink, perturb):
    after = begin(changed(NOTHING, modules=modules, shrink=shrink, perturb=perturb))
    inside = MODULES if modules == ("all",) else modules
    for name in MODULES:
        if name in inside:
            mixed = jax.tree.map(lambda a, b: shrink * a + perturb * b, OLD.params[name], FRESH.params[name])
            jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), after.params[name], mixed)
        else:
            assert same(after.params[name], OLD.params[name]), name
    assert same(after.stats, OLD.stats) and same(after.opt, OLD.opt)


@pytest.mark.parametrize("modules", [("all",), ("module3", "head")])
def test_reinitialised_modules_are_the_fresh_ones_bit_by_bit(modules):
    after = begin(changed(NOTHING, modules=modules))
    for name in MODULES if modules == ("all",) else modules:
        assert same(after.params[name], FRESH.params[name])


def test_a_part_of_a_module():
    after = begin(changed(NOTHING, modules=("module3/block0/conv1", "head/bias")))
    assert moved(OLD.params, after.params) == {"module3/block0/conv1/kernel", "head/bias"}


def test_shrink_0_forgets_what_is_not_finite():
    broken = OLD.replace(params=jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), OLD.params))
    assert same(begin(changed(NOTHING, modules=("all",)), broken).params, FRESH.params)
    after = begin(changed(NOTHING, modules=("head",)), broken)
    assert same(after.params["head"], FRESH.params["head"]) and np.isnan(after.params["stem"]["conv"]["kernel"]).all()


@pytest.mark.parametrize(("name", "nearest"), [("modul3", "module3"), ("module3/block7", "module3/block0")])
def test_unknown_module_names_the_nearest(name, nearest):
    with pytest.raises(ConfigError, match=f"{re.escape(repr(name))} names no parameter.*{nearest}"):
        resets.factors(changed(RESET, modules=("head", name)), LIKE)


# ---- statistics of BatchNorm ----


@pytest.mark.parametrize(
    ("statistics", "modules", "fresh"),
    [
        ("keep", ("all",), ()),
        ("modules", ("module3", "head"), ("module3",)),
        ("modules", ("all",), MODULES[:-1]),
        ("modules", (), ()),
        ("all", ("head",), MODULES[:-1]),
        ("all", (), MODULES[:-1]),
    ],
)
def test_statistics(statistics, modules, fresh):
    after = begin(changed(NOTHING, modules=modules, statistics=statistics))
    for name in MODULES[:-1]:
        assert same(after.stats[name], (FRESH if name in fresh else OLD).stats[name]), name


def test_statistics_of_a_part_follow_the_normalisation_and_not_its_neighbours():
    after = begin(changed(NOTHING, modules=("module3/block0/norm1", "stem/conv"), statistics="modules"))
    assert moved(OLD.stats, after.stats) == {"module3/block0/norm1/mean", "module3/block0/norm1/var"}


# ---- the optimiser ----


@pytest.mark.parametrize(
    ("optimiser", "modules", "zero"),
    [
        ("keep", ("all",), ()),
        ("modules", ("module3", "head"), ("module3", "head")),
        ("modules", (), ()),
        ("all", ("head",), MODULES),
        ("all", (), MODULES),
    ],
)
def test_moments(optimiser, modules, zero):
    after = begin(changed(NOTHING, modules=modules, optimiser=optimiser))
    for old, new in zip(moments(OLD.opt), moments(after.opt), strict=True):
        for name in MODULES:
            expected = jax.tree.map(np.zeros_like, old[name]) if name in zero else old[name]
            assert same(new[name], expected), name


SLOPES = {"a": np.float32([3.0, -1e-3]), "b": np.float32([0.2, -40.0])}
RULES = [
    dict(name="adam"),
    dict(name="adam", b1=0.5, b2=0.99, eps=1e-3),
    dict(name="adamw"),
    dict(name="rmsprop", b2=0.99, momentum=0.9),
    dict(name="sgd", momentum=0.9),
]


@functools.partial(jax.jit, static_argnums=(0, 3))
def moved_on(rule, params, opt, steps):
    """(params, opt) after `steps` steps with a constant gradient, and the params after each."""
    tx = optimizers.optimiser(rule, hyper.hyper(rule), rule.learning_rate)

    def step(carry, _):
        params, opt = carry
        updates, opt = tx.update(SLOPES, opt, params)
        params = optax.apply_updates(params, updates)
        return (params, opt), params

    return jax.lax.scan(step, (params, opt), length=steps)


@pytest.mark.parametrize("fields", RULES, ids=lambda fields: "-".join(map(str, fields.values())))
def test_after_a_long_training_a_reset_parameter_moves_as_with_a_fresh_optimiser(fields):
    record = stage(optim=changed(stage().optim, **fields))
    fresh = state.create(jax.tree.map(jnp.zeros_like, SLOPES), {}, record)
    (params, opt), _ = moved_on(record.optim, fresh.params, fresh.opt, 10_000)
    f = resets.factors(changed(RESET, modules=("a",), optimiser="modules"), fresh)
    after = resets.begin(params, {}, opt, fresh.params, {}, f, record)
    (reset, anew, kept) = (
        moved_on(record.optim, each_params, each_opt, 200)[1]
        for each_params, each_opt in ((after.params, after.opt), (fresh.params, fresh.opt), (params, opt))
    )
    assert same(reset["a"], anew["a"]) and same(reset["b"], kept["b"])
    moves = np.abs(np.diff(reset["a"], axis=0, prepend=0.0)) / record.optim.learning_rate
    if fields["name"].startswith("adam"):
        assert moves.max() <= 1.01


def test_a_module_does_not_take_its_namesake_deeper_in_the_network_along():
    params = {"out": {"kernel": np.ones(2, np.float32)}, "trunk": {"out": {"kernel": np.ones(3, np.float32)}}}
    like = state.create(params, {}, ADAM)
    fresh = moments(resets.factors(changed(RESET, modules=("out",), optimiser="modules"), like).fresh_opt)
    assert fresh == ({"out": {"kernel": True}, "trunk": {"out": {"kernel": False}}},) * 3


# ---- the state ----


def test_a_stage_begins_anew_whatever_was_before():
    after = begin(NOTHING)
    assert after.step == 0 and not after.done and not after.failed
    assert after.tally.tolist() == [0, 0, 0, 0] and np.isnan(after.last).all()


def test_own_reset_is_applied_last_and_sees_the_fresh_state():
    def own(state, fresh):
        head = jax.tree.map(lambda a, b: a + 3 * b, state.params["head"], fresh.params["head"])
        return state.replace(params=state.params | {"head": head})

    after = begin(changed(NOTHING, modules=("head",), function="own"), function=own)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6),
        after.params["head"],
        jax.tree.map(lambda leaf: 4 * leaf, FRESH.params["head"]),
    )
    assert same(after.params["stem"], OLD.params["stem"])


def test_different_resets_side_by_side():
    chosen = [
        changed(RESET, modules=("all",), shrink=0.4, perturb=0.1),
        changed(RESET, modules=("head",), statistics="all", optimiser="modules"),
        NOTHING,
    ]
    like = shapes(MLP)
    olds, news = [noise(like, seed) for seed in (0, 1, 2)], [noise(like, seed) for seed in (3, 4, 5)]
    rows = [
        (old.params, old.stats, old.opt, new.params, new.stats, resets.factors(reset, like))
        for old, new, reset in zip(olds, news, chosen, strict=True)
    ]
    begin = functools.partial(resets.begin, stage=ADAM)
    together = jax.jit(jax.vmap(begin))(*run_axis.stack(rows))
    for i, row in enumerate(rows):
        alone = jax.jit(begin)(*row)
        assert same(run_axis.take(together, i), alone)
    assert same(run_axis.take(together, 2).params, jax.tree.map(jnp.asarray, olds[2].params))
