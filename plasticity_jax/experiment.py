"""The host loop: a study from its config to its result, resumable at any moment.

`run` walks the packs of a study, and within a pack the legs of its plans, one after the other.  This is the only
module that knows all the others.
"""

import contextlib
import dataclasses
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from plasticity_jax import config as configs
from plasticity_jax import datasets, models, records, results, runs, stages, state, timetable, train, walk
from plasticity_jax import workdir as workdirs
from plasticity_jax.clock import Clock
from plasticity_jax.datasets import Dataset
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.errors import LabError, Preempted, WorkdirError
from plasticity_jax.lab import Lab
from plasticity_jax.legs import Run, unfold
from plasticity_jax.programs import Programs
from plasticity_jax.progress import Progress
from plasticity_jax.resets import OwnReset, factors
from plasticity_jax.summary import summary
from plasticity_jax.train import Diagnostic

Result = dict[str, Any]
Timetables = dict[str, timetable.Timetable]


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    dry_run: bool = False,
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
      dataset: own arrays (`datasets.from_arrays`) instead of `config.dataset`.
      model: an own linen module, called like those of `models`, instead of `config.model`.
      resets: own resets by name, for `reset.function`.
      diagnostics: own diagnostics by name; they are measured besides `config.diagnostics`.

    Returns:
      What `result.json` holds; an empty dict after a dry run.

    Raises:
      LabError: bad config, data or directory, in one line; what was saved before stays good.
      Preempted: SIGTERM or SIGINT came; all is saved and the same call goes on.
    """
    own = Own(model, dict(resets or {}), dict(diagnostics or {}))
    study = configs.parse(config, own=(*own.resets, *own.diagnostics))
    dataset = dataset or datasets.load(study.dataset, study.data_dir)
    packs = [(pack, draw_up(pack, study, dataset)) for pack in study.packs]
    directory = Path(workdir).expanduser().absolute()
    for pack, timetables in packs:
        check_resets(timetables, own.network(pack, dataset), dataset)
    if dry_run:
        for pack, timetables in packs:
            print(_summary(pack, timetables, study, dataset, own, runs.choose(study.strategy, pack.model.name)))
        return {}
    with workdirs.lock(directory), _listening() as stopped:
        workdirs.claim(directory, configs.describe(study))
        strategies = _environment(directory, study, dataset)["strategies"]
        with _status(directory):  # not before: whoever is refused says nothing about the study that is here
            progress = Progress(sum(times.images() for _, timetables in packs for times in timetables.values()))
            labs = (
                _lab(directory, pack, timetables, study, dataset, own, strategies[pack.name], progress, stopped)
                for pack, timetables in packs
            )
            parts = [_walk(directory, lab) for lab in labs]
            result = _result(study, parts)
            workdirs.write_json(directory / "result.json", result)
            code, compiled = 0 if result["status"] == "finished" else 1, sum(part["compilations"] for part in parts)
            workdirs.status(directory, status=result["status"], exit_code=code, compilations=compiled)
    print(results.table(result))
    return result


@dataclasses.dataclass(frozen=True)
class Own:
    """What a user brings from Python: a network (or None) and resets and diagnostics by name."""

    model: nn.Module | None
    resets: Mapping[str, OwnReset]
    diagnostics: Mapping[str, Diagnostic]

    def network(self, pack: stages.Pack, dataset: Dataset) -> nn.Module:
        return self.model or models.build(pack.model, dataset.classes)


def _summary(
    pack: stages.Pack, timetables: Timetables, study: stages.Study, dataset: Dataset, own: Own, strategy: str
) -> str:
    names = (*study.diagnostics, *own.diagnostics)
    return summary(pack, timetables, study, own.network(pack, dataset), dataset, strategy, names)


def draw_up(pack: stages.Pack, study: stages.Study, dataset: Dataset) -> Timetables:
    """The timetable of each leg of a pack, in the order in which they are walked."""
    return {leg.name: timetable.draw_up(leg, study, dataset) for leg in unfold(pack, study.seeds)}


def check_resets(timetables: Timetables, module: nn.Module, dataset: Dataset) -> None:
    """Raise a ConfigError if a reset names a module that the network does not have."""
    for times in timetables.values():
        spec = times.leg.runs[0].stage.optim
        shape = dataset.train_images.shape[1:]
        like = jax.eval_shape(lambda: state.create(*state.init_network(module, jax.random.key(0), shape), spec))  # noqa: B023
        for each in times.leg.runs:
            factors(each.stage.reset, like)


@contextlib.contextmanager
def _listening() -> Iterator[Callable[[], bool]]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a flag while inside; a second SIGINT stops at once."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        caught.append(number)
        if caught.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    try:
        before = {number: signal.signal(number, note) for number in numbers}
    except ValueError:  # not the main thread, as in a notebook server
        before = {}
    try:
        yield lambda: bool(caught)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _status(directory: Path) -> Iterator[None]:
    """Keep `status.json` true however the work inside ends; memory that ran out becomes an error of one line."""
    try:
        yield
    except Preempted:
        workdirs.status(directory, status="preempted", exit_code=75)
        raise
    except Exception as error:
        with contextlib.suppress(LabError):
            workdirs.status(directory, status="failed", exit_code=1, error=str(error).partition("\n")[0])
        if "RESOURCE_EXHAUSTED" in str(error) and not isinstance(error, LabError):
            raise LabError(
                "the device is out of memory; train fewer seeds at once, or --config.strategy=map (one after another)"
            ) from error
        raise


def _environment(directory: Path, study: stages.Study, dataset: Dataset) -> dict[str, Any]:
    """What this directory was begun with; a note says which bits may differ when it goes on elsewhere."""
    path = directory / "environment.json"
    now = workdirs.environment()
    now["dataset"] = {
        "name": dataset.name,
        "version": dataset.version,
        "sha256": dataset.sha256,
        "classes": dataset.classes,
        "image_shape": list(dataset.train_images.shape[1:]),
    }
    now["strategies"] = {pack.name: runs.choose(study.strategy, pack.model.name) for pack in study.packs}
    if not path.exists():
        workdirs.write_json(path, now)
        return now
    old = workdirs.read_json(path)
    if not isinstance(old, dict) or old.keys() != now.keys() or old["strategies"].keys() != now["strategies"].keys():
        raise WorkdirError(f"{path} is damaged; delete it to go on, with the strategies chosen anew")
    if old["dataset"]["sha256"] != dataset.sha256:
        raise LabError(f"{directory} was begun on other images than those of {dataset.name} now; use another workdir")
    differing = [
        key
        for key in ("backend", "device_kind", "devices", "cpu_threads", "xla_flags", "packages")
        if old[key] != now[key]
    ]
    if differing:
        changes = ", ".join(f"{key} {old[key]} -> {now[key]}" for key in differing)
        print(f"note: results may differ in their last bits from an unbroken run: {changes}", flush=True)
    return old


def _lab(
    directory: Path,
    pack: stages.Pack,
    timetables: Timetables,
    study: stages.Study,
    dataset: Dataset,
    own: Own,
    strategy: str,
    progress: Progress,
    stopped: Callable[[], bool],
) -> Lab:
    """Put the data of a pack on the device and say what is going to happen."""
    clock = Clock(directory / pack.name / "clock.json")
    model = own.network(pack, dataset)
    diagnostics = {name: DIAGNOSTICS[name] for name in study.diagnostics if name not in own.diagnostics}
    diagnostics |= own.diagnostics
    progress.note(_summary(pack, timetables, study, dataset, own, strategy))
    scale = jnp.asarray(dataset.mean, jnp.float32), jnp.asarray(dataset.std, jnp.float32)
    shape = dataset.train_images.shape[1:]
    return Lab(
        directory=directory / pack.name,
        pack=pack,
        study=study,
        model=model,
        dataset=dataset,
        images=train.Images(jnp.asarray(dataset.train_images), *scale),
        test_images=train.Images(jnp.asarray(dataset.test_images), *scale),
        timetables=timetables,
        programs=Programs(model, shape, strategy, study.eval_batch, diagnostics, own.resets),
        clock=clock,
        progress=progress,
        stopped=stopped,
    )


def _walk(directory: Path, lab: Lab) -> Result:
    """Walk the legs of a pack; returns its part of the result."""
    images, entries = 0, []
    for name, times in lab.timetables.items():
        workdirs.status(directory, status="running", exit_code=None, pack=lab.pack.name, stage=name)
        outcomes = walk.walk(times.leg, lab)["runs"]
        rows = records.read(lab.directory / name / "metrics.jsonl")
        for run, outcome in zip(times.leg.runs, outcomes, strict=True):
            images += outcome["steps"] * run.stage.batch_size
            if run.final:
                entries.append(_run_result(lab, run, outcome, [row for row in rows if row["run"] == run.id]))
        lab.progress.finish(times)
    return {"runs": entries, "images": images, "seconds": lab.clock.save(), "compilations": lab.programs.compiled}


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


def _result(study: stages.Study, parts: list[Result]) -> Result:
    """All packs as one result; `failed` only if no run came through."""
    all_runs = [run for part in parts for run in part["runs"]]
    seconds: dict[str, float] = {}
    for part in parts:
        for kind, value in part["seconds"].items():
            seconds[kind] = seconds.get(kind, 0.0) + value
    images = sum(part["images"] for part in parts)
    return {
        "status": "finished" if any(run["status"] == "finished" for run in all_runs) else "failed",
        "dataset": study.dataset,
        **results.summarise(all_runs, study.control),
        "runs": all_runs,
        "images": images,
        "images_per_second": images / seconds["train"] if seconds.get("train") else None,
        "seconds": seconds,
    }
