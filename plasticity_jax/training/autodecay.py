"""AutoDecay: step decay in which a detector may end each learning stage early.

You et al. 2019 ("Learning Stages", arXiv 1908.01878v1) divide training into learning stages at the decays of the
learning rate.  Their AutoDecay detects the end of the current stage and starts the next; its rule is not published,
so this is a reconstruction.

Step decay is a plan of learning stages with a fixed number of updates each.  A `Clock` holds the position in this plan;
when a stage ends early, the clock skips the rest of it.  The learning rates and their order are those of step decay, no
stage is longer, and with a detector that never fires the result equals step decay bit for bit.

All functions are pure and can be mapped over runs, each with its own clock.  Besides `detectors` this module imports
only jax and optax; other projects need only `scale_by_autodecay`.
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
    """The position of a run in its plan.

    detector: the state of the detector.
    skipped: int32, updates of the plan skipped so far.
    ends: int32 [K], the update of the run at which each learning stage ended; 0 for those that have not ended.
    """

    detector: Any
    skipped: Array
    ends: Array


def start(detector: Detector, stages: int) -> Clock:
    """The clock at the start of the first of `stages` learning stages."""
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
      length: updates of the whole plan.  The run ends when `step + skipped` reaches it.
      value, due: arguments of `Detector.update`.
      end_last: whether the last stage may end early too.
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
      detector: decides when a learning stage ends.
      lengths: the largest length of each learning stage, in updates.
      factor: ratio of the learning rates of successive stages.
      end_last: whether the last stage may end early too; `done` in the state is then true when training is over.

    Returns:
      A transformation whose `update` takes two more arguments: `value`, the quantity that the detector tests, after
      this update or the one before; and `due`, whether an epoch ends with this update (default: always).
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
