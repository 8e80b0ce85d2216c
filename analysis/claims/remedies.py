"""Claims of papers about remedies, tested in the protocols of `configs/remedies.py`; written before any was run.

Each remedy is evaluated with the setting that is best on validation images, as in `analysis.remedies`.  Marks in the
sources are explained in `berariu2021`.
"""

from plasticity_jax.analysis.effects.contrasts import Claim, Contrast, minus, the
from plasticity_jax.analysis.effects.derived import chosen
from plasticity_jax.analysis.effects.stats import ABOVE, NOT_BELOW
from plasticity_jax.analysis.remedies import FRESH, PREFIX, WARM, measured

GAPS = {
    "half": ("Berariu et al. 2021, Figure 1", "trained on a random half and then on everything"),
    "tenth": ("Lee et al. 2024, warm start [second-hand]", "trained on a random tenth and then on everything"),
    "tenth_noisy": ("Lee et al. 2024, warm start [second-hand]", "trained on a noisy tenth and then on everything"),
    "chunks": ("Shin et al. 2024 [second-hand]", "trained on ten growing parts of the data"),
    "classes": ("Dohare et al. 2024 [second-hand]", "trained on classes that arrive in groups"),
    "labels": ("Kumar et al. 2023 [second-hand]", "that was trained on random labels before"),
    "pixels": ("Dohare et al. 2024 [second-hand]", "that was trained on other permutations of the pixels before"),
}

# Protocol, remedy, the claimed relation, what it is compared with, and the source.  `matches`: no more than a point
# below.
BETTER, MATCHES = "better", "matches"
SAID = (
    ("half", "shrink_perturb", MATCHES, FRESH, "Ash & Adams 2020, Figure 7 [second-hand]"),
    ("half", "larger_rate", BETTER, WARM, "Berariu et al. 2021, Figure 7"),
    ("half", "last_reset", MATCHES, FRESH, "Berariu et al. 2021, appendix A.5"),
    ("half", "l2_init", BETTER, WARM, "Kumar et al. 2023 [second-hand]"),
    ("half", "redo", BETTER, WARM, "Sokar et al. 2023 [second-hand]"),
    ("tenth", "shrink_perturb", BETTER, WARM, "Lee et al. 2024 [second-hand]"),
    ("tenth_noisy", "shrink_perturb", BETTER, WARM, "Lee et al. 2024 [second-hand]"),
    ("chunks", "shrink_perturb", BETTER, WARM, "Shin et al. 2024 [second-hand]"),
    ("labels", "l2_init", MATCHES, FRESH, "Kumar et al. 2023 [second-hand]"),
    ("labels", "l2_init", BETTER, WARM, "Kumar et al. 2023 [second-hand]"),
    ("labels", "redo", BETTER, WARM, "Sokar et al. 2023 [second-hand]"),
    ("labels", "shrink_perturb", BETTER, WARM, "Ash & Adams 2020 [inferred]"),
    ("pixels", "l2_init", BETTER, WARM, "Kumar et al. 2023 [second-hand]"),
    ("pixels", "shrink_perturb", BETTER, WARM, "Dohare et al. 2024 [second-hand]"),
    ("pixels", "redo", BETTER, WARM, "Sokar et al. 2023 [second-hand]"),
)


def _of(protocol: str, branch: str) -> Contrast:
    """The accuracy of a branch as the protocol measures it, with the chosen setting if the branch has settings."""
    metric, by = measured(PREFIX + protocol)
    return the(branch, metric) if branch in (FRESH, WARM) else chosen(branch, by, metric)


def _claim(protocol: str, remedy: str, verb: str, other: str, source: str) -> Claim:
    name, against = (
        remedy.replace("_", " "),
        {FRESH: "a fresh network", WARM: "a warm start without a remedy"}.get(other, other.replace("_", " ")),
    )
    said = f"ends above {against}" if verb == BETTER else f"ends no more than a point below {against}"
    return Claim(
        f"{remedy}-{verb}-{other}",
        PREFIX + protocol,
        f"With {name}, a network {GAPS[protocol][1]} {said}.",
        source,
        minus(_of(protocol, remedy), _of(protocol, other)),
        NOT_BELOW if verb == MATCHES else ABOVE,
    )


CLAIMS = (
    *(
        Claim(
            "gap",
            PREFIX + protocol,
            f"A network {what} ends below a fresh one.",
            source,
            minus(_of(protocol, FRESH), _of(protocol, WARM)),
        )
        for protocol, (source, what) in GAPS.items()
    ),
    *(_claim(*said) for said in SAID),
)
