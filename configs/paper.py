"""All studies of both papers as one sweep.

    python -m launch.local --config=configs/paper.py:digits --workdir=runs/paper-digits
    python -m launch.sweep --config=configs/paper.py --workdir=runs/paper --hours=12          # only plan it

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.  Each study is that of its own
config, whose docstring says what it is, with a directory of its own: SWEEP/resets, SWEEP/warm_start_online, ..

Cost, as `launch.sweep --dry_run` tells it, which has not been asked of the other scales yet:
    digits   17 jobs, 326 runs, at most 28.8 million images, since stages end early; 0.24 hours of training expected on
             2 CPU cores that had other work too.
"""

from ml_collections import ConfigDict

from configs import (
    architecture,
    blending,
    controls,
    multistage,
    presets,
    pretrain_length,
    resets,
    splits,
    tuning_rate,
    warm_start,
)
from configs.base import parse_arg, sweep

STUDIES = (multistage, pretrain_length, blending, splits, architecture, resets, tuning_rate, controls)


def get_config(arg: str = "") -> ConfigDict:
    """The sweep; `arg` is what stands behind the colon of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    online = ",".join(filter(None, [preset, "study=online"]))
    found = [study.get_config(preset) for study in STUDIES]
    found += [warm_start.get_config(preset), warm_start.get_config(online)]
    return sweep({config.name: config for config in found})
