"""The working directory of a study: its lock, its config, and small JSON files written atomically.

DIR/config.json          the resolved config, which the directory belongs to
DIR/environment.json     versions, hardware and data that it was computed with
DIR/status.json          the progress
DIR/result.json          the result
DIR/.lock                held by the process that works here
DIR/PACK/STAGE/...       a stage of a pack, or STAGE,1 and STAGE,2 its groups of branches (`config.plan`); each can be
                         deleted and trained again by itself
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from plasticity_jax import strict_json
from plasticity_jax.config import legacy, paths
from plasticity_jax.errors import BusyError, LostError, WorkdirError
from plasticity_jax.parallel import cpu, multihost
from plasticity_jax.storage import locks

# Fields that may change: they do not affect results.
MAY_CHANGE = frozenset({"data_dir", "images", "checkpoint_seconds"})
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tensorflow-datasets",
    "ml-collections",
    "clu",
)

_ABSENT = object()
_SHOWN = 8  # differing keys that an error message names


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Context that locks `directory`, created if missing; the system releases the lock when the process ends.

    Raises:
      BusyError: another process holds it.
      WorkdirError: it is not a writable directory, or a link in it leads out of it (`check_links`).
    """
    path = _made(directory) / ".lock"
    paths.check_length(path.parent)
    check_links(directory)
    with contextlib.ExitStack() as stack:
        try:
            locked = stack.enter_context(locks.hold(path))
        except locks.Taken as e:
            raise BusyError(f"workdir {directory} is in use by {e}; use another workdir") from None
        except locks.NoLocks as e:
            raise WorkdirError(
                f"cannot lock workdir {directory}: {e}; use a file system with locks, or set {locks.WITHOUT}=1 and "
                "make sure that only processes of one machine work here"
            ) from e
        except OSError as e:
            if path.is_dir():
                raise WorkdirError(f"{path} is a directory instead of a file: delete it") from e
            raise WorkdirError(f"cannot write workdir {directory}: {e.strerror}") from e
        if not locked:
            print(
                f"note: {directory} has no locks: nothing prevents processes of two machines from using it at once, "
                "which would destroy it, and processes of other machines cannot be detected",
                file=sys.stderr,
            )
        yield


def check_lock(directory: Path) -> None:
    """Raises an error if a directory that this process has locked was deleted or replaced since.

    Raises:
      LostError: it was; writing would mix this study with another one that may have begun there.
    """
    if locks.lost(directory / ".lock"):
        raise LostError(f"workdir {directory} was deleted or replaced while this study trained in it; it has stopped")


def check_links(directory: Path) -> None:
    """Raises an error if a link in the directory leads out of it, since files in it are deleted and written.

    The directory itself may be a link.

    Raises:
      WorkdirError: there is such a link.
    """
    top = os.path.realpath(directory)
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path) and not os.path.realpath(path).startswith(top + os.sep):
                raise WorkdirError(f"{path} is a link that leads out of the workdir; delete it or move its target in")


def claim(directory: Path, config: Mapping[str, Any]) -> None:
    """Ties `directory` to a config: the first call stores it, later calls compare with the stored one.

    Keys in `MAY_CHANGE` are not compared; configs stored by earlier versions are converted.

    Raises:
      WorkdirError: the directory belongs to another config; the message has a line for each key that differs.
    """
    path = _made(directory) / "config.json"
    if not path.exists():
        write_json(path, config)
        return
    mend = "use another workdir or, if this one was begun with the config that is asked for, delete it"
    stored = read_json(path, mend)
    if not isinstance(stored, dict):
        raise WorkdirError(f"{path} is damaged (no JSON object); {mend}")
    try:
        old, new = _flat(legacy.study(stored)), _flat(strict_json.loads(strict_json.dumps(config)))
    except RecursionError as e:
        raise WorkdirError(f"{path} is damaged (nested too deep); {mend}") from e
    keys = [key for key in [*old, *(key for key in new if key not in old)] if key.split(".")[-1] not in MAY_CHANGE]
    differing = [key for key in keys if _shown(old, key) != _shown(new, key)]
    if differing:
        lines = [
            f"  {key if key.isprintable() else ascii(key)}: {_shown(old, key)} -> {_shown(new, key)}"
            for key in differing[:_SHOWN]
        ]
        lines += [f"  and {len(differing) - _SHOWN} more"] * (len(differing) > _SHOWN)
        if differing == ["seeds"]:
            lines.append(f"  to add seeds, use plasticity local with --begun={directory} and another workdir")
        head = (
            f"workdir {directory} belongs to another config; use another workdir or, if it is the file that is wrong, "
            f"delete {path} (stored -> asked for):"
        )
        raise WorkdirError("\n".join([head, *lines]))


