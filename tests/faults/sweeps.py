"""Faults of sweeps: launchers that are killed or started twice, and damage to the files that describe the jobs.

The sweep has two jobs, the plain study and the one that diverges, in a directory beside the scene's own; each has to
end like the undisturbed study of that name.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from plasticity_jax.launch import job_states, jobs
from tests.faults import command, damage
from tests.faults.children import Child, End, Lost
from tests.faults.scene import ROOT, STARTS, Scene, outcome, same, told

ARGUMENTS = {"plain": "", "nan": "nan"}  # study of the sweep -> argument of the study alone
FILES = ("sweep.json", "plain/config.json", "nan/config.json")


class Sweep:
    """A sweep in the directory of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.directory = scene.home / f"sweep{len(scene.injections)}"
        self.groups: list[int] = []
        scene.undo.callback(self.kill)

    def start(self) -> Child:
        """Start the launcher."""
        log = self.scene.home / f"{self.directory.name}-log{len(self.groups)}"
        flags = [f"--config={ROOT / 'tests/faults/study.py'}:sweep", f"--workdir={self.directory}"]
        flags += ["--parallel=2", "--images_per_second=1000000"]
        child = Child(self.scene.world.context, command.launch, (flags, str(log)), log)
        self.groups.append(child.pid)
        return child

    def kill(self) -> None:
        """End all launchers and their jobs."""
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def finished(self, end: End) -> bool:
        """Whether a launcher finished; after a refusal, which is recorded, do what its line says."""
        if "Traceback" in end.text or end.code not in (0, 1, 75):
            raise Lost(f"a launcher ended with {end.code}: {end.text[-1500:]}")
        lines = [line for line in end.text.splitlines() if line.startswith("error: ")]
        if len(lines) == 1:
            self.scene.injections[-1].refusals.append(lines[0])
            path = told(lines[0])
            if path is not None and path.is_relative_to(self.directory) and path.exists():
                damage.remove(path)
            elif " in use " not in lines[0]:
                raise Lost(f"a refusal that does not say what to do: {lines[0]}")
        elif end.code == 1:
            raise Lost(f"jobs failed: {end.text[-1500:]}")
        return end.code == 0

    def finish(self) -> None:
        """Launch again until all is done, and compare every job."""
        for _ in range(STARTS):
            if self.finished(self.start().end()):
                break
        else:
            raise Lost(f"a sweep not finished after {STARTS} starts")
        listed = jobs.read(self.directory)
        if sorted(job.study for job in listed) != sorted(ARGUMENTS):
            raise Lost(f"other jobs than planned: {[job.name for job in listed]}")
        for job in listed:
            if (state := job_states.look(self.directory, job).state) != "finished":
                raise Lost(f"job {job.name} is {state} after the launcher said that all have finished")
            expected = dict(self.scene.world.references[ARGUMENTS[job.study]].outcome)
            del expected["status"]  # a job that has its result is not started again to mend its status.json
            same(outcome(jobs.directory(self.directory, job), status=False), expected)


def launcher(scene: Scene) -> None:
    """Kill the launcher but not its jobs, or all of them."""
    sweep, everybody = Sweep(scene), scene.draw.random() < 0.5
    child, after = sweep.start(), scene.draw.uniform(0, 4) * scene.reference.seconds
    time.sleep(after)
    scene.injected("launcher", f"killed {'with its jobs ' * everybody}after {after:.2f} s")
    child.signal(signal.SIGKILL)
    if everybody:
        sweep.kill()
    child.end()
    sweep.finish()


def launchers(scene: Scene) -> None:
    """Two launchers on the same sweep."""
    sweep = Sweep(scene)
    first, pause = sweep.start(), scene.draw.choice((0.0, scene.draw.uniform(0, 3) * scene.reference.seconds))
    time.sleep(pause)
    scene.injected("launchers", f"the second {pause:.2f} s later")
    second = sweep.start()
    for child in (first, second):
        sweep.finished(child.end())
    sweep.finish()


def described(scene: Scene) -> None:
    """Damage to sweep.json or to the config of a study."""
    _damaged(scene, "described", lambda sweep: [sweep.directory / name for name in FILES])


def attempts(scene: Scene) -> None:
    """Damage to a job's record of its failures, or to its status."""

    def find(sweep: Sweep) -> list[Path]:
        names = ("attempts.json", "status.json", "result.json")
        return [path for name in names for path in sweep.directory.glob(f"*/jobs/*/{name}")]

    _damaged(scene, "attempts", find)


def _damaged(scene: Scene, kind: str, find: Callable[[Sweep], list[Path]]) -> None:
    """Launch, kill all processes at some moment, damage one of the existing files, and finish."""
    sweep = Sweep(scene)
    for _ in range(STARTS):
        child, after = sweep.start(), scene.draw.uniform(2, 6) * scene.reference.seconds
        child.stands(after)
        sweep.kill()
        child.end()
        if files := [path for path in find(sweep) if path.exists()]:
            break
    else:
        raise Lost("there was never a file to damage")
    path = scene.draw.choice(files)
    # A finished job is not read again, so a flipped digit in its result would stay: a known limit, which is not drawn.
    what = damage.damage(path, scene.draw, "truncate" if path.name == "result.json" else "")
    scene.injected(kind, f"{path.relative_to(sweep.directory)} {what} after {after:.2f} s")
    sweep.finish()


KINDS = {"launcher": launcher, "launchers": launchers, "described": described, "attempts": attempts}
