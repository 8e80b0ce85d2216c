"""Each remedy after a step against its definition."""

import jax
import numpy as np

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.models import parameters
from plasticity_jax.training.remedies.interface import Begun, Network
from plasticity_jax.training.remedies.updates import UPDATES
from tests.support import treated
from tests.support.tiny import RESNET, SHAPE

DEEP = models.build(spec.Model("mlp", 2, 6, "cifar", "none", "float32", "relu", 0.0, (), False), 4)
RNG = np.random.default_rng(0)


def noisy(model):
    """A network of random numbers, and its first weights."""
    params, stats = treated.drawn(model)
    first, now = (jax.tree.map(lambda leaf: RNG.normal(size=leaf.shape).astype(np.float32), params) for _ in range(2))
    return first, Network(now, stats, (), {})


def act(name, model, **numbers):
    """(first, before, after) by path."""
    first, network = noisy(model)
    remedy = UPDATES[name]
    if not callable(remedy):
        network = network._replace(memory={name: remedy.start(network, Begun(first, (first, {}), None, None))})
    change = getattr(remedy, "act", remedy)
    after = jax.device_get(jax.jit(lambda network: change(network, None, **numbers).params)(network))
    return *(parameters.paths(tree) for tree in (first, network.params, after)), network, after


def test_weight_clipping_holds_kernels_and_biases_within_the_bound_over_the_root_of_the_fan_in():
    _, before, after, *_ = act("weight_clipping", RESNET, bound=2.0)
    for path, leaf in before.items():
        kernel = before.get(f"{path.rpartition('/')[0]}/kernel")
        if kernel is None:  # of a normalisation
            np.testing.assert_array_equal(after[path], leaf)
        else:
            edge = 2 / np.sqrt(np.prod(kernel.shape[:-1]))
            np.testing.assert_allclose(after[path], np.clip(leaf, -edge, edge), rtol=1e-6)
            assert leaf.size < 8 or np.any(np.abs(leaf) > edge)


def test_soft_weight_rescaling_draws_norms_to_the_first_and_scales_the_output():
    first, before, after, network, params = act("soft_weight_rescaling", DEEP, rate=0.25)
    norm = lambda tree, path: float(np.linalg.norm(tree[path]))  # noqa: E731
    factors = {}
    for layer in ("layer1", "layer2", "head"):
        path = f"{layer}/kernel"
        factors[layer] = (0.25 * norm(first, path) + 0.75 * norm(before, path)) / norm(before, path)
        np.testing.assert_allclose(after[path], factors[layer] * before[path], rtol=1e-5)
    images = RNG.normal(size=(3, *SHAPE)).astype(np.float32)
    old, new = (treated.outputs(DEEP, each, {}, images)[0] for each in (network.params, params))
    np.testing.assert_allclose(new, np.prod(list(factors.values())) * old, rtol=1e-4)


def test_soft_weight_rescaling_where_there_are_normalisations():
    first, before, after, *_ = act("soft_weight_rescaling", RESNET, rate=1.0)
    assert np.linalg.norm(after["stem/conv/kernel"]) == np.float32(np.linalg.norm(first["stem/conv/kernel"]))
    factor = np.linalg.norm(first["head/kernel"]) / np.linalg.norm(before["head/kernel"])
    np.testing.assert_allclose(after["head/bias"], factor * before["head/bias"], rtol=1e-5)
    np.testing.assert_array_equal(after["stem/norm/scale"], before["stem/norm/scale"])


def test_nap_projects_kernels_to_their_first_norm_and_lets_the_rest_decay():
    first, before, after, *_ = act("normalise_and_project", RESNET, decay=0.1)
    for path, leaf in before.items():
        if leaf.ndim > 1:
            wanted = leaf * np.linalg.norm(first[path]) / np.linalg.norm(leaf)
        else:
            wanted = 0.9 * leaf + 0.1 * first[path]
        np.testing.assert_allclose(after[path], wanted, rtol=1e-4, atol=1e-6)
