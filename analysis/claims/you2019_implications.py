"""The claims of You et al. 2019 about their two implications: AutoDecay saves time, and later stages transfer less.

Marks in the sources are explained in `berariu2021`; `you2019` says what was known when the claims were written.
"""

from plasticity_jax.analysis.claims.you2019 import ABSTRACT, OURS, PAPER
from plasticity_jax.analysis.effects import transitions
from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, Operand, family, measured, minus, the, times
from plasticity_jax.analysis.effects.derived import best, between, over
from plasticity_jax.analysis.effects.stats import BELOW, NOT_BELOW
from plasticity_jax.analysis.effects.transitions import At
from plasticity_jax.analysis.studies import END


def schedule(name: str) -> str:
    """The label of a schedule."""
    return f"train[schedule={name}]"


def _saves(name: str, control: str = "stepdecay") -> Contrast:
    """Nine tenths of the control's updates minus those of a schedule."""
    return minus(times(0.9, measured(schedule(control), "steps")), measured(schedule(name), "steps"))


def _at_equal_time(control: str) -> Operand:
    return between(family(schedule(f"{control}-{{}}")), schedule("autodecay"))


DETECTORS = {"plateau": "ReduceLROnPlateau", "slope": "SLOPE", "sasa": "SASA+", "abel": "ABEL"}

AUTODECAY = (
    Claim(
        "saves",
        "autodecay",
        "AutoDecay (a reconstruction) ends training in less than 90 % of step decay's time.  The effect is what it "
        "saves beyond that.",
        ABSTRACT,
        _saves("autodecay"),
        unit="updates",
    ),
    Claim(
        "same",
        "autodecay",
        "AutoDecay ends no more than a point of test accuracy below step decay.",
        ABSTRACT,
        minus(schedule("autodecay"), schedule("stepdecay")),
        NOT_BELOW,
    ),
    Claim(
        "moments",
        "autodecay",
        "It matters when stages end: AutoDecay ends above step decay that was merely compressed to the same time.",
        f"ours: {PAPER} [inferred]",
        minus(schedule("autodecay"), _at_equal_time("compressed")),
    ),
    Claim(
        "cosine",
        "autodecay",
        "AutoDecay ends above cosine decay in the same time.",
        f"ours: {PAPER} [inferred]",
        minus(schedule("autodecay"), _at_equal_time("cosine")),
    ),
    Claim(
        "misplaced",
        "autodecay",
        "Where the decays of the plan come too late, AutoDecay saves more than a tenth of its time too.",
        OURS,
        _saves("autodecay-late", "late"),
        unit="updates",
    ),
    *(
        Claim(
            f"saves-{name}",
            "autodecay",
            f"With {called} as its detector AutoDecay takes less than 90 % of step decay's time.",
            f"ours: {PAPER}, with a published detector [inferred]",
            _saves(name),
            unit="updates",
        )
        for name, called in DETECTORS.items()
    ),
    *(
        Claim(
            f"same-{name}",
            "autodecay",
            f"With {called} as its detector AutoDecay ends no more than a point below step decay.",
            f"ours: {PAPER}, with a published detector [inferred]",
            minus(schedule(name), schedule("stepdecay")),
            NOT_BELOW,
        )
        for name, called in DETECTORS.items()
    ),
)

# ---- the second implication ----

WAYS = {"probe": ("weight_decay", "a probe of frozen features"), "finetune": ("learning_rate", "fine-tuning")}


def target(way: str, network: str) -> Contrast:
    """A_tgt: the test accuracy on the target, with the hyper-parameter that is best on validation images."""
    return best(family(f"{way}-{network}[{WAYS[way][0]}={{}}]"), "validation_accuracy")


def source(stage: int, branch: str = "stepdecay") -> Contrast:
    """A_src: the test accuracy on the source at the end of a learning stage."""
    return the(branch, at=At(transitions.END, stage) if stage < 3 else END, stage="train")


def _more(way: str, stage: int) -> Contrast:
    """The gain of a learning stage on the target minus its gain on the source, in points."""
    gained = minus(target(way, f"stage-{stage}"), target(way, f"stage-{stage - 1}"))
    return minus(gained, minus(source(stage), source(stage - 1)))


def efficiency(way: str, network: str, branch: str = "stepdecay", stage: int = 3) -> Contrast:
    """The efficiency of the transfer: A_tgt / A_src."""
    return over(target(way, network), source(stage, branch))


TRANSFER = (
    *(
        claim
        for way, (_, called) in WAYS.items()
        for claim in (
            Claim(
                f"useful-{way}",
                "transfer",
                f"By {called}, what the first stage has learnt is of use: it transfers better than an untrained "
                "network.",
                OURS,
                minus(target(way, "stage-1"), target(way, "untrained")),
            ),
            *(
                Claim(
                    f"weak-{stage}-{way}",
                    "transfer",
                    f"Weak claim, stage {stage}, by {called}: what the stage adds transfers less than one to one, the "
                    "gain on the target is smaller than that on the source.",
                    ABSTRACT,
                    _more(way, stage),
                    BELOW,
                )
                for stage in (2, 3)
            ),
            Claim(
                f"strong-{way}",
                "transfer",
                f"Strong claim, by {called}: the last stage transfers worse than the first.",
                ABSTRACT,
                minus(target(way, "stage-3"), target(way, "stage-1")),
                BELOW,
            ),
            Claim(
                f"efficiency-{way}",
                "transfer",
                f"By {called}, the efficiency of the transfer, target over source accuracy, falls from the first stage "
                "to the last.",
                ABSTRACT,
                minus(efficiency(way, "stage-3"), efficiency(way, "stage-1", stage=1)),
                BELOW,
                unit="target / source",
            ),
            Claim(
                f"length-{way}",
                "transfer",
                f"By {called}, that is no matter of training for longer: at the end step decay is less efficient than "
                "a constant rate after as many epochs.",
                OURS,
                minus(efficiency(way, "stage-3"), efficiency(way, "constant-3", "constant")),
                BELOW,
                unit="target / source",
            ),
        )
    ),
    *(
        Claim(
            f"gap-{stage}",
            "transfer",
            f"As the pretrained network of Berariu et al. 2021, Figure 1, that of stage {stage} ends below a fresh "
            "one.",
            OURS,
            minus("fresh", f"tune-stage-{stage}"),
        )
        for stage in (1, 3)
    ),
    Claim(
        "gap-grows",
        "transfer",
        "The gap to fresh weights is larger after the last stage than after the first.",
        OURS,
        minus("tune-stage-1", "tune-stage-3"),
    ),
)

CLAIMS = (*AUTODECAY, *TRANSFER)
