"""Detectors find the end of a learning stage, from every kind of measurement, alone and on the run axis."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from plasticity_jax.config.optim import Detector
from plasticity_jax.configs import base
from plasticity_jax.training import detectors, hyper

FEW = dict(keep=0.5, least=20, capacity=64)
ALL = {
    "window": detectors.window(3, rtol=0.02, atol=0.0),
    "plateau": detectors.plateau(patience=3),
    "slope": detectors.slope(**FEW),
    "sasa": detectors.sasa(**FEW),
    "abel": detectors.abel(),
}


def watch(detector, values, due=None):
    """The values, counted from 1, after which the detector says that a stage has ended."""
    return after(detector, values, due)[1]


def after(detector, values, due=None):
    """The detector's state after the values, and what `watch` returns."""
    state, ended = scan(detector, *padded(values, due))
    return state, (1 + np.flatnonzero(ended)).tolist()


def padded(values, due=None):
    """(values, whether an epoch ends, whether a value is present), padded to one length to share a program."""
    size, room = len(values), -len(values) % 128
    due = np.ones(size, bool) if due is None else np.asarray(due)
    return np.pad(np.asarray(values, np.float32), (0, room)), np.pad(due, (0, room)), np.arange(size + room) < size


def run(detector, values, due, present):
    """(state, whether a stage ended after each value), with nothing shown where no value is present."""

    def show(state, row):
        *shown, present = row
        new, ended = detector.update(state, *shown)
        return jax.tree.map(lambda a, b: jnp.where(present, a, b), new, state), ended & present

    return jax.lax.scan(show, detector.init(), (values, due, present))


