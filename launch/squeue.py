"""Reads the jobs of a sweep that are in SLURM's queue, with `squeue`."""

import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax.errors import LabError
from plasticity_jax.launch import sbatch

LIMIT = 1001  # MaxArraySize if the cluster does not report it
_SEPARATOR = "|"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A job in the queue.

    id: of its task in SLURM, such as 12_3.  state: pending, running, completing ..
    where: its nodes, or why it is pending.
    """

    id: str
    state: str
    where: str


def there() -> bool:
    """Whether this machine has the commands of SLURM."""
    return all(shutil.which(name) for name in ("sbatch", "squeue", "scontrol"))


def read(sweep: Path, jobs: int) -> dict[int, Entry]:
    """Position in sweep.json -> queue entry, for those of a sweep's `jobs` jobs that are in the queue.

    Raises:
      LabError: SLURM does not answer.
    """
    size = limit()
    offsets = {sbatch.label(sweep, offset): offset for offset in range(0, max(jobs, 1), size)}
    columns = _SEPARATOR.join(["%j", "%K", "%F", "%T", "%r", "%N"])
    told = ask(["squeue", "--noheader", "--array", f"--name={','.join(offsets)}", f"--format={columns}"])
    entries = {}
    for line in told.splitlines():
        name, task, array, state, reason, nodes = line.split(_SEPARATOR)
        if name in offsets and task.isdecimal():
            entries[offsets[name] + int(task)] = Entry(f"{array}_{task}", state.lower(), nodes or reason)
    return entries


def limit() -> int:
    """The cluster's MaxArraySize; task numbers are below it."""
    for line in ask(["scontrol", "show", "config"]).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "MaxArraySize" and value.strip().isdecimal():
            return max(int(value), 1)
    return LIMIT


def ask(command: Sequence[str]) -> str:
    """The output of a command of SLURM.

    Raises:
      LabError: it is missing, fails, or does not answer within minutes; the message quotes it.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]} does not answer ({error}); is this a machine of the cluster?") from error
    if done.returncode:
        raise LabError(f"{command[0]}: {' '.join(done.stderr.split()) or f'status {done.returncode}'}")
    return done.stdout
