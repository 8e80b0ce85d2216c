"""The training command: trains the study of a config, or continues it.

    python -m plasticity_jax.main --config=configs/multistage.py:digits --workdir=DIR [--config.KEY=VALUE]

Instead of --workdir: `--dry_run` prints the plan, `--autotune` measures which strategy is fastest on this machine, and
`--compile_for` compiles for devices that need not be present (`v5e:2x4`, `h100:4`, ..) and prints their memory use.

Exit status: 0 finished, 1 error (reported in one line) or all runs diverged, 75 stopped early and saved (start it
again).
"""

import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from plasticity_jax.errors import LabError, Preempted
from plasticity_jax.parallel import cpu, multihost
from plasticity_jax.runner import commandline, signals

STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again

flags.adopt_module_key_flags(commandline)
CONFIG, WORKDIR = commandline.CONFIG, commandline.WORKDIR
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Let jax find the other processes (TPU pod, Open MPI).")
flags.DEFINE_bool("autotune", False, "Only measure which strategy trains fastest on this machine.")
INSTEAD = ("dry_run", "autotune", "compile_for")  # of training


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with these arguments, or those of the process; returns the exit status."""
    return commandline.start(run, argv, INSTEAD)


def run(argv: Sequence[str]) -> int:
    """Runs the study given by the flags; returns the exit status."""
    del argv
    logging.getLogger("jax").setLevel(logging.WARNING)  # otherwise it reports every accelerator that is missing
    try:
        cpu.import_jax()  # takes seconds, so it comes after the check of flags
        multihost.join(DISTRIBUTED.value)
        # One of several processes must not end, nor miss a signal, before it can inform the others.
        with contextlib.nullcontext() if multihost.alone() else signals.listening(), multihost.together():
            from plasticity_jax import experiment

            instead: dict[str, Any] = {name: flags.FLAGS[name].value for name in INSTEAD}
            result = experiment.run(CONFIG.value, WORKDIR.value, **instead)
    except LabError as error:
        commandline.leave(str(error))
    except Preempted as stop:
        print(f"{stop}; the same command resumes from here", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        return STOPPED
    return int(result.get("status") == "failed")


if __name__ == "__main__":
    sys.exit(main())
