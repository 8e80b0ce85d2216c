"""Containers that jobs on SLURM run in: what srun and python become.

An image that Apptainer takes, `FILE.sif` or `docker://..`, is run by `srun apptainer exec`, as its guide has it; any
other, `nvcr.io#nvidia/jax:TAG` or `FILE.sqsh`, by the plugin Pyxis, as `srun --container-image=IMAGE`.  In both python
is `python3` of the image, where the packages are; the sweep and the directory of the launcher are there under the same
names, and the user's home, with data and compiled programs, as far as the site allows it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax.errors import LabError

PYTHON = "python3"


@dataclasses.dataclass(frozen=True)
class Container:
    """image: what to run.  mounts: more directories that it sees.  gpus: whether it sees GPUs (Pyxis always does)."""

    image: str
    mounts: tuple[str, ...] = ()
    gpus: bool = False

    @property
    def apptainer(self) -> bool:
        """Whether the image is one for Apptainer, not for Pyxis."""
        return self.image.endswith(".sif") or "://" in self.image

    def options(self, sweep: Path, home: Path) -> list[str]:
        """What srun is told."""
        if self.apptainer:
            return []
        mounts = ",".join(f"{path}:{path}" for path in self._seen(sweep, home))
        image = [f"--container-image={self.image}", f"--container-mounts={mounts}"]
        return [*image, "--container-mount-home", f"--container-workdir={home}"]

    def python(self, sweep: Path, home: Path) -> list[str]:
        """What starts python."""
        if not self.apptainer:
            return [PYTHON]
        binds = f"--bind={','.join(self._seen(sweep, home))}"
        return ["apptainer", "exec", *(["--nv"] if self.gpus else []), binds, f"--pwd={home}", self.image, PYTHON]

    def _seen(self, sweep: Path, home: Path) -> Sequence[str]:
        paths = list(dict.fromkeys([str(sweep), str(home), *self.mounts]))
        for path in paths:
            if set(path) & set(",:") or not path.startswith("/"):
                raise LabError(f"a container cannot be given {path}: name it from the root, without comma and colon")
        return paths
