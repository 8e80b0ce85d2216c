"""The campaign: cases drawn from one seed, each a directory with one to three faults; the counts by kind."""

import dataclasses
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tests.faults import kinds
from tests.faults.children import Lost
from tests.faults.scene import Injection, Reference, Scene, World, outcome

OUTCOMES = ("survived", "refused", "lost")


@dataclasses.dataclass(frozen=True)
class Case:
    """What happened in one directory; `lost` says what was lost, and is empty if nothing was."""

    number: int
    injections: list[Injection]
    lost: str

    def of(self, injection: Injection) -> str:
        """`survived`: the same command continued by itself; `refused`: it continued after what its one line said."""
        return "lost" if self.lost else "refused" if injection.refusals else "survived"


def undisturbed(world: World, home: Path, argument: str) -> Reference:
    """The study without faults: a first run compiles, a second one counts.

    Raises:
      Lost: it does not even finish so.
    """
    for name in ("first", "second"):
        scene = Scene(world, home / f"{argument or 'plain'}-{name}", random.Random(0))
        scene.argument = argument
        counted = scene.home / "operations"
        began = time.monotonic()
        end = scene.start(count_to=str(counted)).end()
        seconds = time.monotonic() - began
        if end.code:
            raise Lost(f"the undisturbed study ends with {end.code}: {end.text[-1000:]}")
    return Reference(outcome(scene.directory), int(counted.read_text()), seconds)


def run(
    world: World, numbers: Sequence[int], seed: int, chosen: Sequence[str], home: Path, threads: int, keep: bool = False
) -> Iterator[Case]:
    """The cases of these numbers, one after another as they end; `home` holds their directories."""
    for argument in ("", "nan"):
        world.references[argument] = undisturbed(world, home, argument)

    def one(number: int) -> Case:
        return case(world, number, seed, chosen, home / str(number), keep)

    with ThreadPoolExecutor(threads) as pool:
        for done in as_completed([pool.submit(one, number) for number in numbers]):
            yield done.result()


def case(world: World, number: int, seed: int, chosen: Sequence[str], home: Path, keep: bool) -> Case:
    """Draw the faults of one case, inject them, run to the end and compare; without a loss the directory is deleted."""
    draw = random.Random(f"{seed}/{number}")
    scene, lost = Scene(world, home, draw), ""
    try:
        for kind in kinds.chain(list(chosen), number, draw):
            kinds.KINDS[kind](scene)
        scene.finish()
        scene.compare()
    except Lost as error:
        lost = str(error)
    except Exception as error:  # an unexpected exception must not end the campaign
        lost = f"{type(error).__name__}: {error}"
    finally:
        scene.close()
    if not (lost and keep):
        shutil.rmtree(home, ignore_errors=True)
    return Case(number, scene.injections, lost)


def counts(cases: Sequence[Case]) -> dict[str, dict[str, int]]:
    """For each kind how many were injected, and how many of these survived, were refused and lost."""
    by_kind: dict[str, dict[str, int]] = {}
    for result in cases:
        for injection in result.injections:
            row = by_kind.setdefault(injection.kind, dict.fromkeys(("injected", *OUTCOMES), 0))
            row["injected"] += 1
            row[result.of(injection)] += 1
    return by_kind


def table(by_kind: Mapping[str, Mapping[str, int]]) -> str:
    """The counts as text, with their sum."""
    total = {key: sum(row[key] for row in by_kind.values()) for key in ("injected", *OUTCOMES)}
    rows = [*by_kind.items(), ("all", total)]
    lines = [f"{'fault':<12} {'injected':>9} {'survived':>9} {'refused':>9} {'lost':>6}"]
    lines += [
        f"{name:<12} {row['injected']:>9} {row['survived']:>9} {row['refused']:>9} {row['lost']:>6}"
        for name, row in rows
    ]
    return "\n".join(lines)


def record(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """All cases and their injections, as plain values."""
    return [dataclasses.asdict(each) for each in cases]
