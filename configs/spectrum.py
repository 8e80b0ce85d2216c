"""All eigenvalues of the Hessian over training.  Ghorbani, Krishnan & Xiao 2019, "Hessian eigenvalue density".

    python -m plasticity_jax.main --config=configs/spectrum.py --workdir=runs/spectrum
    python -m plasticity_jax.main --config=configs/spectrum.py:small --workdir=runs/spectrum-small
    python -m plasticity_jax.main --config=configs/spectrum.py:digits --workdir=runs/spectrum-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: SGD with momentum 0.9 at a rate of 0.02 and at a tenth of it, with and without BatchNorm, from the same
weights.  At the start, every few epochs and at the end: the density of all eigenvalues by Lanczos quadrature, the
largest ten, and the trace.

Claim: without BatchNorm a few eigenvalues become large outliers, with BatchNorm they do not; and a small rate does not
end in a sharper region than a large one.

Choices: comparing networks that differ only in BatchNorm is the paper's.  The measure of outliers, the ratio of the
largest eigenvalue to the tenth, is ours, and so are network, rates and times.

Expected:
    paper    no number known to us.
    small    small rates do end sharper: the largest eigenvalue of the large rate is lower by 87 % [73, 102] with
             BatchNorm and by 86 % [81, 91] without.  Whether outliers are larger without BatchNorm is inconclusive
             (0.5 times the tenth [-0.9, 1.9]).  3 seeds (measured on CIFAR-10 re-encoded as JPEG:
             `--config.dataset=cifar10_jpeg`, analysis/results/spectrum).
    digits   with BatchNorm a small rate does end sharper: the largest eigenvalue of the large rate is lower by 69 %
             [42, 96].  Without, this is inconclusive (15 % higher [-184, 213]).  Outliers are *smaller* without
             BatchNorm, by 4.7 times the tenth [2.4, 7.1].  3 seeds (measured).

Cost, of 4 arms of 5 seeds (small and digits: 3):
    paper    see `--dry_run`; not yet measured on a GPU.
    small    1.8 million images; 8 min for the two arms without BatchNorm, on 2 CPU cores (the others were halted in
             between), most of it for measuring.  30 epochs, measured on 256 images.
    digits   0.5 million images of 8x8, and instruments that cost as much as 0.8 million; 1 min 10 s on 2 CPU cores.
             30 epochs, measured at the start and the end on 64 images; width 4.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage

RATES = {"large": 0.02, "small": 0.002}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    config = base("spectrum")
    config.model.update(stem="cifar", dtype="float32")  # on every device
    config.diagnostics = ("weight_norm",)
    config.instruments = ("spectrum", "curvature")
    config.control = "large"
    config.stages.train = stage(
        epochs=160,
        optim=optimiser("momentum"),
        measure_steps=(0,),
        measure_every=40,
        branches={name: {"optim": {"learning_rate": rate}} for name, rate in RATES.items()},
    )
    presets.apply(config, preset)
    if preset:
        config.model.stem = "imagenet"
    if preset in ("small", "digits"):
        config.seeds = (0, 1, 2)
        config.stages.train.update(epochs=30.0, measure_every=15)
    if preset == "digits":
        config.model.width = 4
        config.stages.train.measure_every = 30
    config.measure_images = {"": 2048, "small": 256}.get(preset, 64)
    config.grid = (("model.norm", ("batch", "none")),)
    return config
