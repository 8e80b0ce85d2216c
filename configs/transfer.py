"""Whether later learning stages transfer less.  You et al. 2019, the second implication.

    python -m plasticity_jax.main --config=configs/transfer.py --workdir=runs/transfer
    python -m plasticity_jax.main --config=configs/transfer.py:small --workdir=runs/transfer-small
    python -m plasticity_jax.main --config=configs/transfer.py:digits --workdir=runs/transfer-digits
    python -m plasticity_jax.main --config=configs/transfer.py:target=cifar100 --workdir=runs/transfer-cifar100

Arguments, joined by commas in any order: one of `small`, `digits` and `smoke`; `target=held_out` (default: the half of
the classes that the source leaves out, which needs no other data set), `cifar100` or `svhn_cropped`, but these not
with `digits`.  Without one of the first three, all of CIFAR-10; with `source=imagenet64` ImageNet at 64x64, with
ResNet-50 for 90 epochs in stages of 30, and also `target=caltech_birds2011` (CUB-200) or `caltech101`, those of the
paper's data sets that TFDS has: images of a target are resized to 64x64.

Protocol: `train` trains on the source, by step decay in three learning stages and, as a control, at a constant rate for
as long.  Networks are taken in the middle of the first stage, at the end of each, and untrained.  Each is used for
    probe      a new head on frozen features (BatchNorm's running statistics), with the weight decay that is best on
               held-out images
    finetune   a new head, everything trained, with the best of three rates on held-out images: norms of weights differ
               between stages, so one rate for all would not be fair
    tune       all classes of the source's data set, as the pretrained network of Berariu et al. 2021, Figure 1: its gap
               to fresh weights
A_tgt(k) is the target's test accuracy after stage k, A_src(k) the source's.  Efficiency is A_tgt / A_src; the marginal
transfer of stage k is the gain in A_tgt over that in A_src from stage k - 1 on.

Claim, weak: the gains of later stages transfer less, their marginal transfer is below one.  Strong: the last stage
transfers worse than the first, though it is better on the source.

Choices: the paper transfers from ImageNet; its protocol and measure are not known.  Data sets, both ways of transfer,
the measures and the control at a constant rate are ours.  The held-out classes differ between seeds.

Expected:
    paper    later stages improve the source more than the target; it prints no number.
    small    on the other five classes stage 2 adds less than on the source, by 6.4 points [4.1, 8.7] with a probe and
             8.7 [3.1, 14.2] with fine-tuning; stage 3 does not (more by 0.6 [-1.4, 2.5] and 0.9 [-1.1, 2.9]).  That the
             last stage transfers worse than the first is not seen (better by 2.7 [-3.1, 8.5] and 0.9 [-3.3, 5.0]).  As
             the pretrained network of Figure 1 those of stages 1 and 3 end 8.3 [6.0, 10.6] and 8.0 [6.2, 9.8] points
             ABOVE fresh weights.  3 seeds (measured on CIFAR-10 re-encoded as JPEG: analysis/results/transfer).
    digits   for testing only.
    source=imagenet64        not run: no number of ours.

Cost:
    small    7.4 million images; 63 min on 2 slow CPU cores that had other work too.
    digits   minutes; not timed.
    source=imagenet64        neither timed nor compiled for any card.
"""

from typing import Any

from ml_collections import ConfigDict

from plasticity_jax.configs import presets
from plasticity_jax.configs.base import AUGMENT, base, optimiser, parse_arg, stage, step_decay
from plasticity_jax.errors import ConfigError

SOURCES = {"cifar10": 10, "imagenet64": 1000}  # classes
LARGER = ("caltech_birds2011", "caltech101")  # images, so that they go with ImageNet
TARGETS = ("held_out", "cifar100", "svhn_cropped", *LARGER)
DECAYS, RATES = (0.0, 1e-3, 1e-2), (1e-3, 1e-2, 1e-1)


