"""Each optimiser does what its paper (or PyTorch) says, for learning rates that change and differ between runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import run_axis
from plasticity_jax.training import hyper, optimizers, schedules
from tests.support.tiny import OPTIM, changed, same, stage

PARAMS = {"a": np.float32([1.0, -2.0, 0.5]), "b": np.float32([[0.3, 3.0], [-0.1, 0.0]])}
GRADS = [{"a": np.float32([t, 1e-3, -0.3]), "b": np.float32([[4.0, -t], [0.2, 1e-5]])} for t in (1.0, -0.5, 2.0)]
SHARES = (1.0, 0.5, 0.7)  # the factors of a schedule in the three steps

SPECS = {
    "sgd": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "sgd_l2": {"momentum": 0.8, "weight_decay": 0.1},
    "clipped": {"clip_norm": 1.5},
    "clipped_not_the_decay": {"clip_norm": 1e-3, "weight_decay": 0.5},
    "short_enough": {"clip_norm": 100.0},
    "adam": {"name": "adam"},
    "adam_l2": {"name": "adam", "weight_decay": 0.1, "b1": 0.8, "b2": 0.95},
    "adam_large_eps": {"name": "adam", "eps": 0.3},
    "adamw": {"name": "adamw", "weight_decay": 0.1},
    "adamw_clipped": {"name": "adamw", "weight_decay": 0.1, "clip_norm": 1.0, "eps": 0.1},
    "sgd_kernels": {"momentum": 0.8, "weight_decay": 0.1, "decayed": "kernels"},
    "adamw_kernels": {"name": "adamw", "weight_decay": 0.1, "decayed": "kernels"},
    "rmsprop": {"name": "rmsprop", "b2": 0.99},
    "rmsprop_large_eps": {"name": "rmsprop", "b2": 0.9, "eps": 0.3},
    "rmsprop_momentum_l2": {"name": "rmsprop", "b2": 0.99, "momentum": 0.9, "weight_decay": 0.1},
}


def reference(spec, x, grads, rates):
    """The optimiser on one flat vector in float64, written from PyTorch's documentation."""
    x, m, v = x.astype(np.float64), 0.0, 0.0
    kernel = flat({name: np.full(leaf.shape, leaf.ndim > 1) for name, leaf in PARAMS.items()})  # as `b` is, and not `a`
    decay = spec.weight_decay * (kernel if spec.decayed == "kernels" else 1)
    for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
        if spec.clip_norm:
            g = g * min(1.0, spec.clip_norm / np.linalg.norm(g))
        if spec.name != "adamw":
            g = g + decay * x
        if spec.name == "sgd":
            m = spec.momentum * m + g
            step = g + spec.momentum * m if spec.nesterov else m
        elif spec.name == "rmsprop":
            v = spec.b2 * v + (1 - spec.b2) * g**2
            step = m = spec.momentum * m + g / (np.sqrt(v) + spec.eps)
        else:
            m, v = spec.b1 * m + (1 - spec.b1) * g, spec.b2 * v + (1 - spec.b2) * g**2
            step = m / (1 - spec.b1**t) / (np.sqrt(v / (1 - spec.b2**t)) + spec.eps)
            step = step + (decay * x if spec.name == "adamw" else 0.0)
        x = x - rate * step
    return x


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def train(spec, h):
    """Three steps of the optimiser under test."""
    params, opt = PARAMS, optimizers.optimiser(spec, h, h.learning_rate).init(PARAMS)
    for grads, share in zip(GRADS, SHARES, strict=True):
        tx = optimizers.optimiser(spec, h, h.learning_rate * share)
        updates, opt = tx.update(grads, opt, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize("fields", SPECS.values(), ids=SPECS)
def test_three_steps(fields):
    spec = changed(OPTIM, **fields)
    params = jax.jit(lambda h: train(spec, h))(hyper.hyper(spec))
    expected = reference(spec, flat(PARAMS), [flat(g) for g in GRADS], [spec.learning_rate * s for s in SHARES])
    np.testing.assert_allclose(flat(params), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in optimizers.OPTIMISERS if name != "muon"])  # it is tested below
