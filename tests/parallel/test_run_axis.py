"""Runs that train together equal runs that train alone, by every strategy and on any number of devices.

On CPU `map` and `loop` give the same bits as a lone run, and `cores` those of a lone run with one thread.  `vmap`,
`batched` and `seedwise` turn matrix products into batched ones, which may add up in another order: parameters agree to
`ROUNDING` after a handful of steps.
"""

import functools
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plasticity_jax import models
from plasticity_jax.config import spec
from plasticity_jax.data import batches
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import parameters
from plasticity_jax.parallel import compiler, cpu, multihost, of_one, programs, run_axis
from plasticity_jax.runner import schedule
from plasticity_jax.training import resets, state
from plasticity_jax.training import step as train
from tests.support.tiny import CONVOLVED, DATASET, IMAGES, MLP, SHAPE, first_state, same, stage, task

ROUNDING = dict(rtol=1e-4, atol=1e-5)
ROOT = pathlib.Path(__file__).parents[2]


def close(a, b):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **ROUNDING), a, b)


# ---- any function ----


def move(state, row, shared):
    x = jnp.tanh(state["x"] @ shared + row)
    return {"x": x, "n": state["n"] + 1}


@pytest.mark.parametrize("strategy", run_axis.STRATEGIES)
@settings(max_examples=5)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 7), st.booleans())
def test_any_shape(strategy, count, height, width, donate):
    rng = np.random.default_rng(count + 10 * height + 100 * width)
    states = {"x": rng.normal(size=(count, height, width)), "n": np.arange(count)}
    rows, shared = rng.normal(size=(count,)), rng.normal(size=(width, width))
    expected = np.stack([np.tanh(states["x"][i] @ shared + rows[i]) for i in range(count)])
    given = jax.device_put(jax.tree.map(np.float32, ({"x": states["x"]}, rows, shared)))
    given[0]["n"] = jax.device_put(np.int32(states["n"]))
    states, rows = run_axis.place(given[:2], strategy)
    given = states, rows, run_axis.replicate(given[2], strategy, count)
    program = run_axis.compile_over(move, strategy, *given, donate=donate)
    result = run_axis.fetch(program(*given), count)
    assert result["n"].tolist() == list(range(1, count + 1)) and program.seconds > 0
    close(result["x"], expected)


def test_shares_are_made_equal_by_rows_that_are_left_out_again():
    """Three runs on two devices get a fourth row, which `fetch` removes; complete arrays get none."""
    given = {
        "x": np.arange(6.0, dtype=np.float32).reshape(3, 2),
        "key": run_axis.stack([*map(jax.random.key, range(3))]),
    }
    placed, idle = run_axis.place(given, "cores"), run_axis.place(np.array([7, 8, 9]), "cores", idle=0)
    assert np.asarray(placed["x"]).tolist() == [[0, 1], [2, 3], [4, 5], [4, 5]] and idle.tolist() == [7, 8, 9, 0]
    assert run_axis.place(placed, "cores")["x"] is placed["x"] and run_axis.rows_for("cores", 4) == 4
    assert run_axis.place(given, "map")["x"].shape == (3, 2)
    assert run_axis.fetch({"x": placed["x"]}, 3)["x"].tolist() == given["x"].tolist()
    assert same(jax.random.key_data(placed["key"])[2:], np.tile(jax.random.key_data(jax.random.key(2)), (2, 1)))


def test_unknown_strategy():
    with pytest.raises(
        ConfigError,
        match="strategy='pmap': choose one of.*'auto', 'map', 'vmap', 'batched', 'seedwise', 'cores', 'split', 'loop'",
    ):
        run_axis.compile_over(move, "pmap", jnp.zeros(2), jnp.zeros(2), donate=False)


@pytest.mark.parametrize("strategy", ["map", "vmap"])
@pytest.mark.parametrize("donate", [False, True])
def test_donated_states_are_given_away(strategy, donate):
    states, rows = jnp.arange(6.0).reshape(3, 2), jnp.ones(3)
    result = run_axis.compile_over(lambda s, r: s + r, strategy, states, rows, donate=donate)(states, rows)
    assert states.is_deleted() == donate and not rows.is_deleted()
    np.testing.assert_array_equal(result, np.arange(6.0).reshape(3, 2) + 1)


