"""The claims of You et al. 2019, "Learning Stages: Phenomenon, Root Cause, Mechanism Hypothesis, and Implications".

This file has those about the phenomenon and its root cause; `you2019_patterns` and `you2019_implications` have the
others.  Only the abstract of the first version (arXiv 1908.01878v1) is available, so the claims are those of the
abstract and all protocols are [inferred].  Marks in the sources are explained in `berariu2021`.  When the claims were
written, we knew runs of one seed (100) of most studies, at an earlier version of `small`; no published result uses that
seed.
"""

from plasticity_jax.analysis.effects import transitions
from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, average, family, minus, the, times
from plasticity_jax.analysis.effects.stats import NOT_BELOW
from plasticity_jax.analysis.effects.transitions import At
from plasticity_jax.analysis.studies import END, START

PAPER = "You et al. 2019"
ABSTRACT = f"{PAPER}, abstract; the protocol is [inferred]"
OURS = f"ours: {PAPER} [inferred]"
PLACEBOS = (-1 / 3, 1 / 3)  # of a learning stage

# ---- the phenomenon ----

CURVES = {
    "train": ("train_loss", "the training loss", "nats"),
    "eval": ("train_eval_loss", "the training loss in eval mode on a fixed set", "nats"),
    "loss": ("test_loss", "the test loss", "nats"),
    "accuracy": ("test_accuracy", "the test accuracy", "points"),
}


def _placebo(kind: str, metric: str, decay: int) -> Contrast:
    """A quantity of a transition at a decay, minus its mean at the two placebo epochs."""
    before, after = (the("stepdecay", metric, At(kind, decay, shift)) for shift in PLACEBOS)
    mean = minus(times(0.5, before), times(-0.5, after))
    return minus(the("stepdecay", metric, At(kind, decay)), mean)


def _both(kind: str, metric: str) -> Contrast:
    return minus(times(0.5, _placebo(kind, metric, 1)), times(-0.5, _placebo(kind, metric, 2)))


ORDINALS = ("first", "second")

STEPDECAY = (
    *(
        Claim(
            f"jump-{name}-{decay}",
            "stepdecay",
            f"At the {ORDINALS[decay - 1]} decay {what} jumps: it improves by more than at placebo epochs.",
            ABSTRACT,
            _placebo(transitions.JUMP, metric, decay),
            unit=unit,
        )
        for name, (metric, what, unit) in CURVES.items()
        for decay in (1, 2)
    ),
    *(
        Claim(
            f"sharp-{name}",
            "stepdecay",
            f"The transitions of {what} are sharp: the jump, in standard deviations of the curve before it, is larger "
            "at a decay than at placebo epochs; a mean over both decays.",
            ABSTRACT,
            _both(transitions.SHARPNESS, metric),
            unit="standard deviations",
        )
        for name, (metric, what, _) in CURVES.items()
    ),
    *(
        Claim(
            f"ratio-{name}",
            "stepdecay",
            f"A decay brings {what} further, as a share of the progress of the stage before it, than a placebo epoch "
            "does; a mean over both decays.",
            ABSTRACT,
            _both(transitions.RATIO, metric),
            unit="progress of a stage",
        )
        for name, (metric, what, _) in CURVES.items()
        if name in ("train", "accuracy")
    ),
    Claim(
        "by-decay",
        "stepdecay",
        "It is the decay that does it: where the rate stays, the test accuracy jumps less at the same epochs.",
        OURS,
        minus(
            the("stepdecay", at=At(transitions.JUMP, 1)),
            the("constant", at=At(transitions.JUMP, 1)),
        ),
    ),
    Claim(
        "first-largest",
        "stepdecay",
        "The first transition of the test accuracy is the larger one.",
        OURS,
        minus(the("stepdecay", at=At(transitions.JUMP, 1)), the("stepdecay", at=At(transitions.JUMP, 2))),
    ),
)

# ---- the root cause ----


def transition(arm: str, branch: str = "decay", stage: str = "after") -> Contrast:
    """The drop of the training loss soon after a change, against no change, in nats; averaged over the rates."""

    def at(rate: str) -> Contrast:
        point = f"[arm={arm},rate={rate}]"
        kept = the(f"keep{point}", "train_eval_loss", START, "after")
        return minus(kept, the(f"{branch}{point}", "train_eval_loss", START, stage))

    return average(family(f"keep[arm={arm},rate={{}}]", take=at))


def _average(metric: str) -> Contrast:
    """A metric of the moving average of weights before the transition minus that of the network itself after it."""

    def at(rate: str) -> Contrast:
        point = f"[arm=plain,rate={rate}]"
        after = the(f"decay{point}", metric, START, "after")
        return minus(the(f"before{point}", f"ema_{metric}", END, "before"), after)

    return average(family("keep[arm=plain,rate={}]", take=at))


def _oscillation(rate: str) -> Contrast:
    label = f"before[arm=plain,rate={rate}]"
    loss = "train_eval_loss"
    return minus(the(label, loss, END, "before"), the(label, f"ema_{loss}", END, "before"))


NOTHING = 0.02  # a drop of the training loss, in nats, up to which there is no transition

NOISE = (
    Claim(
        "sgd",
        "noise",
        "With SGD a decay of the rate makes a transition: soon after it the training loss is lower than without it.",
        ABSTRACT,
        transition("plain"),
        unit="nats",
    ),
    Claim(
        "sgd-augmented",
        "noise",
        "So it does with SGD on augmented images.",
        ABSTRACT,
        transition("augmented"),
        unit="nats",
    ),
    Claim(
        "less-noise-large",
        "noise",
        "With less noise the transition is smaller: with larger batches than with small ones.",
        ABSTRACT,
        minus(transition("plain"), transition("large")),
        unit="nats",
    ),
    Claim(
        "less-noise-full",
        "noise",
        "With no noise it is smaller still: with full batches than with large ones.",
        ABSTRACT,
        minus(transition("large"), transition("full")),
        unit="nats",
    ),
    *(
        Claim(
            f"gone-{arm}",
            "noise",
            f"With batch gradient descent ({name}) the transition disappears: soon after it the training "
            f"loss is no more than {NOTHING} nats lower than without it.  The effect is how much higher it is.",
            ABSTRACT,
            times(-1, transition(arm)),
            NOT_BELOW,
            NOTHING,
            unit="nats",
        )
        for arm, name in {"full": "BatchNorm over fixed ghost batches", "full-group": "GroupNorm"}.items()
    ),
    Claim(
        "converse",
        "noise",
        "Noise alone makes a transition: with ten times larger batches, the rate untouched, the training loss is soon "
        "lower than without.",
        OURS,
        transition("plain", "grown", "grown"),
        unit="nats",
    ),
    Claim(
        "converse-half",
        "noise",
        "That transition is at least half of the one by a decay.",
        OURS,
        minus(transition("plain", "grown", "grown"), times(0.5, transition("plain"))),
        unit="nats",
    ),
    Claim(
        "oscillation",
        "noise",
        "Before the decay SGD moves around something better: a moving average of its weights has a lower training "
        "loss.",
        OURS,
        average(family("keep[arm=plain,rate={}]", take=_oscillation)),
        unit="nats",
    ),
    Claim(
        "average-suffices",
        "noise",
        "The transition is no more than the end of that oscillation: before the decay the moving average has the test "
        "accuracy that the network has soon after it, or is no more than a point below.",
        OURS,
        _average("test_accuracy"),
        NOT_BELOW,
    ),
)

CLAIMS = (*STEPDECAY, *NOISE)
