import dataclasses
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import layers, resnet, wide_resnet
from plasticity_jax.models.parameters import paths

# Compiles in a fifth of the time.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
BASE = spec.Model(
    name="resnet",
    depth=1,
    width=4,
    stem="imagenet",
    norm="batch",
    dtype="float32",
    activation="relu",
    dropout=0.0,
    injected=(),
    zero_scale=False,
)


def make(classes=10, **fields):
    return models.build(dataclasses.replace(BASE, **fields), classes)


def noise(*shape):
    """Random images, drawn on the host, which compiles nothing."""
    return np.random.default_rng(1).standard_normal(shape, np.float32)


@functools.cache
def initial(net, shape=(1, 32, 32, 3), seed=0):
    """The variables of a network, on the host."""
    return jax.device_get(quick_jit(lambda key: net.init(key, jnp.zeros(shape), True))(jax.random.key(seed)))


@functools.cache
def shapes(net, shape=(1, 32, 32, 3)):
    return jax.eval_shape(lambda key: net.init(key, jnp.zeros(shape), True), jax.random.key(0))


def drawn(net, shape):
    """Variables like the initial ones, drawn on the host: to compile `init` takes longer than the gradient."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim > 1:
            return rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes(net, shape))


@pytest.mark.parametrize("stem, count", [("cifar", 11_173_962), ("imagenet", 11_181_642)])
def test_resnet18_has_the_parameters_of_torchvisions(stem, count):
    params = shapes(make(stem=stem, depth=2, width=64))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
    named = shapes(make(name="resnet18", stem=stem, depth=7, width=64))["params"]  # whatever the depth
    assert jax.tree.structure(named) == jax.tree.structure(params) and jax.tree.leaves(named) == jax.tree.leaves(params)


@pytest.mark.parametrize(
    "name, count",
    [
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        pytest.param("resnet101", 44_549_160, marks=pytest.mark.long),
        pytest.param("resnet152", 60_192_808, marks=pytest.mark.long),  # more of the same blocks
    ],
)
def test_networks_by_name_have_the_parameters_of_torchvisions(name, count):
    params = shapes(make(name=name, width=64, classes=1000))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_a_bottleneck_halves_where_torchvisions_does():
    """The stride is in its 3x3 convolution; the features are those after every ReLU."""
    net, images = make(name="resnet50", width=2, stem="cifar"), noise(3, 16, 16, 3)
    variables = shapes(net, images.shape)
    _, features = jax.eval_shape(lambda v: net.apply(v, images, False), variables)
    kernels = {name: leaf.shape for name, leaf in paths(variables["params"]["module3"]["block0"]).items()}
    expected = {"conv1": (1, 1, 8, 4), "conv2": (3, 3, 4, 4), "conv3": (1, 1, 4, 16), "conv_proj": (1, 1, 8, 16)}
    assert {name: kernels[f"{name}/kernel"] for name in expected} == expected
    inside = {name: features[f"module3/block0{name}"].shape for name in ("/inner1", "/inner2", "")}
    assert inside == {"/inner1": (3, 16, 16, 4), "/inner2": (3, 8, 8, 4), "": (3, 8, 8, 16)}
    blocks = [sum(name.startswith(f"module{k}/") for name in features) // 3 for k in range(2, 6)]
    assert blocks == [3, 4, 6, 3] and features["penultimate"].shape == (3, 64)
    assert models.module_names(variables["params"]) == ("stem", "module2", "module3", "module4", "module5", "head")


@pytest.mark.parametrize("block, last", [("basic", "norm2"), ("bottleneck", "norm3")])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_the_last_scale_of_each_block_can_begin_at_zero(block, last, norm):
    def scales(zero):
        net = resnet.ResNet(4, (2, 1), 2, "cifar", norm, jnp.float32, block=block, zero_scale=zero)

        def draw(key):  # nothing else is compiled
            drawn = paths(net.init(key, jnp.zeros((1, 4, 4, 3)), True)["params"])
            return {path: leaf for path, leaf in drawn.items() if path.endswith("scale")}

        return {path: set(leaf.tolist()) for path, leaf in jax.device_get(quick_jit(draw)(jax.random.key(0))).items()}

    assert len(zero := scales(True)) >= 8
    assert zero == {path: {0.0 if path.endswith(f"{last}/scale") else 1.0} for path in zero}
    assert scales(False) == dict.fromkeys(zero, {1.0})


@pytest.mark.parametrize("name", ["resnet", "resnet50"])
def test_networks_of_configs_begin_so_where_they_are_told_to(name):
    assert make(name=name, zero_scale=True).zero_scale and not make(name=name).zero_scale


def test_names_are_those_that_resets_speak_of():
    variables = shapes(make(depth=2))
    assert models.module_names(variables["params"]) == ("stem", "module2", "module3", "module4", "module5", "head")
    names = set(paths(variables["params"]))
    assert {name for name in names if not name.startswith("module")} == {
        "stem/conv/kernel",
        "stem/norm/scale",
        "stem/norm/bias",
        "head/kernel",
        "head/bias",
    }
    plain = {f"{conv}/kernel" for conv in ("conv1", "conv2")} | {
        f"{norm}/{leaf}" for norm in ("norm1", "norm2") for leaf in ("scale", "bias")
    }
    projected = plain | {"conv_proj/kernel", "norm_proj/scale", "norm_proj/bias"}
    for k in range(2, 6):
        for j in range(2):
            below = {name.removeprefix(f"module{k}/block{j}/") for name in names if f"module{k}/block{j}/" in name}
            assert below == (projected if k > 2 and j == 0 else plain)
    assert set(variables["batch_stats"]) == {"stem", "module2", "module3", "module4", "module5"}


def test_module_names_run_in_order_whatever_the_mapping_does():
    assert models.module_names({"head": 0, "layer10": 0, "layer2": 0}) == ("layer2", "layer10", "head")
    assert models.module_names({"head": 0, "module3": 0, "module2": 0, "stem": 0}) == (
        "stem",
        "module2",
        "module3",
        "head",
    )
    assert models.module_names({"zeta": 0, "alpha": 0}) == ("zeta", "alpha")


def test_features_are_the_outputs_of_every_relu():
    net, images = make(depth=2, width=2, stem="cifar", classes=7), noise(3, 16, 16, 3)
    logits, features = jax.eval_shape(lambda v: net.apply(v, images, False), shapes(net, images.shape))
    assert logits.shape == (3, 7) and logits.dtype == jnp.float32
    expected = {"stem": (3, 16, 16, 2), "penultimate": (3, 16)}
    for k, (side, channels) in enumerate([(16, 2), (8, 4), (4, 8), (2, 16)], start=2):
        for name in ("block0/inner", "block0", "block1/inner", "block1"):
            expected[f"module{k}/{name}"] = (3, side, side, channels)
    assert {name: value.shape for name, value in features.items()} == expected


def test_the_last_features_are_what_the_head_sees():
    net, images = make(width=2, stem="cifar", classes=7), noise(3, 16, 16, 3)
    variables = drawn(net, images.shape)
    logits, features = jax.device_get(quick_jit(lambda v, x: net.apply(v, x, False))(variables, images))
    assert all(float(value.min()) == 0 for name, value in features.items() if name != "penultimate")
    np.testing.assert_allclose(features["penultimate"], features["module5/block0"].mean((1, 2)), rtol=1e-5)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, features["penultimate"] @ head["kernel"] + head["bias"], rtol=1e-4, atol=1e-4)


def test_initial_values():
    params = paths(initial(make(width=16, classes=100))["params"])
    for name, leaf in params.items():
        if "conv" in name:
            height, width, _, out = leaf.shape
            sigma = np.sqrt(2 / (height * width * out))
            assert float(leaf.std()) == pytest.approx(sigma, rel=5 / np.sqrt(2 * leaf.size))
            assert abs(float(leaf.mean())) < 5 * sigma / np.sqrt(leaf.size)
            if leaf.size > 20_000:  # a truncated normal would end at 2.3 of its own standard deviations
                assert float(np.abs(leaf).max()) > 3 * sigma
        elif "norm" in name:
            assert np.unique(leaf).tolist() == [1 if name.endswith("scale") else 0]
    bound = 1 / np.sqrt(params["head/kernel"].shape[0])
    for leaf in (params["head/kernel"], params["head/bias"]):
        assert float(np.abs(leaf).max()) < bound
        assert float(leaf.std()) == pytest.approx(bound / np.sqrt(3), rel=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"width": 16, "classes": 100}, {"name": "mlp"}])
def test_initial_values_are_those_of_float32(fields):
    half, full = initial(make(dtype="bfloat16", **fields)), initial(make(**fields))
    assert jax.tree.all(jax.tree.map(np.array_equal, half, full))


PYTORCH = {  # network, and how near its gradients come
    "cifar_d2": (make(stem="cifar", depth=2, width=2, classes=5), 1e-4),
    "imagenet_d1": (make(stem="imagenet", depth=1, width=3, classes=5), 1e-4),
    "bottleneck": (resnet.ResNet(5, (2, 1), 2, "cifar", "batch", jnp.float32, block="bottleneck"), 1e-5),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param("cifar_d2", marks=pytest.mark.long),
        "imagenet_d1",
        pytest.param("bottleneck", marks=pytest.mark.slow),
    ],
)
def test_values_gradients_and_statistics_are_those_of_pytorch(case):
    net, near = PYTORCH[case]
    with np.load(pathlib.Path(__file__).parents[1] / "fixtures" / "resnet_torch.npz") as file:
        stored = {key.removeprefix(f"{case}/"): file[key] for key in file.files if key.startswith(f"{case}/")}
    images, labels = stored["images"], stored["labels"]
    like = shapes(net, images.shape)

    def fill(tree, kind):
        values = [stored[f"{kind}/{name}"] for name in paths(tree)]
        return jax.tree.unflatten(jax.tree.structure(tree), values)

    params, stats = fill(like["params"], "params"), fill(like["batch_stats"], "stats")
    evaluated, _ = quick_jit(lambda p, s: net.apply({"params": p, "batch_stats": s}, images, False))(params, stats)
    np.testing.assert_allclose(evaluated, stored["eval"], rtol=0, atol=1e-5 * np.abs(stored["eval"]).max())

    @quick_jit
    def step(params, stats):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            (logits, _), new = net.apply(variables, images, True, mutable=["batch_stats"])
            log_p = jax.nn.log_softmax(logits)
            return -jnp.mean(log_p[jnp.arange(len(labels)), labels]), (logits, new["batch_stats"])

        return jax.grad(loss, has_aux=True)(params)

    grads, (logits, new) = step(params, stats)
    np.testing.assert_allclose(logits, stored["train"], rtol=0, atol=1e-5 * np.abs(stored["train"]).max())
    for name, grad in paths(grads).items():
        true = stored[f"grads/{name}"]
        np.testing.assert_allclose(grad, true, rtol=0, atol=near * np.abs(true).max(), err_msg=name)
    for name, value in paths(new).items():
        before, true = stored[f"stats/{name}"], stored[f"after/{name}"]
        if name.endswith("/var"):  # PyTorch averages the unbiased variance, Flax the biased one
            count = stored[f"count/{name.removesuffix('/var')}"]
            true = 0.9 * before + (true - 0.9 * before) * (count - 1) / count
        np.testing.assert_allclose(value, true, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "norm, stem",
    [
        pytest.param("batch", "imagenet", marks=pytest.mark.long),  # whose gradients are compared with PyTorch's
        pytest.param("layer", "imagenet", marks=pytest.mark.long),  # what it normalises is tested below
        pytest.param("group", "imagenet", marks=pytest.mark.long),  # other groups of the same layer
        ("none", "cifar"),
    ],
)
def test_every_norm_and_stem_learns_on_tiny_grey_images(norm, stem):
    net = make(norm=norm, stem=stem)
    images = noise(6, 8, 8, 1)
    variables = drawn(net, images.shape)
    params, stats = variables["params"], variables.get("batch_stats", {})

    @quick_jit
    def grad(params):
        def loss(params):
            (logits, _), _ = net.apply({"params": params, "batch_stats": stats}, images, True, mutable=["batch_stats"])
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(6), jnp.arange(6)])

        return jax.grad(loss)(params)

    assert bool(stats) == (norm == "batch")
    names = paths(params)
    assert any("conv1/bias" in name for name in names) == (norm == "none")
    assert any("norm1" in name for name in names) == (norm != "none")
    for name, value in paths(jax.device_get(grad(params))).items():
        assert np.isfinite(value).all() and np.abs(value).max() > 0, name


@pytest.mark.parametrize("norm, groups", [("layer", 1), ("group", 6)])
def test_group_norms_normalise_each_image_over_their_group(norm, groups):
    layer = layers.norm(norm, 12, True, jnp.float32, "norm")
    x = 3 + 2 * np.random.default_rng(0).standard_normal((2, 4, 4, 12)).astype(np.float32)
    y = quick_jit(lambda x: layer.init_with_output(jax.random.key(0), x)[0])(x)
    grouped = x.reshape(2, 16, groups, -1)
    mean, var = grouped.mean((1, 3), keepdims=True), grouped.var((1, 3), keepdims=True)
    np.testing.assert_allclose(y, ((grouped - mean) / np.sqrt(var + 1e-5)).reshape(x.shape), atol=1e-4)


@pytest.mark.parametrize("channels, groups", [(1, 1), (2, 1), (4, 2), (7, 1), (48, 24), (64, 32), (512, 32)])
def test_groups(channels, groups):
    assert layers.norm("group", channels, True, jnp.float32, "norm").num_groups == groups


def test_evaluation_does_not_depend_on_the_other_images():
    net, images = make(), noise(8, 8, 8, 3)
    variables = drawn(net, images.shape)
    run = quick_jit(lambda x: net.apply(variables, x, False)[0])
    others = np.concatenate([images[:2], 1 + 2 * images[:1:-1]])
    np.testing.assert_allclose(np.asarray(run(images))[:2], np.asarray(run(others))[:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, pytest.param({"norm": "layer"}, marks=pytest.mark.long), {"name": "mlp"}])
def test_bfloat16_computes_so_and_keeps_everything_else_in_float32(fields):
    half, full = make(dtype="bfloat16", **fields), make(**fields)
    images = noise(8, 16, 16, 3)
    variables = drawn(half, images.shape)

    @quick_jit
    def both(v):
        return [net.apply(v, images, True, mutable=["batch_stats"]) for net in (half, full)]

    ((logits, features), new), ((reference, _), _) = both(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, new))} == {np.dtype("float32")}
    assert logits.dtype == features.pop("penultimate").dtype == jnp.float32
    assert {value.dtype for value in features.values()} == {np.dtype(jnp.bfloat16)}
    assert 0 < np.abs(np.asarray(logits) - np.asarray(reference)).max() < 0.2


def test_accelerators_compute_in_bfloat16_unless_told_otherwise(monkeypatch):
    assert make(dtype="auto").dtype == make(name="mlp", dtype="auto").dtype == jnp.float32
    for backend in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)  # noqa: B023
        assert make(dtype="auto").dtype == make(name="mlp", dtype="auto").dtype == jnp.bfloat16
        assert make(dtype="float32").dtype == jnp.float32


def test_mlp_of_ash_and_adams():
    net = make(name="mlp", depth=2, width=100)
    images = noise(4, 32, 32, 3)
    params = initial(net)["params"]
    assert models.module_names(params) == ("layer1", "layer2", "head")
    assert params["layer1"]["kernel"].shape == (3072, 100) and params["head"]["kernel"].shape == (100, 10)
    logits, features = jax.device_get(quick_jit(lambda p: net.apply({"params": p}, images, True))(params))
    h = np.asarray(images).reshape(4, -1)
    for name in ("layer1", "layer2"):
        h = np.maximum(h @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]), 0)
        np.testing.assert_allclose(features[name], h, atol=1e-5)
    np.testing.assert_allclose(features["penultimate"], h, atol=1e-5)
    np.testing.assert_allclose(
        logits, h @ np.asarray(params["head"]["kernel"]) + np.asarray(params["head"]["bias"]), atol=1e-5
    )
    bound = 3072**-0.5
    assert 0.9 * bound < float(np.abs(params["layer1"]["bias"]).max()) < bound


def test_logistic_regression_is_linear():
    net = make(name="logistic")
    images = noise(4, 8, 8, 1)
    params = initial(net, images.shape)["params"]
    assert {name: leaf.shape for name, leaf in paths(params).items()} == {
        "head/kernel": (64, 10),
        "head/bias": (10,),
    }
    apply = quick_jit(lambda x: net.apply({"params": params}, x, True))
    logits, features = apply(images)
    assert set(features) == {"penultimate"}
    zero, _ = apply(np.zeros_like(images))
    double, _ = apply(2 * np.asarray(images))
    logits, zero, double = jax.device_get((logits, zero, double))
    np.testing.assert_allclose(double - zero, 2 * (logits - zero), atol=1e-5)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"name": "vgg"},
            "model.name='vgg': choose one of resnet, resnet18, resnet34, resnet50, resnet101, resnet152, wide_resnet, "
            "mlp, logistic, or give module:function of your own",
        ),
        ({"stem": "big"}, "model.stem='big': there is no such stem; choose one of ['cifar', 'imagenet']"),
        ({"norm": "batchnorm"}, "choose one of ['batch', 'layer', 'group', 'none']"),
        ({"dtype": "float16"}, "choose one of ['auto', 'float32', 'bfloat16']"),
        ({"depth": 0}, "model.depth=0: must be 1 or more"),
        ({"zero_scale": True, "norm": "none"}, "model.zero_scale=True: there is no scale without a norm"),
        ({"zero_scale": True, "name": "wide_resnet"}, "resnet101, resnet152, and not for wide_resnet"),
        ({"width": -1, "name": "mlp"}, "model.width=-1: must be 1 or more"),
    ],
)
def test_a_wrong_model_is_an_error_that_names_the_choices(fields, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make(**fields)


# ---- wide residual networks ----


def wide(depth=2, width=64, norm="batch", stem="cifar"):
    return models.build(spec.Model("wide_resnet", depth, width, stem, norm, "float32", "relu", 0.0, (), False), 10)


def parameters(depth, width, classes=10):
    """The count by hand: a convolution to 16 channels, blocks of two 3x3 convolutions with norms, a norm, a head."""
    total, before = 3 * 9 * 16, 16
    for k in range(3):
        channels = width * 2**k
        for j in range(depth):
            into = before if j == 0 else channels
            total += 9 * into * channels + 9 * channels**2 + 2 * into + 2 * channels
            total += into * channels if into != channels else 0
        before = channels
    return total + 2 * before + (before + 1) * classes


@pytest.mark.parametrize("depth, width, millions", [(2, 160, 17.1), (2, 64, 2.7), (4, 160, 36.5)])
def test_wide_residual_networks_are_as_large_as_published(depth, width, millions):
    """WRN-16-10, WRN-16-4 and WRN-28-10 of Zagoruyko & Komodakis 2016."""
    shapes = jax.eval_shape(lambda: wide(depth, width).init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), False))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == parameters(depth, width)
    assert count / 1e6 == pytest.approx(millions, abs=0.06)
    assert models.module_names(shapes["params"]) == ("stem", "module2", "module3", "module4", "norm", "head")


def test_a_block_of_a_wide_network_is_norm_relu_convolution_twice():
    """Both kinds of blocks equal the same operations written with lax."""
    x = noise(2, 6, 6, 4)
    for channels, stride in ((4, 1), (8, 2)):
        block = wide_resnet.PreBlock(channels, stride, "batch", jnp.float32)
        variables = quick_jit(lambda block=block: block.init(jax.random.key(0), x, False))()
        p = variables["params"]

        def conv(x, kernel, stride, pad):
            pads = [(pad, pad)] * 2
            return jax.lax.conv_general_dilated(
                x, kernel, (stride,) * 2, pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        def norm(x):  # in train mode, with scale 1 and offset 0
            return (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)

        def written_out(p, stride=stride):
            before = jax.nn.relu(norm(x))
            inner = jax.nn.relu(norm(conv(before, p["conv1"]["kernel"], stride, 1)))
            shortcut = conv(before, p["conv_proj"]["kernel"], stride, 0) if "conv_proj" in p else x
            return inner, shortcut + conv(inner, p["conv2"]["kernel"], 1, 1)

        inner, expected = quick_jit(written_out)(p)
        trained = quick_jit(lambda v, block=block: block.apply(v, x, True, mutable=["batch_stats"]))
        (outputs, features), _ = trained(variables)
        np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(features["inner"], inner, rtol=1e-4, atol=1e-4)
        assert ("conv_proj" in p) == (channels != 4)


@pytest.mark.parametrize("stem, side", [("cifar", 8), ("imagenet", 2)])
def test_features_of_a_wide_network(stem, side):
    net = wide(1, 4, "none", stem)
    shape = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, False), shape)
    logits, features = jax.eval_shape(lambda v, x: net.apply(v, x, False), variables, shape)
    assert logits.shape == (2, 10) and features["penultimate"].shape == (2, 16)
    assert features["norm"].shape == (2, side, side, 16) and "module4/block0/inner" in features
