"""Runs the jobs of a sweep in child processes: starts, watches, restarts and stops them."""

import collections
import contextlib
import dataclasses
import importlib.util
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from plasticity_jax.launch import attempts, job_states
from plasticity_jax.launch import jobs as jobs_
from plasticity_jax.launch.arguments import AGAIN, FAILED, FINISHED
from plasticity_jax.launch.jobs import Job
from plasticity_jax.runner.console import Line
from plasticity_jax.runner.units import duration

TICK = 0.2  # seconds between two checks of the children
LOOK = 1.0  # seconds between two checks of jobs elsewhere, and of the progress of all
PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
DEV = Path("/dev")


@dataclasses.dataclass(frozen=True)
class Share:
    """environment: additional variables for a child process.  cores: CPU cores it may use, empty for all."""

    environment: Mapping[str, str]
    cores: tuple[int, ...]

    def start(self, command: Sequence[str], log: IO[bytes], environment: Mapping[str, str]) -> subprocess.Popen:
        """Starts a child with this share, in a new session, so that Ctrl-C reaches only its parent."""
        with _on(self.cores):
            return subprocess.Popen(
                command,
                env={**environment, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


@contextlib.contextmanager
def _on(cores: Collection[int]) -> Iterator[None]:
    """Context in which children start with these cores only; jax counts them once, at its start."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)  # of this thread, which they inherit
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def deal(count: int) -> list[Share]:
    """`count` shares: one GPU each, reused if there are fewer; without GPUs equal parts of this process's cores."""
    devices = gpus(os.environ)
    if devices:
        return [Share({"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]}, ()) for i in range(count)]
    if count == 1 or not hasattr(os, "sched_getaffinity"):  # not on macOS or Windows
        return [Share({}, ())] * count
    cores = sorted(os.sched_getaffinity(0))
    if count >= len(cores):
        return [Share({}, (cores[i % len(cores)],)) for i in range(count)]
    ends = [len(cores) * i // count for i in range(count + 1)]
    return [Share({}, tuple(cores[start:end])) for start, end in zip(ends, ends[1:], strict=False)]


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The names of the GPUs that jax would use, as in CUDA_VISIBLE_DEVICES; does not import jax."""
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return []
    if not any(importlib.util.find_spec(plugin) for plugin in PLUGINS):
        return []
    if "CUDA_VISIBLE_DEVICES" in environment:
        listed = (name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(","))
        return list(itertools.takewhile(_may_be_gpu, listed))  # like CUDA, ignores everything after an invalid name
    numbers = [path.name.removeprefix("nvidia") for path in DEV.glob("nvidia[0-9]*")]
    return sorted((number for number in numbers if number.isdecimal()), key=int)


def _may_be_gpu(name: str) -> bool:
    """Whether it is a number, or the identifier of a GPU or a partition of one; not -1 or words like `none`."""
    return name.isdecimal() or name.startswith(("GPU-", "MIG-"))


@dataclasses.dataclass(frozen=True)
class Child:
    """A process that trains a job; `place` is where the job resumed at its start."""

    job: Job
    process: subprocess.Popen
    share: Share
    place: str


class Crew:
    """At most `parallel` children; each job is in `waiting`, in `children`, in `elsewhere`, or has ended."""

    def __init__(self, sweep: Path, jobs: Sequence[Job], parallel: int, tries: int, environment: Mapping[str, str]):
        self.sweep = sweep
        self.tries = tries
        self.environment = environment
        self.states = {job: job_states.look(sweep, job) for job in jobs}
        self.waiting = collections.deque(job for job in jobs if self.states[job].state not in job_states.FOR_GOOD)
        self.failed = {job for job in jobs if self.states[job].state in job_states.FOR_GOOD[:-1]}
        self.elsewhere: list[Job] = []  # held by processes of other launchers
        self.free = deal(parallel)
        self.children: list[Child] = []
        self.killed: dict[Job, tuple[str, int]] = {}  # place, and how often the job was killed there
        self.line = Line()
        self.shown = self.looked = -float("inf")

    def work(self, stopped: Callable[[], bool]) -> int:
        """Runs all jobs, or until `stopped`; returns the exit status."""
        told = False
        while self.children or ((self.waiting or self.elsewhere) and not told):
            if stopped() and not told:
                told = True
                self.line.note(f"stopping: {len(self.children)} jobs save their state")
                for child in self.children:
                    child.process.send_signal(signal.SIGTERM)
            self._reap(told)
            while self.waiting and self.free and not told:
                self._start(self.waiting.popleft())
            self._look()
            time.sleep(TICK)
        self._show(last=True)
        if told and any(state.state != "finished" for state in self.states.values()):
            return AGAIN
        return FAILED if self.failed else FINISHED

    def _start(self, job: Job) -> None:
        directory = jobs_.directory(self.sweep, job)
        if job_states.held(directory):
            self.elsewhere.append(job)
            return
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "plasticity_jax.launch.job", f"--workdir={self.sweep}", f"--job={job.name}"]
        share = self.free.pop(0)
        with open(directory / "log.txt", "ab") as log:
            process = share.start([*command, f"--tries={self.tries}"], log, self.environment)
        self.children.append(Child(job, process, share, attempts.place(directory)))

    def _reap(self, told: bool) -> None:
        """Handles the children that ended: their jobs have finished, wait again, or failed."""
        for child in [child for child in self.children if child.process.poll() is not None]:
            self.children.remove(child)
            self.free.append(child.share)
            job, code = child.job, child.process.returncode
            self.states[job] = job_states.look(self.sweep, job)
            if code == FINISHED:
                continue
            if code == AGAIN or (code < 0 and (told or not self._hopeless(child))):
                self.waiting.append(job)
                continue
            self.failed.add(job)
            why = self.states[job].reason if code >= 0 else f"killed by {_signal(code)} {self.tries} times at one place"
            log = jobs_.directory(self.sweep, job) / "log.txt"
            self.line.note(f"{job.name} failed: {why or f'exit status {code}'}; see {log}")

    def _hopeless(self, child: Child) -> bool:
        """Whether a job was killed at one place as often as it has tries."""
        place, count = self.killed.get(child.job, ("", 0))
        count = count + 1 if place == child.place else 1
        self.killed[child.job] = child.place, count
        if count < self.tries:
            self.line.note(f"{child.job.name} was killed by {_signal(child.process.returncode)}; it is started again")
        return count >= self.tries

    def _look(self) -> None:
        """Checks the jobs of other launchers, and shows the progress of all."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        for job in list(self.elsewhere):
            if not job_states.held(jobs_.directory(self.sweep, job)):
                self.elsewhere.remove(job)
                self.states[job] = job_states.look(self.sweep, job)
                if self.states[job].state not in job_states.FOR_GOOD:
                    self.waiting.append(job)
                elif self.states[job].state != "finished":
                    self.failed.add(job)
        for job in [child.job for child in self.children] + self.elsewhere:
            self.states[job] = job_states.look(self.sweep, job)
        if time.monotonic() - self.shown >= self.line.every:
            self.shown = time.monotonic()
            self._show()

    def _show(self, last: bool = False) -> None:
        counts = collections.Counter(state.state for state in self.states.values())
        done = sum(state.done for state in self.states.values())
        planned = sum(max(state.planned, job.images) for job, state in self.states.items())
        rate = sum(state.rate for state in self.states.values() if state.state == "running")
        parts = [
            f"{counts['finished']} of {len(self.states)} jobs finished",
            f"{len(self.children)} running" if self.children else "",
            f"{len(self.elsewhere)} elsewhere" if self.elsewhere else "",
            f"{len(self.failed)} failed" if self.failed else "",
            f"{100 * done / max(planned, 1):.1f} % of the images",
            f"{rate:,.0f} images/s" if rate else "",
            f"ETA {duration((planned - done) / rate)}" if rate else "",
        ]
        (self.line.note if last else self.line.write)("  ".join(part for part in parts if part))


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
