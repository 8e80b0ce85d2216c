"""Removes ended runs from the devices.

With strategies that compute all runs at once, an ended run costs as much as one that trains.  Once at least half of the
rows belong to ended runs, their states move to the host, and the others continue in a half, a quarter, .. of the rows,
with newly compiled programs.  This depends only on which runs have ended at an event, so it is the same after a resume.
With several processes, and with instruments, all runs keep their rows.
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

    ended: the states [R] of all runs, in numpy, when runs last left the devices; () before.
    """

    runs: np.ndarray
    count: int
    ended: Tree = ()

    def fetch(self, part: Callable[[Tree], Tree], states: Tree, few: bool = False) -> Tree:
        """`part` of the states of all runs [R], in numpy; `states` [A] are those on the devices."""
        rows = run_axis.fetch(part(states), len(self.runs), few=few)
        return jax.tree.map(self.among, rows, part(self.ended)) if self.ended else rows

    def among(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        """`others` [R] of all runs, with the rows [A] of the runs on the devices replaced by `rows`."""
        whole = np.array(others)
        whole[self.runs] = rows
        return whole

    def after(self, closed: Sequence[bool], strategy: str) -> "Lineup":
        """The line-up after some runs are closed; `self` if it would not be smaller.

        Surplus rows are filled with ended runs.
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
        """(this line-up with the states of ended runs, the states of its rows), from the line-up `before`."""
        ended = before.fetch(lambda states: states, states)
        place = {run: row for row, run in enumerate(before.runs)}
        index = np.array([place[run] for run in self.runs])
        return dataclasses.replace(self, ended=ended), run_axis.moved(states, index, strategy)


def whole(count: int) -> Lineup:
    """The line-up of all runs."""
    return Lineup(np.arange(count), count)
