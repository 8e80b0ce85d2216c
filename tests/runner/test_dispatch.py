"""The device always has a further call queued, no run passes its target step, and calls adapt their length."""

import contextlib
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from plasticity_jax.runner import dispatch, lineup


class Task(NamedTuple):
    """The fields of a run's row that the dispatcher uses."""

    epoch_steps: np.ndarray


class Device:
    """Simulates programs without a network: `rate` seconds a step, `ends` is the step at which each run stops early."""

    def __init__(self, ends, rate=0.01, compiling=3.0):
        self.ends, self.rate, self.compiling = np.array(ends), rate, compiling
        self.now, self.seconds, self.free = 0.0, 0.0, 0.0
        self.calls, self.waiting, self.most = [], 0, 0

    def advance(self, stage, states, rows, images):
        if not self.calls:
            self.now += self.compiling
            self.seconds += self.compiling
        task, until = rows
        steps = np.minimum(np.minimum(until, states.step + task.epoch_steps), self.ends)
        self.free = max(self.free, self.now) + self.rate * int(np.max(steps - states.step))
        self.calls.append(np.array(until))
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        after = SimpleNamespace(step=steps, done=steps >= self.ends)
        return after, (self.free, (after.step, after.done))

    def place(self, rows, idle=None):
        return rows

    def read(self, computed, count, few=False):
        if not isinstance(computed[0], float):
            return computed
        self.now, self.waiting = max(self.now, computed[0]), self.waiting - 1
        return computed[1]


@pytest.fixture
def start(monkeypatch):
    def build(device, count, epoch_steps=1000):
        monkeypatch.setattr(dispatch.run_axis, "fetch", device.read)
        monkeypatch.setattr(dispatch.time, "perf_counter", lambda: device.now)
        device.strategy = "map"
        timed = lambda kind, group: contextlib.nullcontext()  # noqa: E731
        times = SimpleNamespace(events=[0.0], steps=[10**6] * count, target=lambda run, epoch: 0)
        given = {"timetables": {"train": times}, "in_windows": False, "clock": None}
        context = SimpleNamespace(programs=device, images=object(), timed=timed, **given)
        group = SimpleNamespace(stage=None, name="train", runs=range(count))
        task = Task(np.full(count, epoch_steps))
        states = SimpleNamespace(step=np.zeros(count, int), done=np.zeros(count, bool))
        made = dispatch.Pace(group, context, task, lineup.whole(count))
        made.start(states)
        return made, states

    return build


def drive(made, states, targets):
    while not made.arrived(targets):
        states = made.advance(states, targets)
    return states


def test_runs_arrive_at_their_targets_and_no_further(start):
    device = Device(ends=[10**6] * 3)
    made, states = start(device, 3)
    targets = np.array([70, 500, 311])
    states = drive(made, states, targets)
    assert states.step.tolist() == made.steps.tolist() == [70, 500, 311]
    assert all((until <= targets).all() for until in device.calls)
    assert device.waiting == 0  # no call is pending when an event begins


def test_one_call_waits_behind_another(start):
    device = Device(ends=[10**6])
    made, states = start(device, 1)
    drive(made, states, np.array([5000]))
    assert device.most == 2
    busy = 0.01 * 5000 + device.compiling
    assert device.now == pytest.approx(busy)  # the device was never idle


def test_calls_grow_to_their_length_whatever_compiling_took(start):
    device = Device(ends=[10**6], rate=0.01)
    made, states = start(device, 1)
    drive(made, states, np.array([5000]))
    sizes = np.diff([0, *(int(until[0]) for until in device.calls)])
    assert sizes[0] == 1 and max(sizes) == pytest.approx(dispatch.CALL_SECONDS / 0.01, abs=1)
    assert (sizes[8:-1] >= max(sizes) - 1).all()


def test_a_call_ends_with_an_epoch(start):
    device = Device(ends=[10**6], rate=1e-6)
    made, states = start(device, 1, epoch_steps=7)
    states = drive(made, states, np.array([50]))
    assert states.step.tolist() == [50]
    assert len(device.calls) >= 50 // 7


def test_runs_that_end_early_end_the_stage(start):
    device = Device(ends=[30, 200])
    made, states = start(device, 2)
    states = drive(made, states, np.array([10**5, 10**5]))
    assert states.step.tolist() == [30, 200] and made.done.all()
    made.start(states)  # pending results are discarded
    assert made.arrived(np.array([10**5, 10**5])) and not made.flying
