"""What a launcher without retries of its own starts for each job: a script, or a line, around `launch.job`."""

import shlex
from pathlib import Path

from plasticity_jax.launch.arguments import AGAIN

PAUSE = 5  # seconds before a job that stopped is started again


def script(sweep: Path, tries: int, python: str, home: Path) -> str:
    """Trains the job `--job=NAME` until it has finished or given up, and passes SIGTERM on; always ends with 0."""
    command = shlex.join([python, "-m", "plasticity_jax.launch.job", f"--workdir={sweep}", f"--tries={tries}"])
    return f"""#!/bin/sh
# Trains a job of a sweep for XManager, which would end all others if this ended with another status than 0.
cd {shlex.quote(str(home))} || exit 0
stopped=
trap 'stopped=yes; kill -TERM "$child"' TERM INT HUP
while [ -z "$stopped" ]; do
    {command} "$1" >>{shlex.quote(str(sweep))}/xm/"${{1#--job=}}".log 2>&1 &
    child=$!
    wait "$child"
    code=$?
    # A signal ends the first wait; the job still has to save.
    [ -n "$stopped" ] && {{ wait "$child"; break; }}
    [ $code -eq {AGAIN} ] || break
    sleep {PAUSE}
done
exit 0
"""


def line(command: str) -> str:
    """Runs a command with its arguments, and again after a pause while it asks for it; ends with its last status."""
    return f'while {command} "$@"; code=$?; [ $code -eq {AGAIN} ]; do sleep {PAUSE}; done; exit $code'
