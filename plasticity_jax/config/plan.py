"""Expands plans into runs, grouped by compiled program (`Group`), each with the network that it starts from."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from plasticity_jax.config import spec
from plasticity_jax.config.spec import END, HParams, Pack, Plan, Stage
from plasticity_jax.errors import ConfigError

Key = tuple[str, str]  # stage and branch
Parent = tuple[Stage, int] | None  # the stage and epoch that a stage continues from; None for `init`


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one stage: a row of the run axis.

    parent: (group name, row, epoch or `END`) of the network it starts from; None for `init`.
    final: whether no stage continues from it, so that its metric is a result of the study.
    index: its position among all runs of the pack, stage by stage in the order of the plans.
    """

    id: str
    seed: int
    branch: str
    hparams: HParams
    stage: Stage
    parent: tuple[str, int, int] | None
    final: bool
    index: int


@dataclasses.dataclass(frozen=True)
class Group:
    """The runs of a stage that share compiled programs and train side by side.

    name: of its directory: the stage's name, followed by `,1`, `,2`, .. if the stage has several groups.
    keep: epochs at whose end the networks are saved, because later groups continue from them.
    """

    name: str
    runs: tuple[Run, ...]
    keep: tuple[int, ...]

    @property
    def stage(self) -> Stage:
        """The stage of the first run; its compiled fields are equal in all runs."""
        return self.runs[0].stage


@dataclasses.dataclass(frozen=True, eq=False)
class _Node:
    """A run identified by all that determines it; equal runs of two grid points are one object.

    epoch: of the parent.
    past: `STAGE` and `STAGE/BRANCH` of this run and of its ancestors.
    """

    seed: int
    stage: Stage
    parent: "_Node | None"
    epoch: int
    past: frozenset[str]


def unfold(pack: Pack, seeds: Sequence[int]) -> tuple[Group, ...]:
    """The groups of a pack, parents before children; equal runs of different grid points appear once.

    Two points of the grid whose stages agree from the start up to some stage share those runs: a grid over the
    tuning learning rate pretrains once.  Groups of one stage are in the order of their first runs.

    Raises:
      ConfigError: the stages form a cycle, or a parent is missing or ambiguous.
    """
    parents_of = [{_key(stage): find_parent(plan, stage) for stage in plan} for _, plan in pack.plans]
    nodes_of: dict[str, dict[_Node, HParams]] = {name: {} for name in _in_order(parents_of)}
    scopes, made = dict(pack.scopes), dict[tuple, _Node]()
    for (hparams, plan), before in zip(pack.plans, parents_of, strict=True):
        node_of = _nodes(plan, before, made)
        for stage in plan:
            for seed in seeds:
                node = node_of(_key(stage), seed)
                concerning = tuple(pair for pair in hparams if pair[0] not in scopes or scopes[pair[0]] in node.past)
                shared = nodes_of[stage.name].get(node, concerning)
                nodes_of[stage.name][node] = tuple(pair for pair in shared if pair in concerning)
    index = {node: i for i, node in enumerate(node for nodes in nodes_of.values() for node in nodes)}
    groups = {group: nodes for name, nodes in nodes_of.items() for group, nodes in _by_program(name, nodes)}
    places = {node: (group, row) for group, nodes in groups.items() for row, node in enumerate(nodes)}
    parents = {node.parent for node in index}
    keep = {(places[node.parent][0], node.epoch) for node in index if node.parent and node.epoch != END}
    return tuple(
        Group(
            name=name,
            runs=tuple(
                Run(
                    id=run_id(node.stage.branch, hparams, node.seed),
                    seed=node.seed,
                    branch=node.stage.branch,
                    hparams=hparams,
                    stage=node.stage,
                    parent=(*places[node.parent], node.epoch) if node.parent else None,
                    final=node not in parents,
                    index=index[node],
                )
                for node, hparams in nodes.items()
            ),
            keep=tuple(sorted(epoch for group, epoch in keep if group == name)),
        )
        for name, nodes in groups.items()
    )


