"""Claims of the papers cited in appendix B of Berariu et al. 2021, written before any run.

We know these papers from their abstracts and from memory only, so all protocols are [inferred].  Marks in the sources
are explained in `berariu2021`.
"""

from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, family, largest, minus, slope, smallest, the
from plasticity_jax.analysis.effects.derived import over
from plasticity_jax.analysis.effects.stats import BELOW, NOT_BELOW, WITHIN
from plasticity_jax.analysis.studies import END, START, WINDOW, When
from plasticity_jax.storage.results import METRIC

ACHILLE = "Achille et al. 2019"


def _longest(kind: str) -> Contrast:
    return largest(family(f"{kind}-{{}}"))


def _shortest(kind: str) -> Contrast:
    return smallest(family(f"{kind}-{{}}"))


def _fisher(at: When) -> Contrast:
    return the("clear", "fisher_trace", at, "before")


CRITICAL_PERIOD = (
    Claim(
        "deficit-lasting",
        "critical_period",
        "A long deficit lowers the final accuracy: after the longest one a network ends below one that was trained for "
        "equally long without a deficit.",
        f"{ACHILLE} [inferred]",
        minus(_longest("clear"), _longest("blur")),
    ),
    Claim(
        "deficit-longer",
        "critical_period",
        "The longer the deficit lasts, the lower the final accuracy.",
        f"{ACHILLE} [inferred]",
        slope(family("blur-{}"), per=10),
        BELOW,
        unit="points per 10 epochs",
    ),
    Claim(
        "deficit-short",
        "critical_period",
        "The network recovers from the shortest deficit: it costs less than a point.",
        f"{ACHILLE} [inferred]",
        minus(_shortest("clear"), _shortest("blur")),
        WITHIN,
    ),
    Claim(
        "length-alone",
        "critical_period",
        "The deficit is the cause, not the longer training: the same number of epochs on clear images changes the "
        "final accuracy by less than a point.",
        f"ours: {ACHILLE} [inferred]",
        minus("fresh", _longest("clear")),
        WITHIN,
    ),
    Claim(
        "fisher-rises",
        "critical_period",
        "The trace of the Fisher matrix rises early in training: on clear images its mean over the first third is "
        "above its value at initialisation.",
        f"{ACHILLE} [inferred]",
        minus(_fisher(START), _fisher(0.0)),
        unit="the trace",
    ),
    Claim(
        "fisher-falls",
        "critical_period",
        "The trace of the Fisher matrix falls later in training: on clear images it ends below its mean over the first "
        "third.",
        f"{ACHILLE} [inferred]",
        minus(_fisher(START), _fisher(END)),
        unit="the trace",
    ),
)

GOLATKAR = "Golatkar et al. 2019"


def _when(kind: str, name: str) -> tuple[Claim, ...]:
    """The claims about one regulariser; `kind` is its value on the grid's axis, `name` the prefix of the ids."""

    def at(branch: str) -> Contrast:
        return the(f"{branch}[regulariser={kind}]")

    what = kind.replace("_", " ")
    return (
        Claim(
            f"{name}-helps",
            "when_to_regularise",
            f"A network trained with {what} throughout ends above one trained without.",
            f"{GOLATKAR} [inferred]",
            minus(at("always"), at("never")),
        ),
        Claim(
            f"{name}-early",
            "when_to_regularise",
            f"{what.capitalize()} in the first half is enough: the network ends no more than a point below one trained "
            "with it throughout.",
            f"{GOLATKAR} [inferred]",
            minus(at("early"), at("always")),
            NOT_BELOW,
        ),
        Claim(
            f"{name}-late",
            "when_to_regularise",
            f"{what.capitalize()} in the second half only has no effect: it changes the accuracy by less than a point.",
            f"{GOLATKAR} [inferred]",
            minus(at("late"), at("never")),
            WITHIN,
        ),
        Claim(
            f"{name}-when",
            "when_to_regularise",
            f"The first half matters: with {what} in the first half only a network ends above one with it in the "
            "second half only.",
            f"{GOLATKAR} [inferred]",
            minus(at("early"), at("late")),
        ),
    )


WHEN_TO_REGULARISE = (*_when("weight_decay", "decay"), *_when("augmentation", "augment"))

JASTRZEBSKI = "Jastrzebski et al. 2020"
SHARPEST = "hessian_eigenvalue/1"


def _point(batch: int, rate: float, metric: str = METRIC, at: When = WINDOW) -> Contrast:
    return the(f"sgd[batch={batch},rate={rate}]", metric, at)


def _sharpest(batch: int, rate: float) -> Contrast:
    return _point(batch, rate, SHARPEST, END)


