"""Saved networks of finished stages: what is saved, and loading them from a working directory."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from plasticity_jax import models
from plasticity_jax.config import paths, spec
from plasticity_jax.config.plan import Group, unfold
from plasticity_jax.config.restore import restore_study
from plasticity_jax.errors import LabError
from plasticity_jax.models import interface
from plasticity_jax.parallel import run_axis
from plasticity_jax.storage import conditions, environment, workdir
from plasticity_jax.storage.checkpoints import Checkpoints
from plasticity_jax.training import state
from plasticity_jax.training.remedies.apply import NONE, Custom
from plasticity_jax.training.remedies.interface import Remedy

FORGETFUL = Remedy(lambda *_, **__: None, lambda *_: ())


@conditions.pinned()
def load(
    directory: str | Path,
    branch: str,
    seed: int,
    stage: str = "",
    *,
    epoch: int = spec.END,
    hparams: Mapping[str, Any] | None = None,
    model: nn.Module | None = None,
) -> tuple[nn.Module, Any, Any]:
    """Loads the network at the end of a finished stage.

    Args:
      directory: the working directory of a study.
      branch, seed: of the run.
      stage: its stage; the last one of the branch if empty.
      epoch: an epoch from which another stage continues, instead of the end.
      hparams: the point of the grid, if any; a part of it is enough if only one run matches.
      model: the custom module that the study was run with, if any.

    Returns:
      (model, params, statistics): `model.apply({"params": params, "batch_stats": statistics}, images, False)`, with
      images as `batches.normalise` makes them.

    Raises:
      LabError: no such run, or its stage has not ended yet.
    """
    directory = paths.given(directory)
    study, pack, group, row = find(directory, branch, seed, stage, hparams or {})
    data = environment.read(directory)["dataset"]
    module = models.build(pack.model, data["classes"]) if model is None else interface.check(model)
    where = directory / pack.name / group.name / ("end" if epoch == spec.END else "snapshots")
    checkpoints, number = Checkpoints(where, None), 0 if epoch == spec.END else epoch
    if number not in checkpoints.numbers():
        raise LabError(
            f"{where} does not hold the networks yet; stage {group.name} has not reached this epoch, or saves none"
        )
    forgetful = {named.name: FORGETFUL for run in group.runs for named in run.stage.remedies}  # memories are not saved
    like = states_like(group, state.network_like(module, tuple(data["image_shape"])), forgetful)
    tree, _ = checkpoints.restore(number, kept(group, unfold(pack, study.seeds), like))
    checkpoints.close()
    return module, run_axis.take(tree["params"], row), run_axis.take(tree["stats"], row)


def find(
    directory: Path, branch: str, seed: int, stage: str, hparams: Mapping[str, Any]
) -> tuple[spec.Study, spec.Pack, Group, int]:
    """(study, pack, group, row in the group) of a run, given as in `load`.

    Raises:
      LabError: no such run, or several.
    """
    study = restore_study(workdir.read_json(directory / "config.json"), f"{directory}/config.json")
    wanted = hparams.items()
    matches = [
        (pack, group, row)
        for pack in study.packs
        for group in unfold(pack, study.seeds)
        for row, run in enumerate(group.runs)
        if run.branch == branch and run.seed == seed and stage in ("", run.stage.name)
        if wanted <= dict(run.hparams).items()
    ]
    if not matches:
        raise LabError(f"{directory} has no run of branch {branch!r}, seed {seed}, stage {stage!r}, {dict(wanted)}")
    if sum(group.stage.name == matches[-1][1].stage.name for _, group, _ in matches) > 1:
        points = [dict(group.runs[row].hparams) for _, group, row in matches]
        raise LabError(f"{len(matches)} runs are of branch {branch!r} and seed {seed}; choose one by hparams: {points}")
    pack, group, row = matches[-1]
    return study, pack, group, row


def states_like(group: Group, network: tuple[Any, Any], custom: Custom = NONE) -> state.TrainState:
    """The shapes of a group's states, leaves [R, ...], for a `state.network_like`; `custom` as in `apply`."""
    one = state.like(network, group.stage, custom)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(group.runs), *leaf.shape), leaf.dtype), one)


def kept(group: Group, groups: Iterable[Group], states: state.TrainState) -> dict[str, Any]:
    """The parts of the states saved at the end of a group: the optimiser's state only if a later stage uses it."""
    children = [run.stage for other in groups for run in other.runs if run.parent and run.parent[0] == group.name]
    moments = any(stage.reset.optimiser != "all" for stage in children)
    return {"params": states.params, "stats": states.stats, **({"opt": states.opt} if moments else {})}
