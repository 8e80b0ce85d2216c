"""Learning stages: step decay divides training into stages with sharp transitions.  You et al. 2019.

    python -m plasticity_jax.main --config=configs/stepdecay.py --workdir=runs/stepdecay
    python -m plasticity_jax.main --config=configs/stepdecay.py:small --workdir=runs/stepdecay-small
    python -m plasticity_jax.main --config=configs/stepdecay.py:digits --workdir=runs/stepdecay-digits

Arguments, joined by commas in any order: one of `small`, `medium`, `digits` and `smoke`, and `model=resnet` (default)
or `wide_resnet` (WRN-16-4); without one of the four, all of CIFAR-10, or with `scale=imagenet64` or
`scale=imagenet` ResNet-50 on ImageNet for 90 epochs, with decays at 30, 60 and 80, which is the network and the data of
the paper.

Protocol: SGD whose learning rate falls to a tenth after the first and after the second of three equally long learning
stages (`stepdecay`), and the same without any decay (`constant`), on the same batches from the same weights.  After
every epoch: training loss while training, training loss in eval mode on a fixed set of images that are not augmented,
test loss and accuracy, norms of weights and gradients.  `analysis/effects/transitions.py` measures each transition: its
jump J, its sharpness S and its ratio R, at the decays and at placebo epochs a third of a stage before and after, or
further away where they would touch the decay.

Claim: training and test curves are divided into several stages by sharp transitions, at the decays and nowhere else.

Choices: the paper's recipe is not known.  ResNet-18 with the CIFAR stem, batch 128, rate 0.1, momentum 0.9, weight
decay 5e-4, crops and flips, 180 epochs: all usual values, and ours; so is `constant`, the same time without a decay.

Expected, in points of test accuracy:
    paper    three stages with sharp transitions; it prints no number for them.
    small    stepdecay ends 6.4 points [5.8, 7.1] above constant; the jump at the first decay exceeds that at placebo
             epochs by 8.2 [6.1, 10.3], at the second by 1.3 [0.6, 2.1]; 5 seeds (measured on CIFAR-10 re-encoded as
             JPEG: `--config.dataset=cifar10_jpeg`, analysis/results/stepdecay).  4,000 images, width 8, 60 epochs.
    digits   for testing only: the task is too easy for a transition of any size.
    imagenet64, imagenet     not run: no number of ours.

Cost:
    paper    `--autotune --config.seeds=0,` on an H100: about 41,000 images/s (strategy `map`).
    small    2.4 million images; 21 min on 2 slow CPU cores that had other work too.
    medium   75.1 million images, by the dry run: 58,650 steps of batch 128 of 10 runs.  All images, width 16, ImageNet
             stem, 5 seeds, three learning stages of 50 epochs; not run yet.
    digits   seconds to minutes; not timed.
    imagenet64, imagenet     231 million images a seed, not timed.  Memory at 224 pixels with `--config.images=host`, by
             `--compile_for`: 12.7 GB of 63.7 on one H100, 4.2 GB on each of 8, 4.0 GB of 16.9 on each device of a v5e
             2x4 (two runs on four devices each); a further run takes 0.3 GB.  Images of 64x64 fit on an H100, those
             at 224 (262 GB) do not: tests/benchmarks/README.md.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import AUGMENT, base, parse_arg, stage, step_decay

MODELS = {"resnet": {"name": "resnet", "width": 64}, "wide_resnet": {"name": "wide_resnet", "width": 64}}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.WITH_MEDIUM, model=tuple(MODELS), scale=presets.SCALES)
    config = base("stepdecay")
    config.model.dtype = "float32"  # on every device
    config.model.update(MODELS[chosen["model"]], stem="cifar")
    config.diagnostics = ("weight_norm",)
    config.train_eval_images = 10_000
    config.control = "stepdecay"
    config.window = 0.05
    config.stages.train = stage(
        epochs=180,
        augment=AUGMENT[config.dataset],
        optim=step_decay(),
        eval_every=1,
        eval_tail=0,
        branches={"stepdecay": {}, "constant": {"optim": {"decay": 1.0}}},
    )
    presets.imagenet(config, chosen["scale"], preset)
    presets.apply(config, preset)
    presets.learning_stages(config, preset)
    if preset == "small":
        config.seeds = (0, 1, 2, 3, 4)
    return config
