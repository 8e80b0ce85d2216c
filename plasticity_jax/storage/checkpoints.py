"""Checkpoints by orbax, with checksums that detect damage.

Orbax 0.12 neither checks the data it reads nor falls back to an older checkpoint.  Here the shape, type and crc32 of
each leaf are stored with the arrays, so that restored arrays are guaranteed to equal the saved ones.
"""

import contextlib
import json
import logging
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from plasticity_jax import strict_json
from plasticity_jax.errors import CheckpointError
from plasticity_jax.parallel import multihost

# Orbax globs its own directory and takes `gs:` within a path for a bucket, tensorstore refuses other paths: this form
# suits both.
_PLAIN = re.compile(r"(/(?!(gs|s3|az|hf)/)[A-Za-z0-9_.+=,-]+)+")

# Orbax reports each step of each save through absl's logger, which is also ours.
logging.getLogger("absl").addFilter(lambda record: "/orbax/" not in record.pathname)
# After a damaged checkpoint, orbax's pending reads of other arrays fail later with many irrelevant lines.
logging.getLogger("asyncio").addFilter(lambda record: "tensorstore" not in record.getMessage())


def _report(unraisable: Any, report: Callable[[Any], Any] = sys.unraisablehook) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":  # which is where such a read would end
        report(unraisable)


sys.unraisablehook = _report


class Misfit(CheckpointError):
    """An undamaged checkpoint whose arrays differ from those expected."""


