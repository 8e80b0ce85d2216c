"""The kinds of faults: each is a function that injects one into a scene, at a moment drawn by the scene's generator."""

import functools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from plasticity_jax.parallel import multihost
from tests.faults import damage, disks, sweeps
from tests.faults.children import Lost
from tests.faults.scene import Scene
from tests.support import crew

Kind = Callable[[Scene], None]
DAY = 86400.0

# What can be damaged; patterns below the working directory.
FILES = {
    "rolling": "main/*/checkpoints/**/*",
    "snapshot": "main/*/snapshots/**/*",
    "end": "main/*/end/**/*",
    "metrics": "main/*/metrics.jsonl",
    "torn": "main/*/metrics.jsonl",
    "config": "config.json",
    "environment": "environment.json",
    "status": "status.json",
    "clock": "main/clock.json",
    "result": "result.json",
    "board": "tensorboard/**/*",
    "folder": "**/",
}


def kill(scene: Scene) -> None:
    child, when = scene.stand()
    child.kill()
    scene.injected("kill", when)


def stop(kind: str, number: int, scene: Scene) -> None:
    child, when = scene.stand()
    scene.injected(kind, when)
    child.signal(number)
    child.go_on()
    scene.accept(child.end())


def requeue(scene: Scene) -> None:
    """As a cluster does: a warning, a kill when the grace period is over, a new start."""
    child, when = scene.stand()
    patience = scene.draw.uniform(0, 0.4)
    scene.injected("requeue", f"{when}, killed {patience:.2f} s later")
    child.signal(signal.SIGTERM)
    child.go_on()
    time.sleep(patience)
    end = child.kill()
    if end.code != -signal.SIGKILL:
        scene.accept(end)


def files(kind: str, scene: Scene) -> None:
    """Damage to a file, left by a study or in use by it."""
    how = "tear" if kind == "torn" else ""
    if scene.draw.random() < 0.3:
        child, when = scene.stand()
        if path := pick(scene, FILES[kind]):
            scene.injected(kind, f"{path.relative_to(scene.directory)} {damage.damage(path, scene.draw, how)} {when}")
            scene.mend = lambda line: None  # starting again must be enough
            child.go_on()
            scene.accept(child.end())
            scene.mend = None
            return
        child.kill()
    for _ in range(20):
        scene.advance()
        if path := pick(scene, FILES[kind]):
            break
    else:
        raise Lost(f"no {FILES[kind]} was ever there")
    scene.injected(kind, f"{path.relative_to(scene.directory)} {damage.damage(path, scene.draw, how)}")


def pick(scene: Scene, pattern: str) -> Path | None:
    """One of the files that match a pattern; a folder only if the pattern ends with a slash."""
    matching = sorted(
        path
        for path in scene.directory.glob(pattern)
        if path.is_dir() == pattern.endswith("/") and path != scene.directory
    )
    return scene.draw.choice(matching) if matching else None


def full(scene: Scene) -> None:
    """A disk that becomes full at some moment, of bytes or of files, and later has room again."""
    scene.clear()
    disks.small(scene.disk)
    scene.undo.callback(disks.unmounted, scene.disk)
    child, when = scene.stand()
    left, what = scene.draw.randrange(0, 20), scene.draw.choice(("files", "blocks"))
    scene.injected("full", f"{left} {what} left {when}")
    fill = scene.disk / "fill"
    disks.fill(fill, left, what)
    scene.mend = lambda line: damage.remove(fill)
    child.go_on()
    done = scene.accept(child.end())
    if scene.mend is not None and not done:
        raise Lost("it stopped without a word")
    if scene.mend is not None:
        scene.mend("")
        scene.mend = None


def file_limit(scene: Scene) -> None:
    """No file may grow beyond a size; like a full disk, but possible without mounting."""
    scene.clear()
    child, when = scene.stand()
    size = scene.draw.randrange(2500, 8000)  # the output of the process goes into a file too, and must fit
    scene.injected("limit", f"no file beyond {size} bytes {when}")
    subprocess.run(["prlimit", f"--pid={child.pid}", f"--fsize={size}:"], check=True)
    scene.mend = lambda line: None  # the next process has no limit
    child.go_on()
    scene.accept(child.end())
    scene.mend = None


def read_only(scene: Scene) -> None:
    """The directory is read-only at a start."""
    scene.advance()
    scene.injected("read_only", "at a start")
    locked = disks.Locked(scene.disk)
    scene.undo.callback(locked.release)
    scene.mend = lambda line: locked.release()
    if scene.accept(scene.start().end()) or scene.mend is not None:
        raise Lost("it worked in a directory that is read-only")


def frozen(scene: Scene) -> None:
    """A folder becomes immutable while the study works in it."""
    child, when = scene.stand()
    path = pick(scene, "**/") or scene.directory
    if not path.exists():
        path = scene.disk
    locked = disks.Frozen(path)
    scene.undo.callback(locked.release)
    scene.injected("frozen", f"{path.relative_to(scene.disk)} {when}")
    scene.mend = lambda line: locked.release()
    child.go_on()
    scene.accept(child.end())
    locked.release()
    scene.mend = None


