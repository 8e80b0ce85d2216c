"""Writes the sbatch script of a sweep, which can be read, edited and submitted with `sbatch`.

Files describe what a job trains, so the script contains only three paths and a number, all quoted.  (submitit would use
pickled functions instead; this project never loads a pickle, and a command in a script can be read.)
"""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from plasticity_jax.config import names
from plasticity_jax.errors import LabError
from plasticity_jax.launch.containers import Container

# Options that the script sets and depends on; sbatch also accepts prefixes of these names.
OWN = ("job-name", "array", "output", "open-mode", "requeue", "no-requeue", "signal")
FLAGS = {"ntasks-per-node": "tasks_per_node", "cpus-per-task": "cpus", "gpus-per-node": "gpus"}  # named differently
KILLS = 20  # number of times that a job is started again after a process of it was killed
_KEY = re.compile(r"[a-z][a-z-]+", re.ASCII)
_PLAIN = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Wishes:
    """What the jobs request from SLURM; empty values are left to the cluster.

    resources: option of sbatch -> value, as {"partition": "gpu"}.
    parallel: the largest number of jobs at a time, 0 for any number.
    grace: seconds before the time limit at which a job is told to save.
    tries: as in `launch.job`.
    setup: lines of shell to run first, unchanged; if one fails, the job ends with its status.
    options: further options for sbatch, each KEY=VALUE or KEY.
    container: in which Python runs; None for no container.
    """

    resources: dict[str, str]
    parallel: int = 0
    grace: int = 120
    tries: int = 3
    setup: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    container: Container | None = None


