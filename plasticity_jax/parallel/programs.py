"""The compiled programs of a pack: one of each kind for each stage shape, none per epoch, none on resume.

A program is compiled for a number of runs; with the strategy `loop` for one run, called for each.

Kinds: `init` one network, `begin` a stage, `advance` it, `evaluate` on a source common to all runs, `evaluate_own` on
one source per run, `diagnose`, and `measure` with an instrument.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from plasticity_jax import target
from plasticity_jax.config import spec
from plasticity_jax.data.batches import Source
from plasticity_jax.diagnostics.subject import PART
from plasticity_jax.parallel import compiler, cpu, multihost, of_one, run_axis
from plasticity_jax.parallel.of_one import Parent, Start
from plasticity_jax.training import evaluation, measuring, resets, state
from plasticity_jax.training.inputs import Images
from plasticity_jax.training.remedies.apply import NONE, Custom

Tree = Any
Array = jax.Array
AT_ONCE = 8  # programs that are compiled at a time at most, since each takes up to a GB


class Programs:
    """Programs compiled on first use; `compiled` is their number, `seconds` the compile time of all.

    `loaded` is the number of programs loaded from the compilation cache on disk.
    """

    def __init__(
        self,
        model: nn.Module,
        image_shape: tuple[int, ...],
        strategy: str,
        eval_batch: int,
        diagnostics: Mapping[str, evaluation.Diagnostic],
        own_resets: Mapping[str, resets.CustomReset],
        own_remedies: Custom = NONE,
        instruments: Mapping[str, measuring.Instrument] | None = None,
    ):
        self.model = model
        self.image_shape = image_shape
        self.strategy = strategy
        self.eval_batch = eval_batch
        self.diagnostics = diagnostics
        self.own_resets = own_resets
        self.own_remedies = own_remedies
        self.instruments = dict(instruments or {})
        self.cache: dict[Any, compiler.Program] = {}
        self.placed: dict[Any, tuple[Images, Images]] = {}
        self.pool: Executor | None = None

    @property
    def compiled(self) -> int:
        return len(self.cache)

    @property
    def loaded(self) -> int:
        return sum(program.loaded for program in self.cache.values())

    @property
    def seconds(self) -> float:
        return sum(program.seconds for program in self.cache.values())

    @contextlib.contextmanager
    def ahead(self) -> Iterator[None]:
        """Context in which `program` returns at once, and threads compile several programs at a time.

        One after another on GPUs, where XLA times alternatives, and in several processes, which compile in one order.
        """
        if target.backend() == "gpu" or not multihost.alone():
            yield
            return
        self.pool = pool = ThreadPoolExecutor(min(cpu.threads(), AT_ONCE))
        try:
            yield
        finally:
            self.pool = None
            pool.shutdown(cancel_futures=True)

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh (params, stats) of one run, on the host."""
        fn = functools.partial(state.init_network, self.model, image_shape=self.image_shape)
        return jax.device_get(self._program("init", lambda: compiler.compile_one(fn, key, once=True))(key))

    def begin(
        self,
        stage: spec.Stage,
        states: Tree,
        rows: Sequence[tuple[Start, Parent, np.bool_]],
        images: Images | None,
    ) -> state.TrainState:
        """States [R] at step 0 of `stage`.

        On each device one run after another is processed, which needs little memory besides the states.

        Args:
          states: [R], placed unless the strategy is `loop`; donated.  Runs may continue from them.
          rows: for each run its start, its parent's network on the host, and whether to use that; else its state.
          images: if a remedy acts at the start, else None.
        """
        shared = () if images is None else (self._place(images, states),)
        if self.strategy == "loop":
            stacked = run_axis.stack_on_host(rows)
            return self.program("begin", stage, states, stacked, *shared)(states, stacked, *shared)
        held = len(jax.tree.leaves(states)[0])
        groups = run_axis.groups_for(self.strategy, held)
        for number in range(held // groups):
            chosen = [rows[min(group * (held // groups) + number, len(rows) - 1)] for group in range(groups)]
            row = self.place(chosen)
            program = self.program("begin", stage, states, row, *shared)
            states = program(states, row, self.replicate(np.int32(number), held), *shared)
        return states

    def advance(
        self, stage: spec.Stage, states: Tree, rows: Tree, images: Images
    ) -> tuple[state.TrainState, tuple[Array, Array]]:
        """States [R] after at most one more epoch, and their (step, done) [R] as separate arrays; donates `states`.

        `rows` are (tasks, steps to train up to).  Here and below states and rows are on devices, by `place`.
        """
        shared = (self._place(images, states),)
        return self.program("advance", stage, states, rows, *shared)(states, rows, *shared)

    def evaluate(
        self, states: Tree, due: Array, source: Source, span: tuple[int, int], images: Images
    ) -> evaluation.Metrics:
        """Sums [R, batches] for each batch in `span` (first, last + 1) of one source; 0 unless `due` (bool [R])."""
        shared = source, self._span(span, states), self._place(images, states)
        return self.program("evaluate", None, states, due, *shared)(states, due, *shared)

    def evaluate_own(
        self, states: Tree, due: Array, sources: Source, span: tuple[int, int], images: Images
    ) -> evaluation.Metrics:
        """`evaluate` with one source per run; `sources` has leaves [R, ...]."""
        shared = self._span(span, states), self._place(images, states)
        return self.program("evaluate_own", None, states, (due, sources), *shared)(states, (due, sources), *shared)

    def diagnose(self, states: Tree, due: Array, rows: Tree, images: Images, test_images: Images) -> evaluation.Metrics:
        """Every diagnostic [R]; 0 for runs that are not `due`.

        `rows` are the initial weights of the runs' seeds and their probes, leaves [R, ...].
        """
        shared = self._place(images, states), self._place(test_images, states)
        return self.program("diagnose", None, states, (due, rows), *shared)(states, (due, rows), *shared)

    def measure(
        self, name: str, stage: spec.Stage, states: Tree, rows: measuring.Measured, images: Images
    ) -> tuple[evaluation.Metrics, Tree]:
        """The scalars [R] of an instrument, and its memories [R, ...]; `rows`, leaves [R, ...], need not be placed.

        One run after another is measured, since each needs the memory and the time of many steps.
        """
        kind, count = f"measure {name}", len(rows.due)
        states, strategy = run_axis.fetch(states, count), self.strategy_of(kind)
        if strategy != "loop":
            states, rows = run_axis.place((states, rows), strategy)
        shared = (self._place(images, states, strategy),)
        return self.program(kind, stage, states, rows, *shared)(states, rows, *shared)

    def strategy_of(self, kind: str) -> str:
        """The strategy of a kind of program; instruments are compiled for one run, whatever the size of the group."""
        if not kind.startswith("measure"):
            return self.strategy
        few = len(run_axis.layout("map", len(target.devices()))[0]) == 1
        return "loop" if self.strategy == "loop" or (few and multihost.alone()) else "map"

    def place(self, rows: Tree | list[Tree], idle: Any = None) -> Tree:
        """Puts states, other arrays [R, ...], or a list of R trees on the devices, see `run_axis.place`."""
        rows = run_axis.stack_on_host(rows) if isinstance(rows, list) else rows
        return run_axis.place(rows, self.strategy, idle)

    def replicate(self, tree: Tree, count: int) -> Tree:
        """Copies the arrays to each device that `count` runs train on."""
        return run_axis.replicate(tree, self.strategy, count)

    def _span(self, span: tuple[int, int], states: Tree) -> Tree:
        return self.replicate(tuple(map(np.int32, span)), len(jax.tree.leaves(states)[0]))

    def _place(self, images: Images, states: Tree, strategy: str = "") -> Images:
        """The images on the devices of these runs, copied there once; `strategy` replaces that of the programs.

        Images that were distributed over devices are returned as they are.
        """
        if not images.whole:
            return images
        count, strategy = len(jax.tree.leaves(states)[0]), strategy or self.strategy
        key = id(images), run_axis.mesh_for(strategy, count)
        if key not in self.placed:  # the images are stored too, so that their id is not reused
            self.placed[key] = images, run_axis.replicate(images, strategy, count)
        return self.placed[key][1]

    def program(self, kind: str, stage: spec.Stage | None, states: Tree, rows: Tree, *shared: Tree) -> compiler.Program:
        """Compiles, without running, the program of a kind for arguments like these, given as arrays or shapes.

        States and rows that are not placed stand for placed ones.
        """
        strategy = self.strategy_of(kind)
        count = run_axis.rows_for(strategy, jax.tree.leaves((states, rows))[0].shape[0])
        by_row = kind == "begin" and strategy != "loop"
        of_rows = run_axis.groups_for(strategy, count) if by_row else count
        states, rows = _shapes(states, count), _shapes(rows, of_rows)
        args = states, rows, *jax.tree.map(_shape, shared)
        shape = tuple(sorted(stage.shape().items())) if stage else ()
        leaves, structure = jax.tree.flatten(args)
        dealt = len(jax.tree.leaves((states, rows))) if strategy == "loop" else 0  # leaves [R, ...]
        sizes = [leaf.shape[i < dealt :] for i, leaf in enumerate(leaves)]
        switches: Any = jax.config
        kinds = zip(sizes, [str(leaf.dtype) for leaf in leaves], strict=True)
        key = kind, shape, structure, switches.jax_default_matmul_precision, *kinds
        fn, donate = self._function(kind, stage), kind == "advance"
        if by_row:
            return self._program(key, lambda: run_axis.compile_by_row(fn, strategy, *args, pool=self.pool))
        # On few images an instrument takes less time to run than to optimise.
        quickly = kind.startswith("measure") and rows.probe.label.shape[-1] <= PART
        how: dict[str, Any] = {
            "donate": donate,
            "quickly": quickly,
            "seldom": kind in ("begin", "diagnose"),
            "pool": self.pool,
        }
        return self._program(key, lambda: run_axis.compile_over(fn, strategy, *args, **how))

    def _program(self, key: Any, compile_it: Callable[[], compiler.Program]) -> compiler.Program:
        if key not in self.cache:
            self.cache[key] = compile_it()
        return self.cache[key]

    def _function(self, kind: str, stage: spec.Stage | None) -> Callable[..., Tree]:
        """The function of one run that a kind of program maps over runs."""
        match kind.partition(" "):
            case "measure", _, name if stage:
                instrument, custom = self.instruments[name], self.own_remedies
                return functools.partial(
                    measuring.measure, model=self.model, stage=stage, instrument=instrument, custom=custom
                )
        match kind:
            case "begin" if stage:
                reset = self.own_resets[stage.reset.function] if stage.reset.function else None
                return functools.partial(
                    of_one.begin, stage=stage, function=reset, model=self.model, remedies=self.own_remedies
                )
            case "advance" if stage:
                return functools.partial(of_one.advance, model=self.model, stage=stage, custom=self.own_remedies)
            case "evaluate":
                return functools.partial(of_one.evaluate, model=self.model, batch=self.eval_batch)
            case "evaluate_own":
                return functools.partial(of_one.evaluate_own, model=self.model, batch=self.eval_batch)
        return functools.partial(of_one.diagnose, model=self.model, diagnostics=self.diagnostics)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    kind = jax.typeof(leaf)  # numpy's int64 becomes int32, as on the device
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype)


def _shapes(tree: Tree, rows: int) -> Tree:
    """The shapes of leaves [R, ...] with `rows` in place of R."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *_shape(leaf).shape[1:]), _shape(leaf).dtype), tree)
