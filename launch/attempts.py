"""The failures of a job: attempts.json in its working directory, written by `launch.job` only.

A job that fails repeatedly at the place from which it resumed gives up; progress resets the count.  Being stopped does
not count as a failure.
"""

import dataclasses
from pathlib import Path
from typing import Any

from plasticity_jax import strict_json
from plasticity_jax.storage import workdir

KEPT = 5  # errors that are stored


@dataclasses.dataclass(frozen=True)
class Attempts:
    """place: where the job resumed at its last start.  tries: failures at this place.

    errors: the last few, one line each.  gave_up: only a user should start it again.
    """

    place: str = ""
    tries: int = 0
    errors: tuple[str, ...] = ()
    gave_up: bool = False

    def started(self, place: str) -> "Attempts":
        """The attempts after a start from `place`."""
        return dataclasses.replace(self, place=place, tries=self.tries if place == self.place else 0)

    def failed(self, error: str, place: str, most: int, for_good: bool) -> "Attempts":
        """The attempts after a failure that will resume at `place`; `for_good` if another try cannot help."""
        tries = self.tries + 1
        errors = (*self.errors, error)[-KEPT:]
        hopeless = for_good or (place == self.place and tries >= most)
        return dataclasses.replace(self, tries=tries, errors=errors, gave_up=hopeless)


def read(directory: Path) -> Attempts:
    """The attempts of the job in a directory; no attempts if attempts.json is missing or damaged."""
    try:
        return _restore(strict_json.loads((directory / "attempts.json").read_bytes()))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Attempts()


def write(directory: Path, attempts: Attempts) -> None:
    """Replaces attempts.json."""
    workdir.write_json(directory / "attempts.json", dataclasses.asdict(attempts))


def reset(directory: Path) -> None:
    """Deletes the record of failures, when a user starts the job again."""
    (directory / "attempts.json").unlink(missing_ok=True)


def place(directory: Path) -> str:
    """The place from which a job would resume: stages that ended, and the newest checkpoints of the others."""
    reached = []
    for kind in ("end", "checkpoints"):
        for folder in sorted(directory.glob(f"*/*/{kind}")):
            numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
            if numbers:
                at = f"@{max(numbers)}" if kind == "checkpoints" else " ended"
                reached.append(f"{folder.parent.name}{at}")
    return ", ".join(reached) or "the start"


def _restore(value: Any) -> Attempts:
    place, tries, gave_up = value["place"], value["tries"], value["gave_up"]
    if not isinstance(place, str) or not isinstance(tries, int) or not isinstance(gave_up, bool):
        raise ValueError
    return Attempts(place, tries, tuple(str(error) for error in value["errors"]), gave_up)
