"""Sharpness and generalisation by the ratio of rate to batch size.  Jastrzebski et al. 2020, "The break-even point".

    python -m plasticity_jax.main --config=configs/rate_batch.py --workdir=runs/rate_batch
    python -m plasticity_jax.main --config=configs/rate_batch.py:small --workdir=runs/rate_batch-small
    python -m plasticity_jax.main --config=configs/rate_batch.py:digits --workdir=runs/rate_batch-digits

Argument: one of `small`, `digits` and `smoke`; without it, the scale of the paper.

Protocol: plain SGD at three constant rates, each with three batch sizes, for the same number of epochs from the same
weights.  Neighbours differ by a factor of two, which gives five ratios rate/batch, the middle one three times.
Measured at the end: the eigenvalues of the Hessian, the noise of the gradient, and two measures of flatness that do not
depend on the scale of the weights.

Claim: a larger ratio of rate to batch size, and so more noise, leads to a less curved region, with less noisy
gradients, and to a higher accuracy.  Only the ratio matters: training with equal ratios ends alike.

Choices: the paper's argument is about how rate and batch size determine the trajectory early in training; that the
ratio determines the end is from earlier work of the same authors.  The grid, constant rates, no momentum, no weight
decay, and equal epochs rather than updates (equal rate times updates over batch size) are ours.

Expected:
    paper    no number known to us.
    small    the largest ratio ends 7.7 points [2.4, 13.0] above the smallest (42.2 % and 34.4 %), with less noise
             (tr(Sigma) lower by 7,000 [3,700, 10,300]); whether it ends less curved is inconclusive (largest eigenvalue
             38 and 505, lower by 470 [-40, 970]).  So is whether equal ratios end alike: four times the rate and batch
             size end 1.5 points lower [-1.4, 4.5], 90 %, with an eigenvalue 4 % higher [-33, 41], 90 %.  3 seeds
             (measured on CIFAR-10 re-encoded as JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/rate_batch).
    digits   the largest ratio ends less curved than the smallest (largest eigenvalue lower by 410 [230, 590]), with
             less noise (tr(Sigma) lower by 2,000 [1,000, 3,100]) and 10.1 points [6.1, 14.1] higher.  Whether equal
             ratios end alike is inconclusive: four times the rate and batch size end 1.1 points lower [-0.7, 2.9],
             90 %, and as inconclusive for sharpness.  5 seeds (measured).

Cost, of 9 points of 5 seeds (small: 3):
    paper    see `--dry_run`; not yet measured on a GPU.
    small    4.1 million images, and instruments that cost as much as 2.8 million; 70 min on 2 CPU cores, most of which
             it was halted.  30 epochs, measured on 512 images.
    digits   1.2 million images of 8x8, and instruments that cost as much as 0.6 million; 1 min 45 s on 2 CPU cores, of
             which compiling takes 84 s.  20 epochs, measured on 64 images; width 4.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage

RATES, BATCHES = (0.025, 0.05, 0.1), (32, 64, 128)


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, _ = parse_arg(arg, presets.NAMES)
    config = base("rate_batch")
    config.model.update(stem="cifar", dtype="float32")  # on every device
    config.diagnostics = ("weight_norm",)
    config.instruments = ("noise", "flatness", "curvature")
    config.control = "sgd"
    config.stages.train = stage(epochs=200, optim=optimiser("sgd"), branches={"sgd": {}})
    presets.apply(config, preset)
    epochs = {"small": 30.0, "digits": 20.0}.get(preset, config.stages.train.epochs)
    config.stages.train.update(epochs=epochs, measure_every=int(epochs))
    if preset:
        config.model.stem = "imagenet"
    if preset == "digits":
        config.model.width = 4
    config.measure_images = {"": 2048, "small": 512}.get(preset, 64)
    config.grid = (
        ("batch", {str(batch): {"stages.train.batch_size": batch} for batch in BATCHES}),
        ("rate", {str(rate): {"stages.train.optim.learning_rate": rate} for rate in RATES}),
    )
    return config