def write(sweep: Path, positions: Sequence[int], limit: int, wishes: Wishes, python: str, home: Path) -> str:
    """The script that trains some jobs of a sweep.

    Args:
      sweep: its directory, absolute.
      positions: of the jobs in sweep.json.
      limit: the cluster's MaxArraySize.
      python, home: the interpreter, and the directory to start it in.

    Raises:
      LabError: sbatch cannot take a value.
    """
    (first, tasks), *others = chunks(positions, limit)
    logs = sweep / "slurm"
    path = shlex.quote(str(logs / "job.sh"))
    directive(f"{home}{python}", "the path of this program")  # a line break in it would add a line to the script
    command = ["-m", "plasticity_jax.launch.job", f"--workdir={sweep}", f"--tries={wishes.tries}"]
    inside = wishes.container
    start = ["srun", "--kill-on-bad-exit=1", *(inside.options(sweep, home) if inside else [])]
    start += inside.python(sweep, home) if inside else [python]
    output = directive(str(logs / "%A_%a.log").replace("%", "%%").replace("%%A_%%a", "%A_%a"), "--workdir")
    if "\\" in str(sweep):
        raise LabError(f"--workdir={sweep}: SLURM writes no files below a directory with a backslash; use another one")
    lines = [
        "#!/bin/bash",
        "# Trains jobs of a sweep on SLURM: task i of the array is the job at position i of sweep.json, from 0.",
        f"# Submit it by hand with:  sbatch {path}",
        *(f"#     and with:  {shlex.join(submission(sweep, *each, wishes.parallel))}" for each in others),
        "# The launcher overwrites this file; keep your changes under another name.",
        "",
        "# The launcher finds the sweep in the queue by this name, and submits no job twice.",
        f"#SBATCH --job-name={label(sweep, first)}",
        "# The jobs, and after a % the number at a time.",
        f"#SBATCH --array={array(tasks, wishes.parallel)}",
        "# Their output: %A is the number of the array, %a the task in it.  A job that starts again appends to it.",
        f"#SBATCH --output={output}",
        "#SBATCH --open-mode=append",
        "# After a pre-emption or the loss of a node, SLURM puts the job back into the queue.",
        "#SBATCH --requeue",
        f"# {wishes.grace} s before the time limit, python gets USR1: it saves and exits with status 75.",
        f"#SBATCH --signal=USR1@{wishes.grace}",
        "# Resources of a job; all others have the partition's defaults.",
        *(f"#SBATCH --{key}={directive(value, f'--{key}')}" for key, value in wishes.resources.items() if value),
        *(f"#SBATCH {option}" for option in passed(wishes)),
        "",
        "# The directory of the program.",
        f"cd {shlex.quote(str(home))} || exit 1",
        *(text for line in wishes.setup for text in (line, _checked(line))),
        "",
        "# Some versions of SLURM do not pass this to srun.",
        '[ -n "${SLURM_CPUS_PER_TASK:-}" ] && export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK',
        "# Python handles the signals: the shell waits for it and then checks the state of the job.",
        "trap : TERM USR1",
        "# One process per task; if one of them fails, the others end too.  $1: position of task 0.",
        f'{shlex.join([*start, *command])} --job="$((SLURM_ARRAY_TASK_ID + ${{1:-{first}}}))"',
        "code=$?",
        "",
        "# 75: saved, or failed with tries left.  Above 128: killed; the job resumes from its last checkpoint.",
        f'if [ $code -eq 75 ] || {{ [ $code -gt 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {KILLS} ]; }}; then',
        "    me=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID",
        "    # Requeue it, unless SLURM ends the job (it is cancelled, or pre-empted and requeued by SLURM).",
        "    case $(squeue --noheader --jobs=$me --format='%T %r') in",
        '    RUNNING* | *TimeLimit) echo "status $code: back into the queue"; scontrol requeue $me ;;',
        '    *) echo "status $code: SLURM ends this job" ;;',
        "    esac",
        "fi",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def passed(wishes: Wishes) -> list[str]:
    """The options of sbatch that are passed through, in the form of the script.

    Raises:
      LabError: an option is invalid, or set by the script or by a flag of the launcher.
    """
    given: dict[str, str] = {}
    for option in wishes.options:
        key, equals, value = option.partition("=")
        where = f"--sbatch={names.shown(option)}"
        if not _KEY.fullmatch(key):
            raise LabError(f"{where}: write KEY=VALUE or KEY, with the long names of sbatch: exclusive, gres=gpu:2")
        if any(own.startswith(key) for own in OWN):
            raise LabError(f"{where}: the script sets --{key} itself and depends on it; omit it")
        if key in wishes.resources:
            raise LabError(f"{where}: use the flag --{FLAGS.get(key, key)} of the launcher instead")
        if key in given:
            raise LabError(f"{where}: --{key} is given twice")
        given[key] = f"--{key}={directive(value, where)}" if equals else f"--{key}"
    return list(given.values())


def label(sweep: Path, offset: int = 0) -> str:
    """The name in the queue of a sweep's array that begins at a position; names differ between directories."""
    target = sweep.resolve()
    safe = re.sub(r"[^A-Za-z0-9_.]", "_", target.name)[:40]
    name = f"{safe or 'sweep'}-{hashlib.sha256(bytes(target)).hexdigest()[:8]}"
    return f"{name}+{offset}" if offset else name


def chunks(positions: Sequence[int], limit: int) -> list[tuple[int, list[int]]]:
    """(offset, tasks) of the arrays that hold some positions, position = offset + task, task < `limit`."""
    arrays: dict[int, list[int]] = {}
    for position in sorted(set(positions)):
        arrays.setdefault(position // limit * limit, []).append(position % limit)
    return list(arrays.items())


def submission(sweep: Path, offset: int, tasks: Sequence[int], parallel: int = 0) -> list[str]:
    """The command that submits an array."""
    changed = [f"--job-name={label(sweep, offset)}", f"--array={array(tasks, parallel)}"]
    return ["sbatch", *changed, str(sweep / "slurm" / "job.sh"), str(offset)]


def array(tasks: Iterable[int], parallel: int = 0) -> str:
    """Task numbers in sbatch's form: 0-3,7 or, two at a time, 0-3,7%2."""
    spans = ",".join(f"{low}-{high}" if low < high else f"{low}" for low, high in _spans(sorted(set(tasks))))
    return f"{spans}%{parallel}" if parallel else spans


def directive(value: str, where: str) -> str:
    """A value as sbatch reads it after `#SBATCH --option=`, which is not how a shell would.

    Raises:
      LabError: a line break or another character that no line shows.
    """
    if not value.isprintable():
        raise LabError(f"{where}: {value!r} has characters that an sbatch script cannot hold; leave them out")
    if _PLAIN.fullmatch(value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(line: str) -> str:
    """A line of shell that ends the job with an error if the given line failed."""
    told = shlex.quote(f"setup failed: {line}")
    return f'code=$?; [ $code -eq 0 ] || {{ printf "status $code: %s\\n" {told} >&2; exit $code; }}'


def _spans(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The ranges of consecutive numbers, as pairs of first and last."""
    ends = [low for low, high in pairwise(numbers) if high > low + 1]
    starts = [high for low, high in pairwise(numbers) if high > low + 1]
    yield from zip([*numbers[:1], *starts], [*ends, *numbers[-1:]], strict=True)
