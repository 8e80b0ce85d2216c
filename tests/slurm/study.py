"""The study of these tests: perceptrons on digits, `short` in seconds, `long` enough to be disturbed on the way."""

from ml_collections import ConfigDict

from plasticity_jax.configs import base

EPOCHS = {"short": 3.0, "long": 2500.0, "longer": 9000.0}


def get_config(arg: str) -> ConfigDict:
    """The study `short` has four packs, so four jobs; the others have one."""
    config = base.base("cluster")
    config.dataset = "digits"
    config.seeds = (0, 1)
    config.model.update(name="mlp", depth=1, width=4)
    config.diagnostics = ()
    config.checkpoint_seconds = 0.5
    if arg == "short":
        config.grid = (("model.width", (4, 6, 8, 10)),)
    rest = {"eval_every": int(EPOCHS[arg] // 3), "batch_size": 64}
    config.stages.pretrain = base.stage(data={"fraction": 0.5}, epochs=EPOCHS[arg], **rest)
    branches = {"fresh": {"after": "init"}, "pretrain+tune": {"after": "pretrain"}}
    config.stages.tune = base.stage(epochs=EPOCHS[arg], branches=branches, **rest)
    return config
