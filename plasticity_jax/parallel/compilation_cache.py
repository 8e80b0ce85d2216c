"""Compiled programs kept on disk between processes, so that only the first start of a study compiles.

jax keeps them (its persistent compilation cache); here it is told where, if the user has not said so.  Its files are
written in place and never again, and a whole program is the only thing that it can load.  So what a killed process
left half-written is removed at the next start, and what was not used for long once the files grow too large.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import os
import platform
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jaxlib

from plasticity_jax.parallel.cpu import threads

LIMIT = 2 << 30  # bytes of all files together that a start leaves
CHECKED = ".checked"  # as old as the last look at the entries

# Lines of /proc/cpuinfo that say what XLA may compile for; others, such as the clock rate, change by the second.
CPU = {"vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU part", "Features"}


def turn_on(note: Callable[[str], None] = print) -> None:
    """Let jax keep the programs of this process in the user's cache folder, and load those that are there.

    Does nothing if jax was given another folder (JAX_COMPILATION_CACHE_DIR) or told to keep none
    (JAX_ENABLE_COMPILATION_CACHE=0).  A folder that cannot be written costs one `note`.
    """
    config: Any = jax.config  # its types do not name its settings
    if config.jax_compilation_cache_dir is not None or not config.jax_enable_compilation_cache:
        return
    try:
        top = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "plasticity_jax" / "compiled"
        folder = top / _fingerprint()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # who may write here can run code as this user
        _remove_broken(folder)
        _remove_oldest(top, LIMIT)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        note(f"note: every start compiles anew, for nothing can be kept in the cache folder: {error}")
        return
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@dataclasses.dataclass
class Count:
    """Programs that jax asked XLA for, and how many of these were `loaded` from disk."""

    programs: int = 0
    loaded: int = 0


@contextlib.contextmanager
def counting() -> Iterator[Count]:
    """Count every program of this process inside the `with`, also those of single operations on arrays."""
    count = Count()

    def on_program(event: str, duration_secs: float, **_: Any) -> None:
        count.programs += event == "/jax/core/compile/backend_compile_duration"

    def on_loaded(event: str, **_: Any) -> None:
        count.loaded += event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_duration_secs_listener(on_program)
    jax.monitoring.register_event_listener(on_loaded)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_program)
        jax.monitoring.unregister_event_listener(on_loaded)


def _packing() -> Any:
    """The module that jax packs entries with."""
    for name in ("compression.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return zlib


def _fingerprint() -> str:
    """A name for all that a program depends on beyond jax's own key: homes are shared by machines that differ.

    A program for another CPU can crash, and one for fewer threads is slow.
    """
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        cpu = "\n".join(line for line in first if line.partition(":")[0].strip() in CPU)
    except OSError:  # not Linux
        cpu = platform.processor() or platform.node()
    digest = hashlib.sha256(cpu.encode()).hexdigest()[:12]
    system = f"{platform.system()}-{platform.machine()}".lower()
    return f"jaxlib-{jaxlib.__version__}-{system}-{digest}-{threads()}-threads-{_packing().__name__}"


def _remove_broken(folder: Path) -> None:
    """Remove the entries written since the last look that do not unpack; each is looked at once."""
    last, now = folder / CHECKED, folder / f"{CHECKED}.{os.getpid()}"
    since = last.stat().st_mtime_ns if last.exists() else 0
    now.write_bytes(b"")  # by the clock that also stamps the entries
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process may tidy up too
            if entry.stat().st_mtime_ns >= since:
                try:
                    _packing().decompress(entry.read_bytes())
                except OSError:
                    raise
                except Exception:  # each packing has its own
                    entry.unlink()
    now.replace(last)


def _remove_oldest(top: Path, limit: int) -> None:
    """Remove files below `top`, those first that were not read or written for longest, until `limit` bytes are left."""
    files = []
    for path in top.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.stat()
            if path.is_file() and path.name != CHECKED:
                files.append((max(stat.st_atime_ns, stat.st_mtime_ns), stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= size
