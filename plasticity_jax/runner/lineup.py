"""Which runs of a group still train: those alone have rows on the devices, once many of the others have ended.

By strategies that have all runs at once, a run that has ended costs as much as one that trains.  When at least half of
the rows are of runs that have ended, the states of all are kept on the host, and those that train go on in a half, a
quarter, .. of the rows, by programs that are compiled then.  It depends on which runs have ended at an event alone, and
so is the same after a stop.  In several processes, and where instruments measure, all runs keep their rows.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from plasticity_jax.parallel import memory, multihost, run_axis

Tree = Any


@dataclasses.dataclass(frozen=True)
class Lineup:
    """runs: int [A], the run of each row on the devices.  count: of all runs of the group.

    ended: the states [R] of all runs, in numpy, when the last of the others left the devices; () before.
    """

    runs: np.ndarray
    count: int
    ended: Tree = ()

    def fetch(self, part: Callable[[Tree], Tree], states: Tree, few: bool = False) -> Tree:
        """A part of the states of all runs [R], in numpy, of which `states` [A] are on the devices."""
        found = run_axis.fetch(part(states), len(self.runs), few=few)
        return jax.tree.map(self.among, found, part(self.ended)) if self.ended else found

    def among(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Rows [A] of the runs on the devices among those of all runs [R]."""
        whole = np.array(others)
        whole[self.runs] = rows
        return whole

    def after(self, closed: Sequence[bool], strategy: str) -> "Lineup":
        """The line-up once some runs are closed; the same one if there is nothing to be gained.

        Rows that are too many are left to runs that have ended.
        """
        training = np.flatnonzero(~np.asarray(closed))
        if strategy not in memory.SIDE_BY_SIDE or not multihost.alone() or not len(training):
            return self
        rows = self.count
        while len(training) <= -(-rows // 2) < rows:
            rows = -(-rows // 2)
        if rows >= len(self.runs):
            return self
        over = [run for run in self.runs if closed[run]][: rows - len(training)]
        return dataclasses.replace(self, runs=np.array([*training, *over]))

    def moved(self, before: "Lineup", states: Tree, strategy: str) -> tuple["Lineup", Tree]:
        """This line-up with the states of those that left, and the states of its rows, from those `before`."""
        ended = before.fetch(lambda states: states, states)
        place = {run: row for row, run in enumerate(before.runs)}
        index = np.array([place[run] for run in self.runs])
        return dataclasses.replace(self, ended=ended), run_axis.moved(states, index, strategy)


def whole(count: int) -> Lineup:
    """All runs, each with a row."""
    return Lineup(np.arange(count), count)
