"""A program of the lab, built as the lab builds it, that trains a given number of steps on request.

`advance` runs whole: it shuffles, gathers its batches from uint8 images on the device, normalises and counts, and is
called at most for an epoch at once.  PyTorch gets one normalised batch that lies ready (see `peer`).
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from ml_collections import ConfigDict

from plasticity_jax import models, study_config
from plasticity_jax.config import spec
from plasticity_jax.config.plan import unfold
from plasticity_jax.configs.base import base, stage
from plasticity_jax.data import datasets
from plasticity_jax.data.datasets import Dataset
from plasticity_jax.parallel import compiler, run_axis
from plasticity_jax.parallel.programs import Programs
from plasticity_jax.runner import schedule
from plasticity_jax.runner.schedule import Timetable
from plasticity_jax.training import state, step
from tests.benchmarks.plans import MODEL, Case, Plan, Point

Tree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
    """A compiled program and its networks.

    train: trains every run for the given steps and returns the seconds.
    bytes: arguments, results and temporaries on all its devices, as reported by XLA; None if it reports none.
    run_bytes: the same without the images, divided among the runs.
    """

    train: Callable[[int], float]
    step_images: int
    compile_seconds: float
    bytes: int | None
    run_bytes: float | None
    parameters: int
    devices: int
    program: compiler.Program


def noise(plan: Plan) -> Dataset:
    """Images and labels that are pure noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (plan.images, plan.side, plan.side, 3), np.uint8)
    labels = np.arange(plan.images) % 10
    return datasets.from_arrays("noise", images, labels, images[:10], labels[:10])


def point(plan: Plan, case: Case, asked: Point, dataset: Dataset) -> Built:
    """The program of one point of a case."""
    wanted = base()
    wanted.update(seeds=tuple(range(asked.runs)), strategy=asked.strategy)
    wanted.model.update(name=MODEL, depth=case.depth, width=case.width, stem=case.stem, dtype=case.dtype)
    wanted.stages = ConfigDict({"tune": stage(epochs=1, batch_size=plan.batch)})
    study = study_config.parse(wanted)
    (pack,) = study.packs
    (group,) = unfold(pack, study.seeds)
    times = schedule.draw_up(group, study, dataset)
    return build(pack.model, times, asked.strategy, dataset, plan.images)


def build(model: spec.Model, times: Timetable, strategy: str, dataset: Dataset, slots: int) -> Built:
    """The program that trains a group, for pools padded to `slots`; its runs never end."""
    first, count = times.group.stage, len(times.group.runs)
    network, shape = models.build(model, dataset.classes), dataset.train_images.shape[1:]
    made = Programs(network, shape, strategy, 0, {}, {})
    rows = schedule.tasks(times, slots)._replace(
        steps=np.full(count, 2**30, np.int32), until_accuracy=np.zeros(count, np.float32)
    )
    images = step.Images(
        dataset.train_images, np.asarray(dataset.mean, np.float32), np.asarray(dataset.std, np.float32)
    )
    params, stats = _weights(network, shape)
    # Equal networks on equal batches take as long as different ones.
    states, rows = made.place(
        (run_axis.stack_on_host([jax.device_get(state.create(params, stats, first))] * count), rows)
    )
    taken = 0

    def advance(steps: int) -> float:
        nonlocal states, taken
        end, start = taken + steps, time.perf_counter()
        while taken < end:
            taken = min(end, taken + min(times.epoch_steps))
            until = made.place(np.full(count, taken, np.int32), idle=0)
            states, _ = made.advance(first, states, (rows, until), images)
        jax.block_until_ready(states)
        spent = time.perf_counter() - start
        if not np.all(run_axis.fetch(states.step, count) == taken):
            raise RuntimeError(f"runs stand at steps {states.step}, not at {taken}: a loss that is not finite?")
        return spent

    advance(1)
    (program,) = made.cache.values()
    devices = len(states.step.sharding.device_set)
    # The strategy `loop` is calls from the host, not one program; only the bytes of one run are known.
    total = program.footprint.total if program.footprint and strategy != "loop" else None
    return Built(
        train=advance,
        step_images=count * first.batch_size,
        compile_seconds=program.seconds,
        bytes=None if total is None else devices * total,
        run_bytes=None if total is None else devices * (total - dataset.train_images.nbytes) / count,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        devices=devices,
        program=program,
    )


@functools.cache
def _weights(network: nn.Module, shape: tuple[int, ...]) -> tuple[Tree, Tree]:
    fn = functools.partial(state.init_network, network, image_shape=shape)
    return jax.device_get(compiler.compile_one(fn, state.init_key(0), once=True)(state.init_key(0)))
