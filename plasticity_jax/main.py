"""The command: train what a config asks for, or go on where it stopped.

    python -m plasticity_jax.main --config=configs/multistage.py:digits --workdir=DIR [--config.KEY=VALUE]

`--dry_run`, `--autotune` or `--compile_for` instead of --workdir: only say what would be trained, which strategy is
fastest here, or what the programs need on a device that need not be here (`v5e:2x4`, `h100:4`, ..).

Exit status: 0 finished, 1 an error (a line says which) or all runs diverged, 75 stopped early (start it again).
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
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Ask the cluster for further processes (TPU pod, Open MPI).")
flags.DEFINE_bool("autotune", False, "Measure which strategy trains fastest here, and train nothing.")
INSTEAD = ("dry_run", "autotune", "compile_for")  # of training


def main(argv: Sequence[str] | None = None) -> int:
    """The command with these words, or those of this process; returns the exit status."""
    return commandline.start(run, argv, INSTEAD)


def run(argv: Sequence[str]) -> int:
    """Run the study that the flags ask for; returns the exit status."""
    del argv
    logging.getLogger("jax").setLevel(logging.WARNING)  # or it tells of every accelerator that is not there
    try:
        cpu.import_jax()  # seconds that a misspelt flag need not cost
        multihost.join(DISTRIBUTED.value)
        # One of several must not end, nor miss a signal, before it can tell the others.
        with contextlib.nullcontext() if multihost.alone() else signals.listening(), multihost.together():
            from plasticity_jax import experiment

            instead: dict[str, Any] = {name: flags.FLAGS[name].value for name in INSTEAD}
            result = experiment.run(CONFIG.value, WORKDIR.value, **instead)
    except LabError as error:
        commandline.leave(str(error))
    except Preempted as stop:
        print(f"{stop}; the same command goes on from here", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        return STOPPED
    return int(result.get("status") == "failed")


if __name__ == "__main__":
    sys.exit(main())