scan = jax.jit(run, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def update(detector, state, value):
    return detector.update(state, value)


def falling(n, rest, noise=0.0, seed=0):
    """A loss that falls by a tenth each time, and is constant after `rest` values."""
    steps = np.minimum(np.arange(n), rest)
    return 0.9**steps * (1 + noise * np.random.default_rng(seed).normal(size=n))


# ---- window ----


@pytest.mark.parametrize("epochs", [1, 2, 3, 5])
def test_window_ends_as_soon_as_both_windows_lie_behind_the_fall(epochs):
    found = watch(detectors.window(epochs, rtol=0.0, atol=1e-6), falling(40, 12))
    assert found[0] == 12 + 2 * epochs


def test_window_is_the_formula():
    values, size = falling(40, 12, noise=0.05), 4
    for rtol, atol, z in [(0.02, 0.0, 0.0), (0.0, 0.01, 0.0), (0.0, 0.0, 1.5)]:
        expected = None
        for n in range(2 * size, 41):
            old, new = values[n - 2 * size : n - size], values[n - size : n]
            error = np.sqrt(old.var(ddof=1) / size + new.var(ddof=1) / size)
            if old.mean() - new.mean() < rtol * abs(old.mean()) + atol + z * error:
                expected = n
                break
        assert watch(detectors.window(size, rtol, atol, z), values)[:1] == [expected]


def test_window_starts_anew_after_an_end_and_waits_for_its_least():
    flat = np.ones(40)
    assert watch(detectors.window(3), flat) == list(range(6, 41, 6))
    assert watch(detectors.window(3, least=10), flat) == [10, 20, 30, 40]


def test_window_never_ends_while_the_loss_falls():
    assert watch(ALL["window"], falling(60, 60)) == []


# ---- plateau ----


def torch_plateau(values, patience, rtol):
    """When PyTorch's ReduceLROnPlateau would act: more than `patience` values in a row not below (1 - rtol) best."""
    best, bad, ends = np.inf, 0, []
    for n, value in enumerate(np.float32(values), start=1):
        if value < best * (1 - rtol):
            best, bad = value, 0
        else:
            bad += 1
        if bad > patience:
            ends.append(n)
            bad = 0
    return ends


@given(st.lists(st.floats(0.125, 4.0, width=32), min_size=1, max_size=40), st.integers(0, 4))
def test_plateau_acts_when_pytorch_does(values, patience):
    _, ended = patient(np.int32(patience), *padded(values))
    assert (1 + np.flatnonzero(ended)).tolist() == torch_plateau(values, patience, 0.01)


@jax.jit
def patient(patience, values, due, there):
    return run(detectors.plateau(patience, 0.01), values, due, there)


def test_plateau_keeps_its_best_over_a_restart():
    detector = detectors.plateau(patience=1)
    state = detector.restart(update(detector, detector.init(), 1.0)[0])
    state, ended = update(detector, state, 2.0)
    assert not ended and int(state.bad) == 1
    assert bool(update(detector, state, 2.0)[1])


# ---- abel ----


def test_abel_ends_at_every_second_turn():
    norms = [10, 9, 8, 7, 8, 9, 10, 11, 10, 9, 8, 9, 10, 9, 8, 7]
    turns = [n + 1 for n in range(2, len(norms)) if (norms[n] - norms[n - 1]) * (norms[n - 1] - norms[n - 2]) < 0]
    assert len(turns) >= 4 and watch(ALL["abel"], norms) == turns[1::2]


def test_abel_forgets_its_bounce_at_a_restart():
    detector = ALL["abel"]
    state = detector.init()
    for value in np.float32([3.0, 2.0, 3.0]):
        state, _ = update(detector, state, value)
    assert bool(state.low) and not bool(detector.restart(state).low)


# ---- slope and sasa ----

slope, sasa = functools.cache(detectors.slope), functools.cache(detectors.sasa)  # one program for all seeds


def kept(values, n, keep, capacity):
    """The last share of the first n values."""
    return values[n - min(int(np.ceil(keep * n)), capacity) : n]


def slope_ends(values, due, keep, least, significance, capacity):
    for n in np.flatnonzero(due) + 1:
        y = kept(values, n, keep, capacity)
        if len(y) >= max(least, 3):
            fit = scipy.stats.linregress(np.arange(len(y)), y, alternative="less")
            if fit.pvalue >= significance:
                return [n]
    return []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("keep, capacity", [(0.5, 400), (0.125, 400), (0.5, 30)])
def test_slope_is_the_t_test_of_scipy(seed, keep, capacity):
    values = falling(400, 150, noise=0.05, seed=seed)
    due = np.arange(1, 401) % 10 == 0
    detector = slope(keep, 20, 0.05, capacity)
    assert watch(detector, values, due)[:1] == slope_ends(values, due, keep, 20, 0.05, capacity)


def stationary(y, significance, first):
    """SASA+'s test of samples, written out."""
    n, size = len(y), int(np.sqrt(len(y)))
    means = y[: n // size * size].reshape(-1, size).mean(axis=1)
    error = np.sqrt(size / (len(means) - 1) * np.sum((means - y.mean()) ** 2)) / np.sqrt(n)
    half = error * scipy.stats.t.ppf(1 - significance / 2, size - 1)
    early, late = y[: n // 2].mean(), y[n // 2 :].mean()
    inside = abs(early) < half and abs(late) < half if first else abs(y.mean()) < half
    return inside and early * late > 0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("capacity", [400, 50])
def test_sasa_is_its_test_written_out(seed, capacity):
    values = np.float32(falling(600, 600, seed=seed) * 3 + np.random.default_rng(seed).normal(size=600))
    expected, start, first = [], 0, True
    for n in range(10, 601, 10):
        y = kept(values[start:], n - start, 0.5, capacity)
        if len(y) >= 25 and stationary(y, 0.05, first):
            expected.append(n)
            start, first = n, False
    ends = watch(sasa(0.5, 25, 0.05, capacity), values, np.arange(1, 601) % 10 == 0)
    assert ends == expected and ends


drift, student = jax.jit(detectors.drift), jax.jit(detectors.student)


def test_the_drift_is_what_the_squared_norm_loses():
    rng = np.random.default_rng(0)
    params, updates = ({"a": rng.normal(size=(3, 4)), "b": rng.normal(size=5)} for _ in "xy")
    before, after = (
        sum(np.sum(leaf**2) for leaf in jax.tree.leaves(tree))
        for tree in (params, jax.tree.map(np.add, params, updates))
    )
    assert drift(params, updates, 0.1) == pytest.approx((before - after) / 0.2, rel=1e-5)


def test_the_drift_of_a_warm_up_is_finite():
    params, still = {"a": np.ones(3, np.float32)}, {"a": np.zeros(3, np.float32)}
    assert detectors.drift(params, still, 0.0) == 0.0
    assert drift(params, still, np.float32(0.0)) == 0.0


@pytest.mark.parametrize("df", [4, 7, 30, 1000])
@pytest.mark.parametrize("p", [0.9, 0.95, 0.975, 0.995])
def test_student_s_quantile_is_that_of_scipy(p, df):
    assert student(p, df) == pytest.approx(scipy.stats.t.ppf(p, df), rel=3e-3)


# ---- all ----


@pytest.mark.parametrize("name", ALL)
def test_nothing_ends_where_no_epoch_does(name):
    rng = np.random.default_rng(1)
    assert watch(ALL[name], rng.normal(size=100), np.zeros(100, bool)) == []


@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_is_no_number_ends_no_stage_but_of_plateau(name):
    assert bool(watch(ALL[name], np.full(80, np.nan))) == (name == "plateau")  # to PyTorch, too, it is no improvement


BROKEN = (np.nan, np.inf, -np.inf)


@pytest.mark.parametrize("name", [name for name in ALL if name != "plateau"])
@pytest.mark.parametrize("at", [0, 7, 59])
def test_a_value_that_is_not_finite_is_passed_over(name, at):
    """The stages end at the same values as without it, and the state is the same bit for bit."""
    values = falling(120, 5, noise=0.05, seed=3) - 0.9**5 * (name == "sasa")
    clean, ends = after(ALL[name], values)
    assert ends
    state, late = after(ALL[name], np.insert(values, at, BROKEN))
    assert late == [end + len(BROKEN) * (end > at) for end in ends]
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(clean), strict=True))


@pytest.mark.parametrize("value", BROKEN)
def test_plateau_takes_what_is_not_finite_for_no_gain_and_keeps_its_best(value):
    state, ended = after(detectors.plateau(patience=1), [2.0, value, value])
    assert ended == [3] and float(state.best) == 2.0


def described(**fields):
    """The detector of a config that changes nothing but these fields."""
    return Detector(**{**base.optimiser("sgd").detector, **fields})


@pytest.mark.parametrize("name", ALL)
def test_a_config_has_the_defaults_of_the_detectors(name):
    spec = described(name=name)
    numbers = {"epochs": spec.window, "capacity": spec.capacity} | hyper.watch(spec)._asdict()
    defaults = inspect.signature(getattr(detectors, name)).parameters
    assert {key: one.default for key, one in defaults.items()} == {key: pytest.approx(numbers[key]) for key in defaults}


@pytest.mark.parametrize("name", ["slope", "sasa"])
def test_a_small_capacity_still_lets_a_stage_end(name):
    spec = described(name=name, capacity=64)
    assert hyper.watch(spec).least == 64


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("how", [pytest.param("jit", marks=pytest.mark.long), "vmap"])
def test_a_detector_says_the_same_in_company(name, how):
    rng, detector = np.random.default_rng(2), ALL[name]
    runs = [falling(60, rest, noise=0.02, seed=rest) - 0.3 * (name == "sasa") for rest in (5, 20, 40)]
    runs[0] = runs[0] + 0.1 * rng.normal(size=60)
    if how == "jit":
        for values in runs:
            state, ends = detector.init(), []
            for n, value in enumerate(np.float32(values), start=1):
                state, ended = update(detector, state, value)
                ends += [n] * bool(ended)
            assert ends == watch(detector, values)
    else:
        shown = [np.stack(rows) for rows in zip(*map(padded, runs), strict=True)]
        _, ended = jax.jit(jax.vmap(functools.partial(run, detector)))(*shown)
        assert [(1 + np.flatnonzero(row)).tolist() for row in ended] == [watch(detector, values) for values in runs]


@pytest.mark.parametrize("name", ALL)
def test_a_state_that_was_saved_goes_on_as_if_nothing_had_been(name):
    detector, values = ALL[name], np.float32(falling(50, 10, noise=0.02))
    state, ends = detector.init(), []
    for n, value in enumerate(values, start=1):
        state, ended = update(detector, state, value)
        ends += [n] * bool(ended)
        state = jax.tree.unflatten(jax.tree.structure(state), [np.asarray(leaf) for leaf in jax.tree.leaves(state)])
    assert ends == watch(detector, values)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, detector.init())
