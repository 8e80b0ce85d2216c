"""The host loop: a study from its config to its result, resumable at any moment.

`run` walks the packs of a study, and within a pack the legs of its plans, one after the other.  This is the only
module that knows all the others.
"""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import clu.parameter_overview
import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from plasticity_jax import config as configs
from plasticity_jax import datasets, leg, models, records, results, runs, stages, state, timetable, train, workdir
from plasticity_jax.clock import Clock
from plasticity_jax.datasets import Dataset
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.errors import LabError, Preempted
from plasticity_jax.programs import Programs
from plasticity_jax.progress import Progress, describe
from plasticity_jax.resets import OwnReset, factors
from plasticity_jax.train import Diagnostic

Result = dict[str, Any]
Timetables = dict[str, timetable.Timetable]


def run(
    config: ConfigDict,
    directory: str | Path,
    *,
    dry_run: bool = False,
    dataset: Dataset | None = None,
    model: nn.Module | None = None,
    resets: Mapping[str, OwnReset] | None = None,
    diagnostics: Mapping[str, Diagnostic] | None = None,
) -> Result:
    """Train and evaluate all runs of a config in `directory`, or go on where an earlier call stopped there.

    Args:
      config: a config as `configs/` makes them.
      directory: the working directory; it belongs to this config from now on.
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
    resets, diagnostics = dict(resets or {}), dict(diagnostics or {})
    study = configs.parse(config, own=(*resets, *diagnostics))
    dataset = dataset or datasets.load(study.dataset, study.data_dir)
    packs = [(pack, draw_up(pack, study, dataset)) for pack in study.packs]
    directory = Path(directory).expanduser().absolute()
    if dry_run:
        for pack, timetables in packs:
            module = model or models.build(pack.model, dataset.classes)
            check_resets(timetables, module, dataset)
            print(
                summary(
                    pack, timetables, study, module, dataset, runs.choose(study.strategy, pack.model.name), diagnostics
                )
            )
        return {}
    with workdir.lock(directory), _listening() as stopped:
        try:
            workdir.claim(directory, configs.describe(study))
            environment = _environment(directory, study, dataset)
            progress = Progress(sum(t.images() for _, ts in packs for t in ts.values()), 0)
            parts = []
            for pack, timetables in packs:
                lab = _lab(
                    directory,
                    pack,
                    timetables,
                    study,
                    dataset,
                    environment,
                    progress,
                    stopped,
                    model,
                    resets,
                    diagnostics,
                )
                parts.append(_walk_pack(directory, pack, lab))
            result = _result(study, parts)
            workdir.write_json(directory / "result.json", result)
            workdir.status(directory, status=result["status"], exit_code=0 if result["status"] == "finished" else 1)
        except Preempted:
            workdir.status(directory, status="preempted", exit_code=75)
            raise
        except LabError as error:
            with contextlib.suppress(LabError):
                workdir.status(directory, status="failed", exit_code=1, error=str(error))
            raise
    print(results.table(result))
    return result


def draw_up(pack: stages.Pack, study: stages.Study, dataset: Dataset) -> Timetables:
    """The timetable of each leg of a pack, in the order in which they are walked."""
    return {leg.name: timetable.draw_up(leg, study, dataset) for leg in stages.legs(pack, study.seeds)}


def check_resets(timetables: Timetables, module: nn.Module, dataset: Dataset) -> None:
    """Raise a ConfigError if a reset names a module that the network does not have."""
    for times in timetables.values():
        spec = times.leg.runs[0].stage.optim
        shape = dataset.train_images.shape[1:]
        like = jax.eval_shape(lambda: state.create(*state.init_network(module, jax.random.key(0), shape), spec))  # noqa: B023
        for each in times.leg.runs:
            factors(each.stage.reset, like)


def summary(
    pack: stages.Pack,
    timetables: Timetables,
    study: stages.Study,
    module: nn.Module,
    dataset: Dataset,
    strategy: str,
    own: Mapping[str, Diagnostic],
) -> str:
    """The plan of a pack as text."""
    shape = dataset.train_images.shape[1:]
    params = jax.eval_shape(lambda: state.init_network(module, jax.random.key(0), shape)[0])
    count = clu.parameter_overview.count_parameters(params)
    devices = jax.devices()
    return describe(
        f"{pack.name}: {pack.model.name} on {dataset.name} {dataset.version}, seeds {', '.join(map(str, study.seeds))}",
        timetables,
        f"{count:,} parameters: {', '.join(f'{name} {_size(params[name]):,}' for name in models.module_names(params))}",
        f"{len(devices)} x {devices[0].device_kind} ({jax.default_backend()})",
        strategy,
        expected_compilations(timetables, study, bool(study.diagnostics or own)),
        shared_images(timetables),
    )


def expected_compilations(timetables: Timetables, study: stages.Study, diagnoses: bool) -> int:
    """How many programs a pack compiles: `begin` and `advance` per stage shape, the others per number of runs."""
    shapes = {(len(t.leg.runs), tuple(sorted(t.leg.runs[0].stage.shape().items()))) for t in timetables.values()}
    counts = {len(t.leg.runs) for t in timetables.values()}
    own = {(len(t.leg.runs), t.held_out[0].size) for t in timetables.values() if study.validation_images}
    return 1 + 2 * len(shapes) + len(counts) * (1 + diagnoses + study.evaluate_train) + len(own)


def shared_images(timetables: Timetables) -> int:
    """Training images that branches would show again if each trained from the start by itself."""

    def cost(name: str, row: int) -> int:
        times = timetables[name]
        parent = times.leg.runs[row].parent
        before = cost(parent[0], parent[1]) if parent else 0
        return before + times.steps[row] * times.leg.runs[row].stage.batch_size

    alone = sum(cost(n, i) for n, t in timetables.items() for i, run in enumerate(t.leg.runs) if run.final)
    return alone - sum(t.images() for t in timetables.values())


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


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


def _environment(directory: Path, study: stages.Study, dataset: Dataset) -> dict[str, Any]:
    """What this directory was begun with; a note says which bits may differ when it goes on elsewhere."""
    path = directory / "environment.json"
    now = workdir.environment()
    now["dataset"] = {
        "name": dataset.name,
        "version": dataset.version,
        "sha256": dataset.sha256,
        "classes": dataset.classes,
        "image_shape": list(dataset.train_images.shape[1:]),
    }
    now["strategies"] = {pack.name: runs.choose(study.strategy, pack.model.name) for pack in study.packs}
    if not path.exists():
        workdir.write_json(path, now)
        return now
    old = workdir.read_json(path)
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
    environment: Mapping[str, Any],
    progress: Progress,
    stopped: Callable[[], bool],
    model: nn.Module | None,
    resets: Mapping[str, OwnReset],
    own: Mapping[str, Diagnostic],
) -> leg.Lab:
    clock = Clock(directory / pack.name / "clock.json")
    module = model or models.build(pack.model, dataset.classes)
    check_resets(timetables, module, dataset)
    strategy = environment["strategies"][pack.name]
    progress.note(summary(pack, timetables, study, module, dataset, strategy, own))
    chosen = {name: DIAGNOSTICS[name] for name in study.diagnostics if name not in own} | dict(own)
    scale = jnp.asarray(dataset.mean, jnp.float32), jnp.asarray(dataset.std, jnp.float32)
    return leg.Lab(
        directory=directory / pack.name,
        study=study,
        model=module,
        dataset=dataset,
        images=train.Images(jnp.asarray(dataset.train_images), *scale),
        test_images=train.Images(jnp.asarray(dataset.test_images), *scale),
        timetables=timetables,
        programs=Programs(module, dataset.train_images.shape[1:], strategy, study.eval_batch, chosen, resets),
        clock=clock,
        progress=progress,
        stopped=stopped,
    )


def _walk_pack(directory: Path, pack: stages.Pack, lab: leg.Lab) -> Result:
    """Walk the legs of a pack; returns its part of the result."""
    images = 0
    outcomes: dict[str, list[dict[str, Any]]] = {}
    for name, times in lab.timetables.items():
        workdir.status(directory, status="running", pack=pack.name, stage=name)
        outcomes[name] = leg.walk(times.leg, lab)["runs"]
        images += sum(o["steps"] * r.stage.batch_size for o, r in zip(outcomes[name], times.leg.runs, strict=True))
        lab.progress.finish(times)
    return {
        "runs": [
            _run_result(pack, run, outcome, lab, rows)
            for name, times in lab.timetables.items()
            for rows in [records.read(lab.directory / name / "metrics.jsonl")]
            for run, outcome in zip(times.leg.runs, outcomes[name], strict=True)
            if run.final
        ],
        "seconds": lab.clock.save(),
        "images": images,
        "compilations": lab.programs.compiled,
    }


def _run_result(
    pack: stages.Pack, run: stages.Run, outcome: Mapping[str, Any], lab: leg.Lab, rows: list[records.Row]
) -> Result:
    accuracy = results.score([row for row in rows if row["run"] == run.id], lab.study.window)
    return {
        "run": f"{pack.name}/{run.id}" if len(lab.study.packs) > 1 else run.id,
        "pack": pack.name,
        "seed": run.seed,
        "branch": run.branch,
        "hparams": dict(run.hparams),
        "status": "failed" if outcome["failed"] or not math.isfinite(accuracy) else "finished",
        "test_accuracy": accuracy if math.isfinite(accuracy) else None,
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