def test_auto_gives_several_runs_a_core_each_and_else_batches_matrix_products(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: list(range(2)))
    assert {run_axis.choose("auto", model, 4) for model in models.MODELS} == {"cores"}
    assert [run_axis.choose("auto", "resnet", count) for count in (5, 11)] == [
        "map",
        "cores",
    ]  # on cores, a sixth of the rows would be idle, or a twelfth
    assert {model: run_axis.choose("auto", model, 5) for model in ("resnet", "mlp", "logistic")} == {
        "resnet": "map",
        "mlp": "vmap",
        "logistic": "vmap",
    }
    assert run_axis.choose("auto", "resnet", 1) == "map" and run_axis.choose("loop", "mlp", 4) == "loop"
    monkeypatch.setattr(jax, "devices", lambda: [0])
    assert run_axis.choose("auto", "resnet", 4) == "map"
    monkeypatch.setattr(jax, "devices", lambda: list(range(2)))
    chosen = {}
    for backend in ("gpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda: backend)  # noqa: B023
        chosen[backend] = [run_axis.choose("auto", "resnet", count) for count in (1, 2, 3, 4)]
    # Two devices: as soon as one of them has several runs, a GPU launches them together.
    assert chosen == {"gpu": ["map", "map", "batched", "batched"], "tpu": ["map"] * 4}
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert [run_axis.choose("auto", f"resnet{depth}", 4) for depth in (18, 34, 50, 101, 152)] == [
        *["batched"] * 2,
        *["map"] * 3,
    ]


@pytest.mark.parametrize(
    ("devices", "runs_", "used"), [(4, 8, 4), (4, 6, 3), (4, 5, 3), (4, 3, 3), (1, 7, 1), (2, 5, 2)]
)
def test_runs_are_dealt_out_to_as_few_devices_as_make_them_soonest(monkeypatch, devices, runs_, used):
    monkeypatch.setattr(jax, "devices", lambda: list(range(devices)))
    assert run_axis.layout("cores", runs_) == (list(range(used)), 1)
    assert run_axis.layout("map", runs_) == run_axis.layout("vmap", runs_) == ([0], 1)  # with all threads of the CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for strategy in ("map", "vmap", "seedwise", "cores", "split"):
        assert run_axis.layout(strategy, runs_) == (list(range(used)), 1)
    assert run_axis.layout("loop", runs_) == ([0], 1)


@pytest.mark.parametrize(
    ("devices", "runs_", "used", "ways"), [(8, 1, 8, 8), (3, 1, 3, 3), (8, 3, 6, 2), (8, 4, 8, 2), (3, 2, 2, 1)]
)
def test_devices_that_would_idle_share_the_batches(monkeypatch, devices, runs_, used, ways):
    monkeypatch.setattr(jax, "devices", lambda: list(range(devices)))
    assert run_axis.layout("split", runs_) == (list(range(used)), ways)
    assert run_axis.layout("cores", runs_) == (list(range(runs_)), 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert run_axis.layout("map", runs_) == (list(range(used)), ways)


@pytest.mark.parametrize(
    ("processes", "per_process", "strategy", "runs_", "used", "ways"),
    [
        (2, 4, "map", 2, [0, 4], 1),  # the first device of each CPU
        (2, 4, "map", 1, [0, 4], 2),
        (2, 2, "cores", 4, [0, 1, 2, 3], 1),
        (2, 2, "cores", 1, [0, 1, 2, 3], 1),  # all repeat the run, or the second process would have nothing to do
        (4, 1, "map", 3, [0, 1, 2, 3], 1),
        (2, 2, "split", 1, [0, 1, 2, 3], 4),
    ],
)
def test_every_process_has_a_device_at_work(monkeypatch, processes, per_process, strategy, runs_, used, ways):
    all_devices = [types.SimpleNamespace(id=i, process_index=i // per_process) for i in range(processes * per_process)]
    monkeypatch.setattr(jax, "devices", lambda: all_devices)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(multihost, "alone", lambda: False)
    devices, shards = run_axis.layout(strategy, runs_)
    assert ([device.id for device in devices], shards) == (used, ways)
    with pytest.raises(ConfigError, match="strategy=loop trains in one process only"):
        run_axis.layout("loop", runs_)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({}, cpu.threads()),
        pytest.param({"JAX_NUM_CPU_DEVICES": "3"}, 3, marks=pytest.mark.long),
        pytest.param({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3, marks=pytest.mark.long),
    ],
)
def test_all_cores_are_devices_unless_somebody_chose(asked, count):
    use = "from plasticity_jax.parallel import cpu; cpu.use_all_cores()"
    code = f"import os, jax; {use}; print(jax.device_count())"
    kept = {name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    call = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(call, env=kept | asked, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) == count


def test_stack_and_take():
    rows = [{"a": np.full(2, i, np.int32), "b": np.float32(i)} for i in range(3)]
    for stacked in (run_axis.stack(rows), run_axis.stack_on_host(rows)):
        assert stacked["a"].shape == (3, 2) and stacked["b"].shape == (3,)
        assert all(same(run_axis.take(jax.device_get(stacked), i), rows[i]) for i in range(3))
        assert len(run_axis.apart(stacked)) == 3 and all(map(same, run_axis.apart(stacked), rows))


def test_rows_apart_may_be_random_keys():
    keys = [jax.random.key(seed) for seed in range(3)]
    found = run_axis.apart({"key": run_axis.stack(keys), "none": ()})
    assert [jax.random.normal(row["key"]) for row in found] == [jax.random.normal(key) for key in keys]


# ---- training ----


def advance(model, stage):
    return functools.partial(train.advance, model=model, stage=stage)


MOMENTUM = stage(momentum=0.9, augment="crop_flip")
KINDS = {"mlp": (MLP, MOMENTUM), "convolved": (CONVOLVED, stage(momentum=0.9))}
ROWS = [(0, 100, 10), (1, 100, 5), (2, 30, 10)]  # seed, images, steps
BY_DAY = {  # convolutions where they have a way or devices of their own, matrix products elsewhere
    "mlp": ("map", "loop"),
    "convolved": ("batched", "cores", "split"),
}


@functools.cache
def lone(kind, threads=True):
    """Each run after 6 steps in its own program, that of `loop`; computed once per process."""
    model, stage = KINDS[kind]
    rows = [task(stage, *row) for row in ROWS]
    first = [jax.device_get(first_state(model, stage, seed)) for seed, _, _ in ROWS]
    shapes = first[0], (rows[0], np.int32(6)), IMAGES
    program = compiler.compile_one(advance(model, stage), *shapes, donate=True, threads=threads)
    ends = [program(s, (row, np.int32(6)), IMAGES) for s, row in zip(first, rows, strict=True)]
    return run_axis.stack_on_host(first), run_axis.stack(rows), jax.device_get(ends)


@pytest.mark.exact
@pytest.mark.parametrize(
    "kind, strategy",
    [
        pytest.param(kind, name, marks=() if name in by_day else pytest.mark.long)
        for kind, by_day in BY_DAY.items()
        for name in run_axis.STRATEGIES
    ],
)
def test_runs_side_by_side_are_the_runs_alone(kind, strategy):
    model, stage = KINDS[kind]
    first, rows, expected = lone(kind, threads=strategy in ("map", "loop") or (kind, strategy) == ("mlp", "vmap"))
    states, rows = run_axis.place((first, (rows, np.full(len(ROWS), 6, np.int32))), strategy)
    args = states, rows, run_axis.replicate(IMAGES, strategy, len(ROWS))
    program = run_axis.compile_over(advance(model, stage), strategy, *args, donate=True)
    result = run_axis.fetch(program(*args), len(ROWS))
    assert result.step.tolist() == [6, 5, 2]  # the end of the call, of the stage, and one epoch
    for i, alone in enumerate(expected):
        if strategy in ("vmap", "batched", "seedwise"):
            close(run_axis.take(result, i), alone)
        else:
            assert same(run_axis.take(result, i), alone)


@pytest.mark.long
@pytest.mark.parametrize(
    "width, depth, stem, side, batch, count", [(3, 1, "cifar", 20, 24, 3), (4, 1, "imagenet", 32, 16, 2)]
)
def test_residual_networks_side_by_side(width, depth, stem, side, batch, count):
    """Two steps of each strategy reach the parameters of a lone run, to 1 % of the distance."""
    model = models.build(spec.Model("resnet", depth, width, stem, "batch", "float32", "relu", 0.0, (), False), 4)
    shape = (side, side, 3)
    start = jax.jit(lambda key: state.create(*state.init_network(model, key, shape), MOMENTUM))
    first = [start(jax.random.key(seed)) for seed in range(count)]
    rng = np.random.default_rng(width)
    rows = [
        {"image": rng.normal(size=(batch, *shape)).astype(np.float32), "label": rng.integers(0, 4, batch)}
        for _ in range(count)
    ]
    plan = task(MOMENTUM)

    def steps(state, row):
        def step(_, state):
            return train.train_step(state, row, model=model, stage=MOMENTUM, task=plan)[0]

        return jax.lax.fori_loop(0, 2, step, state).params  # a loop compiles in half the time of two steps

    alone = compiler.compile_one(steps, first[0], rows[0])
    expected = [alone(*pair) for pair in zip(first, rows, strict=True)]
    stacked = run_axis.stack(first), run_axis.stack_on_host(rows)
    for strategy in (name for name in run_axis.STRATEGIES if name != "split"):  # which here is `cores`
        placed = run_axis.place(stacked, strategy)
        result = run_axis.fetch(run_axis.compile_over(steps, strategy, *placed, donate=False)(*placed), count)
        for i in range(count):
            way = jax.tree.map(lambda a, b: np.asarray(a - b), expected[i], first[i].params)
            off = jax.tree.map(lambda a, b: np.asarray(a - b), run_axis.take(result, i), expected[i])
            for path, moved in parameters.paths(way).items():
                assert np.linalg.norm(parameters.paths(off)[path]) < 1e-2 * np.linalg.norm(moved) + 1e-6, (
                    strategy,
                    path,
                )


# ---- devices ----


def study_of_four_programs(strategy, count):
    """{name: array}: begin, advance twice and evaluate `count` runs, as a group does."""
    made = programs.Programs(MLP, SHAPE, strategy, 32, {}, {})
    record = stage(fraction=1.0, modules=("head",), shrink=0.5, perturb=0.5, statistics="keep", optimiser="all")
    like = jax.eval_shape(lambda: state.create(*state.init_network(MLP, jax.random.key(0), SHAPE), record))
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like.opt)
    parents = [(*made.init(state.init_key(seed)), opt) for seed in range(count)]
    fresh = [made.init(batches.key(seed, "fresh", "train")) for seed in range(count)]
    starts = [of_one.Start(*network, resets.factors(record.reset, like)) for network in fresh]
    rows = made.place(run_axis.stack([task(record, seed) for seed in range(count)]))
    blank = made.place(jax.tree.map(lambda leaf: np.zeros((count, *leaf.shape), leaf.dtype), like))
    states = made.begin(record, blank, [*zip(starts, parents, [np.True_] * count, strict=True)], None)
    for until in (4, 9):
        steps = made.place(np.full(count, until, np.int32), idle=0)
        states, _ = made.advance(record, states, (rows, steps), IMAGES)
    everything = made.replicate(schedule.plain_source(np.arange(100), DATASET.train_labels), count)
    due = made.place(np.ones(count, np.bool_), idle=False)
    sums = made.evaluate(states, due, everything, (0, 1), IMAGES)
    own_sums = made.evaluate_own(states, due, rows.source, (1, 2), IMAGES)
    arrays = {f"devices/{strategy}/{count}": np.int32(len(states.step.sharding.device_set))}
    for name, tree in (("state", states), ("sums", sums), ("own", own_sums)):
        arrays |= {
            f"{strategy}/{count}/{name}/{path}": run_axis.fetch(leaf, count)
            for path, leaf in parameters.paths(tree).items()
        }
    return arrays


def studies():
    return study_of_four_programs("cores", 7) | study_of_four_programs("vmap", 3)


@pytest.mark.long
def test_several_devices_give_what_one_gives(tmp_path):
    """Four devices and one, each in its own process; seven runs are two on each device but the last."""
    arrays = {}
    for devices in (1, 4):
        to = str(tmp_path / f"{devices}.npz")
        code = "import numpy; from tests.parallel import test_run_axis; "
        code += f"numpy.savez({to!r}, **test_run_axis.studies())"
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
        call = [sys.executable, "-W", "error", "-c", code]
        subprocess.run(call, env=environment, cwd=tmp_path, check=True, timeout=300)
        arrays[devices] = dict(np.load(tmp_path / f"{devices}.npz"))
    names = ("cores/7", "vmap/3")
    assert [int(arrays[4].pop(f"devices/{name}")) for name in names] == [4, 1]
    assert [int(arrays[1].pop(f"devices/{name}")) for name in names] == [1, 1]
    assert arrays[4].keys() == arrays[1].keys() and arrays[1]["cores/7/state/step"].tolist() == [9] * 7
    exact = {name for name in arrays[1] if "/state/" in name}
    assert all(same(arrays[4][name], arrays[1][name]) for name in exact)
    close(arrays[4], arrays[1])  # a loop over a single run is no loop, and a sum may be rounded in another way
