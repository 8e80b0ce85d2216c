"""How long the command takes until its first training step, with programs compiled before.

    python -m tests.benchmarks.start --config=configs/multistage.py:small [flags of plasticity_jax.main but --workdir]

Starts the command four times, each in a fresh directory, and ends it after its first step; the first time compiles and
does not count.  Prints the median seconds from the start of the process, and the parts of that time.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax.runner import output

TIMES = 4


def child(file: str) -> None:
    """What `plasticity_jax.main` does, up to its first step; writes its clock to `file`."""
    began = time.perf_counter()
    import jax

    from plasticity_jax import experiment, main  # noqa: F401
    from plasticity_jax.data import datasets
    from plasticity_jax.runner import dispatch

    parts = {"imports": time.perf_counter() - began}
    load, advance = datasets.load, dispatch.Pace.advance

    def loaded(*args):
        start = time.perf_counter()
        dataset = load(*args)
        parts["data"] = time.perf_counter() - start
        return dataset

    def first(self, *args):
        jax.block_until_ready(advance(self, *args))
        Path(file).write_text(json.dumps(parts | self.context.clock.seconds, allow_nan=False))
        os._exit(0)

    datasets.load, dispatch.Pace.advance = loaded, first  # type: ignore[method-assign]
    sys.exit(main.main())


def seconds(arguments: Sequence[str], programs: Path | None = None) -> tuple[float, dict[str, float]]:
    """(from the start of a process to its first step, the part of each of imports, data and the study's clock).

    `programs` is where compiled programs are kept, if not in the usual place.

    Raises:
      RuntimeError: the command ended without a step.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch:
        file = Path(scratch) / "clock"
        code = f"from tests.benchmarks import start; start.child({str(file)!r})"
        start = time.perf_counter()
        call = [sys.executable, "-c", code, *arguments, f"--workdir={scratch}/run"]
        kept = {"JAX_COMPILATION_CACHE_DIR": str(programs), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        environ = {**os.environ, **(kept if programs else {})}
        done = subprocess.run(call, env=environ, capture_output=True, text=True)
        spent = time.perf_counter() - start
        if not file.exists():
            raise RuntimeError(f"no step was taken: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
        return spent, json.loads(file.read_text())


def main() -> None:
    """The command."""
    output.outlive_readers()
    seconds(sys.argv[1:])
    starts = sorted((seconds(sys.argv[1:]) for _ in range(TIMES - 1)), key=lambda each: each[0])
    spent, clock = starts[len(starts) // 2]
    parts = ", ".join(f"{kind} {part:.1f}" for kind, part in clock.items() if part >= 0.05)
    print(f"{spent:.1f} s [{starts[0][0]:.1f}, {starts[-1][0]:.1f}] to the first step: {parts}")


if __name__ == "__main__":
    main()
