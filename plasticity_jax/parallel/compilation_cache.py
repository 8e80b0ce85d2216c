"""Configures jax's persistent compilation cache, so that only the first start of a study compiles.

Chooses a directory unless the user has set one.  jax writes entries in place and cannot load a truncated one, so
entries left incomplete by a killed process are removed at the next start.  If the cache is too large, the least
recently used entries are removed.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import os
import platform
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jaxlib

from plasticity_jax.parallel.cpu import threads

LIMIT = 2 << 30  # bytes to which the cache is trimmed at a start
CHECKED = ".checked"  # its modification time is that of the last check of the entries

# Lines of /proc/cpuinfo that determine what XLA may compile for; others, such as the clock rate, vary in time.
CPU = {"vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU part", "Features"}


def turn_on(note: Callable[[str], None] = print) -> None:
    """Makes jax store programs in the user's cache directory, and load those already stored.

    Does nothing if jax has another directory (JAX_COMPILATION_CACHE_DIR) or its cache is off
    (JAX_ENABLE_COMPILATION_CACHE=0).  If the directory cannot be written, calls `note` with one line.
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
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home directory
        note(f"note: every start compiles again, since the cache directory cannot be used: {error}")
        return
    config.update("jax_compilation_cache_dir", str(folder))
    config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@dataclasses.dataclass
class Count:
    """The number of programs that jax requested from XLA, and how many of these were `loaded` from disk."""

    programs: int = 0
    loaded: int = 0


@contextlib.contextmanager
def counting(thread: int | None = None) -> Iterator[Count]:
    """Context that counts the programs of this process, or of one of its threads, including single operations."""
    count = Count()

    def here() -> bool:
        return thread in (None, threading.get_ident())

    def on_program(event: str, duration_secs: float, **_: Any) -> None:
        count.programs += here() and event == "/jax/core/compile/backend_compile_duration"

    def on_loaded(event: str, **_: Any) -> None:
        count.loaded += here() and event == "/jax/compilation_cache/cache_hits"

    jax.monitoring.register_event_duration_secs_listener(on_program)
    jax.monitoring.register_event_listener(on_loaded)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_program)
        jax.monitoring.unregister_event_listener(on_loaded)


def _packing() -> Any:
    """The module with which jax compresses entries."""
    for name in ("compression.zstd", "zstandard"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return zlib


def _fingerprint() -> str:
    """A directory name for what programs depend on in addition to jax's key: different machines may share a home.

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
    """Removes entries that cannot be decompressed; checks only those written since the last check."""
    last, now = folder / CHECKED, folder / f"{CHECKED}.{os.getpid()}"
    since = last.stat().st_mtime_ns if last.exists() else 0
    now.write_bytes(b"")  # its time comes from the same clock as those of the entries
    for entry in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):  # another process may remove entries too
            if entry.stat().st_mtime_ns >= since:
                try:
                    _packing().decompress(entry.read_bytes())
                except OSError:
                    raise
                except Exception:  # each compression module has its own errors
                    entry.unlink()
    now.replace(last)


def _remove_oldest(top: Path, limit: int) -> None:
    """Removes the least recently used files below `top` until at most `limit` bytes are left."""
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
