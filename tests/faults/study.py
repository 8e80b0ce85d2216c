"""The study of the campaign: about a second of training, with every kind of file that a directory can hold.

    python -m plasticity_jax.main --config=tests/faults/study.py --workdir=DIR

Argument `nan`: a fourth branch whose learning rate diverges, beside the same others.  `sweep`: both as a sweep.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs.base import base, optimiser, parse_arg, stage, sweep


def get_config(arg: str = "") -> ConfigDict:
    """Perceptrons on a few digits: pretraining with a snapshot, then three branches; a checkpoint at every call."""
    kind, _ = parse_arg(arg, ("nan", "sweep"))
    if kind == "sweep":
        return sweep({"plain": get_config(), "nan": get_config("nan")})
    rule = optimiser("momentum", learning_rate=0.1)
    config = base()
    config.dataset = "digits"
    config.update(train_images=96, test_images=60, eval_batch=32)
    config.update(seeds=(0, 1), diagnostics=(), strategy="map", window=0.5, checkpoint_seconds=0.0)
    config.model.update(name="mlp", depth=1, width=8)
    config.stages.pretrain = stage(data={"fraction": 0.5}, epochs=3.0, batch_size=16, optim=rule, eval_every=1)
    branches = {"fresh": {"after": "init"}, "warm": {"after": "pretrain"}, "early": {"after": "pretrain@1"}}
    if kind == "nan":
        branches["wild"] = {"after": "pretrain", "optim": {"learning_rate": 1e30}}
    config.stages.tune = stage(branches=branches, epochs=4.0, batch_size=16, optim=rule, eval_every=1)
    return config
