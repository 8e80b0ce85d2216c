"""The run axis: the only place where many runs become one program, on however many devices of however many processes.

A function `fn(state, row, *shared)` is written for one run.  `compile_over` makes it work on states and rows
stacked along a leading axis, by one of seven strategies:

    map        one run after another inside one program (`lax.map`)
    vmap       all runs at once (`vmap`); convolutions become grouped convolutions
    batched    all runs at once; convolutions become matrix products batched over runs (`models.products`)
    seedwise   all runs at once, but their convolutions one run after another
    cores      `map` on every CPU core by itself: each device has one thread, and runs of its own
    split      `cores`, but where there are fewer runs than cores, several share the batches of one run
    loop       one run after another, each by a call of a lone run's program

Devices form a mesh (run, batch).  Runs are dealt out over its first axis, equally many to each device: `place` adds
rows that repeat a run, and `fetch` leaves them out.  Where there are fewer runs than devices, the second has the
devices that share each batch of one run (`split`), with BatchNorm over the whole batch.

An accelerator is a device, and there `map`, `vmap`, `batched` and `seedwise` hold within each, and `cores` and `split`
are `map`.  A CPU is one device with all its threads, but every core is one to `cores` and `split`.  `loop` uses one
device, in one process.
"""

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
from plasticity_jax.models import convolution, products
from plasticity_jax.parallel import multihost, turns
from plasticity_jax.parallel.compiler import Program, compile_one
from plasticity_jax.sharding import AXES
from plasticity_jax.training.inputs import Images

Tree = Any
STRATEGIES = ("map", "vmap", "batched", "seedwise", "cores", "split", "loop")
CORES = ("cores", "split")  # by which every core of a CPU is a device with one thread
BUSY = 0.9  # share of the time that a core must have a run to train, for `cores` to be worth it


