"""AutoDecay is step decay whose stages may end early: on curves with known ends, alone and on the run axis."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.runner import schedule
from plasticity_jax.training import autodecay, detectors
from plasticity_jax.training.detectors import Detector

LONGEST = 30  # epochs of a learning stage
WINDOW = detectors.window(3, rtol=1e-3, atol=0.0)
LEVELS = (1.0, 0.4, 0.1)  # the loss at which each learning stage becomes constant
SPEAKS = Detector(
    lambda: jnp.int32(0), lambda state, value, due=True: (state, due & (value > 0)), lambda state: state, "x"
)


def train(detector, rests, noise=0.0, seed=0, longest=LONGEST, end_last=True):
    """Learning stages whose loss falls linearly and is constant after `rests` epochs; the epoch at which each ended."""
    draws = np.random.default_rng(seed).normal(size=len(LEVELS) * longest)
    clock, step = trained(detector, longest, np.asarray(rests), np.float32(noise * draws), end_last)
    return np.asarray(clock.ends), int(step), int(clock.skipped)


@functools.partial(jax.jit, static_argnums=(0, 1))
def trained(detector, longest, rests, noise, end_last):
    """The clock and the number of epochs."""
    levels, starts = jnp.asarray((2.3, *LEVELS)), longest * jnp.arange(1, len(LEVELS))

    def epoch(carry, draw):
        clock, step, age = carry
        time = step + clock.skipped
        stage = jnp.sum(time >= starts)
        fallen = jnp.minimum((age + 1) / rests[stage], 1.0)
        loss = levels[stage] + (levels[stage + 1] - levels[stage]) * fallen
        noisy = loss * (1 + draw)
        new = autodecay.tick(clock, step + 1, starts, len(LEVELS) * longest, detector, noisy, True, end_last)
        age = jnp.where(jnp.sum(step + 1 + new.skipped >= starts) > stage, 0, age + 1)
        over = time >= len(LEVELS) * longest
        return jax.tree.map(lambda a, b: jnp.where(over, b, a), (new, step + 1, age), carry), None

    first = autodecay.start(detector, len(LEVELS)), jnp.int32(0), jnp.int32(0)
    (clock, step, _), _ = jax.lax.scan(epoch, first, noise)
    return clock, step


tick = jax.jit(autodecay.tick, static_argnums=4)


@pytest.mark.parametrize("rests", [(5, 9, 3), (12, 2, 20), (1, 1, 1)])
def test_stages_end_a_window_after_their_loss_has_come_to_rest(rests):
    ends, steps, skipped = train(WINDOW, rests)
    lengths = np.diff(ends, prepend=0)
    assert np.all(lengths >= rests) and np.all(lengths <= np.asarray(rests) + 6)
    assert ends[-1] == steps and steps + skipped == 3 * LONGEST


@pytest.mark.parametrize("detector", [detectors.window(3, rtol=0.02), detectors.plateau(2, 0.02)])
def test_noise_of_a_percent_is_no_end(detector):
    for seed in range(10):
        ends, _, _ = train(detector, (15, 15, 15), noise=0.005, seed=seed)
        lengths = np.diff(ends, prepend=0)
        assert np.all(lengths > 12) and np.all(lengths <= 24)


def test_each_run_has_a_clock_of_its_own_and_keeps_it_in_company():
    rests, detector = np.asarray([(5, 9, 3), (12, 2, 20), (30, 30, 30), (1, 1, 1)]), WINDOW

    def run(rests):
        starts = LONGEST * jnp.arange(1, 3)

        def epoch(carry):
            clock, step, age = carry
            stage = jnp.sum(step + clock.skipped >= starts)
            loss = 3.0 - stage - jnp.minimum((age + 1) / rests[stage], 1.0)
            new = autodecay.tick(clock, step + 1, starts, 3 * LONGEST, detector, loss)
            moved = jnp.sum(step + 1 + new.skipped >= starts) > stage
            return new, step + 1, jnp.where(moved, 0, age + 1)

        first = autodecay.start(detector, 3), jnp.int32(0), jnp.int32(0)
        clock, _, _ = jax.lax.while_loop(lambda c: c[1] + c[0].skipped < 3 * LONGEST, epoch, first)
        return clock.ends

    by_itself = jax.jit(run)
    alone = np.stack([by_itself(row) for row in rests])
    assert len({tuple(row) for row in alone}) == len(rests)
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(rests), alone)
    np.testing.assert_array_equal(jax.jit(functools.partial(jax.lax.map, run))(rests), alone)


def test_a_stage_that_never_rests_ends_where_step_decay_ends_it():
    ends, steps, skipped = train(detectors.window(3, rtol=0.0, atol=0.0), (100, 100, 100))
    assert ends.tolist() == [30, 60, 90] and (steps, skipped) == (90, 0)


def test_the_last_stage_may_be_kept():
    free, kept = (train(WINDOW, (5, 5, 5), end_last=last) for last in (True, False))
    np.testing.assert_array_equal(free[0][:2], kept[0][:2])
    assert kept[0][2] - kept[0][1] == LONGEST > free[0][2] - free[0][1]


def test_a_detector_starts_anew_where_a_stage_ends_by_its_length():
    detector = detectors.window(3, rtol=0.0, atol=0.0)
    clock, starts = autodecay.start(detector, 2), np.asarray([5])
    for step in range(1, 6):
        clock = tick(clock, np.int32(step), starts, 10, detector, 1.0 / step)
    assert int(clock.detector.seen) == 0 and clock.ends.tolist() == [5, 0]


plans = st.lists(st.integers(1, 6), min_size=1, max_size=4)


@given(plans, st.lists(st.booleans(), min_size=24, max_size=24))
def test_whatever_a_detector_says_the_plan_is_kept(lengths, says):
    """Stages are in order, none is longer than planned, and each ends when the detector says so, if not before."""
    starts = np.cumsum(lengths)
    clock, step, ends, since = autodecay.start(SPEAKS, len(lengths)), 0, [], 0
    while step + int(clock.skipped) < sum(lengths):
        clock = tick(clock, np.int32(step + 1), starts[:-1], starts[-1], SPEAKS, float(says[step]))
        step, since = step + 1, since + 1
        if says[step - 1] or since == lengths[len(ends)]:
            ends, since = [*ends, step], 0
        assert clock.ends.tolist() == ends + [0] * (len(lengths) - len(ends))
    assert len(ends) == len(lengths)


@given(st.integers(1, 400), st.lists(st.integers(1, 99), min_size=0, max_size=4, unique=True))
def test_stages_start_where_the_schedule_of_step_decay_does(steps, percent):
    milestones = [each / 100 for each in sorted(percent)]
    starts = schedule.starts(milestones, steps)
    reached = np.arange(steps + 1, dtype=np.float32) / np.float32(steps) >= np.float32(milestones)[:, None]
    assert starts.tolist() == np.argmax(reached, axis=1).tolist() if milestones else starts.shape == (0,)


# ---- for optax ----


def test_as_a_transformation_it_scales_updates_by_the_stage():
    tx = optax.chain(optax.sgd(1.0), autodecay.scale_by_autodecay(detectors.window(1, rtol=0.0, atol=0.1), (9, 9, 9)))
    params = {"w": np.ones(2, np.float32)}
    state, update = tx.init(params), jax.jit(tx.update)
    losses = [3.0, 2.0, 2.0, 1.0, 0.5, 0.5, 0.2, 0.2]
    scales = []
    for loss in losses:
        updates, state = update({"w": np.ones(2, np.float32)}, state, params, value=loss)
        scales.append(float(-updates["w"][0]))
    # The stage ends after the first loss that is no better than the previous one.
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)
    assert (int(state[-1].stage), bool(state[-1].done)) == (2, True)
    assert state[-1].clock.ends.tolist() == [3, 6, 8]


def test_as_a_transformation_it_is_step_decay_if_nothing_is_found():
    tx = autodecay.scale_by_autodecay(detectors.plateau(patience=10**6), (3, 2, 4), factor=0.5)
    state, scales, update = tx.init(None), [], jax.jit(tx.update)
    for _ in range(9):
        updates, state = update(np.float32(1.0), state, value=1.0)
        scales.append(float(updates))
    assert scales == [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25] and bool(state.done)


def test_epochs_are_told_by_due():
    tx = autodecay.scale_by_autodecay(detectors.window(1), (20, 20))
    state, update = tx.init(None), jax.jit(tx.update)
    for n in range(1, 13):
        _, state = update(np.float32(1.0), state, value=1.0, due=n % 4 == 0)
    assert state.clock.ends.tolist() == [8, 0]
