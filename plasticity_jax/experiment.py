"""The host loop: a study from its config to its result, resumable at any moment.

`run` walks the packs of a study, and within a pack the legs of its plans, one after the other.  This is the only
module that knows all the others.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from plasticity_jax import (
    cache,
    conditions,
    datasets,
    drafts,
    environment,
    machine,
    network,
    paths,
    peers,
    records,
    results,
    room,
    runs,
    signals,
    stages,
    train,
    walk,
)
from plasticity_jax import config as configs
from plasticity_jax import workdir as workdirs
from plasticity_jax.autotune import Entry, tune
from plasticity_jax.clock import Clock
from plasticity_jax.datasets import Dataset
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.drafts import Draft, Own
from plasticity_jax.errors import ConfigError, LabError, Preempted, RoomError
from plasticity_jax.lab import Lab
from plasticity_jax.legs import Leg, Run
from plasticity_jax.programs import Programs
from plasticity_jax.progress import Progress
from plasticity_jax.resets import OwnReset
from plasticity_jax.train import Diagnostic

Result = dict[str, Any]


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    dry_run: bool = False,
    autotune: bool = False,
    dataset: Dataset | None = None,
    model: nn.Module | None = None,
    resets: Mapping[str, OwnReset] | None = None,
    diagnostics: Mapping[str, Diagnostic] | None = None,
) -> Result:
    """Train and evaluate all runs of a config in `workdir`, or go on where an earlier call stopped there.

    Args:
      config: a config as `configs/` makes them.
      workdir: the working directory; it belongs to this config from now on.
      dry_run: only print the plan; nothing is written.
      autotune: only measure which strategy trains fastest here, and print it; nothing is written.
      dataset: own arrays (`datasets.from_arrays`) instead of `config.dataset`.
      model: an own linen module, called like those of `models`, instead of `config.model`; it need not take `train`,
        and its Dropout draws by the stage's key and the step.
      resets: own resets by name, for `reset.function`.
      diagnostics: own diagnostics by name; they are measured besides `config.diagnostics`.

    Returns:
      What `result.json` holds; an empty dict after a dry run or a measurement.

    Raises:
      LabError: bad config, data or directory, in one line; what was saved before stays good.
      Preempted: SIGTERM, SIGINT or SIGHUP came; all is saved and the same call goes on.
    """
    own = Own(None if model is None else network.check(model), dict(resets or {}), dict(diagnostics or {}))
    study = configs.parse(config, own=(*own.resets, *own.diagnostics))
    return run_study(study, workdir, dry_run=dry_run, autotune=autotune, dataset=dataset, own=own)


@conditions.pinned()
def run_study(
    study: stages.Study,
    workdir: str | Path,
    *,
    dry_run: bool = False,
    autotune: bool = False,
    dataset: Dataset | None = None,
    own: Own | None = None,
) -> Result:
    """`run` for a study that a config was resolved to."""
    runs.use_all_cores()
    machine.start_jax()
    machine.use_one_lapack_thread()
    own = own or Own(None, {}, {})
    directory = paths.given(workdir).absolute()
    dataset = _own_data(study, dataset) if dataset else peers.in_turn(lambda: datasets.load(*study.data))
    drawn = [drafts.draft(pack, study, dataset, own) for pack in study.packs]
    for draft in drawn:
        drafts.check_modules(draft)
        if own.model:
            drafts.check_outputs(draft, own.model, dataset)
    if dry_run:
        for draft in drawn:
            print(drafts.describe(draft, study, dataset, own))
        return {}
    cache.turn_on()
    if autotune:
        if not peers.alone():
            raise LabError("--autotune measures one process; start one")
        entries = [
            Entry(draft.pack.name, draft.timetables, own.network(draft.pack, dataset), draft.choice["strategy"])
            for draft in drawn
        ]
        for text in tune(entries, study.strategy, dataset):
            print(text, flush=True)
        return {}
    choices = {draft.pack.name: draft.choice for draft in drawn}

    def begin() -> dict[str, Any]:
        held.enter_context(workdirs.lock(directory))
        workdirs.claim(directory, configs.describe(study))
        return environment.settle(directory, dataset, choices, own.code(study))

    with contextlib.ExitStack() as held, signals.listening() as stopped:
        begun = peers.once(begin)
        drawn = [dataclasses.replace(draft, choice=begun["choices"][draft.pack.name]) for draft in drawn]
        total = sum(leg.images() for draft in drawn for leg in draft.timetables.values())
        progress = Progress(total, report=functools.partial(_running, directory))
        with _status(directory, progress):  # not before: whoever is refused says nothing about the study that is here
            parts = [
                _walk(directory, _lab(directory, draft, study, dataset, own, progress, stopped)) for draft in drawn
            ]
            result = results.combine(parts, study.dataset, study.control)
            peers.once(lambda: workdirs.write_json(directory / "result.json", result))
            code = 0 if result["status"] == "finished" else 1
            counts = {kind: sum(part[kind] for part in parts) for kind in ("compilations", "from_cache")}
            needs = {draft.pack.name: part["bytes_per_run"] for draft, part in zip(drawn, parts, strict=True)}
            facts = {"images": result["images"], "images_planned": total}
            workdirs.status(directory, status=result["status"], exit_code=code, **facts, **counts, bytes_per_run=needs)
    if peers.first():
        print(results.table(result))
    return result


def _own_data(study: stages.Study, dataset: Dataset) -> Dataset:
    if study.holdout:
        raise ConfigError(f"config.holdout={study.holdout}: own arrays come with a test set; set config.holdout=0")
    return dataset


@contextlib.contextmanager
def _status(directory: Path, progress: Progress) -> Iterator[None]:
    """Keep `status.json` true however the work inside ends; memory that ran out becomes an error of one line."""
    try:
        yield
    except Preempted:
        workdirs.status(directory, status="preempted", exit_code=75, **progress.facts())
        raise
    except Exception as error:
        if isinstance(error, RoomError):
            peers.once(lambda: workdirs.disclaim(directory))
        with contextlib.suppress(LabError):
            line = str(error).partition("\n")[0]
            workdirs.status(directory, status="failed", exit_code=1, error=line, **progress.facts())
        if "RESOURCE_EXHAUSTED" in str(error) and not isinstance(error, LabError):
            raise LabError(
                "the memory ran out, though the plan seemed to fit; take fewer seeds, or --config.strategy=map "
                "(one after another)"
            ) from error
        raise


def _running(directory: Path, facts: Mapping[str, Any]) -> None:
    with contextlib.suppress(LabError):  # what must be written says so itself
        workdirs.status(directory, status="running", exit_code=None, **facts)


def _lab(
    directory: Path,
    draft: Draft,
    study: stages.Study,
    dataset: Dataset,
    own: Own,
    progress: Progress,
    stopped: Callable[[], bool],
) -> Lab:
    """Put the data of a pack on the device and say what is going to happen."""
    room.check_images(dataset)
    name, choice = draft.pack.name, draft.choice
    pack = dataclasses.replace(draft.pack, model=dataclasses.replace(draft.pack.model, dtype=choice["dtype"]))
    model = own.network(pack, dataset)
    diagnostics = {name: DIAGNOSTICS[name] for name in study.diagnostics if name not in own.diagnostics}
    diagnostics |= own.diagnostics
    progress.note(drafts.describe(draft, study, dataset, own))
    scale = drafts.scale(study, dataset)
    shape = dataset.train_images.shape[1:]
    return Lab(
        directory=directory / name,
        pack=pack,
        study=study,
        network=draft.network,
        dataset=dataset,
        images=train.Images(dataset.train_images, *scale),
        test_images=train.Images(dataset.test_images, *scale),
        timetables=draft.timetables,
        programs=Programs(model, shape, choice["strategy"], study.eval_batch, diagnostics, own.resets),
        clock=Clock(directory / name / "clock.json"),
        progress=progress,
        stopped=stopped,
    )


def _walk(directory: Path, lab: Lab) -> Result:
    """Walk the legs of a pack; returns its part of the result."""
    images, entries, bytes_per_run = 0, [], room.check(lab)
    for name, times in lab.timetables.items():
        _running(directory, lab.progress.facts() | {"pack": lab.pack.name, "stage": name, "step": 0})
        ended = walk.walk(times.leg, lab)
        count = zip(times.leg.runs, ended["runs"], strict=True)
        images += sum(outcome["steps"] * run.stage.batch_size for run, outcome in count)
        entries += peers.once(functools.partial(_run_results, lab, times.leg, ended))
        lab.progress.finish(times)
    return {
        "runs": entries,
        "images": images,
        "seconds": lab.clock.save(),
        "compilations": lab.programs.compiled,
        "from_cache": lab.programs.loaded,
        "bytes_per_run": bytes_per_run,
    }


def _run_results(lab: Lab, leg: Leg, ended: Mapping[str, Any]) -> list[Result]:
    """The results of the runs of a leg that no later one continues from."""
    rows = records.read(lab.directory / leg.name / "metrics.jsonl", ended["mark"])
    return [
        _run_result(lab, run, outcome, [row for row in rows if row["run"] == run.id])
        for run, outcome in zip(leg.runs, ended["runs"], strict=True)
        if run.final
    ]


def _run_result(lab: Lab, run: Run, outcome: Mapping[str, Any], rows: list[records.Row]) -> Result:
    accuracy = results.score(rows, lab.study.window)
    failed = outcome["failed"] or not math.isfinite(accuracy)
    return {
        "run": f"{lab.pack.name}/{run.id}" if len(lab.study.packs) > 1 else run.id,
        "pack": lab.pack.name,
        "seed": run.seed,
        "branch": run.branch,
        "hparams": dict(run.hparams),
        "status": "failed" if failed else "finished",
        "test_accuracy": None if failed else accuracy,
        "params_sha256": outcome["sha256"],
    }
