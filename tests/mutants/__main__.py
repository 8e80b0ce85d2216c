"""The command.

    python -m tests.mutants [--only NAME] [--json FILE]

First the tests that are to catch the faults have to pass without any.  Then each fault is put into a copy of the
repository, and its tests run there as `make test` runs them.  Prints for each which test caught it, and after how many
seconds; exit status 1 if one survived.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax import output, strict_json
from tests.mutants import copies
from tests.mutants.faults import FAULTS

LONGEST = 900  # seconds: a fault must not hang the tests
GROUPS = (("--cheap", "-m", "not exact and not long"), ("-m", "exact and not long"))  # those of `make tests`
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
    flags, found, began = parse(argv), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy = copies.make(Path(folder) / "copy")
        words = list(dict.fromkeys(word for fault in flags.faults for word in fault.tests.split()))
        print(f"{len(words)} test files without a fault, in {copies.imported(copy)}", flush=True)
        caught = catches(copy, words)
        if caught:
            print(f"error: without any fault {caught} fails; mend that first", file=sys.stderr)
            return 1
        for number, fault in enumerate(flags.faults, 1):
            start = time.monotonic()
            with copies.mutated(copy, fault):
                caught = catches(copy, fault.tests.split())
            seconds = time.monotonic() - start
            found.append({"name": fault.name, "file": fault.file, "caught_by": caught, "seconds": round(seconds, 1)})
            what = f"caught by {caught} in {seconds:.0f} s" if caught else f"SURVIVED {fault.tests}"
            print(f"{number}/{len(flags.faults)} {fault.file}: {fault.name}: {what}", flush=True)
    survived = [each["name"] for each in found if not each["caught_by"]]
    print(f"{len(found) - len(survived)} of {len(found)} faults were caught, {time.monotonic() - began:.0f} s")
    if flags.json:
        flags.json.write_text(strict_json.dumps({"faults": found, "survived": survived}, indent=1) + "\n")
    return int(bool(survived))


def catches(copy: Path, words: Sequence[str]) -> str:
    """The first test that fails in the copy; empty if all pass."""
    for group in GROUPS:
        if failed := first_failure(copy, words, group):
            return failed
    return ""


def first_failure(copy: Path, words: Sequence[str], group: Sequence[str]) -> str:
    """Of one group of tests the first that fails; empty if none does.

    Raises:
      SystemExit: pytest did not come to an end, or could not begin.
    """
    files = [f"tests/test_{word}.py" for word in words]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider", *group, *files]
    done = subprocess.run(
        command, cwd=copy, env=copies.environment(copy), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    if done.returncode in (PASSED, NONE):
        return ""
    failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if done.returncode != FAILED or not failed:
        sys.exit(f"error: pytest ended with status {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
