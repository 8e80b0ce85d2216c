"""The command.

    python -m tests.mutants [--only NAME] [--json FILE]

Each fault is put into a copy of the repository, and its tests run there as `make test` runs them, up to the first that
fails.  Prints which that is, and after how many seconds.  In the end all tests that caught something have to pass in
the copy without any fault.  Exit status 1 if they do not, or if a fault survived.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax import strict_json
from plasticity_jax.runner import output
from tests.mutants import copies
from tests.mutants.faults import FAULTS

LONGEST = 900  # seconds: a fault must not hang the tests
QUICK = "not slow and not long"
GROUPS = (("--cheap", "-m", f"not exact and {QUICK}"), ("-m", f"exact and {QUICK}"))  # those of `make test`
PASSED, FAILED, NONE = 0, 1, 5  # exit statuses of pytest


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", action="append", help="only faults with this in their name or file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what caught each fault there")
    flags = parser.parse_args(argv)
    wanted = flags.only or [""]
    flags.faults = [fault for fault in FAULTS if any(word in f"{fault.file} {fault.name}" for word in wanted)]
    if not flags.faults:
        parser.error(f"--only: no fault is called so; there are: {'; '.join(fault.name for fault in FAULTS)}")
    return flags


def main(argv: Sequence[str]) -> int:
    """Try the faults; returns the exit status."""
    output.outlive_readers()
    flags, outcomes, began = parse(argv), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copies.make(Path(folder) / "copy")
        print(f"{len(flags.faults)} faults, in {copies.imported(copy).parent}", flush=True)
        for number, fault in enumerate(flags.faults, 1):
            start = time.monotonic()
            with copies.mutated(copy, fault):
                caught = first_failure(copy, fault.files)
            seconds = round(time.monotonic() - start, 1)
            outcomes.append({"name": fault.name, "file": fault.file, "caught_by": caught, "seconds": seconds})
            what = f"caught by {caught} in {seconds:.0f} s" if caught else f"SURVIVED the tests of {fault.tests}"
            print(f"{number}/{len(flags.faults)} {fault.file}: {fault.name}: {what}", flush=True)
        catchers = list(dict.fromkeys(each["caught_by"] for each in outcomes if each["caught_by"]))
        broken = first_failure(copy, catchers) if catchers else ""
    survived = [each["name"] for each in outcomes if not each["caught_by"]]
    print(f"{len(outcomes) - len(survived)} of {len(outcomes)} faults were caught, {time.monotonic() - began:.0f} s")
    print(f"without a fault {broken} fails too" if broken else f"without a fault all {len(catchers)} tests pass")
    if flags.json:
        content = {"faults": outcomes, "survived": survived, "fails_without_a_fault": broken}
        flags.json.write_text(strict_json.dumps(content, indent=1) + "\n")
    return int(bool(survived or broken))


def first_failure(copy: Path, tests: Sequence[str]) -> str:
    """The first of some test files, or single tests, that fails in the copy; empty if all pass.

    Raises:
      SystemExit: pytest could not begin, or did not come to an end.
    """
    for group in GROUPS:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *group]
        try:
            done = subprocess.run(
                [*command, *tests],
                cwd=copy,
                env=copies.environment(copy),
                capture_output=True,
                text=True,
                timeout=LONGEST,
                check=False,
            )
        except subprocess.TimeoutExpired:
            sys.exit(f"error: {' '.join(tests)} did not end in {LONGEST} s")
        failed = failures(done.stdout)
        if failed and done.returncode == FAILED:
            return failed[0]
        if done.returncode not in (PASSED, NONE):
            sys.exit(f"error: pytest ended with status {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return ""


def failures(printed: str) -> list[str]:
    """The tests that failed, according to the output of pytest."""
    lines = [line.partition(" ") for line in printed.splitlines()]
    found = [rest.partition(" - ")[0] for first, _, rest in lines if first in ("FAILED", "ERROR")]
    return [test for test in found if test.startswith("tests/")]  # logged errors begin in the same way


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
