"""While a stage trains and is evaluated, the host sends only a few numbers to the devices."""

import contextlib
import math
import re

import jax
import pytest

from plasticity_jax.parallel import multihost
from plasticity_jax.runner import dispatch, evaluation
from tests.support import small

SENT = re.compile(r"host-to-device transfer: aval=ShapedArray\(\w+\[([\d,]*)\]")


def study(strategy: str):
    """Three runs, which two devices cannot share evenly, evaluated on every kind of images."""
    settings = small.single(epochs=2.0)
    settings.stages.train.ema = 0.9
    settings.update(seeds=(0, 1, 2), strategy=strategy, validation_images=8, train_eval_images=20)
    settings.update(diagnostics=("weight_norm", "effective_rank", "distance_to_init"))
    return settings


@contextlib.contextmanager
def guarded(guard, *names):
    """Runs training calls and evaluations, or one of both, under `guard`; counts how often each happened."""
    calls = {"advance": 0, "measure": 0}

    def wrap(owner, name):
        real = getattr(owner, name)

        def wrapped(*args):
            calls[name] += 1
            with guard() if name in (names or calls) else contextlib.nullcontext():
                return real(*args)

        patch.setattr(owner, name, wrapped)

    with pytest.MonkeyPatch.context() as patch:
        wrap(dispatch.Pace, "advance")
        wrap(evaluation.Evaluator, "measure")
        yield calls


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", [*(pytest.param(name, marks=pytest.mark.long) for name in ("map", "vmap")), "cores"]
)
def test_nothing_is_sent_in_passing(strategy, tmp_path):
    """An argument in host memory would be an error, as would a slice of an array on the device."""
    small.run(study(strategy), tmp_path / "plain")
    with guarded(lambda: jax.transfer_guard("disallow")) as calls:
        small.run(study(strategy), tmp_path / "guarded")
    assert calls["advance"] >= 2 and calls["measure"] == 3
    assert small.tables(tmp_path / "guarded") == small.tables(tmp_path / "plain")


def test_what_is_sent_on_purpose_are_numbers_of_runs(tmp_path, capfd):
    with guarded(lambda: jax.transfer_guard_host_to_device("log_explicit")):
        small.run(study("cores"), tmp_path)
    sizes = [math.prod(int(n) for n in shape.split(",") if n) for shape in SENT.findall(capfd.readouterr().err)]
    few = [size for size in sizes if size <= 4]  # of the four rows for three runs on two devices
    images = [len(part) * 8 * 8 for part in (small.TOY.test_labels, small.TOY.train_labels)]
    assert few and sorted(size for size in sizes if size > 4) == sorted(2 * images)  # once per device


def test_an_evaluation_is_read_once(tmp_path, monkeypatch):
    inside, reads, real = [], [], multihost.fetch

    @contextlib.contextmanager
    def measuring():
        inside.append(True)
        yield
        inside.pop()

    monkeypatch.setattr(multihost, "fetch", lambda tree: reads.extend(inside) or real(tree))
    with guarded(measuring, "measure") as calls:
        small.run(study("cores"), tmp_path)
    assert len(reads) == calls["measure"] == 3
