"""The gradient is that of the whole batch, however it is split; frozen modules and absent classes have none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.models import parameters
from plasticity_jax.training import gradient
from tests.support.tiny import CONVOLVED, DATASET, IMAGES, MLP, Convolved, changed, first_state, same, stage

N = 24
NORMS = {norm: Convolved(norm) for norm in ("layer", "none")}


take = jax.jit(IMAGES.take)


@functools.cache
def batch(n=N):
    """The first images, on the host, where slicing compiles nothing."""
    return {"image": np.asarray(take(np.arange(n))), "label": DATASET.train_labels[:n]}


@functools.partial(jax.jit, static_argnums=(2, 3))
def compute(state, batch, model, stage, classes=()):
    return gradient.gradient(state, batch, classes, model=model, stage=stage)


def close(a, b, rtol=1e-4):
    """Assert that trees agree, relative to the largest number of each leaf."""
    for path, x in parameters.paths(a).items():
        y = parameters.paths(b)[path]
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * float(np.abs(y).max()) + 1e-9, err_msg=path)


MODELS = [
    MLP,
    pytest.param(NORMS["layer"], marks=pytest.mark.slow),
    pytest.param(NORMS["none"], marks=pytest.mark.long),
]


@pytest.mark.parametrize("model", MODELS, ids=["mlp", *NORMS])
def test_full_batch_gradients_are_equal_whatever_the_micro_batch(model):
    state, all_at_once = first_state(model), stage(batch_size=N)
    expected, sums, _ = compute(state, batch(), model, all_at_once)
    for size in (1, 12, N) if model is MLP else (6,):
        actual, parts, _ = compute(state, batch(), model, changed(all_at_once, micro_batch=size))
        close(actual, expected)
        assert float(parts["loss"]) == pytest.approx(float(sums["loss"]), rel=1e-5)
        assert (float(parts["correct"]), float(parts["count"])) == (float(sums["correct"]), N)


@pytest.mark.parametrize("classes", [(), np.array([True, False, True, True])], ids=["all", "some"])
def test_labels_are_spread_over_the_classes_that_are_told_apart(classes):
    """As torch.nn.CrossEntropyLoss(label_smoothing=0.2) has it among those classes."""
    logits, labels = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32), np.array([0, 2, 3, 0, 2, 3])
    told = np.ones(4, bool) if isinstance(classes, tuple) else classes
    log_p = logits[:, told] - np.log(np.exp(logits[:, told]).sum(-1, keepdims=True))
    target = 0.8 * (labels[:, None] == np.flatnonzero(told)) + 0.2 / told.sum()
    losses = jax.jit(gradient.cross_entropy)(gradient.among(logits, classes), labels, classes, np.float32(0.2))
    np.testing.assert_allclose(losses, -(target * log_p).sum(-1), rtol=1e-5)


def test_smoothed_labels_are_those_of_the_gradient_and_of_its_loss():
    state = first_state(MLP)

    @jax.jit
    def both(smoothing):
        plain = compute(state, batch(), MLP, stage())
        return plain, gradient.gradient(state, batch(), (), model=MLP, stage=stage(), smoothing=smoothing)

    (slope, sums, _), (smooth, smoothed, _) = both(np.float32(0.0))
    close(smooth, slope)
    assert float(smoothed["loss"]) == pytest.approx(float(sums["loss"]))
    (_, sums, _), (smooth, smoothed, _) = both(np.float32(0.3))
    logits = np.asarray(gradient.forward(MLP, state.params, {}, batch()["image"], train=True)[0])
    wanted = jax.jit(gradient.cross_entropy)(logits, batch()["label"], (), np.float32(0.3)).sum()
    assert float(smoothed["loss"]) == pytest.approx(float(wanted), rel=1e-5) != float(sums["loss"])
    assert not same(smooth, slope)


def test_it_is_the_gradient_of_the_mean_loss():
    state, sample = first_state(MLP), batch()

    def loss(params):
        logits, _, _ = gradient.forward(MLP, params, {}, sample["image"], train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, sample["label"]).mean()

    actual, sums, _ = compute(state, sample, MLP, stage())
    value, expected = jax.jit(jax.value_and_grad(loss))(state.params)
    close(actual, expected)
    assert float(sums["loss"]) == pytest.approx(N * float(value), rel=1e-5)


@pytest.mark.slow
def test_ghost_batches_have_statistics_of_their_own_and_move_the_running_ones_once():
    state, sample, size = first_state(CONVOLVED), batch(), 8
    ghost, _, stats = compute(state, sample, CONVOLVED, stage(batch_size=N, micro_batch=size))
    parts = [jax.tree.map(lambda x: x[i : i + size], sample) for i in range(0, N, size)]  # noqa: B023
    by_part = [compute(state, part, CONVOLVED, stage(batch_size=size)) for part in parts]
    mean = functools.partial(jax.tree.map, lambda *leaves: np.mean(leaves, 0))
    close(ghost, mean(*(grads for grads, _, _ in by_part)))
    close(stats, mean(*(after for _, _, after in by_part)))
    whole = compute(state, sample, CONVOLVED, stage(batch_size=N))
    norm = jax.jit(parameters.norm)
    assert not np.allclose(norm(whole[0]), norm(ghost), rtol=1e-3)  # other statistics, another gradient


@pytest.mark.parametrize("micro_batch", [0, 8])
def test_frozen_modules_have_no_gradient_and_no_batch_statistics(micro_batch):
    """Bit for bit: a third of the sum of three equal numbers may be another number."""
    state, sample = first_state(CONVOLVED), batch()
    state = state.replace(stats=jax.tree.map(lambda leaf: leaf + jnp.linspace(0.1, 0.7, leaf.size), state.stats))
    grads, _, stats = compute(state, sample, CONVOLVED, stage(trained=("head",), batch_size=N, micro_batch=micro_batch))
    assert same(stats, state.stats)
    assert all(not np.any(leaf) for path, leaf in parameters.paths(grads).items() if not path.startswith("head/"))

    def loss(head):
        params = {**state.params, "head": head}
        logits, _, _ = gradient.forward(CONVOLVED, params, state.stats, sample["image"], train=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, sample["label"]).mean()

    close(grads["head"], jax.jit(jax.grad(loss))(state.params["head"]))


def test_among_some_classes_the_others_do_not_exist():
    """Loss, accuracy and gradient are those of a head that has these classes only."""
    state, chosen = first_state(MLP), [1, 3]
    labels = np.asarray(DATASET.train_labels)
    rows = np.flatnonzero(np.isin(labels, chosen))[:N]
    sample = {"image": take(rows), "label": labels[rows]}
    mask = np.isin(np.arange(DATASET.classes), chosen)
    actual, sums, _ = compute(state, sample, MLP, stage(classes=(0, 2)), mask)

    def loss(params):
        logits, _, _ = gradient.forward(MLP, params, {}, sample["image"], train=True)
        logits, own = logits[:, jnp.asarray(chosen)], jnp.searchsorted(jnp.asarray(chosen), sample["label"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, own).sum(), jnp.sum(logits.argmax(1) == own)

    (expected, correct), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(state.params)
    assert float(sums["loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert float(sums["correct"]) == float(correct)
    actual, grads = jax.device_get((actual, grads))
    close(actual, jax.tree.map(lambda leaf: leaf / len(rows), grads))
    others = [k for k in range(DATASET.classes) if k not in chosen]
    assert not np.any(actual["head"]["kernel"][:, others]) and not np.any(actual["head"]["bias"][others])
