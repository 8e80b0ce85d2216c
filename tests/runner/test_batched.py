"""Whole studies by the strategy `batched`: equal to `map` up to rounding, and bit for bit after a stop."""

import flax.linen as nn
import jax
import numpy as np
import pytest

import plasticity_jax
from plasticity_jax.errors import Preempted
from plasticity_jax.models.resnet import Block, Bottleneck, Stem
from plasticity_jax.models.wide_resnet import PreBlock
from plasticity_jax.parallel import programs
from tests.support import small


class Blocks(nn.Module):
    """A stem and `blocks` residual blocks."""

    kind: type[nn.Module] | None = None

    @nn.compact
    def __call__(self, images, train):
        x = Stem(2, "cifar", "batch", np.float32, name="stem")(images[:, ::2, ::2], train)
        if self.kind:
            x, _ = self.kind(4, 2, "batch", np.float32, name="block")(x, train)
        return nn.Dense(3, name="head")(x.reshape(len(x), -1))


NETWORKS = {
    "resnet": Blocks(Block),
    "bottlenecks": Blocks(Bottleneck),
    "wide resnet": Blocks(PreBlock),
    "own": small.Net(),
    "mlp": None,
}


def study(strategy, epochs=2.0, **fields):
    found = small.single(epochs=epochs)
    found.update(strategy=strategy, **fields)
    return found


@pytest.mark.long  # by day tests/parallel/test_run_axis.py does so for a convolution and its norm
@pytest.mark.parametrize("name", NETWORKS)
def test_trained_together_and_by_turns_runs_are_the_same(name, tmp_path):
    ends = {}
    for strategy in ("batched", "map"):
        result = small.run(study(strategy), tmp_path / strategy, model=NETWORKS[name])
        assert result["status"] == "finished" and len(result["runs"]) == 2
        ends[strategy] = [
            plasticity_jax.load(tmp_path / strategy, "train", seed, model=NETWORKS[name])[1:] for seed in (0, 1)
        ]
    for actual, expected in zip(*map(jax.tree.leaves, ends.values()), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.long  # by day other strategies are, which share all that saves and restores
def test_stopped_in_the_middle_it_ends_with_the_same_bits(tmp_path, monkeypatch):
    model, settings = Blocks(), study("batched", epochs=1.0, checkpoint_seconds=0.0)
    monkeypatch.setattr("plasticity_jax.runner.dispatch.CALL_SECONDS", 0.0)
    monkeypatch.setattr("plasticity_jax.runner.saver.CHECKPOINT_SHARE", 0)
    unbroken = small.run(settings, tmp_path / "unbroken", model=model)
    real, calls = programs.Programs.advance, []

    def stopping(self, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, Preempted)):
        patch.setattr(programs.Programs, "advance", stopping)
        small.run(settings, tmp_path / "stopped", model=model)
    assert list((tmp_path / "stopped").glob("main/train/checkpoints/*"))
    resumed = small.run(settings, tmp_path / "stopped", model=model)
    assert small.hashes(resumed) == small.hashes(unbroken)
