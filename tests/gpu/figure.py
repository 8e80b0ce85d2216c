"""Figure 1 of Berariu et al. on the card, with as many epochs as the time allows.

The rule: s = min(1, 0.7 r t / n), with r the images/s that were measured for eight runs of width 64 (`ASSUMED` if none
were), t the seconds that are left without `START` and `END`, and n the images of the whole study.  A network is then
pretrained for 350 s epochs and tuned for 500 s, of five seeds; of three, if five leave fewer than `LEAST` epochs.
"""

import concurrent.futures
import contextlib
import functools
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from plasticity_jax.configs import multistage
from plasticity_jax.errors import LabError
from plasticity_jax.storage import workdir
from tests.benchmarks import channel
from tests.gpu.worker import Crew, Entry, answer

SHARE = 0.7  # of the measured speed; the rest is for evaluation and checkpoints
ASSUMED = 40_000  # images/s
IMAGES = 294_000_000  # of the whole study, if its plan was not drawn up in time
START, END = 25.0, 25.0  # seconds before the first step, and after the last
LEAST = 40  # epochs of tuning with five seeds
SEEDS = (5, 3)
KEPT = (
    "status",
    "images",
    "images_planned",
    "images_per_second",
    "compilations",
    "from_cache",
    "error",
)  # of status.json
COLLECT = 20.0  # seconds between two collections of the results
PREPARE = (
    "no prepared CIFAR-10 in {place} (give --data_dir DIR, which holds cifar10/ or cifar10_jpeg/ as TFDS prepares it)"
)


class Choice(NamedTuple):
    """How much of the paper's study is trained."""

    seeds: int
    pretrain: int
    tune: int


def choose(rate: float, seconds: float, images: int, whole: Choice) -> Choice:
    """Apply the rule above to a study that has `images` images if it is trained whole."""
    rate, seconds = rate or ASSUMED, max(0.0, seconds - START - END)
    for count in dict.fromkeys((whole.seeds, *(n for n in SEEDS if n < whole.seeds))):
        share = min(1.0, SHARE * rate * seconds / (images * count / whole.seeds))
        choice = Choice(count, *(max(1, math.floor(share * epochs)) for epochs in whole[1:]))
        if choice.tune >= min(LEAST, whole.tune):
            break
    return choice


def config(choice: Choice, dataset: str, data_dir: str, quick: bool = False) -> ConfigDict:
    """The study; with `quick` on digits, with a network that compiles quickly."""
    settings = multistage.get_config("digits" if quick else "")
    if quick:
        settings.model.update(name="mlp", depth=1, width=8)
    else:
        settings.update(dataset=dataset, data_dir=data_dir)
        settings.model.dtype = "bfloat16"
    settings.seeds = tuple(range(choice.seeds))
    settings.stages.pretrain.epochs, settings.stages.tune.epochs = float(choice.pretrain), float(choice.tune)
    return settings


def whole(quick: bool) -> Choice:
    """The complete study."""
    return Choice(5, 30, 60) if quick else Choice(5, 350, 500)


def locate(data_dir: str) -> tuple[str, str]:
    """(name of CIFAR-10 as it is prepared in `data_dir`, or where TFDS has it by default; that place).

    Raises:
      LabError: it is in neither form.
    """
    from plasticity_jax.data import tfds

    place = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()
    for name in ("cifar10", "cifar10_jpeg"):
        if tfds.find(name, place) or (
            name == "cifar10" and (place / "downloads/manual/cifar-10-binary.tar.gz").exists()
        ):
            return name, str(place)
    raise LabError(PREPARE.format(place=place))


def run(
    crew: Crew,
    entry: Entry,
    scratch: Path,
    out: Path,
    left: Callable[[], float],
    note: Callable[[], None],
    **asked: object,
) -> None:
    """Train what `entry["choice"]` says and collect it in `out` again and again; a second call resumes.

    Args:
      scratch: where the study's own directory is.
      left: seconds until it has to be over.
      asked: `dataset`, `data_dir` and `quick` of `config`.
    """
    directory, worker = scratch / "figure1", crew.hire()
    request = {"do": "train_figure", "directory": str(directory), "seconds": max(1.0, left() - END)}
    with concurrent.futures.ThreadPoolExecutor(1) as waiting:
        ask = functools.partial(worker.ask, **request, choice=entry["choice"], **asked)
        future = waiting.submit(answer, ask)
        try:
            while not future.done() and left() > 5.0:
                concurrent.futures.wait([future], timeout=min(COLLECT, max(0.1, left() - 5.0)))
                entry["study"] = _collected(directory, out)
                note()
        finally:  # also if this process is asked to stop
            worker.process.send_signal(signal.SIGTERM)
            concurrent.futures.wait([future], timeout=10.0)
            channel.end(worker.process)
            entry |= future.result() if future.done() else {"error": "it did not stop in time"}
            entry["study"] = _collected(directory, out)
            note()


def _collected(directory: Path, out: Path) -> Entry:
    """The progress of the study; its measurements are collected in `out`."""
    entry: Entry = {}
    with contextlib.suppress(LabError):
        status = workdir.read_json(directory / "status.json")
        entry = {key: status[key] for key in KEPT if key in status}
    try:
        from plasticity_jax.analysis import collect

        collect.collect(directory, out, partial=True)
        entry["collected"] = out.name
    except (LabError, OSError, ImportError) as error:  # nothing measured yet, or pandas is missing
        entry["collected"] = f"not yet: {str(error).partition(chr(10))[0]}"
    return entry


# ---- in a worker ----


def plan_figure(dataset: str, data_dir: str, quick: bool) -> Entry:
    """The number of images of the whole study."""
    return {"images": sum(times.images() for times in _compute(dataset, data_dir, quick).timetables.values())}


def compile_figure(dataset: str, data_dir: str, quick: bool) -> Entry:
    """Compile the programs of the whole study, several at a time, so that it finds them; epochs do not change them."""
    from plasticity_jax.parallel import compilation_cache, cpu
    from plasticity_jax.profiling import memory_check

    cpu.use_all_cores()  # as the study does, or it would not find them
    compilation_cache.turn_on()
    compute = _compute(dataset, data_dir, quick)
    calls = [call for times in compute.timetables.values() for call in memory_check.calls(times, compute)]
    with concurrent.futures.ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 4)) as pool:
        list(pool.map(lambda call: compute.programs.program(call.kind, call.stage, *call.args), calls))
    return {"compiled": compute.programs.compiled, "compile_seconds": compute.programs.seconds}


def train_figure(directory: str, seconds: float, choice: list[int], **asked: object) -> Entry:
    """Train, or resume, for `seconds` seconds."""
    import plasticity_jax
    from plasticity_jax.errors import Preempted

    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()
    try:
        result = plasticity_jax.run(config(Choice(*choice), **asked), directory)  # type: ignore[arg-type]
    except Preempted:
        return {"result": "stopped and saved"}
    finally:
        timer.cancel()
    return {"result": result["status"], "gap": result["gap"], "seconds": result["seconds"]}


def _compute(dataset: str, data_dir: str, quick: bool):
    from plasticity_jax import study_config
    from plasticity_jax.profiling import cost
    from plasticity_jax.runner import prepare
    from plasticity_jax.runner.parts import complete

    study = study_config.parse(config(whole(quick), dataset, data_dir, quick))
    (pack,) = study.packs
    return prepare.compute(pack, study, cost.load(*study.data), complete(None, study))


WORK = (plan_figure, compile_figure, train_figure)