def test_runs_with_their_own_numbers_share_a_program(name):
    base = changed(OPTIM, name=name, momentum=0.5, b2=0.99, weight_decay=0.1, clip_norm=1.0)
    specs = [base, changed(base, learning_rate=0.01, momentum=0.9), changed(base, weight_decay=0.0, clip_norm=3.0)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(hyper.hyper, specs))
    together = jax.jit(jax.vmap(lambda h: train(base, h)))(stacked)
    for i, spec in enumerate(specs):
        alone = reference(spec, flat(PARAMS), [flat(g) for g in GRADS], [spec.learning_rate * s for s in SHARES])
        np.testing.assert_allclose(flat(run_axis.take(together, i)), alone, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", optimizers.OPTIMISERS)
def test_state_does_not_depend_on_the_numbers(name):
    spec = changed(OPTIM, name=name, momentum=0.5, clip_norm=1.0)
    other = changed(spec, learning_rate=7.0, momentum=0.9, b1=0.1, b2=0.2, eps=0.3, weight_decay=0.4, clip_norm=5.0)
    other = changed(other, decayed="kernels", reference_batch=7)  # nor have these any effect
    states = [optimizers.optimiser(s, hyper.hyper(s), s.learning_rate).init(PARAMS) for s in (spec, other)]
    assert same(*states)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_has_the_bits_of_optax(name):
    spec = changed(OPTIM, name=name, weight_decay=0.1 if name == "adamw" else 0.0)

    def steps(tx):
        params, opt = PARAMS, tx.init(PARAMS)
        for grads in GRADS:
            updates, opt = tx.update(grads, opt, params)
            params = optax.apply_updates(params, updates)
        return params

    def theirs(h):
        more = {"weight_decay": h.weight_decay} if name == "adamw" else {}
        return steps(getattr(optax, name)(h.learning_rate, h.b1, h.b2, h.eps, **more))

    ours = jax.jit(lambda h: steps(optimizers.optimiser(spec, h, h.learning_rate)))
    assert same(ours(hyper.hyper(spec)), jax.jit(theirs)(hyper.hyper(spec)))


NET = {
    "hidden": {"kernel": np.float32([[1, 2, -1], [0.5, 0, 3]]), "bias": np.float32([1, 2, 3])},
    "stem": {"kernel": np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)},
    "head": {"kernel": np.float32([[1, -1], [2, 0.5], [0, 1]]), "bias": np.float32([0.1, 0.2])},
}
SLOPES = [jax.tree.map(lambda leaf, t=t: np.cos(leaf + t).astype(np.float32), NET) for t in range(3)]


def test_muon_is_that_of_optax():
    spec = changed(OPTIM, name="muon", momentum=0.9, weight_decay=0.1, learning_rate=0.02)
    matrix = {
        2: optax.contrib.MuonDimensionNumbers((0,), 1),
        4: optax.contrib.MuonDimensionNumbers((0, 1, 2), 3),
    }
    numbers = jax.tree.map(lambda leaf: matrix.get(leaf.ndim), NET) | {"head": {"kernel": None, "bias": None}}
    theirs = optax.contrib.muon(
        0.02,
        beta=0.9,
        weight_decay=0.1,
        adam_weight_decay=0.1,
        muon_weight_dimension_numbers=numbers,
        consistent_rms=0.2,
    )

    @jax.jit
    def train(h):
        states = []
        for tx in (optimizers.optimiser(spec, h, h.learning_rate), theirs):
            params, opt = NET, tx.init(NET)
            for grads in SLOPES:
                updates, opt = tx.update(grads, opt, params)
                params = optax.apply_updates(params, updates)
            states.append((params, opt))
        return states

    (ours, opt), (wanted, _) = train(hyper.hyper(spec))
    np.testing.assert_allclose(flat(ours), flat(wanted), rtol=1e-5, atol=1e-6)
    update = flat(ours["hidden"]["kernel"]) - flat(NET["hidden"]["kernel"])
    assert np.all(np.abs(update) > 1e-3) and np.any(flat(ours["head"]) != flat(NET["head"]))
    chosen = optimizers.of_parameters(opt, parameters.select(NET, ("stem",)))
    moments = [leaf for leaf, hit in zip(jax.tree.leaves(opt), jax.tree.leaves(chosen), strict=True) if hit]
    assert [leaf.shape for leaf in moments if leaf.ndim] == 3 * [(3, 3, 2, 4)]  # of Muon, and two of AdamW


def test_muon_decays_all_or_kernels():
    """With `kernels`, biases move as without any decay."""

    @jax.jit
    def step(h, none):
        updates = []
        for decayed, numbers in (("all", h), ("kernels", h), ("all", none)):
            rule = optimizers.optimiser(changed(OPTIM, name="muon", decayed=decayed), numbers, 0.02)
            updates.append(rule.update(SLOPES[0], rule.init(NET), NET)[0])
        return updates

    h = hyper.hyper(changed(OPTIM, momentum=0.9, weight_decay=0.1))
    everything, kernels, nothing = step(h, h._replace(weight_decay=np.float32(0)))
    for module, name in (("hidden", "kernel"), ("stem", "kernel"), ("head", "kernel")):
        np.testing.assert_allclose(kernels[module][name], everything[module][name], atol=1e-6)
        assert not np.allclose(kernels[module][name], nothing[module][name], atol=1e-5)
    for module in ("hidden", "head"):
        np.testing.assert_array_equal(kernels[module]["bias"], nothing[module]["bias"])


