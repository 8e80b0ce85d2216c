"""Subjects for instruments whose results are known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity_jax.diagnostics.subject import Part, Subject


def probe(count, weight=None, old=None, label=None):
    return Part(
        index=np.arange(count, dtype=np.int32),
        label=np.zeros(count, np.int32) if label is None else np.asarray(label, np.int32),
        weight=np.ones(count, np.float32) if weight is None else np.asarray(weight, np.float32),
        old=np.zeros(count, bool) if old is None else np.asarray(old),
    )


def vector(params):
    """The parameters `{module: array}` as one vector."""
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(params)])


def quadratic(hessian, data, params, part=None, **fields) -> Subject:
    """The loss of example i is (w - x_i)^T A (w - x_i) / 2, so that its gradient is A (w - x_i) and its Hessian A."""
    hessian, data = jnp.asarray(hessian, jnp.float32), jnp.asarray(data, jnp.float32)

    def of_logits(logits, label):
        return 0.5 * jnp.einsum("bi,ij,bj->b", logits, hessian, logits)

    def logits(params, part):
        return vector(params) - data[part.index]

    given = {"key": jax.random.key(0), "initial": params, "parent": params} | fields
    whole = Subject(
        params=params,
        probe=part or probe(len(data)),
        losses=lambda params, part: of_logits(logits(params, part), part.label),
        logits=logits,
        of_logits=of_logits,
        features=lambda params, part: {"all": logits(params, part)},
        **given,
    )
    return dataclasses.replace(whole, at=lambda params: dataclasses.replace(whole, params=params))


def softmax(images, labels, kernel, **fields) -> Subject:
    """Linear softmax: logits x W, cross-entropy."""
    images = jnp.asarray(images, jnp.float32)
    params = {"head": {"kernel": jnp.asarray(kernel, jnp.float32)}}

    def logits(params, part):
        return images[part.index] @ params["head"]["kernel"]

    return classifier(
        logits, params, labels, features=lambda params, part: {"penultimate": images[part.index]}, **fields
    )


def classifier(logits, params, labels, **fields) -> Subject:
    """Cross-entropy of `logits`, (parameters, part) -> [B, K]."""

    def of_logits(logits, label):
        return optax.softmax_cross_entropy_with_integer_labels(logits, label)

    given = {"key": jax.random.key(0), "initial": params, "parent": params} | fields
    whole = Subject(
        params=params,
        probe=probe(len(labels), label=labels),
        losses=lambda params, part: of_logits(logits(params, part), part.label),
        logits=logits,
        of_logits=of_logits,
        **given,
    )
    return dataclasses.replace(whole, at=lambda params: dataclasses.replace(whole, params=params))
