"""The compiled programs of a pack: one of each kind for each stage shape, none per epoch, none on resume.

Kinds: `init` one network, `begin` a stage, `advance` it, `evaluate` on the test set, `evaluate_own` on a
pool that differs between runs, and `diagnose`.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity_jax import resets, runs, stages, state, train
from plasticity_jax.sampling import Source

Tree = Any
Array = jax.Array


class Programs:
    """Compiles on first use and keeps; `compiled` counts, `seconds` adds up the time."""

    def __init__(
        self,
        model: nn.Module,
        image_shape: tuple[int, ...],
        strategy: str,
        eval_batch: int,
        diagnostics: Mapping[str, train.Diagnostic],
        own_resets: Mapping[str, resets.OwnReset],
    ):
        self.model = model
        self.image_shape = image_shape
        self.strategy = strategy
        self.eval_batch = eval_batch
        self.diagnostics = diagnostics
        self.own_resets = own_resets
        self.cache: dict[Any, runs.Program] = {}

    @property
    def compiled(self) -> int:
        return len(self.cache)

    @property
    def seconds(self) -> float:
        return sum(program.seconds for program in self.cache.values())

    def init(self, key: Array) -> tuple[Tree, Tree]:
        """Fresh (params, stats) of one run, on the host."""
        if "init" not in self.cache:
            fn = functools.partial(state.init_network, self.model, image_shape=self.image_shape)
            self.cache["init"] = runs.compile_one(fn, key, once=True)
        return jax.device_get(self.cache["init"](key))

    def begin(self, stage: stages.Stage, states: Tree, rows: Tree) -> state.TrainState:
        """States [R] at step 0 of `stage`, from what the parents left (`states`) and rows of `Start`."""
        own = self.own_resets[stage.reset.function] if stage.reset.function else None
        fn = functools.partial(begin, stage=stage, own=own)
        return self._run("begin", stage, fn, states, rows, donate=False)

    def advance(self, stage: stages.Stage, states: Tree, rows: Tree, images: train.Images) -> state.TrainState:
        """States [R] after at most one epoch more."""
        fn = functools.partial(train.advance, model=self.model, stage=stage)
        return self._run("advance", stage, fn, states, rows, images, donate=True)

    def evaluate(self, states: Tree, source: Source, first: int, images: train.Images) -> train.Metrics:
        """Sums [R] over one batch of the test set."""
        fn = functools.partial(_evaluate_shared, model=self.model, batch=self.eval_batch)
        return self._run("evaluate", None, fn, states, (), source, jnp.int32(first), images, donate=False)

    def evaluate_own(self, states: Tree, sources: Source, first: int, images: train.Images) -> train.Metrics:
        """Sums [R] over one batch of each run's own pool; `sources` has leaves [R, ...]."""
        fn = functools.partial(train.evaluate, model=self.model, batch=self.eval_batch)
        return self._run("evaluate_own", None, fn, states, sources, jnp.int32(first), images, donate=False)

    def diagnose(self, states: Tree, initial: Tree, probe: train.Batch, images: train.Images) -> train.Metrics:
        """Every diagnostic [R]; `initial` are the first weights [R, ...] of the runs' seeds."""
        fn = functools.partial(train.diagnose, model=self.model, diagnostics=self.diagnostics)
        return self._run("diagnose", None, fn, states, initial, probe, images, donate=False)

    def _run(
        self,
        kind: str,
        stage: stages.Stage | None,
        fn: Callable[..., Tree],
        states: Tree,
        rows: Tree,
        *shared: Tree,
        donate: bool,
    ) -> Tree:
        args = jax.tree.map(_shape, (states, rows, *shared))
        shape = tuple(sorted(stage.shape().items())) if stage else ()
        leaves, structure = jax.tree.flatten(args)
        key = (kind, shape, structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves))
        if key not in self.cache:
            self.cache[key] = runs.compile_over(fn, self.strategy, *args, donate=donate)
        return self.cache[key](states, rows, *shared)


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    kind = jax.typeof(leaf)  # numpy's int64 becomes int32, as it will on the device
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype)


class Start(NamedTuple):
    """What one run of a stage starts with besides its parent: fresh weights to mix in, and the reset as numbers."""

    params: Tree
    stats: Tree
    factors: resets.Factors


def begin(
    parent: tuple[Tree, Tree, Tree], start: Start, *, stage: stages.Stage, own: resets.OwnReset | None
) -> state.TrainState:
    """The state that ONE run starts a stage with; `parent` is its (params, stats, opt)."""
    return resets.begin(*parent, start.params, start.stats, start.factors, stage.optim, own)


def _evaluate_shared(
    states: Tree, row: tuple, source: Source, first: Array, images: train.Images, *, model: nn.Module, batch: int
) -> train.Metrics:
    return train.evaluate(states, source, first, images, model=model, batch=batch)