def parse_after(after: str) -> tuple[str, str, int]:
    """Splits `STAGE[/BRANCH][@EPOCH]` into (stage, branch or "", epoch or END).

    Raises:
      ConfigError: the epoch is not a whole number.
    """
    head, at, epoch = after.partition("@")
    if at and not epoch.isdecimal():
        raise ConfigError(f"after={after!r}: the epoch after @ must be a whole number")
    stage, _, branch = head.partition("/")
    return stage, branch, int(epoch) if at else END


def find_parent(plan: Plan, stage: Stage) -> Parent:
    """The stage that `stage` continues from, and the epoch; None for `init`.

    Raises:
      ConfigError: there is no such stage or branch, or the stage has several branches and `after` names none.
    """
    if stage.after == spec.INIT:
        return None
    name, branch, epoch = parse_after(stage.after)
    candidates = [s for s in plan if s.name == name and branch in ("", s.branch)]
    if len(candidates) == 1:
        return candidates[0], epoch
    where = f"stages.{stage.name}.branches.{stage.branch}.after={stage.after!r}"
    if candidates:
        raise ConfigError(
            f"{where}: stage {name} has several branches; name one of {[f'{name}/{s.branch}' for s in candidates]}"
        )
    names = sorted({spec.INIT, *(s.name for s in plan)})
    raise ConfigError(f"{where}: there is no such stage; choose one of {names}")


def by_past(groups: Sequence[Group]) -> dict[tuple, Run]:
    """The runs by all that determines them (seed, stages, epochs): equal keys in two packs are the same run."""
    pasts: dict[str, list[tuple]] = {}
    for group in groups:
        pasts[group.name] = []
        for run in group.runs:
            before: tuple = (pasts[run.parent[0]][run.parent[1]], run.parent[2]) if run.parent else ()
            pasts[group.name].append((run.seed, run.stage, before))
    return {past: run for group in groups for past, run in zip(pasts[group.name], group.runs, strict=True)}


def run_id(branch: str, hparams: HParams, seed: int) -> str:
    """The name of a run, `branch[,key=value..]/seedN`, whatever runs train beside it."""
    return ",".join([branch, *(f"{key}={value}" for key, value in hparams)]) + f"/seed{seed}"


def _by_program(name: str, nodes: Mapping[_Node, HParams]) -> Iterator[tuple[str, dict[_Node, HParams]]]:
    """Names and runs of the groups of a stage: its runs grouped by their compiled fields."""
    shape = functools.cache(lambda stage: tuple(stage.shape().items()))
    groups: dict[tuple, dict[_Node, HParams]] = {}
    for node, hparams in nodes.items():
        groups.setdefault(shape(node.stage), {})[node] = hparams
    for number, group in enumerate(groups.values(), start=1):
        yield f"{name},{number}" if len(groups) > 1 else name, group


def _key(stage: Stage) -> Key:
    """Identifies a stage within a plan."""
    return stage.name, stage.branch


def _nodes(plan: Plan, parents: Mapping[Key, Parent], made: dict[tuple, _Node]) -> Callable[[Key, int], _Node]:
    """A function from (stage, seed) to the node of a plan; `made` collects the nodes of all plans by their fields."""
    stages = {_key(stage): stage for stage in plan}

    @functools.cache
    def of(key: Key, seed: int) -> _Node:
        stage, parent = stages[key], parents[key]
        before, epoch = (of(_key(parent[0]), seed), parent[1]) if parent else (None, END)
        past = {stage.name, f"{stage.name}/{stage.branch}", *(before.past if before else ())}
        return made.setdefault((seed, stage, before, epoch), _Node(seed, stage, before, epoch, frozenset(past)))

    return of


def _in_order(plans: Sequence[Mapping[Key, Parent]]) -> list[str]:
    """Stage names, parents first, otherwise in the order of the config."""
    needs: dict[str, set[str]] = {}
    for parents in plans:
        for (name, _), parent in parents.items():
            needs.setdefault(name, set()).update({parent[0].name} if parent else set())
    ordered: list[str] = []
    while len(ordered) < len(needs):
        ready = [name for name in needs if name not in ordered and needs[name] <= set(ordered)]
        if not ready:
            waiting = sorted(set(needs) - set(ordered))
            raise ConfigError(f"stages {waiting} continue from each other; one must start from {spec.INIT!r}")
        ordered.append(ready[0])
    return ordered
