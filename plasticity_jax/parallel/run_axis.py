"""The run axis: maps functions of one run over many runs, on all devices of all processes.

A function `fn(state, row, *shared)` is written for one run.  `compile_over` makes it work on states and rows stacked
along a leading axis, by one of seven strategies:

    map        one run after another inside one program (`lax.map`)
    vmap       all runs at once (`vmap`); convolutions become grouped convolutions
    batched    all runs at once; convolutions become matrix products batched over runs (`models.products`)
    seedwise   all runs at once, but their convolutions one run after another
    cores      `map` on each CPU core: every core is a device with one thread
    split      `cores`, but if there are fewer runs than cores, several cores share the batches of one run
    loop       one run after another, each by a call of the program for one run

Devices form a mesh (run, batch).  Runs are distributed over its first axis, equally many to each device: `place` adds
rows that repeat a run, and `fetch` removes them.  If there are fewer runs than devices, the devices of the second axis
share each batch of one run, with BatchNorm over the whole batch.

On accelerators `map`, `vmap`, `batched` and `seedwise` apply on each device, and `cores` and `split` are `map`.  A CPU
is one device with all its threads, except with `cores` and `split`.  `loop` uses one device, in one process.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity_jax import target
from plasticity_jax.errors import ConfigError
from plasticity_jax.models import convolution, products, resnet
from plasticity_jax.parallel import multihost, turns
from plasticity_jax.parallel.compiler import Program, compile_one
from plasticity_jax.sharding import AXES
from plasticity_jax.training.inputs import Images

Tree = Any
STRATEGIES = ("map", "vmap", "batched", "seedwise", "cores", "split", "loop")
CORES = ("cores", "split")  # strategies in which every CPU core is a device with one thread
FORMS: dict[str, Any] = {"vmap": contextlib.nullcontext, "batched": products.together, "seedwise": convolution.seedwise}
BUSY = 0.9  # smallest fraction of busy cores for which `auto` chooses `cores`


def choose(strategy: str, model: str, count: int) -> str:
    """Resolves the strategy `auto` for `count` runs of a model.

    Measured on a CPU of two cores: one run per core is fastest if the runs fill the cores (`BUSY`); otherwise matrix
    products are batched, and convolutions take turns.  For a GPU `batched` and for a TPU `map`, by numbers of kernel
    launches and estimated cycles of compiled programs (tests/benchmarks/README.md), not yet by measured time.
    Networks of bottlenecks take turns on a GPU too: with ImageNet's images the patches of `batched` need 11 GB a run.
    """
    if strategy != "auto":
        return strategy
    devices = len(layout("cores", count)[0])
    share = -(-count // devices)  # largest number of runs on a device
    if target.backend() == "cpu" and devices > 1 and count / (devices * share) >= BUSY:
        return "cores"
    if model in ("mlp", "logistic"):
        return "vmap"
    bottlenecks = model in resnet.SIZES and resnet.SIZES[model].block == "bottleneck"
    return "batched" if target.backend() == "gpu" and share > 1 and not bottlenecks else "map"


def layout(strategy: str, count: int) -> tuple[list[jax.Device], int]:
    """(the fewest devices on which `count` runs finish earliest, how many devices share each batch).

    Includes at least one device of every process, even if it only repeats the work of another.

    Raises:
      ConfigError: `loop` in several processes.
    """
    devices, accelerated = target.devices(), target.backend() != "cpu"
    if strategy == "loop":
        if not multihost.alone():
            raise ConfigError("strategy=loop trains in one process only; use --config.strategy=map")
        return devices[:1], 1
    if not accelerated and strategy not in CORES:
        devices = devices[:1] if multihost.alone() else _first_of_each_process(devices)
    share = -(-count // len(devices))  # largest number of runs on a device
    groups = -(-count // share)
    apart = accelerated or (
        strategy != "cores" and not multihost.alone()
    )  # sharing batches would change bits of `cores`
    ways = len(devices) // groups if apart or strategy == "split" else 1
    used = devices[: groups * ways]
    if not multihost.alone() and len({device.process_index for device in used}) < jax.process_count():
        used = devices[: len(devices) // ways * ways]
    return used, ways


def _first_of_each_process(devices: list[jax.Device]) -> list[jax.Device]:
    first: dict[int, jax.Device] = {}
    for device in devices:
        first.setdefault(device.process_index, device)
    return list(first.values())


def mesh_for(strategy: str, count: int) -> Mesh:
    """The devices of `layout` as a mesh: (`run`, `batch`)."""
    devices, ways = layout(strategy, count)
    return Mesh(np.asarray(devices).reshape(-1, ways), AXES)


def compile_over(
    fn: Callable[..., Tree], strategy: str, states: Tree, rows: Tree, *shared: Tree, donate: bool, **how: Any
) -> Program:
    """Compiles `fn` for `states` and `rows` (leaves [R, ...]) and `shared`, given as arrays or shapes.

    Shared arguments are replicated, except for windows of images (`deal`).  Arguments are expected
    where `place` and `replicate` put them; R includes the rows that `place` adds.  With `donate` the result reuses the
    buffers of the states; `fn` then returns a state like its argument, or (state, other).  `how` as in `compile_one`.

    Raises:
      ConfigError: there is no such strategy.
    """
    count = jax.tree.leaves((states, rows))[0].shape[0]

    def mapped(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        over = turns.in_place if donate else jax.lax.map
        return over(lambda pair: fn(*pair, *shared), (states, rows))

    def vmapped(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        return jax.vmap(lambda *pair: fn(*pair, *shared))(states, rows)

    compile_all: Callable[..., Program] = functools.partial(
        _compile_dealt, mesh_for(strategy, count), donate=donate, **how
    )
    match strategy:
        case "map" | "cores" | "split":
            return compile_all(mapped, states, rows, *shared, threads=strategy not in CORES)
        case "vmap" | "batched" | "seedwise":
            with FORMS[strategy]():
                return compile_all(vmapped, states, rows, *shared)
        case "loop":
            args = *jax.tree.map(_row_shape, (states, rows)), *shared
            one = compile_one(fn, *args, donate=donate, **how)

            def call(states: Tree, rows: Tree, *shared: Tree) -> Tree:
                return stack([one(*row, *shared) for row in apart((states, rows))])

            return Program(lambda: (one.compiled, one.loaded), one.seconds, call)
        case _:
            raise ConfigError(f"strategy={strategy!r}: choose one of {('auto', *STRATEGIES)}")


def compile_by_row(
    fn: Callable[..., Tree], strategy: str, states: Tree, row: Tree, *shared: Tree, **how: Any
) -> Program:
    """Compiles `turns.at_row(fn)`, which donates `states` and runs seldom: on each device, one run at a time.

    `row` has leaves [G, ...], one row for each of the G = `groups_for` groups of devices.
    """
    mesh, number = mesh_for(strategy, len(jax.tree.leaves(states)[0])), jax.ShapeDtypeStruct((), np.int32)
    how |= {"donate": True, "threads": strategy not in CORES, "seldom": True}
    return _compile_dealt(mesh, turns.at_row(fn), states, row, number, *shared, **how)


def _compile_dealt(mesh: Mesh, over: Callable[..., Tree], *args: Tree, **how: Any) -> Program:
    """Compiles `over` with equally many runs for each group of devices; `how` as in `compile_one`."""
    if mesh.size == 1 and multihost.alone():
        return compile_one(over, *args, **how)
    dealt_out, whole = PartitionSpec(AXES[0]), PartitionSpec()
    specs = (dealt_out, dealt_out, *(_laid_out(arg, dealt_out, whole) for arg in args[2:]))
    share = jax.shard_map(over, mesh=mesh, in_specs=specs, out_specs=dealt_out, axis_names={AXES[0]}, check_vma=False)
    by_run, all_over = _shardings(mesh)
    wanted = (by_run, by_run, *(_laid_out(arg, by_run, all_over) for arg in args[2:]))
    return compile_one(share, *args, **how, in_shardings=wanted, out_shardings=by_run)


def _laid_out(shared: Tree, part: Any, whole: Any) -> Any:
    return shared.laid_out(part, whole) if isinstance(shared, Images) else whole


def _shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """The shardings of (states and rows, shared arguments)."""
    return NamedSharding(mesh, PartitionSpec(AXES[0])), NamedSharding(mesh, PartitionSpec())


def rows_for(strategy: str, count: int) -> int:
    """The number of rows of arrays of `count` runs on devices: `count` rounded up to equally many per device."""
    groups = groups_for(strategy, count)
    return -(-count // groups) * groups


def groups_for(strategy: str, count: int) -> int:
    """The number of groups of devices over which `count` runs are distributed; a group shares batches."""
    return mesh_for(strategy, count).shape[AXES[0]]


def place(rows: Tree, strategy: str, idle: Any = None) -> Tree:
    """Puts arrays [R, ...] on the devices of their runs, with rows added so that all devices have equally many.

    The added rows repeat the last one, or are filled with `idle` if given.  Arrays already placed are returned as is.
    """
    count = jax.tree.leaves(rows)[0].shape[0]
    wanted = rows_for(strategy, count)
    index = np.minimum(np.arange(wanted), count - 1)

    def fill(leaf: Any) -> Any:
        if wanted == count:
            return leaf
        if idle is not None:
            return np.concatenate([leaf, np.full((wanted - count, *leaf.shape[1:]), idle, leaf.dtype)])
        return _numpy(leaf).asarray(leaf)[index]

    return _put(jax.tree.map(fill, rows), _shardings(mesh_for(strategy, count))[0])


def moved(rows: Tree, index: np.ndarray, strategy: str) -> Tree:
    """Reorders placed rows: row i of the result is row index[i].  For one process.

    Deletes the old arrays leaf by leaf, so that only one leaf is in memory twice.
    """

    def take(leaf: jax.Array) -> jax.Array:
        taken = place(_numpy(leaf).asarray(leaf)[index], strategy)
        leaf.delete()
        return taken

    return jax.tree.map(take, rows)


def deal(images: Images, strategy: str, count: int) -> Images:
    """Puts a window of images on the devices: equal parts along the first axis, one for each group of devices."""
    return jax.tree.map(_put, images, images.laid_out(*_shardings(mesh_for(strategy, count))))


def replicate(tree: Tree, strategy: str, count: int) -> Tree:
    """Copies the arrays to each of the devices that `count` runs train on."""
    return _put(tree, _shardings(mesh_for(strategy, count))[1])


def fetch(rows: Tree, count: int, few: bool = False) -> Tree:
    """The first `count` rows of placed arrays, in numpy; every process must call it.

    `few` is for integers and bools [R]: it does not wait for programs queued later.
    """
    return jax.tree.map(lambda leaf: leaf[:count], (multihost.fetch_few if few else multihost.fetch)(rows))


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    """Puts the arrays of a tree, which every process has completely or in part, on devices by `sharding`."""

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            return leaf
        if multihost.alone():
            return jax.device_put(leaf, sharding)
        if _is_key(leaf):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        held = np.asarray(leaf)
        return jax.make_array_from_callback(held.shape, sharding, lambda part: held[part])

    return jax.tree.map(put, tree)


def _row_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def stack(rows: Sequence[Tree]) -> Tree:
    """One tree with a leading run axis."""
    return jax.device_put(jax.tree.map(lambda *leaves: _numpy(leaves[0]).stack(leaves), *rows))


def stack_on_host(rows: Sequence[Tree]) -> Tree:
    """`stack` in numpy, which compiles nothing."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def take(rows: Tree, index: int | np.ndarray) -> Tree:
    """The row at `index`, or the rows at several."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


def apart(rows: Tree) -> list[Tree]:
    """All rows, in order, without one jax operation per row and leaf as with `take`."""
    leaves, structure = jax.tree.flatten(rows)
    listed = [_keys(leaf) if _is_key(leaf) else list(_numpy(leaf).asarray(leaf)) for leaf in leaves]
    return [jax.tree.unflatten(structure, row) for row in zip(*listed, strict=True)]


def _keys(keys: jax.Array) -> list[jax.Array]:
    """Random keys one by one, by way of their numbers, which compiles nothing."""
    impl = jax.random.key_impl(keys)
    return [jax.random.wrap_key_data(data, impl=impl) for data in np.asarray(jax.random.key_data(keys))]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numpy(leaf: Any) -> ModuleType:
    """The module to slice and stack arrays like `leaf`: numpy for arrays on CPU, since it compiles nothing."""
    return jnp if _is_key(leaf) or (isinstance(leaf, jax.Array) and target.backend() != "cpu") else np
