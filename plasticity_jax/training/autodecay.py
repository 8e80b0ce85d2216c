"""AutoDecay: step decay whose learning stages end when a detector says so, and at the latest when step decay ends them.

You et al. 2019 ("Learning Stages", arXiv 1908.01878v1) cut training into learning stages at the decays of the
learning rate, and name AutoDecay what finds the end of the current stage by itself and goes on to the next.  Of its
rule no more is known, so this is a reconstruction.

Step decay is a plan of learning stages, each so many updates long.  A `Clock` tells where in this plan training is;
where a stage is ended early, it skips the rest of that stage.  So the rates and their order are those of step decay, no
stage is longer, and a detector that never speaks leaves step decay as it was, to the last bit.

Everything here is pure and maps over runs, each of which has a clock of its own.  Besides `detectors` this module needs
jax and optax only; `scale_by_autodecay` is all of it for other projects.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from plasticity_jax.training.detectors import Detector

Number = jax.typing.ArrayLike


class Clock(NamedTuple):
    """Where in its plan a run is.

    detector: the state of the detector.
    skipped: int32, updates of the plan that were skipped so far.
    ends: int32 [K], after which update of the run each learning stage ended; 0 for those that have not.
    """

    detector: Any
    skipped: Array
    ends: Array


def start(detector: Detector, stages: int) -> Clock:
    """The clock of a run that begins the first of so many learning stages."""
    return Clock(detector.init(), jnp.int32(0), jnp.zeros(stages, jnp.int32))


def tick(
    clock: Clock,
    step: Array,
    starts: Array,
    length: Number,
    detector: Detector,
    value: Number,
    due: Number = True,
    end_last: Number = True,
) -> Clock:
    """The clock after another update.

    Args:
      step: int32, updates of the run so far, this one included.
      starts: int32 [K - 1], updates of the plan before the second and later learning stages.
      length: updates of the whole plan.  The run is over where `step + skipped` reaches it.
      value, due: what the detector is shown; see `Detector.update`.
      end_last: whether the last stage may be ended early too.
    """
    time = step + clock.skipped
    stage, following = (jnp.sum(t >= starts) for t in (time - 1, time))
    last = stage == len(starts)
    over = jnp.where(last, time >= length, following > stage)  # as step decay would end it
    state, detected = detector.update(clock.detector, value, due)
    early = detected & ~over & (end_last | ~last)
    bounds = jnp.append(starts, length).astype(jnp.int32)
    skipped = clock.skipped + jnp.where(early, bounds[stage] - time, 0)
    stages = jnp.arange(len(clock.ends))
    ended = (early | over) & (stages >= stage) & (stages < jnp.maximum(following, stage + 1))
    state = jax.tree.map(lambda new, old: jnp.where(over, new, old), detector.restart(state), state)
    return Clock(state, skipped.astype(jnp.int32), jnp.where(ended, step, clock.ends).astype(jnp.int32))


class AutodecayState(NamedTuple):
    """step: int32, updates so far.  clock: see `Clock`.  stage: int32, the learning stage, from 0 on.  done: bool."""

    step: Array
    clock: Clock
    stage: Array
    done: Array


def scale_by_autodecay(
    detector: Detector, lengths: Sequence[int], factor: Number = 0.1, end_last: bool = True
) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by `factor` to the power of the learning stage; for the end of an `optax.chain`.

    Args:
      detector: when a learning stage has come to rest.
      lengths: the longest that each learning stage may last, in updates.
      factor: of the learning rate between two stages.
      end_last: whether the last stage may be ended early too; then `done` in the state says that training is over.

    Returns:
      A transformation whose `update` takes two more arguments: `value`, what the detector looks at, after this update
      or the last one; and `due`, whether an epoch has ended with it (always, if it is left out).
    """
    starts = jnp.cumsum(jnp.asarray(lengths, jnp.int32))

    def init(params: Any) -> AutodecayState:
        del params
        return AutodecayState(jnp.int32(0), start(detector, len(lengths)), jnp.int32(0), jnp.bool_(False))

    def update(
        updates: Any, state: AutodecayState, params: Any = None, *, value: Number, due: Number = True, **_: Any
    ) -> tuple[Any, AutodecayState]:
        del params
        scaled = jax.tree.map(lambda u: (u * factor**state.stage).astype(u.dtype), updates)
        step = state.step + 1
        clock = tick(state.clock, step, starts[:-1], starts[-1], detector, value, due, end_last)
        time = step + clock.skipped
        return scaled, AutodecayState(step, clock, jnp.sum(time >= starts[:-1], dtype=jnp.int32), time >= starts[-1])

    return optax.GradientTransformationExtraArgs(init, update)
