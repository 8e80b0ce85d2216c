"""Shell code around `launch.job` that restarts it on request, for launchers that do not retry."""

import shlex
from pathlib import Path

from plasticity_jax.launch.arguments import AGAIN

PAUSE = 5  # seconds before a job that stopped is started again


def script(sweep: Path, tries: int, python: str, home: Path) -> str:
    """A script that runs the job `--job=NAME` until it finishes or gives up, and forwards SIGTERM; exits with 0."""
    command = shlex.join([python, "-m", "plasticity_jax.launch.job", f"--workdir={sweep}", f"--tries={tries}"])
    return f"""#!/bin/sh
# Runs a job of a sweep for XManager, which would end all other jobs if this exited with a status other than 0.
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
    """A shell line that runs a command with its arguments, again after each status 75; exits with its last status."""
    return f'while {command} "$@"; code=$?; [ $code -eq {AGAIN} ]; do sleep {PAUSE}; done; exit $code'
