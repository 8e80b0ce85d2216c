"""One working directory and its history: starts, faults, refusals, and the comparison at the end."""

import contextlib
import dataclasses
import random
import re
import shutil
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from plasticity_jax.storage import workdir
from tests.faults import command, damage
from tests.faults.children import Child, End, Lost
from tests.support import small

ROOT = Path(__file__).parents[2]
STARTS = 8  # a study that has not finished after so many starts cannot be resumed
TIMED = ("seconds", "train_seconds", "images_per_second")


@dataclasses.dataclass
class Injection:
    """One fault: its kind, its details, and the lines with which the command refused because of it."""

    kind: str
    what: str
    refusals: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Reference:
    """An undisturbed run: its outcome, the number of its file operations, its seconds."""

    outcome: dict[str, Any]
    operations: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class World:
    """What all scenes share: the server of processes and, for each argument of the study, the undisturbed run."""

    context: ForkServerContext
    references: dict[str, Reference] = dataclasses.field(default_factory=dict)
    target: Callable[..., None] = command.command  # what a child does


class Scene:
    """A working directory on its own disk, and the faults injected into it."""

    def __init__(self, world: World, home: Path, draw: random.Random) -> None:
        self.world = world
        self.home = home
        self.disk = home / "disk"  # what can be mounted upon
        self.directory = self.disk / "run"
        self.draw = draw
        self.argument = ""  # of the study
        self.injections: list[Injection] = []
        self.mend: Callable[[str], None] | None = None  # undoes the current fault, as a user who reads the line would
        self.undo = contextlib.ExitStack()
        self.starts = 0
        self.disk.mkdir(parents=True)

    @property
    def reference(self) -> Reference:
        return self.world.references[self.argument]

    def injected(self, kind: str, what: str) -> None:
        self.injections.append(Injection(kind, what))

    def start(
        self, stop_at: int = 0, count_to: str = "", jump: float = 0.0, environ: Mapping[str, str] | None = None
    ) -> Child:
        """Start the command."""
        self.starts += 1
        log = self.home / f"log{self.starts}"
        argument = f":{self.argument}" if self.argument else ""
        flags = [f"--config={ROOT / 'tests/faults/study.py'}{argument}", f"--workdir={self.directory}"]
        args = (flags, str(self.directory), str(log), stop_at, count_to, jump, environ or {})
        return Child(self.world.context, self.world.target, args, log)

    def stand(self) -> tuple[Child, str]:
        """A process that is stopped at a random moment of its work, and words for the moment."""
        reach = 1.0
        while True:
            share = reach * self.draw.random()
            stop_at, after = 1 + int(share * self.reference.operations), 0.0
            when = f"at file operation {stop_at}"
            if self.draw.random() < 0.4:
                stop_at, after = 0, 0.01 + share * self.reference.seconds
                when = f"after {after:.3f} s"
            child = self.start(stop_at)
            if child.stands(after):
                return child, when
            if not self._ended(child.end()):
                continue
            self.clear()  # it had already finished
            reach = max(reach / 2, 0.02)

    def clear(self) -> None:
        """Start over in an empty directory."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def advance(self) -> None:
        """Bring the directory to a random state: after a kill, after an orderly stop, or finished."""
        how = self.draw.choice(("kill", "stop", "end"))
        if how == "end":
            self.finish()
            return
        child, _ = self.stand()
        if how == "kill":
            child.kill()
        else:
            child.signal(15)
            child.go_on()
            self._ended(child.end())

    def finish(self) -> None:
        """Start the command until it ends.

        Raises:
          Lost: it does not.
        """
        for _ in range(STARTS):
            if self._ended(self.start().end()):
                return
        raise Lost(f"not finished after {STARTS} starts")

    def accept(self, end: End) -> bool:
        """Record how a process under a fault ended; whether the study is finished."""
        return self._ended(end)

    def compare(self) -> None:
        """Raise Lost unless the directory holds the same outcome as the undisturbed one."""
        same(outcome(self.directory), self.reference.outcome)

    def close(self) -> None:
        """Undo whatever is mounted or locked."""
        self.undo.close()

    def _ended(self, end: End) -> bool:
        """Whether the study is finished; after a refusal, do what its line says.

        Raises:
          Lost: a traceback, or an end that nothing explains.
        """
        if "Traceback" in end.text:
            raise Lost(f"a traceback: {end.text[end.text.index('Traceback') :][-1500:]}")
        if end.code in (75, -15, -10):  # asked to stop, perhaps before its signal handler was set
            return False
        if end.code == 0:
            return True
        lines = [line for line in end.text.splitlines() if line.startswith("error: ")]
        if end.code != 1 or len(lines) != 1:
            raise Lost(f"exit status {end.code} and {len(lines)} lines of error: {end.text[-1500:]}")
        if not self.injections:
            raise Lost(f"refused without a fault: {lines[0]}")
        self.injections[-1].refusals.append(lines[0])
        self._do_as_told(lines[0])
        return False

    def _do_as_told(self, line: str) -> None:
        """Do what a user would do who reads the line."""
        if self.mend is not None:
            mend, self.mend = self.mend, None
            mend(line)
        elif path := told(line):
            if not path.is_relative_to(self.directory) or not path.exists():
                raise Lost(f"it says to delete what is not there, or not its own: {line}")
            damage.remove(path)
        else:
            raise Lost(f"a refusal that does not say what to do: {line}")


def told(line: str) -> Path | None:
    """What a line says to delete: a path, or `it`, which means the path at the beginning of the line."""
    found = re.search(r"delete (/\S+?)[;,)]? ", line + " ") or re.search(r"(/\S+).* delete it\b", line)
    return Path(found[1]) if found else None


def outcome(directory: Path, status: bool = True) -> dict[str, Any]:
    """Everything in a finished study that must not depend on its history; its `status` may be left out."""
    said = workdir.read_json(directory / "status.json") if status else {}
    result = workdir.read_json(directory / "result.json")
    fields = {key: value for key, value in result.items() if key not in TIMED}
    return {**fields, "status": (said.get("status"), said.get("exit_code")), "tables": small.tables(directory)}


def same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raise Lost unless two outcomes agree."""
    for key, value in expected.items():
        if found[key] != value:
            raise Lost(f"another {key} than undisturbed: {_difference(value, found[key])}")


def _difference(expected: Any, actual: Any) -> str:
    if isinstance(expected, dict) and isinstance(actual, dict):
        keys = [key for key in {**expected, **actual} if expected.get(key) != actual.get(key)]
        return f"in {', '.join(map(str, keys))}"
    return f"{str(actual)[:300]} instead of {str(expected)[:300]}"
