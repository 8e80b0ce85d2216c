"""Data that arrive in several parts: Berariu et al. 2021, Figure 4 and appendix A.3.

    python -m plasticity_jax.main --config=configs/splits.py --workdir=runs/splits
    python -m plasticity_jax.main --config=configs/splits.py:small --workdir=runs/splits-small
    python -m plasticity_jax.main --config=configs/splits.py:digits --workdir=runs/splits-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: the images arrive in n + 1 parts, and none are removed: D_1 < D_2 < .. < D_(n+1) = everything.  A network
trains on each D_i in turn (stages `part1` .. `partN`), and finally on everything (`tune`), each time with new moments
of the optimiser.  A share r of the images is distributed evenly over the parts; the others arrive with their class, and
the classes are distributed evenly over the parts.  Branches: `splits-5` has n + 1 = 5 parts and r = 1, left panel;
`splits-5-uniform-50` has r = 50 %, right panel; r = 0 is class after class.  `fresh` sees everything from the start.

Claim: the more parts, the lower the final test accuracy; and the lower, the fewer images arrive uniformly.

Choices: the sets D_i are the paper's, and so is that a stage has steps in proportion to its images.  Inferred: 350
epochs for every part and 500 for the last; the values of n and r; that the uniform share is a plain random one.

Expected, in test accuracy:
    paper    a fall from 2 parts to 10, and from r = 1 to r = 0; it prints no number.
    small    fresh 33.1 %, splits-2 30.9 %, splits-5 29.8 %; splits-5-uniform-50 30.1 %, splits-5-uniform-0 32.6 %, 3
             seeds (measured on CIFAR-10 re-encoded as JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/splits).
             More parts cost more, as claimed; parts with separate classes cost less, not more, but no interval
             excludes zero.
    digits   fresh 77.9 %; gaps 3.8 points [1.8, 5.9] for splits-2, 5.3 [3.1, 7.6] for splits-5, 6.7 [4.1, 9.2] and 8.5
             [6.4, 10.6] for uniform 50 and 0, 5 seeds (measured).

Cost, of 16 chains and fresh, 5 seeds (small: 4 chains, 3 seeds; digits: 4 chains, 5 seeds); chains share no stage:
    paper    41.3 million steps, 5,286 million images.  Not yet measured on a GPU.
    small    6.1 million images; measured 23 min on 2 CPU cores that had other work too.  n + 1 = 2 and 5 with r = 1, 5
             with r = 0.5 and 0; 30 + .. + 40 epochs.
    digits   3.4 million images of 8x8; measured 1 min 21 s on 2 CPU cores.  The same chains; 30 + .. + 60 epochs.
"""

from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, parse_arg, stage


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    # Chains of stages: the number of parts, and the fraction of the data that is distributed uniformly.
    chains = {
        "": [(n, 1.0) for n in (2, 3, 5, 10)] + [(n, r) for n in (2, 5, 10) for r in (0.75, 0.5, 0.25, 0.0)],
        "small": [(2, 1.0), (5, 1.0), (5, 0.5), (5, 0.0)],
        "digits": [(2, 1.0), (5, 1.0), (5, 0.5), (5, 0.0)],
        "smoke": [(2, 1.0), (3, 0.0)],
    }[preset]
    config = base("splits")
    config.model.dtype = "float32"  # on every device
    for part in range(1, max(splits for splits, _ in chains)):
        longer = [(splits, uniform) for splits, uniform in chains if splits > part]
        config.stages[f"part{part}"] = stage(
            epochs=350, branches={_name(*chain): _branch(*chain, part) for chain in longer}
        )
    last = {_name(splits, uniform): _branch(splits, uniform, splits) for splits, uniform in chains}
    config.stages.tune = stage(epochs=500, branches={"fresh": {}, **last})
    presets.apply(config, preset)
    if preset == "small":
        presets.lengths(config, pretrain=30, tune=40, eval_every=10)
    return config


def _name(splits: int, uniform: float) -> str:
    return f"splits-{splits}" if uniform == 1 else f"splits-{splits}-uniform-{round(100 * uniform)}"


def _branch(splits: int, uniform: float, part: int) -> dict[str, Any]:
    """The part D_i of appendix A.3, after the part before it."""
    data = {"recipe": "split", "splits": splits, "part": part, "uniform": uniform}
    return {"after": f"part{part - 1}/{_name(splits, uniform)}" if part > 1 else "init", "data": data}
