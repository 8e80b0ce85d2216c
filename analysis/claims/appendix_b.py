"""The claims of the works that Berariu et al. 2021 lean on in their appendix B, written before any run.

They are known to us from the papers' abstracts and from memory, so what is compared is [inferred] throughout; the
marks are those of `berariu2021`.
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
        "A deficit that lasts leaves its mark: after the longest one a network ends below one that was trained for as "
        "long without any.",
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
        "The shortest deficit is outgrown: it costs less than a point.",
        f"{ACHILLE} [inferred]",
        minus(_shortest("clear"), _shortest("blur")),
        WITHIN,
    ),
    Claim(
        "length-alone",
        "critical_period",
        "It is the deficit and not the length: as many epochs on clear images before change the final accuracy by less "
        "than a point.",
        f"ours: {ACHILLE} [inferred]",
        minus("fresh", _longest("clear")),
        WITHIN,
    ),
    Claim(
        "fisher-rises",
        "critical_period",
        "The trace of the Fisher matrix rises while a network begins to learn: on clear images its mean over the first "
        "third is above that of first weights.",
        f"{ACHILLE} [inferred]",
        minus(_fisher(START), _fisher(0.0)),
        unit="the trace",
    ),
    Claim(
        "fisher-falls",
        "critical_period",
        "The trace of the Fisher matrix falls once the network has learnt: on clear images it ends below its mean over "
        "the first third.",
        f"{ACHILLE} [inferred]",
        minus(_fisher(START), _fisher(END)),
        unit="the trace",
    ),
)

GOLATKAR = "Golatkar et al. 2019"


def _when(kind: str, name: str) -> tuple[Claim, ...]:
    """The claims about one regulariser; `kind` is its value on the axis, and `name` what begins the ids."""

    def at(branch: str) -> Contrast:
        return the(f"{branch}[regulariser={kind}]")

    what = kind.replace("_", " ")
    return (
        Claim(
            f"{name}-helps",
            "when_to_regularise",
            f"A network that always has {what} ends above one that never has it.",
            f"{GOLATKAR} [inferred]",
            minus(at("always"), at("never")),
        ),
        Claim(
            f"{name}-early",
            "when_to_regularise",
            f"It is enough to have {what} in the first half: the network ends not more than a point below one that "
            "always has it.",
            f"{GOLATKAR} [inferred]",
            minus(at("early"), at("always")),
            NOT_BELOW,
        ),
        Claim(
            f"{name}-late",
            "when_to_regularise",
            f"To have {what} in the second half only is of no use: it changes the accuracy by less than a point.",
            f"{GOLATKAR} [inferred]",
            minus(at("late"), at("never")),
            WITHIN,
        ),
        Claim(
            f"{name}-when",
            "when_to_regularise",
            f"What counts is the first half: with {what} there alone a network ends above one that has it in the "
            "second half alone.",
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
        "The smallest ratio of rate and batch ends at a larger first eigenvalue of the Hessian than the largest ratio.",
        f"{JASTRZEBSKI} [inferred]",
        minus(_sharpest(128, 0.025), _sharpest(32, 0.1)),
        unit="of the eigenvalue",
    ),
    Claim(
        "ratio-noise",
        "rate_batch",
        "The smallest ratio of rate and batch ends with noisier gradients than the largest ratio.",
        f"{JASTRZEBSKI} [inferred]",
        minus(_point(128, 0.025, "noise_trace", END), _point(32, 0.1, "noise_trace", END)),
        unit="tr(Sigma)",
    ),
    Claim(
        "ratio-better",
        "rate_batch",
        "The largest ratio of rate and batch ends above the smallest ratio.",
        f"{JASTRZEBSKI} [inferred]",
        minus(_point(32, 0.1), _point(128, 0.025)),
    ),
    Claim(
        "same-accuracy",
        "rate_batch",
        "What counts is the ratio: with the same one, four times the rate and the batch end within a point.",
        f"{JASTRZEBSKI}, of their earlier work [inferred]",
        minus(_point(128, 0.1), _point(32, 0.025)),
        WITHIN,
    ),
    Claim(
        "same-sharpness",
        "rate_batch",
        "With the same ratio, four times the rate and the batch end at a first eigenvalue that is the same within a "
        "quarter.",
        f"{JASTRZEBSKI}, of their earlier work [inferred]",
        minus(over(_sharpest(128, 0.1), _sharpest(32, 0.025)), 1.0),
        WITHIN,
        margin=0.25,
        unit="as a share",
    ),
)

GUR_ARI = "Gur-Ari et al. 2018"
TOP, STAYS = "gradient_in_top", "top_overlap_last"


def _lies(branch: str, metric: str, name: str) -> tuple[Claim, ...]:
    """That more than a half lies in the space over the first third, and of the space in the one before, at the end."""
    return (
        Claim(
            f"mostly-{name}",
            "subspace",
            f"Over the first third of tuning more than half of the gradient of a {name} network lies in the space of "
            "the ten largest eigenvalues.",
            f"{GUR_ARI} [inferred]",
            minus(the(branch, metric, START), 0.5),
            unit="as a share",
        ),
        Claim(
            f"stays-{name}",
            "subspace",
            f"At the end more than half of that space of a {name} network is that of the measurement before.",
            f"{GUR_ARI} [inferred]",
            minus(the(branch, STAYS, END), 0.5),
            unit="as a share",
        ),
    )


SUBSPACE = (
    *_lies("fresh", TOP, "fresh"),
    *_lies("pretrain+tune", TOP, "pretrained"),
    Claim(
        "warm-inside",
        "subspace",
        "A pretrained network is inside from the start: before the first step more of its gradient lies in the space "
        "than of a fresh one's.",
        f"ours: {GUR_ARI} [inferred]",
        minus(the("pretrain+tune", TOP, 0.0), the("fresh", TOP, 0.0)),
        unit="as a share",
    ),
)

GHORBANI = "Ghorbani et al. 2019"


def _apart(norm: str) -> Contrast:
    """How far the largest eigenvalue stands apart: over the tenth, at the end of the large rate."""
    label = f"large[norm={norm}]"
    return over(the(label, SHARPEST, END), the(label, "hessian_eigenvalue/10", END))


SPECTRUM = (
    Claim(
        "norm-flattens",
        "spectrum",
        "Without BatchNorm the largest eigenvalue stands further apart from the others: it is more times the tenth.",
        f"{GHORBANI} [inferred]",
        minus(_apart("none"), _apart("batch")),
        unit="times the tenth",
    ),
    *(
        Claim(
            f"rate-{norm}",
            "spectrum",
            f"A tenth of the rate does not end sharper: with norm {norm} the first eigenvalue of the large rate is not "
            "below nine tenths of it.",
            f"{GHORBANI} [inferred]",
            minus(over(the(f"large[norm={norm}]", SHARPEST, END), the(f"small[norm={norm}]", SHARPEST, END)), 1.0),
            NOT_BELOW,
            margin=0.1,
            unit="as a share",
        )
        for norm in ("batch", "none")
    ),
)

CLAIMS = (*CRITICAL_PERIOD, *WHEN_TO_REGULARISE, *RATE_BATCH, *SUBSPACE, *SPECTRUM)