def choose(strategy: str, model: str, count: int) -> str:
    """The strategy that `auto` means for `count` runs of a model.

    Measured on a CPU of two cores: matrix products are fastest together, and convolutions on a core of their own, if
    the runs fill the cores (`BUSY`).  On a GPU several runs are launched together, and on a TPU they take turns: by
    the launches and the estimated cycles of compiled programs (tests/benchmarks/README.md), not yet by time.
    """
    if strategy != "auto":
        return strategy
    if model in ("mlp", "logistic"):
        return "vmap"
    devices = len(layout("cores", count)[0])
    share = -(-count // devices)  # runs of the device that has the most
    if target.backend() == "gpu":
        return "batched" if share > 1 else "map"
    return "cores" if target.backend() == "cpu" and devices > 1 and count / (devices * share) >= BUSY else "map"


def layout(strategy: str, count: int) -> tuple[list[jax.Device], int]:
    """The fewest devices on which `count` runs are done soonest, and how many of them share each batch.

    Every process has one of them at least, even if it only repeats what another does.

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
    share = -(-count // len(devices))  # runs of the device that has the most
    groups = -(-count // share)
    apart = accelerated or (strategy != "cores" and not multihost.alone())  # `cores` keeps its bits
    ways = len(devices) // groups if apart or strategy == "split" else 1
    used = devices[: groups * ways]
    if not multihost.alone() and len({device.process_index for device in used}) < jax.process_count():
        used = devices[: len(devices) // ways * ways]
    return used, ways


def _first_of_each_process(devices: list[jax.Device]) -> list[jax.Device]:
    found: dict[int, jax.Device] = {}
    for device in devices:
        found.setdefault(device.process_index, device)
    return list(found.values())


def mesh_for(strategy: str, count: int) -> Mesh:
    """The devices of `layout` as a mesh: (`run`, `batch`)."""
    devices, ways = layout(strategy, count)
    return Mesh(np.asarray(devices).reshape(-1, ways), AXES)


def compile_over(
    fn: Callable[..., Tree], strategy: str, states: Tree, rows: Tree, *shared: Tree, donate: bool, quickly: bool = False
) -> Program:
    """Compile `fn` for `states` and `rows` (leaves [R, ...]) and `shared`, given as arrays or their shapes.

    What is shared is whole on every device, but for images that are not all there: each has a part of them (`deal`).

    `donate` is for an `fn` that returns a state like its own, alone or with something else: (state, other).  The
    buffers of the states are then given to the result.  The program takes its arguments from where `place` and
    `replicate` bring them, and brings nothing anywhere; R is a number of rows as `place` makes them.
    `quickly`, by `loop` alone, is as for `compile_one`.

    Raises:
      ConfigError: no such strategy.
    """
    count = jax.tree.leaves((states, rows))[0].shape[0]

    def mapped(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        over = turns.in_place if donate else jax.lax.map
        return over(lambda pair: fn(*pair, *shared), (states, rows))

    def vmapped(states: Tree, rows: Tree, *shared: Tree) -> Tree:
        return jax.vmap(lambda *pair: fn(*pair, *shared))(states, rows)

    compile_all = functools.partial(_compile_dealt, mesh_for(strategy, count), donate=donate)
    match strategy:
        case "map" | "cores" | "split":
            return compile_all(mapped, states, rows, *shared, threads=strategy not in CORES)
        case "vmap":
            return compile_all(vmapped, states, rows, *shared)
        case "batched":
            with products.together():
                return compile_all(vmapped, states, rows, *shared)
        case "seedwise":
            with convolution.seedwise():
                return compile_all(vmapped, states, rows, *shared)
        case "loop":
            one = compile_one(fn, *jax.tree.map(_row_shape, (states, rows)), *shared, donate=donate, quickly=quickly)

            def call(states: Tree, rows: Tree, *shared: Tree) -> Tree:
                return stack([one(*row, *shared) for row in apart((states, rows))])

            return Program(call, one.seconds, one.footprint, one.compiled)
        case _:
            raise ConfigError(f"strategy={strategy!r}: choose one of {('auto', *STRATEGIES)}")


def compile_by_row(fn: Callable[..., Tree], strategy: str, states: Tree, row: Tree, *shared: Tree) -> Program:
    """Compile `turns.at_row(fn)`, which donates `states`: on each device, one run at a time.

    `row` has leaves [G, ...], one row for each of the `groups_for` these states.
    """
    mesh, number = mesh_for(strategy, len(jax.tree.leaves(states)[0])), jax.ShapeDtypeStruct((), np.int32)
    given = states, row, number, *shared
    return _compile_dealt(mesh, turns.at_row(fn), *given, donate=True, threads=strategy not in CORES)


def _compile_dealt(mesh: Mesh, over: Callable[..., Tree], *args: Tree, donate: bool, threads: bool = True) -> Program:
    """Compile `over` for states, rows and what is shared, with an equal share of the runs for each group of devices."""
    if mesh.size == 1 and multihost.alone():
        return compile_one(over, *args, donate=donate, threads=threads)
    dealt_out, whole = PartitionSpec(AXES[0]), PartitionSpec()
    specs = (dealt_out, dealt_out, *(_laid_out(arg, dealt_out, whole) for arg in args[2:]))
    share = jax.shard_map(over, mesh=mesh, in_specs=specs, out_specs=dealt_out, axis_names={AXES[0]}, check_vma=False)
    by_run, all_over = _shardings(mesh)
    wanted = (by_run, by_run, *(_laid_out(arg, by_run, all_over) for arg in args[2:]))
    return compile_one(share, *args, donate=donate, threads=threads, in_shardings=wanted, out_shardings=by_run)


def _laid_out(shared: Tree, part: Any, whole: Any) -> Any:
    return shared.laid_out(part, whole) if isinstance(shared, Images) else whole


def _shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """(of states and rows, of what they share)."""
    return NamedSharding(mesh, PartitionSpec(AXES[0])), NamedSharding(mesh, PartitionSpec())


def rows_for(strategy: str, count: int) -> int:
    """How many rows the arrays of `count` runs have on their devices, which all have equally many of them."""
    groups = groups_for(strategy, count)
    return -(-count // groups) * groups


def groups_for(strategy: str, count: int) -> int:
    """The devices that `count` runs are dealt out to, those that share batches taken together."""
    return mesh_for(strategy, count).shape[AXES[0]]


def place(rows: Tree, strategy: str, idle: Any = None) -> Tree:
    """Arrays [R, ...] on the devices that their runs train on, where shares are made equal by further rows.

    Those repeat the last one, or are all `idle`, if that is given.  Rows that were placed before stay as they are.
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
    """Rows that were placed, in another order and number: the i-th is that at index[i]; in one process.

    The old ones are given away, one leaf after another, so that little is there twice.
    """

    def take(leaf: jax.Array) -> jax.Array:
        found = place(_numpy(leaf).asarray(leaf)[index], strategy)
        leaf.delete()
        return found

    return jax.tree.map(take, rows)


def deal(images: Images, strategy: str, count: int) -> Images:
    """Images that are not all there, as many for each group of devices one after another, on these devices."""
    return jax.tree.map(_put, images, images.laid_out(*_shardings(mesh_for(strategy, count))))


def replicate(tree: Tree, strategy: str, count: int) -> Tree:
    """The same arrays on each of the devices that `count` runs train on."""
    return _put(tree, _shardings(mesh_for(strategy, count))[1])


def fetch(rows: Tree, count: int, few: bool = False) -> Tree:
    """What `place` brought to the devices, or a program made there, in numpy, of `count` runs; every process asks.

    `few` is for integers and bools [R], which do not wait for later programs.
    """
    return jax.tree.map(lambda leaf: leaf[:count], (multihost.fetch_few if few else multihost.fetch)(rows))


def _put(tree: Tree, sharding: NamedSharding) -> Tree:
    """The arrays of a tree where `sharding` wants them, which every process has, or holds its part of, already."""

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
    """`stack` in numpy, where nothing has to be compiled for it."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)


def take(rows: Tree, index: int | np.ndarray) -> Tree:
    """The row at `index`, or the rows at several."""
    return jax.tree.map(lambda leaf: leaf[index], rows)


def apart(rows: Tree) -> list[Tree]:
    """All rows, in order: what `take` gives for each, without an operation of jax for every row of every leaf."""
    leaves, structure = jax.tree.flatten(rows)
    listed = [_keys(leaf) if _is_key(leaf) else list(_numpy(leaf).asarray(leaf)) for leaf in leaves]
    return [jax.tree.unflatten(structure, row) for row in zip(*listed, strict=True)]


def _keys(keys: jax.Array) -> list[jax.Array]:
    """Random keys one by one; taken apart as numbers, which takes no program."""
    impl = jax.random.key_impl(keys)
    return [jax.random.wrap_key_data(data, impl=impl) for data in np.asarray(jax.random.key_data(keys))]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numpy(leaf: Any) -> ModuleType:
    """What slices and stacks arrays like this one: numpy where the CPU has them, since there it takes no program."""
    return jnp if _is_key(leaf) or (isinstance(leaf, jax.Array) and target.backend() != "cpu") else np