RATE_BATCH = (
    Claim(
        "ratio-sharper",
        "rate_batch",
        "The smallest ratio of learning rate to batch size ends with a larger top eigenvalue of the Hessian than the "
        "largest ratio.",
        f"{JASTRZEBSKI} [inferred]",
        minus(_sharpest(128, 0.025), _sharpest(32, 0.1)),
        unit="units of the eigenvalue",
    ),
    Claim(
        "ratio-noise",
        "rate_batch",
        "The smallest ratio of learning rate to batch size ends with noisier gradients than the largest ratio.",
        f"{JASTRZEBSKI} [inferred]",
        minus(_point(128, 0.025, "noise_trace", END), _point(32, 0.1, "noise_trace", END)),
        unit="tr(Sigma)",
    ),
    Claim(
        "ratio-better",
        "rate_batch",
        "The largest ratio of learning rate to batch size ends with a higher test accuracy than the smallest ratio.",
        f"{JASTRZEBSKI} [inferred]",
        minus(_point(32, 0.1), _point(128, 0.025)),
    ),
    Claim(
        "same-accuracy",
        "rate_batch",
        "Only the ratio matters for accuracy: at one ratio, four times the learning rate and batch size end within a "
        "point.",
        f"{JASTRZEBSKI}, of their earlier work [inferred]",
        minus(_point(128, 0.1), _point(32, 0.025)),
        WITHIN,
    ),
    Claim(
        "same-sharpness",
        "rate_batch",
        "Only the ratio matters for sharpness: at one ratio, four times the learning rate and batch size end with the "
        "same top eigenvalue, within a quarter.",
        f"{JASTRZEBSKI}, of their earlier work [inferred]",
        minus(over(_sharpest(128, 0.1), _sharpest(32, 0.025)), 1.0),
        WITHIN,
        margin=0.25,
        unit="shares",
    ),
)

GUR_ARI = "Gur-Ari et al. 2018"
TOP, STAYS = "gradient_in_top", "top_overlap_last"


def _lies(branch: str, metric: str, name: str) -> tuple[Claim, ...]:
    """The claims that the gradient lies mostly in the top eigenspace, and that this space is mostly stable."""
    return (
        Claim(
            f"mostly-{name}",
            "subspace",
            f"Over the first third of tuning more than half of the gradient of a {name} network lies in the eigenspace "
            "of the ten largest eigenvalues.",
            f"{GUR_ARI} [inferred]",
            minus(the(branch, metric, START), 0.5),
            unit="shares",
        ),
        Claim(
            f"stays-{name}",
            "subspace",
            f"At the end more than half of that eigenspace of a {name} network overlaps with that of the previous "
            "measurement.",
            f"{GUR_ARI} [inferred]",
            minus(the(branch, STAYS, END), 0.5),
            unit="shares",
        ),
    )


SUBSPACE = (
    *_lies("fresh", TOP, "fresh"),
    *_lies("pretrain+tune", TOP, "pretrained"),
    Claim(
        "warm-inside",
        "subspace",
        "Before the first step, a larger share of the gradient lies in the top eigenspace for a pretrained network "
        "than for a fresh one.",
        f"ours: {GUR_ARI} [inferred]",
        minus(the("pretrain+tune", TOP, 0.0), the("fresh", TOP, 0.0)),
        unit="shares",
    ),
)

GHORBANI = "Ghorbani et al. 2019"


def _apart(norm: str) -> Contrast:
    """The ratio of the largest to the tenth eigenvalue, at the end of training with the large rate."""
    label = f"large[norm={norm}]"
    return over(the(label, SHARPEST, END), the(label, "hessian_eigenvalue/10", END))


SPECTRUM = (
    Claim(
        "norm-flattens",
        "spectrum",
        "Without BatchNorm the largest eigenvalue is more of an outlier: its ratio to the tenth is larger.",
        f"{GHORBANI} [inferred]",
        minus(_apart("none"), _apart("batch")),
        unit="times the tenth",
    ),
    *(
        Claim(
            f"rate-{norm}",
            "spectrum",
            f"A tenth of the rate does not end sharper: with norm {norm} the top eigenvalue of the large rate is no "
            "less than nine tenths of that of the small rate.",
            f"{GHORBANI} [inferred]",
            minus(over(the(f"large[norm={norm}]", SHARPEST, END), the(f"small[norm={norm}]", SHARPEST, END)), 1.0),
            NOT_BELOW,
            margin=0.1,
            unit="shares",
        )
        for norm in ("batch", "none")
    ),
)

CLAIMS = (*CRITICAL_PERIOD, *WHEN_TO_REGULARISE, *RATE_BATCH, *SUBSPACE, *SPECTRUM)
