"""Training plans as data.

A *plan* is a tuple of `Stage` records.  Each record names what it starts from (`after`), so a plan is a
tree: one pretraining can feed many tunings, and a fresh control is a stage that starts from `init`.
Records that share a `name` differ only in values that change no array shape, and train side by side as
rows of the run axis; `branch` tells them apart.

    (Stage("pretrain", branch="pretrain", after="init"),
     Stage("tune", branch="fresh", after="init"),
     Stage("tune", branch="pretrain+tune", after="pretrain"))

Random keys are derived from the seed and the stage *name*, so the two `tune` branches of a seed see the
same batches.  No field here has a default: every default is written in `configs/base.py`.

This module is pure Python; it imports neither jax nor numpy.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from plasticity_jax.errors import ConfigError

INIT = "init"
END = -1  # the epoch that means "where the stage ended"


@dataclasses.dataclass(frozen=True)
class Data:
    """Which training images a stage draws from, and how.

    recipe: `random` (the first `fraction` of the seed's random order; fraction 1 is everything),
        `split` (D_part of Berariu et al. 2021, appendix A.3), or `blend` (appendix A.2: everything with
        probability 1 - gamma^(50 n/N), else the first `fraction`; always with replacement).
    fraction: share of the images, in (0, 1].
    splits, part, uniform: number of data sets n+1, the 1-based index of this one, and the ratio r of A.3.
    gamma: the blending rate, in (0, 1).
    replacement: draw every example independently instead of walking through a permutation per epoch.
    label_noise: share of the images whose label is replaced by another class, in [0, 1].
    """

    recipe: str
    fraction: float
    splits: int
    part: int
    uniform: float
    gamma: float
    replacement: bool
    label_noise: float


@dataclasses.dataclass(frozen=True)
class Optim:
    """An optimiser and its learning-rate schedule.

    name: `sgd`, `adam`, `adamw` or `rmsprop`.  momentum 0 means none.  weight_decay is L2 for all but `adamw`,
    where it is decoupled.  clip_norm 0 means none.
    schedule: `constant`, `step` (times `decay` at each of `milestones`), `cosine` or `linear` (both down to
        `decay` times the learning rate); after a linear warm-up over `warmup`.  `milestones` and `warmup` are
        shares of the stage, in [0, 1].
    """

    name: str
    learning_rate: float
    momentum: float
    nesterov: bool
    b1: float
    b2: float
    eps: float
    weight_decay: float
    clip_norm: float
    schedule: str
    warmup: float
    milestones: tuple[float, ...]
    decay: float


@dataclasses.dataclass(frozen=True)
class Reset:
    """What happens to a network at the start of a stage: `shrink * old + perturb * fresh` on some modules.

    modules: module names (`stem`, `module2`, .., `head`), longer parameter paths, or `all`; empty for none.
    shrink, perturb: (0, 1) re-initialises, (0.4, 0.1) is shrink and perturb (Ash & Adams 2020), (1, 0) is nothing.
    statistics: which BatchNorm running statistics become fresh: `keep` none, `modules` those of the modules
        above, `all`.
    optimiser: which optimiser moments become zero: `keep` none, `modules`, `all`.
    function: name of an own reset given to `plasticity_jax.run(resets=...)`, applied last; empty for none.
    """

    modules: tuple[str, ...]
    shrink: float
    perturb: float
    statistics: str
    optimiser: str
    function: str


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stretch of training under one data recipe and one optimiser.

    after: `init`, or where it continues: `STAGE`, `STAGE/BRANCH`, each optionally `@EPOCH` (a whole epoch).
    epochs, steps: the length; `steps` counts if it is not 0.
    until_accuracy: end as soon as the running train accuracy of an epoch reaches this share; 0 for never.
    eval_every: evaluate every so many epochs; 0 for only at the start and the end.
    eval_tail: the same inside the metric's window at the end of the stage.
    """

    name: str
    branch: str
    after: str
    data: Data
    epochs: float
    steps: int
    until_accuracy: float
    batch_size: int
    augment: bool
    optim: Optim
    reset: Reset
    eval_every: int
    eval_tail: int

    def shape(self) -> dict[str, Any]:
        """The fields that are compiled into the program, so must agree between runs that train side by side."""
        return {
            "batch_size": self.batch_size,
            "augment": self.augment,
            "optim.name": self.optim.name,
            "optim.nesterov": self.optim.nesterov,
            "optim.momentum > 0": self.optim.momentum > 0,
            "optim.clip_norm > 0": self.optim.clip_norm > 0,
            "optim.schedule": self.optim.schedule,
            "optim.milestones": len(self.optim.milestones),
            "reset.function": self.reset.function,
        }


Plan = tuple[Stage, ...]
HParams = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network: `resnet` (depth, width, stem, norm), `mlp` (depth, width) or `logistic`.

    `dtype` is of the compute: `float32`, `bfloat16`, or `auto`: bfloat16 on accelerators.
    """

    name: str
    depth: int
    width: int
    stem: str
    norm: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class Pack:
    """Runs that one program shape can train: one model, and one plan for each point of the grid.

    scopes: (hyper-parameter, the `STAGE` or `STAGE/BRANCH` whose field it is); one that is not listed concerns all.
    """

    name: str
    model: Model
    plans: tuple[tuple[HParams, Plan], ...]
    scopes: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """All that one config asks for.  Counts of images are 0 for "all of them" (validation: none).

    name: what the analysis knows the study by, to judge its claims and draw its figure; empty for no such thing.
    """

    name: str
    dataset: str
    data_dir: str
    train_images: int
    validation_images: int
    test_images: int
    seeds: tuple[int, ...]
    packs: tuple[Pack, ...]
    control: str  # the branch that the others are compared with
    window: float  # the metric is the mean test accuracy over this last share of a run's last stage
    diagnostics: tuple[str, ...]
    evaluate_train: bool  # also evaluate the whole training pool in eval mode
    eval_batch: int
    strategy: str
    checkpoint_seconds: float


def parse_after(after: str) -> tuple[str, str, int]:
    """Split `STAGE[/BRANCH][@EPOCH]` into (stage, branch or "", epoch or END).

    Raises:
      ConfigError: the epoch is not a whole number.
    """
    head, at, epoch = after.partition("@")
    if at and not epoch.isdecimal():
        raise ConfigError(f"after={after!r}: the epoch behind @ must be a whole number")
    stage, _, branch = head.partition("/")
    return stage, branch, int(epoch) if at else END


def find_parent(plan: Sequence[Stage], stage: Stage) -> tuple[Stage, int] | None:
    """The record that `stage` continues from and the epoch of it; None for `init`.

    Raises:
      ConfigError: no such stage or branch, or several branches and none named.
    """
    if stage.after == INIT:
        return None
    name, branch, epoch = parse_after(stage.after)
    found = [s for s in plan if s.name == name and branch in ("", s.branch)]
    if len(found) == 1:
        return found[0], epoch
    where = f"stages.{stage.name}.branches.{stage.branch}.after={stage.after!r}"
    if found:
        raise ConfigError(
            f"{where}: stage {name} has several branches; name one of {[f'{name}/{s.branch}' for s in found]}"
        )
    raise ConfigError(f"{where}: there is no such stage; choose one of {sorted({INIT} | {s.name for s in plan})}")
