"""All studies of the papers as one sweep: Berariu et al. 2021 and works they cite, Ash & Adams 2020, You et al. 2019.

    python -m launch.local --config=configs/paper.py:digits --workdir=runs/paper-digits
    python -m launch.sweep --config=configs/paper.py --workdir=runs/paper --hours=12          # only plan it

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.  Each study is described in the
docstring of its config, and has its own directory: SWEEP/resets, SWEEP/warm_start_online, ..

Cost: see `launch.sweep --dry_run`.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import (
    architecture,
    autodecay,
    blending,
    controls,
    critical_period,
    multistage,
    noise,
    patterns,
    presets,
    pretrain_length,
    rate_batch,
    resets,
    spectrum,
    splits,
    stepdecay,
    subspace,
    transfer,
    tuning_rate,
    two_phases,
    warm_start,
    when_to_regularise,
)
from plasticity_jax.configs.base import parse_arg, sweep

STUDIES = (multistage, pretrain_length, blending, splits, architecture, resets, tuning_rate, controls, two_phases)
OPTIMISERS = ("rmsprop", "sgd", "momentum")  # with which Berariu et al. repeat `multistage` and `pretrain_length`
LEANT_ON = (critical_period, when_to_regularise, subspace, rate_batch, spectrum)  # by them, in their appendix B
LEARNING_STAGES = (stepdecay, noise, patterns, autodecay, transfer)


def get_config(arg: str = "") -> ConfigDict:
    """The sweep; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)

    def with_preset(argument: str) -> str:
        return ",".join(filter(None, [preset, argument]))

    studies = [study.get_config(preset) for study in STUDIES]
    studies += [
        study.get_config(with_preset(f"optimiser={name}"))
        for study in (multistage, pretrain_length)
        for name in OPTIMISERS
    ]
    studies += [warm_start.get_config(preset), warm_start.get_config(with_preset("study=online"))]
    studies += [study.get_config(preset) for study in (*LEANT_ON, *LEARNING_STAGES)]
    studies.append(patterns.get_config(with_preset("study=graded")))
    return sweep({config.name: config for config in studies})
