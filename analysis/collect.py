"""Export the results of a study to a few small files, suitable for a repository: all measurements, no networks.

    python -m analysis.collect DIR --out OUT

The analysis reads OUT like DIR: `analysis.load`, `studies.read` and everything built on them return the same.

OUT/metrics.parquet      every row of every table, bit for bit
OUT/result.json          the result; missing for a study in progress, which is exported with --partial only
OUT/config.json          the study, without the location of its data
OUT/lines.json           the loss between fresh and warm networks, if `plasticity lines` has been run
OUT/planned.json         for a sweep that has grown: its initial seeds
OUT/environment.json     versions, commit, devices, hash of the data; nothing that identifies the machine
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plasticity_jax import analysis, strict_json
from plasticity_jax.analysis.effects import looks
from plasticity_jax.analysis.reading import lines
from plasticity_jax.config import paths
from plasticity_jax.errors import LabError
from plasticity_jax.runner import output
from plasticity_jax.storage.results import LINES

# Keys of environment.json; others, such as the kernel's name and XLA's flags, may contain names and paths of the
# machine.
KEPT = "python packages commit dirty backend device_kind devices cpu_threads dataset choices".split()
KEPT += "random x64 matmul_precision own".split()
MAY_DIFFER = ("data_dir", "checkpoint_seconds")  # keys in which configs of one study may differ


def main(argv: Sequence[str] | None = None) -> None:
    output.outlive_readers()
    parser = argparse.ArgumentParser(prog="plasticity collect", description=__doc__.splitlines()[0])
    parser.add_argument("directory", help="the --workdir of a study")
    parser.add_argument("--out", required=True, help="the directory to write")
    parser.add_argument("--partial", action="store_true", help="export a study in progress as it is")
    options = parser.parse_args(argv)
    try:
        out = paths.given(options.out)
        written = collect(paths.given(options.directory), out, options.partial)
    except (LabError, OSError) as e:
        sys.exit(f"analysis.collect: {e}")
    size = sum(path.stat().st_size for path in written)
    print(f"{out}: {size / 1000:.0f} kB in {', '.join(path.name for path in written)}")


def collect(directory: analysis.Directory, out: analysis.Directory, partial: bool = False) -> list[Path]:
    """Writes the results in `directory` to `out`, which is created if missing; equal input gives equal bytes.

    Args:
      directory: a working directory.
      out: a directory that is new, or holds older results of the same study.
      partial: whether to export a study in progress.
    Returns:
      The files that were written.
    Raises:
      LabError: there is no study, it is in progress, or `out` holds something else.
    """
    directory, out = Path(directory), Path(out)
    table, config = analysis.load(directory), {**analysis.load_config(directory), "data_dir": ""}
    environment = analysis.load_environment(directory)
    finished = analysis.has_result(directory)
    if not finished and not partial:
        raise LabError(
            f"{directory} is in progress; run its command to the end, or give --partial to export it as it is"
        )
    _check(out, config, finished)
    out.mkdir(parents=True, exist_ok=True)
    contents: dict[str, Any] = {
        "config": config,
        "environment": {key: environment[key] for key in KEPT if key in environment},
    }
    if finished:
        contents["result"] = analysis.load_result(directory)
    if (seeds := looks.planned(directory, config)) != config["seeds"]:
        contents["planned"] = seeds
    if lines.read(directory):
        contents["lines"] = strict_json.loads((directory / LINES).read_bytes())
    for name, content in contents.items():
        indent = 2 if name == "environment" else None  # half of the others would be spaces
        (out / f"{name}.json").write_text(strict_json.dumps(content, indent) + "\n")
    words = [column for column in table if column != "value"]
    table.to_parquet(
        out / analysis.COMPACT,
        index=False,
        compression="zstd",
        compression_level=19,
        use_dictionary=words,
        column_encoding={"value": "BYTE_STREAM_SPLIT"},  # a fifth smaller: neighbours share their first bytes
    )
    return [*(out / f"{name}.json" for name in contents), out / analysis.COMPACT]


def _check(out: Path, config: Mapping[str, Any], finished: bool) -> None:
    """Raises a LabError unless the results of a study may be written to `out`."""
    if out.exists() and any(out.rglob(analysis.TABLE)):
        raise LabError(f"{out} is a working directory; give --out another one")
    kept = [name for name in ("result.json", analysis.COMPACT) if (out / name).exists()]
    if (out / "config.json").exists():
        old = analysis.load_config(out)
        if {**old, **dict.fromkeys(MAY_DIFFER)} != {**config, **dict.fromkeys(MAY_DIFFER)}:
            raise LabError(f"{out} holds the results of another study; give --out another one, or delete that")
    elif kept:
        raise LabError(f"{out / kept[0]} is of an unknown study: no config.json; give --out another one, or delete it")
    if "result.json" in kept and not finished:
        raise LabError(f"{out} holds finished results, which those in progress would replace; give --out another one")


if __name__ == "__main__":
    main()