def disclaim(directory: Path) -> None:
    """Removes the stored config of a directory in which nothing was trained, so that another config can use it."""
    if not any(path.is_dir() for path in Path(directory).iterdir()):
        for name in ("config.json", "environment.json"):
            (Path(directory) / name).unlink(missing_ok=True)


def status(directory: Path, **fields: Any) -> None:
    """Writes `status.json` (in the first process): the fields, the time (UTC) and the process."""
    if not multihost.first():
        return
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(Path(directory) / "status.json", {**fields, "time": time, "pid": os.getpid()})


def write_json(path: Path, obj: Any) -> None:
    """Replaces `path` by `obj` as JSON (`strict_json`) atomically; creates its directory if missing.

    Raises:
      WorkdirError: it cannot be written: full disk, read-only directory.
    """
    path = Path(path)
    text = strict_json.dumps(obj, indent=2) + "\n"
    _made(path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # since two processes may write it at once
    with _unwritable(path):
        try:
            with open(part, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def read_json(path: Path, mend: str = "restore it or use another workdir") -> Any:
    """The JSON in a file; `mend` is the advice if it is damaged.

    Raises:
      WorkdirError: the file is missing, unreadable or damaged.
    """
    try:
        return strict_json.loads(Path(path).read_bytes())
    except OSError as e:
        raise WorkdirError(f"cannot read {path}: {e.strerror}") from e
    except (ValueError, RecursionError) as e:
        raise WorkdirError(f"{path} is damaged ({e}); {mend}") from e


def environment() -> dict[str, Any]:
    """Versions, commit and hardware, on which results may depend in addition to the config.  Starts jax's backend."""
    from plasticity_jax import target  # late, so that plain file work does not wait for it

    commit, dirty = _commit(Path(__file__).parent)
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "dirty": dirty,
        "platform": platform.platform(),
        "backend": target.backend(),
        "device_kind": target.devices()[0].device_kind,
        "devices": len(target.devices()),
        "cpu_threads": cpu.threads(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _made(directory: Path) -> Path:
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise WorkdirError(f"cannot make directory {directory}: {e.strerror}; use another workdir") from e
    return Path(directory)


@contextlib.contextmanager
def _unwritable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise WorkdirError(f"cannot write {path}: {e.strerror}") from e


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists of dicts as one dict with dotted keys; list items with a name are keyed by it."""
    if isinstance(tree, dict) and (tree or not prefix):
        items = list(tree.items())
    elif _holds_dict(tree):
        items = [(_label(item, str(i)), item) for i, item in enumerate(tree)]
    else:
        return {prefix: tree}
    join = f"{prefix}." if prefix else ""
    return {path: leaf for key, value in items for path, leaf in _flat(value, join + key).items()}


def _holds_dict(tree: Any) -> bool:
    return isinstance(tree, list) and any(isinstance(item, dict) or _holds_dict(item) for item in tree)


def _label(item: Any, otherwise: str) -> str:
    named = isinstance(item, dict) and "name" in item
    return "/".join(str(item[key]) for key in ("name", "branch") if key in item) if named else otherwise


def _shown(flat: Mapping[str, Any], key: str) -> str:
    value = flat.get(key, _ABSENT)
    return "(absent)" if value is _ABSENT else strict_json.dumps(value)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _commit(package: Path) -> tuple[str, bool]:
    """(commit of the checkout that the code runs from, whether files differ from it); ("", False) if none.

    A copy that is installed inside somebody else's repository is not tracked there, so it has no commit.
    """

    def git(*args: str) -> str:
        command = ["git", "-C", str(package), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):
            return "", False
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return "", False
