"""The claims of Berariu et al. 2021, "A study on the plasticity of neural networks".

Marks in the sources: `[second-hand]` means known only from a public review of the paper; `[inferred]` means our
interpretation, where no source states it.
"""

from plasticity_jax.analysis.effects.contrasts import (
    Claim,
    Contrast,
    average,
    family,
    largest,
    measured,
    minus,
    slope,
    the,
)
from plasticity_jax.analysis.effects.stats import BELOW, NOT_BELOW, WITHIN
from plasticity_jax.analysis.studies import END

PAPER = "Berariu et al. 2021"
FIT = 99.0  # percent of running train accuracy from which the images count as fitted
EARLY = 10.0  # epoch of tuning at which speed is compared; every preset evaluates at it

GAP = minus("fresh", "pretrain+tune")


def _fits(label: str) -> Contrast:
    """The final running train accuracy minus FIT, in points."""
    return minus(the(label, "train_accuracy", END), FIT)


MULTISTAGE = (
    Claim(
        "gap",
        "multistage",
        "A network that was pretrained on a random half of the images and then tuned on all of them ends with a lower "
        "test accuracy than a fresh one.",
        f"{PAPER}, Figure 1",
        GAP,
    ),
    Claim(
        "same-fit",
        "multistage",
        "The gap is not one of fitting: at the end of tuning the running train accuracy of both is the same within a "
        "point.",
        f"{PAPER}, Figure 1 [second-hand]",
        measured(GAP, "train_accuracy", END),
        WITHIN,
    ),
    Claim(
        "fresh-fits",
        "multistage",
        "The fresh network fits all images: its running train accuracy ends above 99 %.",
        f"{PAPER} [second-hand], who reach 100 %; 99 % is [inferred]",
        _fits("fresh"),
    ),
    Claim(
        "warm-fits",
        "multistage",
        "The pretrained network fits all images: its running train accuracy ends above 99 %.",
        f"{PAPER} [second-hand], who reach 100 %; 99 % is [inferred]",
        _fits("pretrain+tune"),
    ),
)

OPTIMISERS = {"rmsprop": "RMSprop", "sgd": "SGD", "momentum": "SGD with momentum"}

MULTISTAGE_OTHERS = tuple(
    Claim(
        "gap",
        f"multistage_{name}",
        f"With {said} too, a network that was pretrained on a random half ends below a fresh one.",
        f"{PAPER} [second-hand]",
        GAP,
    )
    for name, said in OPTIMISERS.items()
)

STOPPED_EARLY = minus("fresh", average(family("pretrain-{}", least=10), least=2))

PRETRAIN_LENGTH = (
    Claim(
        "gap-10",
        "pretrain_length",
        "Ten epochs of pretraining are enough for a gap.",
        f"{PAPER}, Figure 2 [second-hand]",
        minus("fresh", "pretrain-10"),
    ),
    Claim(
        "gap-5",
        "pretrain_length",
        "Five epochs of pretraining are enough for a gap.",
        f"{PAPER}, Figure 2 [second-hand]",
        minus("fresh", "pretrain-5"),
    ),
    Claim(
        "half-unfit",
        "pretrain_length",
        "The gap comes before the half is fitted: at epoch 10 of pretraining the running train accuracy is below 99 %.",
        f"{PAPER}, Figure 2 [second-hand]; 99 % is [inferred]",
        minus(FIT, the("pretrain", "train_accuracy", EARLY, "pretrain")),
    ),
    Claim(
        "early-stopping",
        "pretrain_length",
        "Stopping the pretraining early does not remove the gap: there is one on average over all lengths from 10 "
        "epochs on.",
        f"{PAPER}, Figure 2 [second-hand]; the average is [inferred]",
        STOPPED_EARLY,
    ),
    Claim(
        "gap-longest",
        "pretrain_length",
        "The longest pretraining leaves a gap.",
        f"{PAPER}, Figure 2",
        minus("fresh", largest(family("pretrain-{}"))),
    ),
)

PRETRAIN_LENGTH_OTHERS = tuple(
    Claim(
        "early-stopping",
        f"pretrain_length_{name}",
        f"With {said} too, stopping the pretraining early does not remove the gap: there is one on average over all "
        "lengths from 10 epochs on.",
        f"{PAPER}, Figures 8-10 [inferred]",
        STOPPED_EARLY,
    )
    for name, said in OPTIMISERS.items()
)

SLOWEST = largest(family("blend[gamma={}]"))

BLENDING = (
    Claim(
        "gap",
        "blending",
        "A bias of the data that fades away within a single training is enough: at the largest gamma, where it fades "
        "slowest, the network ends below a fresh one.",
        f"{PAPER}, Figure 3 and A.2 [second-hand]",
        minus("fresh", SLOWEST),
    ),
    Claim(
        "slope",
        "blending",
        "The slower the bias fades (the larger gamma), the lower the test accuracy.",
        f"{PAPER}, Figure 3 [inferred]",
        slope(family("blend[gamma={}]")),
        BELOW,
        unit="points per 1 of gamma",
    ),
)


def _uniform(parts: str) -> Contrast:
    """The slope over r for this number of parts; labels give r in percent and omit 100."""
    return slope(family(f"splits-{parts}-uniform-{{}}", also={100: f"splits-{parts}"}), per=100)


