"""Containers for jobs on SLURM: the options of srun and the command that starts Python in them.

Images for Apptainer, `FILE.sif` or `docker://..`, are run by `srun apptainer exec`, as its guide recommends.  All
others, such as `nvcr.io#nvidia/jax:TAG` or `FILE.sqsh`, are run by the plugin Pyxis: `srun --container-image=IMAGE`.
Python is `python3` of the image, which must have the packages installed.  The directory of the sweep and that of the
launcher are mounted at the same paths, and the user's home, with data and compiled programs, if the site allows it.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from plasticity_jax.errors import LabError

PYTHON = "python3"


@dataclasses.dataclass(frozen=True)
class Container:
    """A container image and its options.

    image: its file or address.
    mounts: further directories to mount, at the same paths.
    gpus: whether to give it GPUs (Pyxis always does).
    """

    image: str
    mounts: tuple[str, ...] = ()
    gpus: bool = False

    @property
    def apptainer(self) -> bool:
        """Whether the image is for Apptainer; else it is for Pyxis."""
        return self.image.endswith(".sif") or "://" in self.image

    def options(self, sweep: Path, home: Path) -> list[str]:
        """The options of srun."""
        if self.apptainer:
            return []
        mounts = ",".join(f"{path}:{path}" for path in self._seen(sweep, home))
        image = [f"--container-image={self.image}", f"--container-mounts={mounts}"]
        return [*image, "--container-mount-home", f"--container-workdir={home}"]

    def python(self, sweep: Path, home: Path) -> list[str]:
        """The command that starts Python."""
        if not self.apptainer:
            return [PYTHON]
        binds = f"--bind={','.join(self._seen(sweep, home))}"
        return ["apptainer", "exec", *(["--nv"] if self.gpus else []), binds, f"--pwd={home}", self.image, PYTHON]

    def _seen(self, sweep: Path, home: Path) -> Sequence[str]:
        paths = list(dict.fromkeys([str(sweep), str(home), *self.mounts]))
        for path in paths:
            if set(path) & set(",:") or not path.startswith("/"):
                raise LabError(f"cannot mount {path} in a container: give an absolute path without comma or colon")
        return paths
