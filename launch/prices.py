"""Measures the cost of parts of packs on this machine, on first use, once for each shape."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from plasticity_jax.config import spec
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.launch.planner import Price
from plasticity_jax.profiling import cost
from plasticity_jax.runner.console import Line


class Market:
    """A `planner.Market` for the packs of some studies.

    rate: images/s to use instead of a measurement.
    """

    def __init__(self, studies: Mapping[str, spec.Study], rate: float | None = None):
        self.studies = studies
        self.rate = rate
        self.line = Line()
        self.costs: dict[Any, cost.Cost] = {}
        self.counted = functools.cache(self._count)
        self.load = functools.cache(cost.load)
        self.shapes: dict[tuple[str, str], Any] = {}

    def __call__(self, key: str, pack: spec.Pack, points: tuple[int, ...], seeds: int) -> Price:
        """The cost of `seeds` seeds of some points of a pack.

        Raises:
          LabError: the pack cannot be trained on this machine.
        """
        part = self.counted(key, pack.name, points)
        cost_of = self._cost(key, pack)
        price = self.unmeasured(key, pack, points, seeds)
        seconds = price.images / self.rate if self.rate else cost_of.seconds(part, seeds)
        return dataclasses.replace(price, seconds=seconds, bytes=cost_of.bytes(part, seeds))

    def unmeasured(self, key: str, pack: spec.Pack, points: tuple[int, ...], seeds: int) -> Price:
        """The number of runs and images, without time and memory."""
        part = self.counted(key, pack.name, points)
        return Price(seeds * part.finals, seeds * sum(part.images.values()), None, None)

    def _dataset(self, study: spec.Study) -> Dataset:
        return self.load(*study.data)

    def _count(self, key: str, name: str, points: tuple[int, ...]) -> cost.Part:
        study = self.studies[key]
        pack = next(pack for pack in study.packs if pack.name == name)
        part = spec.Pack(name, pack.model, tuple(pack.plans[i] for i in points), pack.scopes)
        return cost.count(part, study, self._dataset(study))

    def _cost(self, key: str, pack: spec.Pack) -> cost.Cost:
        study = self.studies[key]
        if (key, pack.name) not in self.shapes:
            self.shapes[key, pack.name] = cost.shape(pack, study)
        shape = self.shapes[key, pack.name]
        if shape not in self.costs:
            title = f"measuring {key}/{pack.name}"

            def say(line: str) -> None:
                self.line.write(f"{title}: {line}")

            self.costs[shape] = cost.measure(pack, study, self._dataset(study), say, time_it=not self.rate)
            self.line.note(f"measured {key}/{pack.name}")
        return self.costs[shape]
