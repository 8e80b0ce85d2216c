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
from collections.abc import Mapping, Sequence
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
    """A network: `resnet` (depth, width, stem, norm), `mlp` (depth, width) or `logistic`; `dtype` is of the compute."""

    name: str
    depth: int
    width: int
    stem: str
    norm: str
    dtype: str


@dataclasses.dataclass(frozen=True)
class Pack:
    """Runs that one program shape can train: one model, and one plan for each point of the grid.

    scopes: (hyper-parameter, the stage whose field it is) of the grid; one that is not listed concerns every stage.
    """

    name: str
    model: Model
    plans: tuple[tuple[HParams, Plan], ...]
    scopes: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Study:
    """All that one config asks for.  Counts of images are 0 for "all of them" (validation: none)."""

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


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one stage: a row of the run axis.

    parent: (stage name, row in that stage, epoch or `END`) of the network it starts from; None for `init`.
    final: no stage continues from it, so it is a run of the study and not only a step on the way.
    """

    id: str
    seed: int
    branch: str
    hparams: HParams
    stage: Stage
    parent: tuple[str, int, int] | None
    final: bool


@dataclasses.dataclass(frozen=True)
class Leg:
    """All runs of one stage name, trained side by side; `keep` are the epochs that later legs continue from."""

    name: str
    runs: tuple[Run, ...]
    keep: tuple[int, ...]


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


def legs(pack: Pack, seeds: Sequence[int]) -> tuple[Leg, ...]:
    """Unfold a pack into the runs of each stage, parents before children, sharing whatever is the same.

    Two points of the grid whose stages agree from the start up to some stage share those runs: a grid over the
    tuning learning rate pretrains once.

    Raises:
      ConfigError: stages that wait for each other, or a parent that is missing or ambiguous.
    """
    rows: dict[str, dict[Any, dict[str, Any]]] = {}  # stage name -> key of a node -> what is known of it
    for hparams, plan in pack.plans:
        for stage in _ordered(plan):
            for seed in seeds:
                key, parent = _node(plan, stage, seed), find_parent(plan, stage)
                row = rows.setdefault(stage.name, {}).setdefault(key, {"children": False})
                row.update(stage=stage, seed=seed, parent=None, hparams=_concerning(pack, plan, stage, hparams))
                if parent:
                    origin = _node(plan, parent[0], seed)
                    row["parent"] = (parent[0].name, origin, parent[1])
                    rows[parent[0].name][origin]["children"] = True
    return tuple(_leg(name, rows) for name in _names_in_order([plan for _, plan in pack.plans]))


def _concerning(pack: Pack, plan: Plan, stage: Stage, hparams: HParams) -> HParams:
    """The hyper-parameters that make a difference to a stage: its own and those of the stages before it."""
    lineage, parent = {stage.name}, find_parent(plan, stage)
    while parent:
        lineage.add(parent[0].name)
        parent = find_parent(plan, parent[0])
    scopes = dict(pack.scopes)
    return tuple(pair for pair in hparams if pair[0] not in scopes or scopes[pair[0]] in lineage)


def _node(plan: Plan, stage: Stage, seed: int) -> tuple:
    parent = find_parent(plan, stage)
    return (seed, stage, _node(plan, parent[0], seed) + (parent[1],) if parent else None)


def _ordered(plan: Plan) -> list[Stage]:
    names = _names_in_order([plan])
    return sorted(plan, key=lambda stage: names.index(stage.name))


def _names_in_order(plans: Sequence[Plan]) -> list[str]:
    """Stage names, parents first, otherwise as written."""
    needs: dict[str, set[str]] = {}
    for plan in plans:
        for stage in plan:
            parent = find_parent(plan, stage)
            needs.setdefault(stage.name, set()).update({parent[0].name} if parent else set())
    ordered: list[str] = []
    while len(ordered) < len(needs):
        ready = [name for name in needs if name not in ordered and needs[name] <= set(ordered)]
        if not ready:
            raise ConfigError(
                f"stages {sorted(set(needs) - set(ordered))} wait for each other; one of them must start after {INIT!r}"
            )
        ordered.append(ready[0])
    return ordered


def _leg(name: str, rows: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> Leg:
    places = {stage: {key: i for i, key in enumerate(nodes)} for stage, nodes in rows.items()}
    runs = []
    for row in rows[name].values():
        parent = row["parent"] and (row["parent"][0], places[row["parent"][0]][row["parent"][1]], row["parent"][2])
        runs.append(
            Run(
                id=run_id(row["stage"].branch, row["hparams"], row["seed"]),
                seed=row["seed"],
                branch=row["stage"].branch,
                hparams=row["hparams"],
                stage=row["stage"],
                parent=parent,
                final=not row["children"],
            )
        )
    nodes = [row for stage in rows.values() for row in stage.values() if row["parent"] and row["parent"][0] == name]
    keep = tuple(sorted({row["parent"][2] for row in nodes} - {END}))
    return Leg(name=name, runs=tuple(runs), keep=keep)


def run_id(branch: str, hparams: HParams, seed: int) -> str:
    """The stable name of a run, the same alone and in company: `branch[,key=value..]/seedN`."""
    return ",".join([branch, *(f"{key}={value}" for key, value in hparams)]) + f"/seed{seed}"
