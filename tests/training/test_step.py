"""One run: a step gives the recorded numbers, and a stage does not depend on how it is split into calls."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.data import batches as sampling
from plasticity_jax.data import crops
from plasticity_jax.models import parameters
from plasticity_jax.parallel import run_axis
from plasticity_jax.runner import schedule
from plasticity_jax.training import evaluation, gradient, inputs, state
from plasticity_jax.training import step as train
from tests.support import golden
from tests.support.golden import PLAIN, STEPS, batch, norm, step
from tests.support.tiny import (
    CONVOLVED,
    DATASET,
    IMAGES,
    MLP,
    OPTIM,
    PATCH,
    RESNET,
    changed,
    first_state,
    same,
    stage,
    task,
)

LOW = spec.Model("mlp", 1, 8, "cifar", "none", "bfloat16", "relu", 0.0, (), False)


create = jax.jit(state.create, static_argnums=2)


# ---- a golden step ----


def test_golden_step():
    numbers = golden.numbers()
    assert numbers == pytest.approx(golden.NUMBERS, rel=1e-3), (
        "a training step gives other numbers than it used to, so every result of the lab changes.  If that is meant "
        f"(another initialisation, network, loss or key), say so in the commit and write NUMBERS = {numbers}"
    )


# ---- one step ----


def test_step_returns_sums_of_the_network_before_it():
    before, sample = first_state(MLP), batch(16)
    after, sums = step(before, sample, MLP)
    loss, correct = reference(before.params, np.arange(16), DATASET.train_images, DATASET.train_labels)
    assert float(sums["loss"]) == pytest.approx(loss.sum(), rel=1e-5)
    assert (float(sums["correct"]), float(sums["count"])) == (correct.sum(), 16)
    assert after.step == 1


def test_step_follows_the_schedule():
    before = first_state(MLP)
    after = [step(before.replace(step=np.int32(n)), batch(16), MLP, steps=8)[0] for n in (0, 6)]
    moves = [norm(jax.tree.map(np.subtract, *jax.device_get((each.params, before.params)))) for each in after]
    assert moves[1] / moves[0] == pytest.approx(0.25, rel=1e-4)


def test_step_updates_running_statistics():
    before = first_state(RESNET)
    after, _ = step(before, batch(), RESNET)
    mean, new = (np.asarray(each.stats["stem"]["norm"]["mean"]) for each in (before, after))
    convolve = jax.jit(nn.Conv(2, (3, 3), use_bias=False).apply)
    convolved = np.asarray(convolve({"params": before.params["stem"]["conv"]}, batch()["image"]))
    np.testing.assert_allclose(new, 0.9 * mean + 0.1 * convolved.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_low_and_keeps_float32():
    first = first_state(MLP)
    low, adam = models.build(LOW, 4), stage(optim=changed(OPTIM, name="adam"))
    after, sums = step(create(first.params, first.stats, adam), batch(16), low, adam)
    _, full = step(first, batch(16), MLP)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((after, sums))} == {"float32", "int32", "bool"}
    assert float(sums["loss"]) == pytest.approx(float(full["loss"]), rel=0.05)
    assert float(sums["loss"]) != float(full["loss"])


def test_an_own_module_may_return_logits_alone():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, images, train):
            return nn.Dense(4)(images.reshape(len(images), -1))

    before = first_state(Own())
    forward = jax.jit(functools.partial(gradient.forward, Own(), train=True))
    logits, features, stats = forward(before.params, before.stats, batch()["image"])
    assert logits.shape == (8, 4) and features == {} and stats == {}
    assert step(before, batch(), Own())[0].step == 1


def test_the_moving_average_follows_weights_and_statistics():
    record = changed(PLAIN, ema=0.75)
    state = first_state(CONVOLVED, record)
    params, stats = jax.device_get((state.params, state.stats))
    for _ in range(3):
        state, _ = step(state, batch(), CONVOLVED, record)
        now = jax.device_get((state.params, state.stats))
        params, stats = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, (params, stats), now)
    near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(near, state.average, (params, stats))
    plain = first_state(CONVOLVED)
    for _ in range(3):
        plain, _ = step(plain, batch(), CONVOLVED)
    assert same(plain.params, state.params)  # it only observes


@pytest.mark.parametrize(
    "name", ["sgd", "adamw", *(pytest.param(name, marks=pytest.mark.long) for name in ("adam", "rmsprop"))]
)
def test_frozen_modules_stay_to_the_bit_whatever_pulls_at_them(name):
    """Weight decay, momentum, moments of a previous stage, clipping, an average, and means over three micro-batches."""
    rule = changed(OPTIM, name=name, weight_decay=0.1, momentum=0.0 if name.startswith("adam") else 0.9, clip_norm=0.1)
    record = stage(trained=("head",), optim=rule, ema=0.9, batch_size=24, micro_batch=8)
    plain = first_state(CONVOLVED)
    first = jax.device_get(create(plain.params, plain.stats, record))
    kernel = first.params["stem"]["conv"]["kernel"].copy()
    kernel[0, 0, 0, 0] = -0.0
    stats = jax.tree.map(lambda leaf: leaf + np.linspace(0.1, 0.7, leaf.size, dtype=leaf.dtype), first.stats)
    opt = jax.tree.map(lambda leaf: np.asarray(leaf + 3, leaf.dtype), first.opt)
    params = {**first.params, "stem": {**first.params["stem"], "conv": {"kernel": kernel}}}
    before = after = first.replace(params=params, stats=stats, opt=opt, average=(params, stats))
    for _ in range(3):
        after, sums = step(after, batch(24), CONVOLVED, record)
    assert float(sums["gradient_norm"]) > 0.1  # otherwise nothing was clipped
    assert same(after.params["stem"], before.params["stem"]) and same(after.stats, before.stats)
    assert same(after.average[0]["stem"], before.params["stem"]) and same(after.average[1], before.stats)
    moments = [parameters.paths(each.opt) for each in (before, after)]
    assert all(same(leaf, moments[1][path]) for path, leaf in moments[0].items() if "stem" in path)
    for now, then in ((after.params, before.params), (after.average[0], before.params)):
        assert not np.allclose(now["head"]["kernel"], then["head"]["kernel"])


# ---- counting ----


counted = jax.jit(train.count_epoch)


def count(tally=(0.0, 0.0, 0.0, 0.0), loss=8.0, correct=6.0, ends=False, at=3, until=0.0):
    before = first_state(MLP)
    before = before.replace(step=np.int32(at), tally=np.float32(tally), last=np.float32([9.0, 11.0, 5.0, 0.1]))
    values = dict(loss=loss, correct=correct, count=8.0, gradient_norm=1.5, learning_rate=0.2)
    sums = {name: np.float32(value) for name, value in values.items()}
    return counted(before, sums, task(stage(until_accuracy=until), steps=STEPS), np.bool_(ends))


def test_sums_add_up_within_an_epoch():
    after = count(tally=(1.0, 2.0, 16.0, 0.5))
    assert after.tally.tolist() == [9, 8, 24, 2]
    assert after.last.tolist() == [9, 11, 5, np.float32(0.1)]
    assert not after.done and not after.failed


def test_an_epoch_closes_with_loss_and_percent():
    after = count(tally=(1.0, 2.0, 16.0, 0.5), ends=True)
    assert after.tally.tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(after.last, [9 / 24, 100 * 8 / 24, 2.0 / 7, 0.2], rtol=1e-6)  # epochs of 7 steps
    assert not after.done


@pytest.mark.parametrize(
    ("fields", "done"),
    [
        (dict(until=0.75, ends=True), True),  # 6 of 8
        (dict(until=0.76, ends=True), False),
        (dict(until=0.75, ends=False), False),
        (dict(until=0.0, ends=True), False),
        (dict(until=0.1, ends=False, correct=0.0), False),  # 11 % was in the previous epoch
        (dict(at=STEPS - 1), False),
        (dict(at=STEPS), True),
    ],
)
def test_done(fields, done):
    after = count(**fields)
    assert bool(after.done) == done and not after.failed


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ends", [False, True])
def test_a_loss_that_is_not_finite_ends_the_run(loss, ends):
    after = count(loss=loss, ends=ends)
    assert after.done and after.failed


# ---- advancing ----

AUTODECAY = dict(schedule="autodecay", milestones=(0.5,), momentum=0.9)
CASES = {
    "plain": PLAIN,
    "augmented": changed(PLAIN, augment="crop_flip"),
    "replacement": changed(PLAIN, data=changed(PLAIN.data, replacement=True)),
    "blend": changed(PLAIN, data=changed(PLAIN.data, recipe="blend", fraction=0.2)),
    "momentum_cosine": stage(momentum=0.9, schedule="cosine", warmup=0.2),
    "autodecay": stage(**AUTODECAY),
    "micro": stage(micro_batch=4, shuffle=False),
    "frozen": stage(trained=("head",), weight_decay=0.1),
    "ema": stage(ema=0.9),
    "smoothed": stage(label_smoothing=0.1, reference_batch=8, decayed="kernels", weight_decay=0.1),
    "patches": stage(patch=changed(PATCH, share=0.5)),
    "classes": stage(classes=(1, 3)),
    "all at once": stage(
        augment="crop_flip",
        patch=changed(PATCH, share=0.5),
        classes=(1, 3),
        trained=("head",),
        micro_batch=4,
        ema=0.9,
        momentum=0.9,
        weight_decay=0.1,
        schedule="cosine",
        warmup=0.2,
    ),
}
# These share two programs; what each of the others adds to a step is also in `all at once`.
DAILY = ("plain", "replacement", "blend", "autodecay", "all at once")
# The numbers of a recipe are data: stages that differ in them alone share a program, as in a study.
SHARED: dict[tuple, spec.Stage] = {}


def advance(state, task, until, stage):
    return advance_by(state, task, until, SHARED.setdefault(tuple(sorted(stage.shape().items())), stage))


@functools.partial(jax.jit, static_argnums=(3,))
def advance_by(state, task, until, stage):
    return train.advance(state, (task, until), IMAGES, model=MLP, stage=stage)


def train_to(stage, *targets, row=None, start=None):
    """The state after calls that end at each of the targets, one after the other."""
    state, row = start or first_state(MLP, stage), row or task(stage, steps=STEPS)
    for target in targets:
        while state.step < target and not state.done:
            state = advance(state, row, np.int32(target), stage)
    return state


@pytest.mark.parametrize("case", [pytest.param(c, marks=() if c in DAILY else pytest.mark.long) for c in CASES])
def test_result_does_not_depend_on_the_calls(case):
    """Bit for bit; epochs have 7 or 4 steps, so calls end before, at and after the end of one, or skip it."""
    whole = train_to(CASES[case], STEPS)
    assert whole.step == STEPS and whole.done
    assert same(whole, train_to(CASES[case], 3, 7, 10))
    assert same(whole, train_to(CASES[case], 4, 9, 10))
    assert same(whole, train_to(CASES[case], *range(1, STEPS + 1)))


@pytest.mark.parametrize("cases", [DAILY, pytest.param(CASES, marks=pytest.mark.long)], ids=["daily", "all"])
def test_results_of_all_cases_differ(cases):
    ends = [train_to(CASES[case], STEPS).params for case in cases if case != "ema"]
    assert not any(same(a, b) for i, a in enumerate(ends) for b in ends[:i])


permutations = jax.jit(sampling.permutations, static_argnums=2)
augmented = jax.jit(sampling.augment, static_argnames="flip")
resized = jax.jit(crops.resized_crop, static_argnums=(2, 3, 4))


@pytest.mark.parametrize(
    "augment",
    [
        "none",
        pytest.param("crop", marks=pytest.mark.long),
        "crop_flip",
        pytest.param("resized_crop_flip", marks=pytest.mark.slow),
    ],
)
def test_advance_walks_through_the_permuted_pool(augment):
    """The same by hand: steps on batches gathered here, each with its learning rate and its crops."""
    record = changed(PLAIN, augment=augment)
    row = task(record, steps=STEPS)
    order_key, _, augment_key = (jax.random.fold_in(row.key, use) for use in range(3))
    orders = np.asarray(permutations(order_key, 0, 2, row.source))
    mean, std = np.float32(DATASET.mean), np.float32(DATASET.std)
    state, tallies = first_state(MLP), []
    for n in range(STEPS):
        chosen = row.source.indices[np.resize(orders[n // 7][:100], 7 * 16)[n % 7 * 16 :][:16]]
        pixels = DATASET.train_images[chosen]
        if augment != "none":
            draw = jax.random.fold_in(augment_key, n)
            if augment.startswith("resized"):
                pixels = resized(draw, pixels, 8, 8, True)
            else:
                pixels = augmented(draw, pixels, flip=augment == "crop_flip")
        image = (np.asarray(pixels) / np.float32(255) - mean) / std
        state, sums = step(state, {"image": image, "label": DATASET.train_labels[chosen]}, MLP)
        tallies.append([float(sums["loss"]), float(sums["correct"]), 16.0, float(sums["gradient_norm"])])
    trained = train_to(record, STEPS, row=row)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), trained.params, state.params)
    np.testing.assert_allclose(trained.tally, np.sum(tallies[7:], 0), rtol=1e-4)
    loss, correct, n, norm = np.sum(tallies[:7], 0)
    np.testing.assert_allclose(trained.last, [loss / n, 100 * correct / n, norm / 7, 0.1 * (1 - 6 / STEPS)], rtol=1e-4)


def test_labels_are_those_of_the_pool_and_not_of_the_data_set():
    row = task(stage(label_noise=0.5), steps=STEPS)
    assert (row.source.labels[:100] != DATASET.train_labels[row.source.indices[:100]]).sum() == 50
    clean = row._replace(source=row.source._replace(labels=DATASET.train_labels[row.source.indices]))
    assert not same(train_to(PLAIN, 1, row=row).params, train_to(PLAIN, 1, row=clean).params)


def test_the_biased_part_of_a_blend_comes_first():
    """With gamma close to 1 nearly all batches are of the first images: labels of the others have no effect."""
    blend = changed(PLAIN, data=changed(PLAIN.data, recipe="blend", fraction=0.2, gamma=0.99999))
    row = task(blend, steps=1000)
    assert row.source.base == 20
    labels = row.source.labels.copy()
    labels[20:] = (labels[20:] + 1) % 4
    other = row._replace(source=row.source._replace(labels=labels))
    assert same(train_to(blend, 5, row=row), train_to(blend, 5, row=other))


def test_a_call_takes_an_epoch_at_most():
    row = task(PLAIN, steps=100)
    after = advance(first_state(MLP), row, np.int32(50), PLAIN)
    assert after.step == 7
    assert advance(train_to(PLAIN, 3, row=row), row, np.int32(50), PLAIN).step == 10


def test_a_stage_is_not_left_behind():
    assert train_to(PLAIN, 99).step == STEPS
    assert train_to(PLAIN, 99, row=task(PLAIN, steps=5)).step == 5


def test_runs_go_to_their_own_step_and_wait_there():
    """Steps, keys and ends differ; finished runs are unchanged bit for bit while others train."""
    rows = [task(PLAIN, seed, n, steps) for seed, n, steps in [(0, 100, 10), (1, 40, 10), (0, 100, 5), (2, 64, 10)]]
    states = [
        first_state(MLP, seed=0),
        first_state(MLP, seed=1),
        train_to(PLAIN, 5, row=rows[2]),
        first_state(MLP, seed=2),
    ]
    until = np.int32([3, 2, 10, 0])
    over = jax.jit(jax.vmap(functools.partial(train.advance, images=IMAGES, model=MLP, stage=PLAIN)))
    row_of_each = run_axis.stack(rows), until
    after = jax.device_get(over(run_axis.stack_on_host(jax.device_get(states)), row_of_each))
    assert after.step.tolist() == [3, 2, 5, 0]
    assert after.done.tolist() == [False, False, True, False]
    assert same(run_axis.take(after, 2), states[2]) and same(run_axis.take(after, 3), states[3])
    for i in (0, 1):
        alone = advance(states[i], rows[i], until[i], PLAIN)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
            run_axis.take(after, i).params,
            alone.params,
        )


def test_a_run_that_is_done_stays_as_it_is():
    end = train_to(PLAIN, STEPS)
    assert same(advance(end, task(PLAIN, steps=20), np.int32(20), PLAIN), end)


def test_a_failed_run_is_frozen_at_once():
    broken = first_state(MLP).replace(
        params=jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), first_state(MLP).params)
    )
    after = advance(broken, task(PLAIN, steps=STEPS), np.int32(STEPS), PLAIN)
    assert after.step == 1 and after.done and after.failed
    assert same(advance(after, task(PLAIN, steps=STEPS), np.int32(STEPS), PLAIN), after)


def test_a_stage_ends_with_the_epoch_that_reaches_the_accuracy():
    easy = changed(PLAIN, until_accuracy=0.6)
    after = train_to(easy, 140, row=task(easy, steps=140))
    assert after.done and not after.failed
    assert after.step % 7 == 0 and after.step < 140 and after.last[1] >= 60
    before = train_to(PLAIN, int(after.step) - 7, row=task(PLAIN, steps=140))
    assert before.step > 0 and before.last[1] < 60


# ---- evaluating ----


def reference(params, indices, images, labels):
    """Losses and correct predictions of the tiny perceptron, by numpy in float64."""
    x = (images[indices].astype(np.float64) / 255 - DATASET.mean) / DATASET.std
    weights = {name: {key: np.float64(leaf) for key, leaf in layer.items()} for name, layer in params.items()}
    x = np.maximum(x.reshape(len(x), -1) @ weights["layer1"]["kernel"] + weights["layer1"]["bias"], 0)
    logits = x @ weights["head"]["kernel"] + weights["head"]["bias"]
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(x)), labels[indices]]
    return losses, logits.argmax(1) == labels[indices]


evaluate = jax.jit(functools.partial(evaluation.evaluate_batch, images=IMAGES, model=MLP, batch=16))


@pytest.mark.parametrize("size", [1, 7, 16, 33, 100])
def test_evaluation_sums_over_every_image_once(size):
    indices = np.random.default_rng(size).permutation(100)
    source = schedule.plain_source(indices, DATASET.train_labels)._replace(size=np.int32(size))
    state = train_to(PLAIN, STEPS)
    batches = [evaluate(state, source, first) for first in range(0, 112, 16)]  # also beyond the end
    losses, hits = reference(state.params, indices[:size], DATASET.train_images, DATASET.train_labels)
    assert sum(float(b["count"]) for b in batches) == size
    assert sum(float(b["correct"]) for b in batches) == hits.sum()
    assert sum(float(b["loss"]) for b in batches) == pytest.approx(losses.sum(), rel=1e-5)


def test_evaluation_uses_running_statistics():
    source = schedule.plain_source(np.arange(8), DATASET.train_labels)
    run = jax.jit(functools.partial(evaluation.evaluate_batch, images=IMAGES, model=CONVOLVED, batch=8))
    before = first_state(CONVOLVED)
    before = before.replace(stats=jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(1), before.stats))

    @jax.jit
    def expected(params, stats, image, label):
        logits = CONVOLVED.apply({"params": params, "batch_stats": stats}, image, False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    losses = np.asarray(expected(before.params, before.stats, **batch()))
    assert float(run(before, source, 0)["loss"]) == pytest.approx(float(losses.sum()), rel=1e-4)
    assert float(run(first_state(CONVOLVED), source, 0)["loss"]) != pytest.approx(float(losses.sum()), rel=1e-3)


def test_diagnostics_see_the_probe_batch():
    def own(state, batch):
        assert state.params is before.params
        losses = optax.softmax_cross_entropy_with_integer_labels(batch["logits"], batch["label"])
        hidden = jnp.sum(batch["features"]["layer1"]) + jnp.sum(batch["image"])
        return {"loss": losses.sum(), "hidden": hidden, "moved": parameters.norm(batch["initial"])}

    def another(state, batch):
        return {"another": jnp.float32(5.0)}

    before = first_state(MLP)
    probes = {
        split: inputs.Probe(np.arange(first, first + 10), DATASET.train_labels[first : first + 10])
        for split, first in (("train", 10), ("test", 30))
    }
    row = jax.tree.map(np.zeros_like, before.params), probes
    mine = {"own": own, "another": another}
    values = jax.jit(lambda: evaluation.diagnose(before, row, IMAGES, IMAGES, model=MLP, diagnostics=mine))()
    assert set(values) == {f"{split}_{name}" for split in probes for name in ("loss", "hidden", "moved")} | {"another"}
    for split, probe in probes.items():
        losses, _ = reference(before.params, probe.index, DATASET.train_images, DATASET.train_labels)
        assert float(values[f"{split}_loss"]) == pytest.approx(losses.sum(), rel=1e-5)
        assert values[f"{split}_moved"] == 0
    assert values["another"] == 5


def test_diagnostics_see_logits_of_the_classes_of_the_run():
    classes, labels = np.array([True, False, True, False]), np.zeros(2, np.int32)
    probe = inputs.Probe(np.arange(2), labels, classes)
    row = first_state(MLP).params, {"train": probe, "test": probe}
    mine = {"least": lambda state, batch: {"least": batch["logits"].min(axis=0)}}
    values = jax.jit(lambda: evaluation.diagnose(first_state(MLP), row, IMAGES, IMAGES, model=MLP, diagnostics=mine))()
    assert ((values["test_least"] > -1e6) == classes).all()


def test_a_diagnostic_of_the_weights_alone_has_its_own_name():
    """However it accesses its batch: reading all of it counts as using the images."""
    probe = inputs.Probe(np.arange(2), DATASET.train_labels[:2])
    row = first_state(MLP).params, {"train": probe, "test": probe}
    mine = {
        "weights": lambda state, batch: {"weights": parameters.norm(state.params)},
        "moved": lambda state, batch: {"moved": parameters.norm(batch["initial"])},
        "all": lambda state, batch: {"all": dict(batch)["label"].sum()},
        "maybe": lambda state, batch: {"maybe": batch.get("label").sum()},
    }
    values = jax.jit(lambda: evaluation.diagnose(first_state(MLP), row, IMAGES, IMAGES, model=MLP, diagnostics=mine))()
    assert set(values) == {"weights", "moved", "train_all", "test_all", "train_maybe", "test_maybe"}


def test_a_step_of_sam_looks_uphill_on_the_same_batch():
    record = stage(rho=0.2)
    began, shown = first_state(MLP, record), batch(16)
    classes = task(record).source.classes
    slope = jax.jit(lambda s: gradient.gradient(s, shown, classes, model=MLP, stage=record)[0])
    g = slope(began)
    up = jax.tree.map(lambda p, each: p + 0.2 * each / norm(g), began.params, g)
    after, sums = step(began, shown, MLP, record)
    wanted = jax.tree.map(lambda p, each: p - 0.1 * each, began.params, slope(began.replace(params=up)))
    for a, b in zip(jax.tree.leaves(after.params), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert float(sums["gradient_norm"]) == pytest.approx(norm(g), rel=1e-5)
