"""Each periodic remedy against its definition; ReDo is in `test_replacement`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.models import units
from plasticity_jax.training.remedies import apply
from plasticity_jax.training.remedies.interface import Begun
from plasticity_jax.training.remedies.periodic import PERIODIC, TIMES
from tests.support import treated
from tests.support.tiny import MLP, OPTIM, changed, same

NARROW = models.build(spec.Model("mlp", 1, 8, "cifar", "none", "float32", "relu", 0.0, (), False), 4)
ADAM = changed(OPTIM, name="adam")


def begun(name, model=NARROW):
    """A network with the initial memory of a remedy."""
    network = treated.network_of(model, optim=ADAM)
    memory = PERIODIC[name].start(network, Begun(network.params, (network.params, {}), jax.random.key(0), None))
    return network._replace(memory={name: memory})


def watch_and_act(name, network, activity, at=1, **numbers):
    """The network after what `apply` does after a step."""
    rows = apply.rows(treated.treated(treated.remedy(name, **numbers)))
    return jax.device_get(after_step(name, network, np.float32(activity), np.int32(at), rows))


@functools.partial(jax.jit, static_argnums=0)
def after_step(name, network, activity, at, rows):
    now = treated.now_of(NARROW, network, {"layer1": activity}, at=at)
    return apply.after_step(network, now, rows, treated.treated(treated.remedy(name)))


def silent(network):
    """The units with zero outgoing weights."""
    return [unit for unit in range(8) if not np.any(network.params["head"]["kernel"][unit])]


# ---- continual backprop ----


def test_continual_backprop_replaces_the_stated_number_in_10000_steps():
    """Of 8 units, 1 / 1000 of the mature ones at each step; a new one is no candidate for 100 steps."""
    record = treated.treated(treated.remedy("continual_backprop", rate=1e-3, maturity=100))
    network = begun("continual_backprop")
    now = treated.now_of(NARROW, network, {"layer1": np.float32([5, 4, 3, 1, 6, 7, 8, 9])})

    @jax.jit
    def train(network):
        def one(carry, step):
            network, count = carry
            new = apply.after_step(network, now._replace(step=step), apply.rows(record), record)
            ages = new.memory["continual_backprop"]["age"]["layer1"]
            return (new, count + jnp.sum(ages == 0)), jnp.sum(ages > 100)

        return jax.lax.scan(one, (network, jnp.int32(0)), jnp.arange(10_000))

    (after, count), mature = jax.device_get(train(network))
    owed = after.memory["continual_backprop"]["owed"]["layer1/owed"]
    assert 60 < count < 80  # it would be 80 if all were mature
    assert abs(float(count) + float(owed) - np.sum(mature) * 1e-3) < 0.5  # float32 adds up 10,000 thousandths


def test_continual_backprop_replaces_the_mature_unit_of_least_utility():
    network = begun("continual_backprop")
    activity = np.float32([5, 4, 3, 2, 6, 7, 8, 9])
    outgoing = np.abs(network.params["head"]["kernel"]).sum(1)
    np.testing.assert_allclose(units.outgoing(network.params, units.sites(NARROW)[0]), outgoing, rtol=1e-6)
    memory = network.memory["continual_backprop"]
    ages = np.float32([5, 5, 5, 1, 1, 5, 5, 5])
    memory = memory | {
        "age": memory["age"] | {"layer1": ages},
        "owed": memory["owed"] | {"layer1/owed": np.float32(0.9)},
    }
    network = network._replace(memory={"continual_backprop": memory})
    after = watch_and_act("continual_backprop", network, activity, rate=0.02, maturity=2, decay=0.0)
    utility = np.where(ages + 1 > 2, activity * outgoing, np.inf)
    assert silent(after) == [np.argmin(utility)]  # 0.9 + 6 times 0.02 is one
    remembered = after.memory["continual_backprop"]
    np.testing.assert_allclose(remembered["owed"]["layer1/owed"], 0.02, atol=1e-5)
    wanted = np.where(np.arange(8) == np.argmin(utility), 0, ages + 1)
    np.testing.assert_array_equal(remembered["age"]["layer1"], wanted)
    assert remembered["utility"]["layer1"][np.argmin(utility)] == 0


def test_a_utility_is_a_running_mean():
    network = begun("continual_backprop")
    outgoing = np.abs(network.params["head"]["kernel"]).sum(1)
    first, second = np.float32(np.arange(8)), np.float32(np.arange(8))[::-1]
    for activity in (first, second):
        network = watch_and_act("continual_backprop", network, activity, rate=0.0, decay=0.9)
    wanted = (0.9 * 0.1 * first + 0.1 * second) * outgoing
    np.testing.assert_allclose(network.memory["continual_backprop"]["utility"]["layer1"], wanted, rtol=1e-5)


# ---- self-normalised resets ----


def history(times, counts, since):
    network = begun("self_normalised_resets")
    memory = network.memory["self_normalised_resets"]
    given = {"times": np.float32(times), "known": np.float32(counts), "since": np.float32(since)}
    memory = {key: memory[key] | {"layer1": given[key]} for key in memory}
    return network._replace(memory={"self_normalised_resets": memory})


def test_snr_replaces_a_unit_that_is_silent_for_longer_than_a_share_of_its_own_times():
    """Times of 1 to 64: a silence of t has a p value of (65 - t) / 64; 0.05 is reached from 62 on."""
    times = np.tile(np.arange(1, TIMES + 1), (8, 1))
    since = np.array([0, 30, 59, 60, 61, 62, 80, 10])  # another silent step follows
    after = watch_and_act("self_normalised_resets", history(times, [TIMES] * 8, since), np.zeros(8), rejection=0.05)
    assert silent(after) == [unit for unit in range(8) if (65 - (since[unit] + 1)) / 64 <= 0.05] == [4, 5, 6]
    memory = after.memory["self_normalised_resets"]
    for key in ("since", "known"):
        assert not np.any(np.asarray(memory[key]["layer1"])[[4, 5, 6]]) and np.all(
            np.asarray(memory[key]["layer1"])[:4] > 0
        )


def test_snr_judges_a_unit_without_a_history_by_the_last_times_of_its_layer():
    """Which are 2, 5, 9 and 90."""
    times = np.full((8, TIMES), 1000)
    times[0], times[1:4, 2] = 2, [5, 9, 90]
    since, counts = [0, 0, 0, 0, 98, 9, 90, 0], np.array([TIMES, 3, 3, 3, 0, 0, 0, 0])  # and another silent step
    for rejection, replaced in ((0.0, [4, 6]), (0.2, [4, 6]), (0.25, [4, 5, 6])):
        after = watch_and_act("self_normalised_resets", history(times, counts, since), np.zeros(8), rejection=rejection)
        assert silent(after) == replaced
    too_few = history(times, np.where(np.arange(8) == 1, 0, counts), since)
    assert silent(watch_and_act("self_normalised_resets", too_few, np.zeros(8), rejection=0.25)) == []


def test_snr_records_the_times_between_two_firings():
    network = begun("self_normalised_resets")
    for fires in ([1, 0], [0, 0], [1, 0], [1, 1]):
        network = watch_and_act("self_normalised_resets", network, np.float32(fires + [1] * 6), every=100)
    memory = network.memory["self_normalised_resets"]
    np.testing.assert_array_equal(memory["times"]["layer1"][0, :4], [1, 2, 1, 0])
    np.testing.assert_array_equal(memory["times"]["layer1"][1, :2], [4, 0])
    np.testing.assert_array_equal(memory["known"]["layer1"][:3], [3, 1, 4])
    assert silent(network) == []


# ---- whole networks ----


def test_shrink_and_perturb_mixes_with_a_fresh_network_and_keeps_the_moments():
    network = treated.network_of(MLP, optim=ADAM)
    now = treated.now_of(MLP, network)
    after = PERIODIC["shrink_and_perturb"](network, now, shrink=0.4, perturb=0.1)
    fresh, _ = now.fresh(now.key)
    for leaf, old, new in zip(*map(jax.tree.leaves, (after.params, network.params, fresh)), strict=True):
        np.testing.assert_allclose(leaf, 0.4 * old + 0.1 * new, rtol=1e-6)
    assert same(after.opt, network.opt) and same(after.stats, network.stats)


def test_the_hare_goes_back_to_the_tortoise_after_every_k_steps():
    network, slow = begun("hare_tortoise"), begun("hare_tortoise").params
    for step in range(1, 7):
        network = network._replace(params=jax.tree.map(lambda leaf: leaf + 1, network.params))
        slow = jax.tree.map(lambda s, fast: 0.75 * s + 0.25 * fast, slow, network.params)
        network = watch_and_act("hare_tortoise", network, np.ones(8), at=step, every=3, decay=0.75)
        back = np.allclose(network.params["head"]["kernel"], slow["head"]["kernel"], rtol=1e-6)
        assert back == (step % 3 == 0)
        np.testing.assert_allclose(
            network.memory["hare_tortoise"][0]["head"]["kernel"], slow["head"]["kernel"], rtol=1e-5
        )


@pytest.mark.parametrize(("share", "count"), [(0.1, 51), (0.0, 0)])
def test_selective_reinitialisation_draws_the_entries_of_least_utility_anew(share, count):
    network = treated.network_of(NARROW, optim=ADAM)
    rng = np.random.default_rng(3)
    slopes = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), network.params)
    now = treated.now_of(NARROW, network)._replace(grads=slopes)
    after = PERIODIC["selective_reinitialisation"](network, now, share=share)
    kernel, new = network.params["layer1"]["kernel"], now.fresh(now.key)[0]["layer1"]["kernel"]
    utility = np.abs(kernel * slopes["layer1"]["kernel"]).ravel()
    chosen = np.isin(np.arange(utility.size), np.argsort(utility, kind="stable")[:count]).reshape(kernel.shape)
    np.testing.assert_array_equal(after.params["layer1"]["kernel"], np.where(chosen, new, kernel))
    assert same(after.params["layer1"]["bias"], network.params["layer1"]["bias"])
    adam = next(part for part in jax.tree.leaves(after.opt, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu"))
    np.testing.assert_array_equal(np.asarray(adam.count["layer1"]["kernel"]) == 0, chosen)
    np.testing.assert_array_equal(np.asarray(adam.nu["layer1"]["kernel"]) == 0, chosen)


def test_a_remedy_acts_after_every_so_many_steps_only():
    network = treated.network_of(NARROW, optim=ADAM)
    for step in range(1, 7):
        after = watch_and_act("redo", network, np.float32([0] + [1] * 7), at=step, every=3)
        assert silent(after) == ([0] if step % 3 == 0 else [])
