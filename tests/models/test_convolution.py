import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plasticity_jax.models import convolution, pooling, products

KINDS = [(3, 1), (3, 2), (1, 1), (1, 2), (7, 2)]


def reference(x, kernel, dy, stride, pads):
    """The convolution and both its gradients in float64, straight from the definition."""
    x, kernel, dy = (np.asarray(a, np.float64) for a in (x, kernel, dy))
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    y, dpadded, dkernel = np.zeros(dy.shape), np.zeros(padded.shape), np.zeros(kernel.shape)
    for i in range(dy.shape[1]):
        for j in range(dy.shape[2]):
            here = np.s_[:, i * stride : i * stride + kernel.shape[0], j * stride : j * stride + kernel.shape[1]]
            y[:, i, j] = np.einsum("nhwc,hwco->no", padded[here], kernel)
            dpadded[here] += np.einsum("no,hwco->nhwc", dy[:, i, j], kernel)
            dkernel += np.einsum("nhwc,no->hwco", padded[here], dy[:, i, j])
    (top, _), (left, _) = pads
    return y, dpadded[:, top : top + x.shape[1], left : left + x.shape[2]], dkernel


def example(size, stride, padding, shape, seed=0, channels=5):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((3, *shape, 4)).astype(np.float32)
    kernel = rng.standard_normal((size, size, 4, channels)).astype(np.float32)
    pads = padding
    if isinstance(padding, str):
        pads = lax.padtype_to_pads(shape, (size, size), (stride, stride), padding)
    out = [(n + sum(pad) - size) // stride + 1 for n, pad in zip(shape, pads, strict=True)]
    return x, kernel, rng.standard_normal((3, *out, channels)).astype(np.float32), pads


def with_gradients(conv, stride, padding):
    @jax.jit
    def run(x, kernel, dy):
        call = lambda x, kernel: conv(x, kernel, (stride, stride), padding, dimension_numbers=convolution.LAYOUT)  # noqa: E731
        y, pull = jax.vjp(call, x, kernel)
        return y, *pull(dy)

    return run


def check_against_the_definition(stride, padding, examples):
    """All examples in one program, which compiles faster than one for each."""
    run = with_gradients(convolution.conv_general_dilated, stride, padding)
    given = [example[:3] for example in examples]
    actual = jax.jit(lambda given: [run(*args) for args in given])(given)
    for results, (x, kernel, dy, pads) in zip(actual, examples, strict=True):
        for ours, true in zip(results, reference(x, kernel, dy, stride, pads), strict=True):
            np.testing.assert_allclose(ours, true, rtol=0, atol=2e-6 * np.abs(true).max())


@pytest.mark.exact
@pytest.mark.parametrize("padding", ["same on both sides", "SAME", "VALID"])
@pytest.mark.parametrize("size, stride", KINDS)
def test_values_and_gradients_equal_the_definition(size, stride, padding):
    padding = [(size // 2, size // 2)] * 2 if padding == "same on both sides" else padding
    examples = [example(size, stride, padding, shape) for shape in ((8, 9), (7, 12))]
    check_against_the_definition(stride, padding, examples)


FORMS = {
    "matrix": {"MATRIX": 10**6},
    "rows": {"MATRIX": 0, "NARROW": 99},
    "parts": {"MATRIX": 0, "NARROW": 0, "PART": 32},
    "whole": {"MATRIX": 0, "NARROW": 0},
}


# Of the result: folded by 8, by 2 and not at all.
@pytest.mark.parametrize("channels", [2, pytest.param(8, marks=pytest.mark.long), 16])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size, stride", KINDS)
def test_every_form_equals_the_definition(monkeypatch, size, stride, form, channels):
    for name, value in FORMS[form].items():
        monkeypatch.setattr(convolution, name, value)
    pads = [(size // 2, size // 2)] * 2
    shapes = (4, 8) if form == "matrix" else (8, 16), (5, 7)  # a matrix is for a few pixels only
    examples = [example(size, stride, pads, shape, channels=channels) for shape in shapes]
    check_against_the_definition(stride, pads, examples)


def test_a_map_smaller_than_the_kernel():
    x, kernel, dy, pads = example(3, 2, [(1, 1)] * 2, (1, 1))
    actual = with_gradients(convolution.conv_general_dilated, 2, pads)(x, kernel, dy)
    for ours, true in zip(actual, reference(x, kernel, dy, 2, pads), strict=True):
        np.testing.assert_allclose(ours, true, rtol=0, atol=1e-6 * np.abs(true).max())


@pytest.mark.parametrize("over", [jax.vmap, lambda f: lambda *args: jax.lax.map(lambda row: f(*row), args)])
@pytest.mark.parametrize("size, stride", [(3, 2), (1, 2), (7, 2)])
def test_runs_side_by_side_equal_runs_alone(over, size, stride):
    padding = [(size // 2, size // 2)] * 2
    rows = [example(size, stride, padding, (9, 8), seed)[:3] for seed in range(3)]
    run = with_gradients(convolution.conv_general_dilated, stride, padding)
    together = jax.jit(over(run))(*(np.stack(column) for column in zip(*rows, strict=True)))
    for i, row in enumerate(rows):
        for ours, alone in zip(together, run(*row), strict=True):
            np.testing.assert_allclose(np.asarray(ours)[i], alone, rtol=0, atol=2e-6 * np.abs(np.asarray(alone)).max())


def seconds(run, *args):
    """Seconds of a call, the best of five, after compilation."""
    jax.block_until_ready(run(*args))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(*args))
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.exact
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere the gradients are those of lax")
def test_gradients_are_as_fast_inside_a_loop_as_outside():
    """Those of lax are about twenty times slower inside a loop."""
    x, kernel, dy, pads = example(3, 1, [(1, 1)] * 2, (16, 16))
    x, kernel, dy = np.tile(x, (20, 1, 1, 4)), np.tile(kernel, (1, 1, 4, 4)), np.tile(dy, (20, 1, 1, 4))
    ours, plain = (with_gradients(f, 1, pads) for f in (convolution.conv_general_dilated, lax.conv_general_dilated))
    steps = 5

    @jax.jit
    def loop(x, kernel):
        def step(_, carry):
            _, dx, dkernel = ours(*carry, dy)
            return carry[0] - 1e-3 * dx, carry[1] - 1e-3 * dkernel

        return lax.fori_loop(0, steps, step, (x, kernel))

    assert seconds(loop, x, kernel) < 5 * steps * seconds(plain, x, kernel, dy)


@pytest.mark.exact
def test_nobody_pays_for_the_gradient_of_the_images():
    x, kernel, _, pads = example(7, 2, [(3, 3)] * 2, (16, 16))

    def loss(kernel):
        y = convolution.conv_general_dilated(x, kernel, (2, 2), pads, dimension_numbers=convolution.LAYOUT)
        return jnp.sum(jnp.square(y))

    text = jax.jit(jax.grad(loss)).lower(kernel).compile().as_text()
    assert "reverse" not in text  # the flipped kernel of the input gradient


@pytest.mark.parametrize(
    "options",
    [{"rhs_dilation": (2, 2)}, {"feature_group_count": 2}, {"lhs_dilation": (2, 1)}, {"batch_group_count": 2}],
)
def test_other_convolutions_are_those_of_lax(options):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 8, 8, 4)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 4 // options.get("feature_group_count", 1), 6)).astype(np.float32)

    def gradients(conv):
        def loss(x, kernel):
            y = conv(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=convolution.LAYOUT, **options)
            return jnp.sum(jnp.sin(y))

        return jax.jit(jax.grad(loss, (0, 1)))(x, kernel)

    ours, theirs = gradients(convolution.conv_general_dilated), gradients(lax.conv_general_dilated)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_other_layouts_are_those_of_lax():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((4, 4, 8, 8)), rng.standard_normal((6, 4, 3, 3))
    ours = convolution.conv_general_dilated(x, kernel, (1, 1), "SAME")
    np.testing.assert_array_equal(ours, lax.conv_general_dilated(x, kernel, (1, 1), "SAME"))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_another_backend_gets_the_plain_operations_and_the_same_results(monkeypatch, dtype):
    x, kernel, _, _ = example(3, 2, [(1, 1)] * 2, (8, 8))
    x, kernel = jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)

    def both(x, kernel):
        y = convolution.conv_general_dilated(x, kernel, (2, 2), [(1, 1)] * 2, dimension_numbers=convolution.LAYOUT)
        return pooling.max_pool(y, 3, 2, 1)

    def gradients(x, kernel):
        return jax.grad(lambda *args: both(*args).astype(jnp.float32).sum(), (0, 1))(x, kernel)

    ours, text = (
        jax.jit(lambda *args: gradients(*args))(x, kernel),
        str(jax.make_jaxpr(lambda *args: both(*args))(x, kernel)),
    )
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    plain, plain_text = (
        jax.jit(lambda *args: gradients(*args))(x, kernel),
        str(jax.make_jaxpr(lambda *args: both(*args))(x, kernel)),
    )
    assert "custom_vjp" in text and "custom_vjp" not in plain_text and "reduce_window" in plain_text
    for a, b in zip(ours, plain, strict=True):
        assert a.dtype == b.dtype == dtype
        scale = float(jnp.abs(b).max())
        tolerance = scale * (1e-6 if dtype == jnp.float32 else 0.02)
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), rtol=0, atol=tolerance)


def primitives(jaxpr):
    """Every equation of a program, also those inside loops and calls."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    yield from primitives(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
@pytest.mark.parametrize("size, stride", [(3, 1), (3, 2), (1, 2), (7, 2)])
def test_seedwise_convolutions_are_those_of_one_run(monkeypatch, backend, size, stride):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    pads = [(size // 2, size // 2)] * 2
    rows = [example(size, stride, pads, (9, 8), seed, channels=16)[:3] for seed in range(3)]
    stacked = [np.stack(column) for column in zip(*rows, strict=True)]

    def run(x, kernel, dy):
        call = lambda x, kernel: convolution.conv_general_dilated(  # noqa: E731
            x, kernel, (stride, stride), pads, dimension_numbers=convolution.LAYOUT
        )
        y, pull = jax.vjp(call, x, kernel)
        return y, *pull(dy)

    with convolution.seedwise():
        traced = jax.jit(jax.vmap(run)).trace(*stacked)
    convs = [e for e in primitives(traced.jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    assert (not convs) == (size == 1 and backend == "cpu")  # that is a product
    assert all(e.params["feature_group_count"] == e.params["batch_group_count"] == 1 for e in convs)
    actual = traced.lower().compile()(*stacked)
    for i, row in enumerate(rows):
        for ours, true in zip(actual, reference(*row, stride, pads), strict=True):
            np.testing.assert_allclose(np.asarray(ours)[i], true, rtol=0, atol=2e-6 * np.abs(true).max())


@pytest.mark.parametrize(
    ("side", "size", "stride", "products"),
    [(4, 3, 2, 1), (2, 3, 1, 1), (8, 3, 2, 0), (64, 3, 32, 0), (64, 1, 1, 1), (64, 1, 2, 1)],
)
def test_results_and_kernels_of_few_pixels_are_products(side, size, stride, products, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    x, kernel = jnp.ones((2, side, side, 128)), jnp.ones((size, size, 128, 256))
    conv = functools.partial(convolution.conv_general_dilated, strides=(stride,) * 2, padding=[(size // 2,) * 2] * 2)
    conv = functools.partial(conv, dimension_numbers=convolution.LAYOUT)
    names = [e.primitive.name for e in primitives(jax.make_jaxpr(conv)(x, kernel).jaxpr)]
    assert names.count("dot_general") == products and names.count("conv_general_dilated") == 1 - products


def test_seedwise_shares_what_is_not_of_a_run():
    x, kernel, _, pads = example(3, 1, [(1, 1)] * 2, (9, 8), channels=16)
    call = functools.partial(
        convolution.conv_general_dilated, strides=(1, 1), padding=pads, dimension_numbers=convolution.LAYOUT
    )
    kernels = np.stack([kernel, -kernel, 2 * kernel])
    with convolution.seedwise():
        actual = jax.jit(jax.vmap(call, (None, 0)))(x, kernels)
        alone = call(x, kernel)
    for y, factor in zip(actual, (1, -1, 2), strict=True):
        np.testing.assert_allclose(y, factor * alone, rtol=1e-5, atol=1e-5)


def test_what_is_differentiated_once_uses_the_fast_gradients():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))

    def text():
        def both(x, kernel):
            y = convolution.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=convolution.LAYOUT)
            return pooling.max_pool(y, 3, 2, 1)

        return str(jax.make_jaxpr(both)(x, kernel))

    fast = text()
    with products.plain():
        plain = text()
        with products.differentiated_once():
            assert text() == fast
        assert text() == plain
    assert "custom_vjp" in fast and "custom_vjp" not in plain