def blocked(scene: Scene) -> None:
    """A file where a folder is needed, or a folder where a file is needed."""
    scene.advance()
    places = ["config.json", "environment.json", "status.json", "result.json", "main", "tensorboard", ".lock"]
    places += ["main/clock.json", "main/tune", "main/tune/metrics.jsonl", "main/tune/end", "main/tune/checkpoints"]
    places += ["main/pretrain/snapshots", "main/pretrain/end", "main/pretrain/metrics.jsonl", "main/tune/end/0"]
    path = scene.directory / scene.draw.choice(places)
    if path.exists():
        damage.remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    is_file = path.suffix in (".json", ".jsonl") or path.name == ".lock"
    path.mkdir() if is_file else path.write_text("?")
    scene.injected("blocked", f"{path.relative_to(scene.directory)} is a {'folder' if is_file else 'file'}")

    def mend(line: str) -> None:
        if str(path) not in line:
            raise Lost(f"a refusal that does not name {path}: {line}")
        damage.remove(path)

    scene.mend = mend
    scene.accept(scene.start().end())
    scene.mend = None


def two(scene: Scene) -> None:
    """Two processes on one directory: one works, the other is refused."""
    first, when = scene.stand()
    holds = (scene.directory / ".lock").exists() and (scene.directory / ".lock").read_text().strip() != ""
    scene.injected("two", when)
    second = scene.start()
    if not holds:  # the first has not taken the lock yet: either may get it
        first.go_on()
    scene.mend = lambda line: first.go_on()
    done = scene.accept(second.end())
    scene.mend = lambda line: None
    first.go_on()
    other = scene.accept(first.end())
    scene.mend = None
    if not (done or other):
        raise Lost("both gave up")
    if holds and done:
        raise Lost("both worked in one directory")


def clock(scene: Scene) -> None:
    """The time of day jumps during training, and the times of the files are changed."""
    jump = scene.draw.choice((-1, 1)) * 10 ** scene.draw.uniform(0, 4) * DAY
    at = 1 + int(scene.draw.random() * scene.reference.operations)
    scene.injected("clock", f"{jump / DAY:+.1f} days at file operation {at}")
    child = scene.start(at, jump=jump)
    scene.accept(child.end())
    for path in scene.directory.rglob("*"):
        os.utime(path, (time.time() - jump, time.time() - jump))


def nan(scene: Scene) -> None:
    """A branch whose loss is not finite; in the end it is marked failed, and the other branches are unchanged."""
    if scene.argument != "nan":
        scene.argument = "nan"
        scene.clear()
    child, when = scene.stand()
    number = scene.draw.choice((signal.SIGKILL, signal.SIGTERM))
    scene.injected("nan", f"{number.name} {when}")
    child.signal(number)
    child.go_on()
    end = child.end()
    if end.code != -signal.SIGKILL:
        scene.accept(end)


def peer(scene: Scene) -> None:
    """Two processes train together and one is killed: the other ends soon, and one alone continues."""
    address, lost = f"127.0.0.1:{crew.free_port()}", scene.draw.choice((0, 1))
    pair = [
        scene.start(environ={multihost.ADDRESS: address, multihost.COUNT: "2", multihost.INDEX: str(index)})
        for index in (0, 1)
    ]
    after = scene.draw.uniform(0.2, 1.5) * scene.reference.seconds
    time.sleep(after)
    scene.injected("peer", f"process {lost} of 2 killed after {after:.2f} s")
    if pair[lost].kill().code == 0 and pair[1 - lost].end().code == 0:
        return
    pair[1 - lost].end()  # with any status: only what was saved counts, and that it ends


KINDS: dict[str, Kind] = {
    "kill": kill,
    "term": functools.partial(stop, "term", signal.SIGTERM),
    "usr1": functools.partial(stop, "usr1", signal.SIGUSR1),
    "requeue": requeue,
    **{name: functools.partial(files, name) for name in FILES},
    "full": full,
    "limit": file_limit,
    "read_only": read_only,
    "frozen": frozen,
    "blocked": blocked,
    "two": two,
    "clock": clock,
    "nan": nan,
    "peer": peer,
    **sweeps.KINDS,
}


def impossible() -> dict[str, str]:
    """The kinds that this machine cannot inject, with the reason."""
    reasons = {}
    if not disks.can_mount():
        reasons["full"] = "mounting is not allowed here (`limit` does it with a limit on the size of files)"
    if not disks.can_freeze():
        reasons["frozen"] = "no file system attributes here"
    return reasons


def chain(kinds: list[str], number: int, draw: random.Random) -> list[str]:
    """The faults of one case: each kind in turn, and up to two others after it in the same directory."""
    return [kinds[number % len(kinds)], *(draw.choice(kinds) for _ in range(draw.choice((0, 0, 1, 2))))]