class Checkpoints:
    """Numbered checkpoints in one directory: `DIRECTORY/NUMBER/{state,meta}`.

    One process writes, the first of those that train together; others may read meanwhile.  Only complete checkpoints
    ever carry a plain number as their name.
    """

    def __init__(self, directory: Path, keep: int | None, note: Callable[[str], None] = print) -> None:
        """Args:
        directory: made by the first `save`.
        keep: number of newest checkpoints to keep; None for all.
        note: called with one line for each damaged checkpoint that `latest` skips.
        """
        self.directory = Path(directory).absolute()
        self.keep = keep
        self.note = note
        self._manager: ocp.CheckpointManager | None = None
        self._links = contextlib.ExitStack()

    def save(self, number: int, tree: Any, meta: dict[str, Any]) -> None:
        """Writes a pytree of arrays with `meta` (JSON; values that are not finite become null).

        A checkpoint of the same number is replaced.  If only the newest are kept, those of higher numbers are deleted
        too: they belong to steps that will be trained again.

        Raises:
          CheckpointError: it cannot be written.
        """
        arrays = {path: np.asarray(leaf) for path, leaf in _flat(multihost.fetch(tree)).items()}
        multihost.once(lambda: self._save(number, arrays, meta))

    def _save(self, number: int, arrays: Mapping[str, np.ndarray], meta: dict[str, Any]) -> None:
        meta = strict_json.loads(strict_json.dumps(meta))
        content = {"meta": meta, "leaves": {path: [*_spec(x), _crc(x)] for path, x in arrays.items()}}
        index = {**content, "crc32": _json_crc(content)}
        with self._writing(number):
            self.directory.mkdir(parents=True, exist_ok=True)
            for other in self.numbers():
                if other == number or (other > number and self.keep is not None):
                    self._move(other, "replaced")
            for pattern in (
                "*.replaced",
                "*.orbax-checkpoint-tmp*",
            ):  # the latter from a save that was killed or failed
                for path in self.directory.glob(pattern):
                    _remove(path)
            state = {
                path: x for path, x in arrays.items() if x.size
            }  # orbax refuses empty arrays; their shape is enough
            args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(index))
            manager = self._orbax()
            manager.reload()  # otherwise it would refuse a number that was moved or deleted since
            manager.save(number, args=args, force=True)

    def numbers(self) -> list[int]:
        """The finished checkpoints, ascending, damaged ones included."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [path.name for path in self.directory.iterdir()]
            return sorted(int(name) for name in names if name.isdecimal() and name.isascii())
        return []

    def meta(self, number: int) -> dict[str, Any]:
        """The `meta` of a checkpoint.

        Raises:
          CheckpointError: it is missing or damaged.
        """
        return self._index(number)["meta"]

    def restore(self, number: int, like: Any) -> tuple[Any, dict[str, Any]]:
        """The saved tree, as numpy arrays bit for bit, and its `meta`.

        Args:
          number: of the checkpoint.
          like: the expected tree; its leaves have a shape and a dtype.

        Raises:
          CheckpointError: it is missing or damaged, or (`Misfit`) holds other arrays than `like`.
        """
        index = self._index(number)
        wanted = {path: _spec(leaf) for path, leaf in _flat(like).items()}
        stored = {path: leaf[:2] for path, leaf in index["leaves"].items()}
        if wanted != stored:
            path = next(path for path in [*wanted, *stored] if wanted.get(path) != stored.get(path))
            raise Misfit(
                f"checkpoint {number} in {self.directory} holds other arrays than this program needs "
                f"({path} is {stored.get(path)}, not {wanted.get(path)}); use another workdir"
            )
        with self._reading(number):
            arrays = {path: np.empty(shape, dtype) for path, (dtype, shape) in wanted.items()}
            state = ocp.args.StandardRestore({path: x for path, x in arrays.items() if x.size})
            arrays.update(self._orbax().restore(number, args=ocp.args.Composite(state=state)).state)
            for path, leaf in index["leaves"].items():
                if [*_spec(arrays[path]), _crc(arrays[path])] != leaf:
                    raise ValueError(f"{path} fails its checksum")
        leaves = [arrays[path] for path in wanted]
        return jax.tree.unflatten(jax.tree.structure(like), leaves), index["meta"]

    def latest(
        self, like: Any, sound: Callable[[Any], bool] = lambda meta: True
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """The newest undamaged checkpoint as (number, tree, meta), or None.  Damaged ones are noted and moved aside.

        Args:
          like: as for `restore`.
          sound: checks the meta; a checkpoint whose meta fails counts as damaged.

        Raises:
          CheckpointError: (`Misfit`) the newest undamaged one holds other arrays than `like`.
        """
        if multihost.alone():
            return self._latest(like, sound)
        number = multihost.once(lambda: (self._latest(like, sound) or (None,))[0])
        return None if number is None else (number, *self.restore(number, like))

    def _latest(self, like: Any, sound: Callable[[Any], bool]) -> tuple[int, Any, dict[str, Any]] | None:
        numbers = self.numbers()
        for older, number in reversed(list(zip([None, *numbers], numbers, strict=False))):
            try:
                tree, meta = self.restore(number, like)
                if not sound(meta):
                    raise CheckpointError(f"checkpoint {number} in {self.directory} is damaged (invalid metadata)")
                return number, tree, meta
            except Misfit:
                raise
            except CheckpointError as e:
                self.note(f"{e}; " + ("there is none before it" if older is None else "using the one before"))
                with contextlib.suppress(OSError):
                    self._move(number, "damaged")
        return None

    def close(self) -> None:
        """Ends orbax's threads."""
        if self._manager is not None:
            with self._writing():
                self._manager.close()
            self._manager = None
        self._links.close()

    def _orbax(self) -> ocp.CheckpointManager:
        if self._manager is None:
            here = jax.process_index()  # orbax would wait for the other processes, which do not use it
            options = ocp.CheckpointManagerOptions(
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
                ),
                # A failed background save leaves a thread that keeps the process alive for minutes.
                enable_async_checkpointing=False,
                preservation_policy=ocp.checkpoint_managers.LatestN(self.keep),
            )
            self._manager = ocp.CheckpointManager(self._links.enter_context(_plain(self.directory)), options=options)
        return self._manager

    def _index(self, number: int) -> dict[str, Any]:
        """The metadata that `save` wrote with the arrays, after a check of its checksum."""
        if number not in self.numbers():
            raise CheckpointError(f"there is no checkpoint {number} in {self.directory}")
        with self._reading(number):
            index = self._orbax().restore(number, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
            if _json_crc({"meta": index["meta"], "leaves": index["leaves"]}) != index["crc32"]:
                raise ValueError("meta fails its checksum")
        return index

    def _move(self, number: int, suffix: str) -> None:
        """Renames a checkpoint atomically, so that it no longer counts even if its deletion is interrupted."""
        target = self.directory / f"{number}.{suffix}"
        if target.exists():
            _remove(target)
        (self.directory / str(number)).rename(target)

    @contextlib.contextmanager
    def _reading(self, number: int):
        try:
            yield
        except Exception as e:  # orbax raises many types, including Exception
            raise CheckpointError(f"checkpoint {number} in {self.directory} is damaged ({_line(e)})") from e

    @contextlib.contextmanager
    def _writing(self, number: int | None = None):
        try:
            yield
        except Exception as e:
            manager, self._manager = self._manager, None  # orbax counts failed writes among the checkpoints to keep
            with contextlib.suppress(Exception):
                if manager is not None:
                    manager.close()
                self._links.close()
            what = "checkpoints" if number is None else f"checkpoint {number}"
            raise CheckpointError(f"cannot write {what} in {self.directory}: is the disk full? ({_line(e)})") from e


@contextlib.contextmanager
def _plain(directory: Path) -> Iterator[Path]:
    """`directory` under a name that orbax and tensorstore accept: if necessary a link in the temporary directory."""
    if _is_plain(directory):
        yield directory
        return
    home = tempfile.gettempdir()
    with tempfile.TemporaryDirectory(prefix="checkpoints-", dir=home if _is_plain(Path(home)) else "/tmp") as folder:
        link = Path(folder) / "link"
        link.symlink_to(directory)
        yield link


def _is_plain(path: Path) -> bool:
    return bool(_PLAIN.fullmatch(str(path))) and ".__lock" not in str(path)


def _flat(tree: Any) -> dict[str, Any]:
    """{path: leaf}: containers without leaves, which orbax refuses, need not be saved, and NamedTuples are no issue."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    flat = {jax.tree_util.keystr(path, simple=True, separator="/") or "/": leaf for path, leaf in pairs}
    if len(flat) < len(pairs):
        raise ValueError("two leaves of the tree have the same path")
    return flat


def _spec(leaf: Any) -> list[Any]:
    """[dtype, shape] as JSON values."""
    return [np.dtype(leaf.dtype).name, list(leaf.shape)]


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _json_crc(content: Any) -> int:
    plain = json.loads(json.dumps(content, allow_nan=False))
    return zlib.crc32(json.dumps(plain, sort_keys=True, allow_nan=False).encode())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:120]
