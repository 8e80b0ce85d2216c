"""The same rows as the long table, in Weights & Biases, where the environment names a project for it.

    PLASTICITY_WANDB=my-project python -m plasticity_jax.main --config=.. --workdir=DIR

and all other commands too, as the processes that they start have the same environment.  `WANDB_MODE=offline` needs no
network and no account: the runs lie in ./wandb, for `wandb sync`, or where WANDB_DIR says; not in DIR, as W&B makes
links that lead out of it.  What else W&B reads (`WANDB_ENTITY`, `WANDB_RUN_GROUP`, ..) holds.

A run of the lab is a run there, by the same name; all runs of a study, which are one tree, are a group.  Keys are the
tags of TensorBoard, their x is the step since the stage began.

The long table is the truth.  When a stage ends or stops, DIR/wandb.json notes what W&B has been given, and the next
start sends what the table has beyond it, to the same runs; rows that are measured again have the same numbers, and are
not sent twice.  Only after a kill is it unknown what W&B has stored: then the stage is sent again as a whole, under the
same steps of W&B, which ignores those that it has (two files that were written offline both hold them).
"""

import contextlib
import copy
import hashlib
import importlib
import math
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plasticity_jax.errors import LabError, WorkdirError
from plasticity_jax.storage import workdir
from plasticity_jax.storage.metrics import Row
from plasticity_jax.storage.tensorboard import tag

PROJECT = "PLASTICITY_WANDB"  # of the environment

Sent = dict[str, dict[str, int]]  # run -> stage -> the last step that was sent


def project() -> str:
    """The project that the environment names; empty if none."""
    return os.environ.get(PROJECT, "")


class Runs:
    """The runs of one stage of one pack: each begins with its first row, and all end with `close`."""

    def __init__(self, directory: Path, pack: str, rows_so_far: Sequence[Row]) -> None:
        """Send what is new of the rows so far.

        Args:
          directory: the working directory.
          pack: of the stage.

        Raises:
          LabError: there is no wandb, or it cannot start a run.
        """
        try:
            self.wandb = importlib.import_module("wandb")
        except ImportError as e:
            raise LabError(f"{PROJECT}={project()}: no wandb here; pip install plasticity_jax[wandb]") from e
        self.directory, self.pack = Path(directory), pack
        self.path = self.directory / "wandb.json"
        self.runs: dict[str, Any] = {}
        self.study, self.sent = _noted(self.path)
        self.given = copy.deepcopy(self.sent)
        self._note()
        self.append(rows_so_far)

    def append(self, rows: Sequence[Row]) -> None:
        """Send rows, those of one run and step together.

        Raises:
          LabError: a run cannot be started, or what was sent cannot be noted.
        """
        records: dict[tuple[str, str, int], dict[str, float]] = {}
        for row in rows:
            run, stage, step = row["run"], row["stage"], row["step"]
            if step > self._stages(self.sent, run).get(stage, -1):
                first = {_step(stage): step, f"epoch/{stage}": row["epoch"]}
                number = math.nan if row["value"] is None else row["value"]
                records.setdefault((run, stage, step), first)[tag(row["metric"], stage)] = number
                self._start(row)
        for (run, stage, step), values in records.items():
            for name in values:
                self.runs[run].define_metric(name, step_metric=_step(stage))
            before = sum(last + 1 for name, last in self._stages(self.sent, run).items() if name != stage)
            self.runs[run].log(values, step=before + step)
            self._stages(self.given, run)[stage] = step

    def close(self) -> None:
        """End all runs, which makes W&B store them; later `Runs` of the same directory continue them."""
        while self.runs:
            self.runs.popitem()[1].finish()
        self.sent = copy.deepcopy(self.given)
        self._note()

    def _note(self) -> None:
        workdir.write_json(self.path, {"study": self.study, "sent": self.sent})

    def _stages(self, noted: Sent, run: str) -> dict[str, int]:
        return noted.setdefault(f"{self.pack}/{run}", {})

    def _start(self, row: Row) -> None:
        """Begin the run of a row, or continue it, unless it is at hand."""
        if row["run"] in self.runs:
            return
        name = row["run"] if self.pack == "main" else f"{self.pack}/{row['run']}"
        try:
            self.runs[row["run"]] = self.wandb.init(
                project=project(),
                id=f"{self.study}-{hashlib.sha256(name.encode()).hexdigest()[:12]}",
                name=name,
                group=os.environ.get("WANDB_RUN_GROUP") or group(self.directory),
                job_type=row["branch"],
                config={"pack": self.pack, "branch": row["branch"], "seed": row["seed"], **row["hparams"]},
                resume="allow",
                reinit="create_new",  # many at a time
                settings=self.wandb.Settings(console="off", silent=True, x_disable_stats=True),
            )
        except self.wandb.Error as e:
            line = " ".join(str(e).split())
            raise LabError(f"{PROJECT}={project()}: {line} (WANDB_MODE=offline needs no account)") from e


def group(directory: Path) -> str:
    """The name of a working directory, or SWEEP/STUDY for that of a job of a sweep."""
    jobs = directory.absolute().parent
    return f"{jobs.parents[1].name}/{jobs.parent.name}" if jobs.name == "jobs" else directory.absolute().name


def _step(stage: str) -> str:
    return f"step/{stage}"


def _noted(path: Path) -> tuple[str, Sent]:
    """(beginning of the ids of the study's runs, what they have), as `wandb.json` says; new ones if it is lost."""
    with contextlib.suppress(WorkdirError, KeyError, TypeError, ValueError, AttributeError):
        noted = workdir.read_json(path)
        sent = {run: {stage: int(step) for stage, step in stages.items()} for run, stages in noted["sent"].items()}
        return str(noted["study"]), sent
    return secrets.token_hex(4), {}