SPLITS = (
    Claim(
        "slope",
        "splits",
        "The more data sets the images come in one after another, drawn alike (r = 100 %), the lower the test accuracy "
        "in the end; a fresh network counts as one data set.",
        f"{PAPER}, Figure 4 left [second-hand]",
        slope(family("splits-{}", also={1: "fresh"})),
        BELOW,
        unit="points per data set",
    ),
    Claim(
        "gap",
        "splits",
        "With the most data sets, drawn alike, the network ends below a fresh one.",
        f"{PAPER}, Figure 4 left [second-hand]",
        minus("fresh", largest(family("splits-{}"))),
    ),
    Claim(
        "slope-uniform",
        "splits",
        "The larger the share r of each data set that is drawn uniformly from all classes, the higher the test "
        "accuracy in the end; at the most data sets for which several r were run.",
        f"{PAPER}, Figure 4 right",
        largest(family("splits-{}-uniform-*", take=_uniform)),
        unit="points per 1 of r",
    ),
    Claim(
        "gap-classes",
        "splits",
        "With the most data sets, each bringing classes of its own (r = 0), the network ends below a fresh one.",
        f"{PAPER}, Figure 4 right",
        minus("fresh", largest(family("splits-{}-uniform-0"))),
    ),
)


def gap_of_size(depth: str, width: str) -> Contrast:
    """The gap of one network of the grid."""
    size = f"[depth={depth},width={width}]"
    return minus(f"fresh{size}", f"pretrain+tune{size}")


GAPS = family("fresh[depth={},width={}]", take=gap_of_size)

ARCHITECTURE = (
    Claim(
        "gap-largest",
        "architecture",
        "A bigger network does not remove the gap: it is there at the largest depth and width.",
        f"{PAPER}, Figure 5 [second-hand]",
        largest(GAPS),
    ),
    Claim(
        "gap-mean",
        "architecture",
        "There is a gap on average over all depths and widths.",
        f"{PAPER}, Figure 5 [second-hand]; the average is [inferred]",
        average(GAPS, least=2),
    ),
)


def _ahead(label: str) -> Contrast:
    """The lead of a fresh network early in tuning, in points of running train accuracy."""
    return measured(minus("fresh", label), "train_accuracy", EARLY)


RESETS = (
    Claim(
        "last-4",
        "resets",
        "Starting the last 4 of 6 modules anew recovers the test accuracy of a fresh network: it ends no more than a "
        "point below.",
        f"{PAPER}, Figure 6 and A.5",
        minus("reset-3-6", "fresh"),
        NOT_BELOW,
    ),
    Claim(
        "last-5",
        "resets",
        "Starting the last 5 of 6 modules anew recovers the test accuracy of a fresh network: it ends no more than a "
        "point below.",
        f"{PAPER}, Figure 6 and A.5",
        minus("reset-2-6", "fresh"),
        NOT_BELOW,
    ),
    Claim(
        "last-4-helps",
        "resets",
        "Starting the last 4 modules anew ends above tuning the pretrained network as it is.",
        f"{PAPER}, Figure 6 and A.5",
        minus("reset-3-6", "pretrain+tune"),
    ),
    Claim(
        "last-5-helps",
        "resets",
        "Starting the last 5 modules anew ends above tuning the pretrained network as it is.",
        f"{PAPER}, Figure 6 and A.5",
        minus("reset-2-6", "pretrain+tune"),
    ),
    Claim(
        "head",
        "resets",
        "Starting only the last layer anew is not enough: a gap to the fresh network remains.",
        f"{PAPER}, Figure 6 [second-hand]; the subset is [inferred]",
        minus("fresh", "reset-6"),
    ),
    Claim(
        "singles",
        "resets",
        "Starting a single module anew is not enough: on average over the single modules a gap remains.",
        f"{PAPER}, Figure 6 [second-hand]; the subsets are [inferred]",
        minus("fresh", average(family("reset-{}"), least=2)),
    ),
    Claim(
        "top",
        "resets",
        "It is the top that has to start anew: modules 4 to 6 do more than modules 1 to 3.",
        f"{PAPER}, Figure 6 [second-hand]; the subsets are [inferred]",
        minus("reset-4-6", "reset-1-3"),
    ),
    *(
        Claim(
            f"speed-{count}",
            "resets",
            f"Keeping the early modules (last {count} anew) makes tuning no faster: at epoch 10 its running train "
            "accuracy is no more than a point ahead of a fresh network's.  The effect is the lead of the fresh one.",
            f"{PAPER}, Figure 11 and A.5; the measure is [inferred]",
            _ahead(label),
            NOT_BELOW,
        )
        for count, label in ((4, "reset-3-6"), (5, "reset-2-6"))
    ),
)

TUNING_RATE = (
    Claim(
        "raises-warm",
        "tuning_rate",
        "A 10 times larger learning rate of tuning reduces the gap to a fresh network at the usual rate: it raises the "
        "test accuracy of the pretrained one.",
        f"{PAPER}, Figure 7",
        minus("pretrain+tune[rate=10x]", "pretrain+tune[rate=1x]"),
    ),
    Claim(
        "gap-remains",
        "tuning_rate",
        "Some gap remains: tuned at 10x, the pretrained network is still below a fresh one at 1x.",
        f"{PAPER}, Figure 7 [second-hand]",
        minus("fresh[rate=1x]", "pretrain+tune[rate=10x]"),
    ),
)


CLAIMS = (
    *MULTISTAGE,
    *MULTISTAGE_OTHERS,
    *PRETRAIN_LENGTH,
    *PRETRAIN_LENGTH_OTHERS,
    *BLENDING,
    *SPLITS,
    *ARCHITECTURE,
    *RESETS,
    *TUNING_RATE,
)
