"""The section about causes: gradient noise and curvature of fresh and warm networks beside their accuracy."""

from collections.abc import Sequence

from plasticity_jax.analysis.plots import appendix_b, phases
from plasticity_jax.analysis.report import panels
from plasticity_jax.analysis.report.page import Html, join, tag
from plasticity_jax.analysis.studies import Study

SAID = (
    "The explanation of Berariu et al. 2021 (section 3): training first explores basins, driven by gradient noise, and "
    "then refines; a pretrained network has less noise when tuning begins, explores less, and ends in a narrower "
    "minimum. These quantities are shown below for fresh and warm networks from the first update of tuning on. The "
    "verdicts are in the section Claims."
)
LINE = (
    "The loss on the line between the final weights of the fresh and of the warm network: without a barrier both are "
    "in one basin. Computed by `plasticity lines DIR`."
)
SPECTRUM = "All eigenvalues of the Hessian at the end of training, with and without BatchNorm."


def section(shown: Sequence[Study]) -> Html | None:
    """The charts for which the studies have measurements; None if there are none."""
    over_tuning = [chart for study in shown if study.name in phases.CHARTS for chart in phases.why(study)]
    on_lines = [chart for study in shown for chart in phases.line(study)]
    spectra = [chart for study in shown if study.name == "spectrum" for chart in appendix_b.spectrum(study)]
    if not (over_tuning or on_lines or spectra):
        return None
    parts = [
        *([tag("p", SAID, class_="note"), _charts(over_tuning, "charts stack")] if over_tuning else []),
        *([tag("p", LINE, class_="note"), _charts(on_lines)] if on_lines else []),
        *([tag("p", SPECTRUM, class_="note"), _charts([c for c in spectra if c.series])] if spectra else []),
    ]
    return join(parts)


def _charts(charts: Sequence[phases.Chart], kind: str = "charts") -> Html:
    return tag("div", *map(panels.panel, charts), class_=kind)
