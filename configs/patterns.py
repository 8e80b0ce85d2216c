"""Which patterns are learnt at which noise level: substitutes for the mechanism proposed by You et al. 2019.

    python -m plasticity_jax.main --config=configs/patterns.py --workdir=runs/patterns
    python -m plasticity_jax.main --config=configs/patterns.py:small --workdir=runs/patterns-small
    python -m plasticity_jax.main --config=configs/patterns.py:digits --workdir=runs/patterns-digits
    python -m plasticity_jax.main --config=configs/patterns.py:small,study=graded --workdir=runs/graded-small

Arguments, joined by commas in any order: one of `small`, `digits` and `smoke`; `study=patches` (default) or `graded`.
Without one of the first three, the scale of the paper.

Protocol:
    patches  Li, Wei & Ma 2019 (arXiv 1907.04595): four fifths of the images have a 7x7 patch that identifies the class;
             a fifth of these are black except for the patch (`data/patches.py`).  Four arms: `large`, rate 0.1, times
             0.04 after half of the time; `middle`, 0.02, and `small`, 0.004, both constant; and `small-noise`, as
             `small` with noise on the activations, whose deviation falls from 0.2 to 0.  After every epoch: accuracy on
             clean test images, on test images of which four fifths are patched, and on black ones with only a patch.
    graded   four patterns of 0, 2, 4 and 6 bits, one in each example (`data/synthetic.py`), and a perceptron.
             Step decay from rate 0.6 in three learning stages, and each of its three rates held constant (`rate-1`
             to `rate-3`); all of it also at ten times larger batches, so that rate 0.6 at batch 320 has the noise of
             rate 0.06 at batch 32.
             After every epoch: accuracy on test examples of each pattern.

Claim: a large rate learns easy patterns and ignores those that are hard to see until it decays; and what matters is the
noise, of which the rate is one part.

Choices: You et al. (first version) verify their mechanism by its implications only, and little is known of the data set
of the second version.  So both studies are substitutes.  The patches, their constants, the normalisation, WRN-16-10,
batch 128, Nesterov momentum 0.9, weight decay 5e-4, 60 epochs and the arms `large` and `small` are Li, Wei & Ma's.
Unlike theirs, test patches are not redrawn each epoch, so that curves differ in the network only.  Noise on activations
as a substitute for a large rate is theirs too; its deviation, its place (after each normalisation) and its linear decay
are ours, and this arm is not yet run.  `middle`, other amplitudes of the patch,
ResNet-18 at `small` and all of `graded` are ours.

Expected, in points:
    paper    no number for the substitutes.
    small    patches of amplitude 0.4: at the decay the accuracy on patches alone jumps by 23 [7, 40], and the network
             that began with the large rate ends 8.5 [5.7, 11.2] higher on clean images.  Before the decay the large
             rate has an accuracy of 46 to 76 % on patches alone, the small one 92 to 97 %; whether the large rate
             ignores them is inconclusive (39 [-10, 89]).  At the published amplitude 0.1 every arm ends at 8 to 11 % on
             patches alone, which is chance.  3 seeds (measured on CIFAR-10 re-encoded as JPEG,
             analysis/results/patterns_patches).  5,000 images, width 8.
             graded: accuracy falls with the bits of a pattern; at the first decay the one of 4 bits jumps by 5.9
             [2.1, 9.8] more than without a decay; 6 bits are learnt 5.2 [2.3, 8.1] better at a tenth of the rate, and
             as well with ten times larger batches (0.2 [-0.5, 0.8], 90 %).  3 seeds (analysis/results/patterns_graded).
    digits   for testing only.

Cost:
    small    patches: 5.5 million images; 32 min on 2 slow CPU cores that had other work too.  graded: 14.5 million
             examples of a small perceptron; 3 min on 2 cores of a Xeon.
    digits   minutes; not timed.
"""

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import base, optimiser, parse_arg, stage, step_decay

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)  # of 255; Li, Wei & Ma 2019
PATCH = {"share": 0.8, "size": 7, "shared": 1.25, "own": 0.1, "patterns": 1, "alone": 0.2, "stretch": 1.75}


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, study=("patches", "graded"))
    config = base(f"patterns_{chosen['study']}")
    config.model.dtype = "float32"  # on every device
    config.diagnostics = ()
    config.window = 0.05
    (_patches if chosen["study"] == "patches" else _graded)(config, preset)
    return config


def _patches(config: ConfigDict, preset: str) -> None:
    config.model.update(name="wide_resnet", width=160, stem="cifar")
    config.mean, config.std = tuple(m / 255 for m in MEAN), tuple(s / 255 for s in STD)
    config.control = "large"
    rule = {"nesterov": True, "weight_decay": 5e-4, "schedule": "step", "milestones": (0.5,)}
    config.stages.train = stage(
        epochs=60,
        data={"patch": PATCH},
        optim=optimiser("momentum", learning_rate=0.1, decay=0.04, **rule),
        eval_every=1,
        eval_tail=0,
        branches={
            "large": {},
            "middle": {"optim": {"learning_rate": 0.02, "decay": 1.0}},
            "small": {"optim": {"learning_rate": 0.004, "decay": 1.0}},
            "small-noise": {"optim": {"learning_rate": 0.004, "decay": 1.0}, "activation_noise": 0.2},
        },
    )
    presets.apply(config, preset)
    presets.learning_stages(config, preset, batch=128 if preset == "small" else 64, digits=60)
    if preset == "small":
        config.train_images = 5000
    amplitudes = {"": (0.4, 0.2, 0.1, 0.05), "small": (0.4, 0.1)}.get(preset, (0.1,))
    if preset in ("small", "smoke"):
        config.model.update(name="resnet", stem="imagenet")
    if preset == "digits":
        config.mean, config.std = (), ()
        config.stages.train.data.patch.size = 3
        config.model.name = "resnet"
    config.grid = (("stages.train.data.patch.own", amplitudes),)


def _graded(config: ConfigDict, preset: str) -> None:
    rates = (0.6, 0.06, 0.006)
    config.dataset = "graded"
    config.model.update(name="mlp", depth=2, width=256)
    config.control = "stepdecay"
    config.stages.train = stage(
        epochs=60,
        batch_size=32,
        optim=step_decay(learning_rate=rates[0], weight_decay=0.0, momentum=0.0),
        eval_every=1,
        eval_tail=0,
        branches={
            "stepdecay": {},
            **{f"rate-{k}": {"optim": {"learning_rate": rate, "decay": 1.0}} for k, rate in enumerate(rates, start=1)},
        },
    )
    presets.apply(config, preset)
    presets.learning_stages(config, preset, small=30, digits=30)
    config.dataset = "graded"  # at every scale
    config.model.update(depth=2, width=256)
    config.stages.train.data.label_noise = 0.0
    config.train_images = 2000 if preset == "digits" else 0
    config.test_images = 0
    config.grid = (("stages.train.batch_size", (32, 320)),)
