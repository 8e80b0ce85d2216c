"""Runs the campaign of faults and reports the outcomes.

    python -m tests.faults [--count N] [--seed S] [--kinds a,b] [--only K] [--json FILE] [--keep DIR]

Prints how many faults of each kind were injected, survived, refused with a clear line, and lost; exit status 1 if any
was lost.  `--seed S --only K` does the K-th case of a campaign again (with the same --kinds).
"""

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax import strict_json
from plasticity_jax.runner import output
from tests.faults import campaign, children, disks, kinds
from tests.faults.scene import World


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="cases; each has one to three faults")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn")
    parser.add_argument("--kinds", default="", help=f"some of {','.join(kinds.KINDS)}")
    parser.add_argument("--only", type=int, metavar="K", help="only the case of this number")
    parser.add_argument("--parallel", type=int, default=os.cpu_count(), help="directories at a time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was done there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the directories in which something was lost")
    flags = parser.parse_args(argv)
    flags.kinds = flags.kinds.split(",") if flags.kinds else list(kinds.KINDS)
    if unknown := set(flags.kinds) - set(kinds.KINDS):
        parser.error(f"--kinds: there is no {', '.join(sorted(unknown))}; choose of {', '.join(kinds.KINDS)}")
    if flags.count < 1 or flags.parallel < 1:
        parser.error("--count and --parallel must be 1 or more")
    return flags


def main(argv: Sequence[str]) -> int:
    """Run the campaign; returns the exit status."""
    output.outlive_readers()
    flags = parse(argv)
    if "forkserver" not in multiprocessing.get_all_start_methods() or not Path("/proc/self/stat").exists():
        print("error: processes cannot be forked and watched here; this needs Linux", file=sys.stderr)
        return 1
    disks.isolate(["-m", "tests.faults", *argv])
    impossible = kinds.impossible()
    chosen = [kind for kind in flags.kinds if kind not in impossible]
    for kind in flags.kinds:
        if kind in impossible:
            print(f"{kind}: left out, {impossible[kind]}")
    numbers = range(flags.count) if flags.only is None else [flags.only]
    home = Path(flags.keep or tempfile.mkdtemp(prefix="faults-")).absolute()
    home.mkdir(parents=True, exist_ok=True)
    environment(home)
    cases, began = [], time.monotonic()
    try:
        world = World(children.server("tests.faults.command"))
        for case in campaign.run(world, numbers, flags.seed, chosen, home, flags.parallel, keep=bool(flags.keep)):
            cases.append(case)
            say(case, flags.seed)
    except children.Lost as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if not flags.keep:
            shutil.rmtree(home, ignore_errors=True)
    counts = campaign.counts(cases)
    print(campaign.table(counts))
    seconds = time.monotonic() - began
    print(f"{len(cases)} directories, seed {flags.seed}, {seconds:.0f} s")
    if flags.json:
        content = {"seed": flags.seed, "kinds": chosen, "counts": counts, "cases": campaign.record(cases)}
        flags.json.write_text(strict_json.dumps(content, indent=1) + "\n")
    return int(any(each.lost for each in cases))


def environment(home: Path) -> None:
    """Make children train on the CPU, and share the programs that the first of them compiles."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(home / "compiled"))
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


def say(case: campaign.Case, seed: int) -> None:
    """Print a line for each fault when its directory is finished."""
    for injection in case.injections:
        told = f"; {injection.refusals[-1]}" if injection.refusals else ""
        print(f"{case.number}: {injection.kind}: {injection.what}: {case.of(injection)}{told}", flush=True)
    if case.lost:
        print(f"{case.number}: LOST (--seed {seed} --only {case.number}): {case.lost}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
