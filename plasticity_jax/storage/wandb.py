"""Logs the rows of the metrics table to Weights & Biases if an environment variable names a project.

    PLASTICITY_WANDB=my-project python -m plasticity_jax.main --config=.. --workdir=DIR

This holds for all other commands too, since the processes that they start inherit the environment.
`WANDB_MODE=offline` needs no network and no account: runs are written to ./wandb or to WANDB_DIR, for `wandb sync`.
They are not written to DIR, because W&B creates links that lead out of it.  All other variables of W&B
(`WANDB_ENTITY`, `WANDB_RUN_GROUP`, ..) work as usual.

Each run of the lab is a W&B run of the same name; all runs of a study are one W&B group.  Keys equal the tags of
TensorBoard; their x axis is the step since the start of the stage.

The metrics table is authoritative.  When a stage ends or stops, DIR/wandb.json records what was sent, and the next
start sends only newer rows, to the same runs.  Rows that are measured again have the same values and are not sent
twice.  After a kill it is unknown what W&B has stored: then the whole stage is sent again under the same W&B steps, of
which W&B ignores those it has (of files written offline, both hold them).
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

PROJECT = "PLASTICITY_WANDB"  # the environment variable

Sent = dict[str, dict[str, int]]  # run -> stage -> the last step that was sent


def project() -> str:
    """The project named by the environment variable; empty if it is unset."""
    return os.environ.get(PROJECT, "")


class Runs:
    """The W&B runs of one stage of one pack: each starts at its first row, and `close` finishes all."""

    def __init__(self, directory: Path, pack: str, rows_so_far: Sequence[Row]) -> None:
        """Sends those of the rows so far that were not sent before.

        Args:
          directory: the working directory.
          pack: of the stage.

        Raises:
          LabError: wandb is not installed, or cannot start a run.
        """
        try:
            self.wandb = importlib.import_module("wandb")
        except ImportError as e:
            raise LabError(f"{PROJECT}={project()}: wandb is not installed; pip install plasticity_jax[wandb]") from e
        self.directory, self.pack = Path(directory), pack
        self.path = self.directory / "wandb.json"
        self.runs: dict[str, Any] = {}
        self.study, self.sent = _noted(self.path)
        self.given = copy.deepcopy(self.sent)
        self._note()
        self.append(rows_so_far)

    def append(self, rows: Sequence[Row]) -> None:
        """Sends rows; those of one run and step are sent together.

        Raises:
          LabError: a run cannot be started, or `wandb.json` cannot be written.
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
        """Finishes all runs, which makes W&B store them; later `Runs` of the same directory resume them."""
        while self.runs:
            self.runs.popitem()[1].finish()
        self.sent = copy.deepcopy(self.given)
        self._note()

    def _note(self) -> None:
        workdir.write_json(self.path, {"study": self.study, "sent": self.sent})

    def _stages(self, noted: Sent, run: str) -> dict[str, int]:
        return noted.setdefault(f"{self.pack}/{run}", {})

    def _start(self, row: Row) -> None:
        """Starts or resumes the W&B run of a row, unless it is active."""
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
                reinit="create_new",  # several runs are active at once
                settings=self.wandb.Settings(console="off", silent=True, x_disable_stats=True),
            )
        except self.wandb.Error as e:
            line = " ".join(str(e).split())
            raise LabError(f"{PROJECT}={project()}: {line} (WANDB_MODE=offline needs no account)") from e


def group(directory: Path) -> str:
    """The name of a working directory, or SWEEP/STUDY for the directory of a sweep's job."""
    jobs = directory.absolute().parent
    return f"{jobs.parents[1].name}/{jobs.parent.name}" if jobs.name == "jobs" else directory.absolute().name


def _step(stage: str) -> str:
    return f"step/{stage}"


def _noted(path: Path) -> tuple[str, Sent]:
    """(prefix of the ids of the study's runs, what was sent) from `wandb.json`; a new prefix if it is unreadable."""
    with contextlib.suppress(WorkdirError, KeyError, TypeError, ValueError, AttributeError):
        noted = workdir.read_json(path)
        sent = {run: {stage: int(step) for stage, step in stages.items()} for run, stages in noted["sent"].items()}
        return str(noted["study"]), sent
    return secrets.token_hex(4), {}