def get_config(arg: str = "") -> ConfigDict:
    """The study; `arg` is the ARG of `--config=FILE:ARG`."""
    preset, chosen = parse_arg(arg, presets.NAMES, target=TARGETS, source=SOURCES)
    source, target = chosen["source"], chosen["target"]
    if preset == "digits" and target != TARGETS[0]:
        raise ConfigError(f"arguments digits and target={target} exclude each other; give one of them")
    if target in LARGER and source == "cifar10":
        raise ConfigError(f"arguments source=cifar10 and target={target} exclude each other; give source=imagenet64")
    config, classes = base("transfer"), SOURCES[source]
    config.model.dtype = "float32"  # on every device
    config.model.stem = "cifar"
    config.diagnostics = ("weight_norm",)
    config.control = "fresh"
    config.window = 0.1
    config.validation_images = 5000
    held_out = target == TARGETS[0]
    whole: dict[str, Any] = {"member": 0 if held_out else 1}
    config.stages.train = stage(
        data={"classes": (0, classes // 2)} if held_out else whole,
        epochs=180,
        augment=AUGMENT[config.dataset],
        optim=step_decay(),
        eval_every=1,
        eval_tail=0,
        branches={"stepdecay": {}, "constant": {"optim": {"decay": 1.0}}},
    )
    presets.imagenet(config, presets.SCALES[0] if source == "cifar10" else source, preset, presets.THIRDS)
    presets.apply(config, preset)
    presets.learning_stages(config, preset, digits=30)
    if not held_out:
        config.dataset = f"{config.dataset}+{target}"
    if not held_out and source == "imagenet64":
        config.update(resize=64, test_split="validation+test")
    if target in LARGER:
        config.validation_images = 1000
    if preset:
        config.validation_images = {"small": 1000, "digits": 200, "smoke": 200}[preset]
    _go_on(config, preset, {"classes": (classes // 2, classes)} if held_out else {"member": 2}, whole)
    if preset == "smoke":
        for name in ("probe", "finetune", "tune"):
            config.stages[name].update(steps=30, eval_every=0, eval_tail=0)
    if preset == "digits":
        for record in config.stages.values():
            record.data.label_noise = 0.2
    config.grid = (
        ("stages.probe.optim.weight_decay", DECAYS),
        ("stages.finetune.optim.learning_rate", RATES),
    )
    return config


def _go_on(config: ConfigDict, preset: str, data: dict[str, Any], whole: dict[str, Any]) -> None:
    """Adds the stages that continue from `train`: linear probes, fine-tuning, and the tuning of Figure 1."""
    probe, finetune, tune = {"": (30, 60, 100), "small": (15, 20, 30), "digits": (10, 20, 30)}.get(preset, (1, 1, 1))
    ends = _ends(config.stages.train.epochs, preset)
    anew = {"modules": ("head",), "statistics": "keep"}
    networks = {name: {"after": after, "reset": anew} for name, after in {"untrained": "init", **ends}.items()}
    shared = {"batch_size": config.stages.train.batch_size, "eval_tail": 0}
    config.stages.probe = stage(
        **shared,
        data=data,
        epochs=probe,
        trained=("head",),
        optim=optimiser("momentum", learning_rate=0.1, schedule="cosine", decay=0.0),
        eval_every=0,
        branches={f"probe-{name}": start for name, start in networks.items()},
    )
    config.stages.finetune = stage(
        **shared,
        data=data,
        epochs=finetune,
        augment=AUGMENT[config.dataset.rpartition("+")[2]],  # the target data set
        optim=optimiser("momentum", weight_decay=5e-4, schedule="cosine", decay=0.0),
        eval_every=0,
        branches={f"finetune-{name}": start for name, start in networks.items()},
    )
    config.stages.tune = stage(
        **shared | {"eval_tail": 2},
        data=whole,
        epochs=tune,
        eval_every=max(1, tune // 4),
        branches={
            "fresh": {"after": "init"},
            **{f"tune-{name}": {"after": after, "reset": anew} for name, after in ends.items() if "middle" not in name},
        },
    )


def _ends(epochs: float, preset: str) -> dict[str, str]:
    """By name, the places in `train` from which networks are taken."""
    third = round(epochs / 3)
    at = {"middle-1": third // 2, "stage-1": third, "stage-2": 2 * third}
    ends = {name: f"train/stepdecay@{epoch}" for name, epoch in at.items()}
    ends["stage-3"] = "train/stepdecay"
    ends |= {"constant-2": f"train/constant@{2 * third}", "constant-3": "train/constant"}
    return ends if preset != "smoke" else {"stage-3": "train/stepdecay"}
