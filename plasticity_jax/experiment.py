"""The host loop: runs a study from its config to its result; it can be resumed at any moment.

`run` trains the packs of a study one after another, and within a pack the groups of runs.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
from ml_collections import ConfigDict

from plasticity_jax import study_config, target
from plasticity_jax.config import parse, paths, spec
from plasticity_jax.config.plan import Group, Run
from plasticity_jax.data import datasets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.errors import ConfigError, LabError, LostError, Preempted, RoomError
from plasticity_jax.models import interface
from plasticity_jax.parallel import compilation_cache, cpu, multihost
from plasticity_jax.profiling import compilation, cost, memory_check
from plasticity_jax.profiling.autotune import tune
from plasticity_jax.runner import instruments, prepare, signals, stage_loop
from plasticity_jax.runner.context import Compute, Context
from plasticity_jax.runner.dry_run import summary
from plasticity_jax.runner.parts import Parts, complete
from plasticity_jax.runner.progress import Progress
from plasticity_jax.storage import conditions, environment, metrics, results
from plasticity_jax.storage.workdir import check_lock, claim, disclaim, lock, status, write_json
from plasticity_jax.training.evaluation import Diagnostic
from plasticity_jax.training.measuring import Instrument
from plasticity_jax.training.remedies.apply import Function
from plasticity_jax.training.resets import CustomReset

Result = dict[str, Any]


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    dry_run: bool = False,
    autotune: bool = False,
    compile_for: str = "",
    dataset: Dataset | None = None,
    model: nn.Module | None = None,
    resets: Mapping[str, CustomReset] | None = None,
    diagnostics: Mapping[str, Diagnostic] | None = None,
    remedies: Mapping[str, Function] | None = None,
    instruments: Mapping[str, Instrument] | None = None,
) -> Result:
    """Trains and evaluates all runs of a config in `workdir`, or continues an earlier call there.

    Args:
      config: a config as made by `configs/`.
      workdir: the working directory; from now on it can be used with this config only.
      dry_run: only print the plan; nothing is written.
      autotune: only measure and print which strategy trains fastest on this machine; nothing is written.
      compile_for: only compile all programs for described devices (`target.described`) and print their memory; nothing
        is written, and common data sets need not be available.
      dataset: arrays (`datasets.from_arrays`) to use instead of `config.dataset`.
      model: a custom linen module, called like those of `models`, instead of `config.model`.  The argument `train` is
        optional; Dropout gets a key from the stage and the step.
      resets: custom resets by name, for `reset.function`.
      diagnostics: custom diagnostics by name, measured in addition to `config.diagnostics`.
      remedies: custom remedies by name, for the `remedies` of stages.
      instruments: custom instruments by name, measured in addition to `config.instruments` where stages say so.

    Returns:
      The contents of `result.json`; an empty dict if nothing was to be trained.

    Raises:
      LabError: bad config, data or directory, in one line; files saved earlier are intact.
      Preempted: SIGTERM, SIGINT or SIGHUP was received; everything is saved and the same call continues.
    """
    network = None if model is None else interface.check(model)
    parts = Parts(network, dict(resets or {}), dict(diagnostics or {}), dict(remedies or {}), dict(instruments or {}))
    study = study_config.parse(config, custom=(*parts.resets, *parts.diagnostics, *parts.remedies, *parts.instruments))
    with target.described(compile_for) if compile_for else contextlib.nullcontext():
        return run_study(study, workdir, dry_run=dry_run, autotune=autotune, dataset=dataset, custom=parts)


def run_study(
    study: spec.Study,
    workdir: str | Path,
    *,
    dry_run: bool = False,
    autotune: bool = False,
    dataset: Dataset | None = None,
    custom: Parts | None = None,
) -> Result:
    """`run` for a study that was already parsed; `custom` are parts given from Python."""
    with conditions.pinned(study.matmul_precision):
        return _run(study, workdir, dry_run, autotune, dataset, custom)


def _run(
    study: spec.Study,
    workdir: str | Path,
    dry_run: bool,
    autotune: bool,
    dataset: Dataset | None,
    custom: Parts | None,
) -> Result:
    cpu.use_all_cores()
    cpu.start_jax()
    cpu.use_one_lapack_thread()
    parts = complete(custom, study)
    directory = paths.given(workdir).absolute()
    dataset = _check_arrays(study, dataset) if dataset else multihost.in_turn(lambda: cost.load(*study.data))
    packs = [prepare.compute(pack, study, dataset, parts) for pack in study.packs]
    for compute in packs:
        prepare.check(compute)
    packs = [memory_check.placed(compute, compiling=not (dry_run or target.is_described())) for compute in packs]
    if target.is_described():  # where nothing can run
        _compile(packs)
        return {}
    if dry_run:
        for compute in packs:
            print(summary(compute))
        return {}
    compilation_cache.turn_on()
    if autotune:
        if not multihost.alone():
            raise LabError("--autotune measures one process; start one")
        for text in tune(packs, study.strategy):
            print(text, flush=True)
        return {}
    choices = {compute.pack.name: compute.choice for compute in packs}

    def begin() -> dict[str, Any]:
        held.enter_context(lock(directory))
        claim(directory, parse.describe(study))
        return environment.settle(directory, dataset, choices, parts.code(study))

    def stops() -> bool:
        if multihost.first():
            check_lock(directory)
        return stopped()

    with contextlib.ExitStack() as held, signals.listening() as stopped:
        begun = multihost.once(begin)
        packs = [prepare.resumed(compute, begun["choices"][compute.pack.name]) for compute in packs]
        total = sum(times.images() for compute in packs for times in compute.timetables.values())
        measuring = sum(instruments.passes(times, one) for one in packs for times in one.timetables.values())
        progress = Progress(total, report=functools.partial(_running, directory), measuring=measuring)
        with _status(directory, progress):  # not earlier: a refused call must not change the status of the directory
            done = []
            while packs:  # popped, so that a finished pack frees its memory on the device
                compute = packs.pop(0)
                memory_check.check_images(compute)
                progress.note(summary(compute))
                where = directory / compute.pack.name
                done.append(_walk(directory, prepare.context(compute, where, progress, stops)))
            result = results.combine(done, study.dataset, study.control)
            multihost.once(lambda: write_json(directory / "result.json", result))
            code = 0 if result["status"] == "finished" else 1
            counts = {kind: sum(part[kind] for part in done) for kind in ("compilations", "from_cache")}
            needs = {pack.name: part["bytes_per_run"] for pack, part in zip(study.packs, done, strict=True)}
            facts = {"images": result["images"], "images_planned": total}
            status(directory, status=result["status"], exit_code=code, **facts, **counts, bytes_per_run=needs)
    if multihost.first():
        print(results.table(result))
    return result


def _compile(packs: Sequence[Compute]) -> None:
    """Compiles all programs of all packs and prints a report; raises the last error, if any."""
    if not multihost.alone():
        raise LabError("--compile_for compiles in one process; start one")
    failed = None
    for compute in packs:
        print(summary(compute), flush=True)
        try:
            for line in compilation.report(compute):
                print(line, flush=True)
        except LabError as error:
            print(f"  {error}", flush=True)
            failed = error
    if failed:
        raise failed


def _check_arrays(study: spec.Study, dataset: Dataset) -> Dataset:
    if study.holdout:
        raise ConfigError(f"config.holdout={study.holdout}: your arrays come with a test set; set config.holdout=0")
    if study.resize:
        raise ConfigError(f"config.resize={study.resize}: your arrays are used as they are; set config.resize=0")
    if study.images == "disk":
        raise ConfigError(
            "config.images=disk: your arrays are used as they are; np.memmap keeps them on disk, with host"
        )
    return datasets.seen(dataset, study.image_size)


@contextlib.contextmanager
def _status(directory: Path, progress: Progress) -> Iterator[None]:
    """Context that writes the outcome of its body to `status.json`, and turns out-of-memory errors into one line."""
    try:
        yield
    except Preempted:
        status(directory, status="preempted", exit_code=75, **progress.facts())
        raise
    except LostError:  # the directory may be another study's now
        raise
    except Exception as error:
        if isinstance(error, RoomError):
            multihost.once(lambda: disclaim(directory))
        with contextlib.suppress(LabError):
            line = str(error).partition("\n")[0]
            status(directory, status="failed", exit_code=1, error=line, **progress.facts())
        if "RESOURCE_EXHAUSTED" in str(error) and not isinstance(error, LabError):
            raise LabError(
                "the memory of the device is exhausted, though the plan seemed to fit; take fewer seeds, or "
                "--config.strategy=map (one run after another)"
            ) from error
        raise


def _running(directory: Path, facts: Mapping[str, Any]) -> None:
    with contextlib.suppress(LabError):  # this file may be missing; an error in a needed one is raised where it occurs
        status(directory, status="running", exit_code=None, **facts)


def _walk(directory: Path, context: Context) -> Result:
    """Trains the groups of a pack one after another; returns its part of the result."""
    images, entries, bytes_per_run = 0, [], memory_check.check(context)
    for name, times in context.timetables.items():
        _running(directory, context.progress.facts() | {"pack": context.pack.name, "stage": name, "step": 0})
        ended = stage_loop.walk(times.group, context)
        count = zip(times.group.runs, ended["runs"], strict=True)
        images += sum(outcome["steps"] * run.stage.batch_size for run, outcome in count)
        entries += multihost.once(functools.partial(_run_results, context, times.group, ended))
        context.progress.finish(times, instruments.passes(times, context))
    seconds = context.clock.save()
    groups = {f"{context.pack.name}/{kind.partition('/')[2]}": taken for kind, taken in seconds.items() if "/" in kind}
    return {
        "runs": [entry for _, entry in sorted(entries, key=lambda pair: pair[0])],
        "images": images,
        "seconds": {kind: taken for kind, taken in seconds.items() if "/" not in kind},
        "train_seconds": groups,
        "compilations": context.programs.compiled,
        "from_cache": context.programs.loaded,
        "bytes_per_run": bytes_per_run,
    }


def _run_results(context: Context, group: Group, ended: Mapping[str, Any]) -> list[tuple[int, Result]]:
    """(index in the pack, result) of the runs of a group that no later run continues from."""
    rows = metrics.read(context.directory / group.name / "metrics.jsonl", ended["mark"])
    return [
        (run.index, _run_result(context, run, outcome, [row for row in rows if row["run"] == run.id]))
        for run, outcome in zip(group.runs, ended["runs"], strict=True)
        if run.final
    ]


def _run_result(context: Context, run: Run, outcome: Mapping[str, Any], rows: list[metrics.Row]) -> Result:
    accuracy = results.score(rows, context.study.window)
    failed = outcome["failed"] or not math.isfinite(accuracy)
    return {
        "run": f"{context.pack.name}/{run.id}" if len(context.study.packs) > 1 else run.id,
        "pack": context.pack.name,
        "seed": run.seed,
        "branch": run.branch,
        "hparams": dict(run.hparams),
        "status": "failed" if failed else "finished",
        "test_accuracy": None if failed else accuracy,
        "params_sha256": outcome["sha256"],
    }
