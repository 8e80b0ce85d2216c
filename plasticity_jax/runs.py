"""The run axis: the only place where many runs become one program.

A function `fn(state, row, *shared)` is written for one run.  `compile_over` makes it work on states and rows
stacked along a leading axis, by one of three strategies:

    map    one run after another inside one program (`lax.map`)
    vmap   all runs at once (`vmap`)
    loop   one run after another, each by a call of a lone run's program

With several devices `map` and `vmap` hold within each, and the runs are dealt out over them; `loop` uses one.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from plasticity_jax.errors import ConfigError

Tree = Any
STRATEGIES = ("map", "vmap", "loop")


def choose(strategy: str, model: str) -> str:
    """The strategy behind `auto`: convolutions whose weights have a run axis are slow, matrix products are not."""
    if strategy != "auto":
        return strategy
    return "vmap" if model in ("mlp", "logistic") else "map"


def devices_for(count: int) -> list[jax.Device]:
    """The most devices that `count` runs can be dealt out to evenly."""
    devices = jax.local_devices()
    return devices[: max(n for n in range(1, len(devices) + 1) if count % n == 0)]


class Program:
    """A compiled function and the seconds that compiling it took."""

    def __init__(self, call: Callable[..., Tree], seconds: float):
        self.call = call
        self.seconds = seconds

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

    match strategy:
        case "map":
            return compile_one(_shard(mapped, count), states, rows, *shared, donate=donate)
        case "vmap":
            return compile_one(_shard(vmapped, count), states, rows, *shared, donate=donate)
        case "loop":
            one = compile_one(fn, *jax.tree.map(_row_shape, (states, rows)), *shared, donate=donate)

            def call(states: Tree, rows: Tree, *shared: Tree) -> Tree:
                return stack([one(*take((states, rows), i), *shared) for i in range(count)])

            return Program(call, one.seconds)
        case _:
            raise ConfigError(f"strategy={strategy!r}: choose one of {('auto', *STRATEGIES)}")


def compile_one(fn: Callable[..., Tree], *args: Tree, donate: bool = False, once: bool = False) -> Program:
    """Compile `fn` for `args`, given as arrays or their shapes.

    `donate` gives away the buffers of the first argument; `once` is for what runs too seldom to be optimised.
    """
    options: dict[str, Any] = {}
    if jax.default_backend() == "cpu":
        # XLA's default CPU preset fuses the normalisation into the weight gradients and computes it again and again;
        # and it takes seconds to optimise a draw of random numbers.
        options = (
            {"xla_backend_optimization_level": 1} if once else {"xla_cpu_opt_preset": "CPU_OPT_PRESET_FAST_COMPILE"}
        )
    start = time.perf_counter()
    call = jax.jit(fn, donate_argnums=(0,) if donate else (), compiler_options=options).lower(*args).compile()
    return Program(call, time.perf_counter() - start)


def _shard(over: Callable[..., Tree], count: int) -> Callable[..., Tree]:
    devices = devices_for(count)
    if len(devices) == 1:
        return over
    mesh, split, whole = Mesh(np.asarray(devices), ("run",)), PartitionSpec("run"), PartitionSpec()

    def sharded(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        specs = (split, split, *(whole for _ in shared))
        return jax.shard_map(over, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)(states, rows, *shared)

    return sharded


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
