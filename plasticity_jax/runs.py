"""The run axis: the only place where many runs become one program.

A function `fn(state, row, *shared)` is written for one run.  `compile_over` makes it work on states and rows
stacked along a leading axis, by one of five strategies:

    map        one run after another inside one program (`lax.map`)
    vmap       all runs at once (`vmap`); convolutions become grouped convolutions
    seedwise   all runs at once, but their convolutions one run after another
    cores      `map` on every CPU core by itself: each device has one thread, and runs of its own
    loop       one run after another, each by a call of a lone run's program

On several accelerators `map`, `vmap` and `seedwise` hold within each, and the runs are dealt out over them; there
`cores` is `map`.  On CPU only `cores` uses several devices, the others give all threads to one; `loop` uses one
device everywhere.
"""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity_jax import convolution, machine
from plasticity_jax.errors import ConfigError
from plasticity_jax.memory import Footprint, footprint

Tree = Any
STRATEGIES = ("map", "vmap", "seedwise", "cores", "loop")
BUSY = 0.9  # share of the time that a core must have a run to train, for `cores` to be worth it


def use_all_cores() -> None:
    """Make each CPU core a device, for the strategy `cores`; too late once jax has computed something.

    Another number can be had from jax itself, by the environment variable JAX_NUM_CPU_DEVICES.
    """
    asked = jax.config.values["jax_num_cpu_devices"] > 0 or "host_platform_device_count" in os.environ.get(
        "XLA_FLAGS", ""
    )
    if not asked:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", machine.threads())


def choose(strategy: str, model: str, count: int) -> str:
    """The strategy behind `auto` for `count` runs of a model.

    Measured on a CPU of two cores only: matrix products are fastest together, and convolutions on a core of their own,
    if the runs fill the cores (`BUSY`).  Not measured on a GPU: there convolutions go one run after another, since
    grouped ones are known to be slow.
    """
    if strategy != "auto":
        return strategy
    if model in ("mlp", "logistic"):
        return "vmap"
    devices = len(devices_for("cores", count))
    busy = count / (devices * -(-count // devices))
    return "cores" if jax.default_backend() == "cpu" and devices > 1 and busy >= BUSY else "map"


def devices_for(strategy: str, count: int) -> list[jax.Device]:
    """The fewest devices on which `count` runs are done soonest."""
    devices = jax.local_devices()
    if strategy == "loop" or (strategy != "cores" and jax.default_backend() == "cpu"):
        return devices[:1]
    share = -(-count // len(devices))  # runs of the device that has the most
    return devices[: -(-count // share)]


class Program:
    """A compiled function, the seconds that compiling it took, and the bytes it needs (by `loop` for one run)."""

    def __init__(self, call: Callable[..., Tree], seconds: float, footprint: Footprint | None = None):
        self.call = call
        self.seconds = seconds
        self.footprint = footprint

    def __call__(self, *args: Tree) -> Tree:
        return self.call(*args)


def compile_over(
    fn: Callable[..., Tree], strategy: str, states: Tree, rows: Tree, *shared: Tree, donate: bool
) -> Program:
    """Compile `fn` for `states` and `rows` (leaves [R, ...]) and unsplit `shared`, given as arrays or their shapes.

    `donate` gives the buffers of the states to the result.

    Raises:
      ConfigError: no such strategy.
    """
    count = jax.tree.leaves((states, rows))[0].shape[0]

    def mapped(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        return jax.lax.map(lambda pair: fn(*pair, *shared), (states, rows))

    def vmapped(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        return jax.vmap(lambda *pair: fn(*pair, *shared))(states, rows)

    devices = devices_for(strategy, count)
    match strategy:
        case "map" | "cores":
            threads = strategy != "cores"
            return compile_one(_deal(mapped, count, devices), states, rows, *shared, donate=donate, threads=threads)
        case "vmap":
            return compile_one(_deal(vmapped, count, devices), states, rows, *shared, donate=donate)
        case "seedwise":
            with convolution.seedwise():
                return compile_one(_deal(vmapped, count, devices), states, rows, *shared, donate=donate)
        case "loop":
            one = compile_one(fn, *jax.tree.map(_row_shape, (states, rows)), *shared, donate=donate)

            def call(states: Tree, rows: Tree, *shared: Tree) -> Tree:
                return stack([one(*take((states, rows), i), *shared) for i in range(count)])

            return Program(call, one.seconds, one.footprint)
        case _:
            raise ConfigError(f"strategy={strategy!r}: choose one of {('auto', *STRATEGIES)}")


def compile_one(
    fn: Callable[..., Tree], *args: Tree, donate: bool = False, once: bool = False, threads: bool = True
) -> Program:
    """Compile `fn` for `args`, given as arrays or their shapes.

    `donate` gives away the buffers of the first argument; `once` is for what runs too seldom to be optimised;
    without `threads` a CPU device computes on one.
    """
    options: dict[str, Any] = {}
    if jax.default_backend() == "cpu":
        # XLA's default CPU preset fuses the normalisation into the weight gradients and computes it again and again;
        # and it takes seconds to optimise a draw of random numbers.
        options = (
            {"xla_backend_optimization_level": 1} if once else {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
        )
        if not threads:
            options["xla_cpu_multi_thread_eigen"] = False
    start = time.perf_counter()
    call = jax.jit(fn, donate_argnums=(0,) if donate else (), compiler_options=options).lower(*args).compile()
    return Program(call, time.perf_counter() - start, footprint(call))


def _deal(over: Callable[..., Tree], count: int, devices: list[jax.Device]) -> Callable[..., Tree]:
    """Give each device an equal share of the runs; the last run is repeated where they do not come out even."""
    if len(devices) == 1:
        return over
    mesh, split, whole = Mesh(np.asarray(devices), ("run",)), PartitionSpec("run"), PartitionSpec()
    even = -(-count // len(devices)) * len(devices)
    filled = np.minimum(np.arange(even), count - 1)

    def dealt(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        specs = (split, split, *(whole for _ in shared))
        share = jax.shard_map(over, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        if even == count:
            return share(states, rows, *shared)
        states, rows = jax.tree.map(lambda leaf: leaf[filled], (states, rows))
        return jax.tree.map(lambda leaf: leaf[:count], share(states, rows, *shared))

    return dealt


def replicate(tree: Tree, devices: list[jax.Device]) -> Tree:
    """The same arrays on each of the devices."""
    if len(devices) == 1:
        return jax.device_put(tree)
    return jax.device_put(tree, NamedSharding(Mesh(np.asarray(devices), ("run",)), PartitionSpec()))


def _row_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def stack(rows: list[Tree]) -> Tree:
    """One tree with a leading run axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)


def stack_on_host(rows: Sequence[Tree]) -> Tree:
    """`stack` in numpy, where nothing has to be compiled for it."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def take(rows: Tree, index: int) -> Tree:
    """The row at `index`."""
    return jax.tree.map(lambda leaf: leaf[index], rows)