@pytest.mark.parametrize(("reference", "batch", "rate"), [(0, 16, 0.1), (256, 16, 0.1 / 16), (256, 512, 0.2)])
def test_the_rate_grows_with_the_batch_where_a_reference_is_given(reference, batch, rate):
    record = stage(batch_size=batch, reference_batch=reference)
    assert record.optim.learning_rate == 0.1
    assert same(hyper.of_stage(record), hyper.hyper(record.optim)._replace(learning_rate=np.asarray(rate, np.float32)))


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_sam_steps_by_the_gradient_uphill(name):
    """Of a quadratic with known gradients, against the formula and optax's; the weight decay is in the last step."""
    fields = {"momentum": {"momentum": 0.9, "weight_decay": 0.1}, "adam": {"name": "adam"}}[name]
    spec, plain = (changed(OPTIM, rho=rho, **fields) for rho in (0.3, 0.0))
    slope = lambda params, _=0: jax.tree.map(lambda leaf: 2.0 * leaf + 1.0, params)  # noqa: E731

    @jax.jit
    def train(h):
        one, other, ours, opt = PARAMS, PARAMS, None, None
        rule = optimizers.optimiser(plain, h, h.learning_rate)
        for _ in range(3):
            tx = optimizers.optimiser(spec, h, h.learning_rate)
            ours, opt = (tx.init(one), rule.init(other)) if ours is None else (ours, opt)
            updates, ours = tx.update(slope(one), ours, one, grad_fn=slope)
            one = optax.apply_updates(one, updates)
            way = optax.tree.scale(h.rho / optax.tree.norm(slope(other)), slope(other))
            up = optax.tree.add(other, way)
            updates, opt = rule.update(slope(up), opt, other)
            other = optax.apply_updates(other, updates)
        return one, other

    one, other = train(hyper.hyper(spec))
    np.testing.assert_allclose(flat(one), flat(other), rtol=1e-5, atol=1e-6)
    assert not np.allclose(flat(one), flat(train(hyper.hyper(plain))[0]))


def test_numbers_are_float32():
    h = hyper.hyper(changed(OPTIM, milestones=(0.25, 0.5)))
    assert {leaf.dtype for leaf in h} == {np.dtype(np.float32)}
    assert h.milestones.shape == (2,)
    assert {leaf.shape for leaf in h._replace(milestones=h.decay)} == {()}


@pytest.mark.parametrize(
    ("schedule", "fields", "points"),
    [
        ("constant", {}, {0.0: 1, 0.5: 1, 0.99: 1}),
        ("constant", {"warmup": 0.2}, {0.0: 0, 0.05: 0.25, 0.1: 0.5, 0.2: 1, 0.7: 1}),
        ("step", {}, {0.0: 1, 0.99: 1}),
        ("step", {"milestones": (0.5, 0.75)}, {0.0: 1, 0.49: 1, 0.5: 0.1, 0.74: 0.1, 0.75: 0.01, 0.99: 0.01}),
        ("step", {"milestones": (0.5,), "warmup": 0.8}, {0.4: 0.5, 0.6: 0.075}),
        ("cosine", {"decay": 0.0}, {0.0: 1, 0.25: 0.5 + 0.5**1.5, 0.5: 0.5, 1.0: 0}),
        ("cosine", {"decay": 0.2}, {0.0: 1, 0.5: 0.6, 1.0: 0.2}),
        ("cosine", {"decay": 0.0, "warmup": 0.2}, {0.0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1.0: 0}),
        ("linear", {"decay": 0.0}, {0.0: 1, 0.25: 0.75, 1.0: 0}),
        ("linear", {"decay": 0.5, "warmup": 0.5}, {0.25: 0.5, 0.5: 1, 0.75: 0.75, 1.0: 0.5}),
        ("linear", {"warmup": 1.0}, {0.0: 0, 0.5: 0.5}),
    ],
)
def test_schedule(schedule, fields, points):
    h = hyper.hyper(changed(OPTIM, schedule=schedule, **fields))
    found = {done: float(schedules.multiplier(schedule, h, jnp.float32(done))) for done in points}
    assert found == pytest.approx(points, abs=1e-6)


def test_unknown_names():
    h = hyper.hyper(OPTIM)
    with pytest.raises(ConfigError, match="optim.name='sdg'.*sgd"):
        optimizers.optimiser(changed(OPTIM, name="sdg"), h, 0.1)
    with pytest.raises(ConfigError, match="optim.schedule='cosin'.*cosine"):
        schedules.multiplier("cosin", h, 0.1)


def test_counts_of_single_weights_correct_as_one_count_does():
    """And a stage can resume from states with or without them."""
    spec = changed(OPTIM, name="adam")
    rule = optimizers.optimiser(spec, hyper.hyper(spec), 0.1)
    plain, state = rule.init(PARAMS), optimizers.count_by_weight(rule.init(PARAMS), PARAMS)
    for grads in GRADS:
        (one, plain), (other, state) = rule.update(grads, plain, PARAMS), rule.update(grads, state, PARAMS)
        np.testing.assert_allclose(flat(one), flat(other), rtol=1e-4)
    wide, narrow = (jax.tree.map(np.asarray, tree) for tree in (state, plain))
    assert same(optimizers.counted_like(narrow, wide), wide) and same(optimizers.counted_like(wide, narrow), narrow)
