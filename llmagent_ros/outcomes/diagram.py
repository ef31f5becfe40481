"""The reliability diagram of a classifier, as PNG. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np

from llmagent_ros.outcomes.measures import BINS, Bin, Floats, Labels, Measures

_INK, _QUIET, _GRID, _SUCCESS, _OTHER = "#24292f", "#6e7781", "#e6e8eb", "#1f6feb", "#cf5c36"


def reliability_png(
    bins: Sequence[Bin], probabilities: Floats, labels: Labels, measures: Measures, title: str
) -> bytes:
    """Upper panel: observed share of success over the predicted probability; lower: how many scenes there are of each.

    Bars are the 95 % Wilson intervals of the shares: a bin of few scenes tells little.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 7.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    upper.plot([0, 1], [0, 1], color=_QUIET, linewidth=1, linestyle="--", label="perfectly calibrated")
    predicted, observed = [each.predicted for each in bins], [each.observed for each in bins]
    spans = [_wilson(each.observed, each.count) for each in bins]
    below = [max(0.0, share - low) for share, (low, _) in zip(observed, spans, strict=True)]
    above = [max(0.0, high - share) for share, (_, high) in zip(observed, spans, strict=True)]
    upper.errorbar(
        predicted, observed, yerr=[below, above], color=_SUCCESS, marker="o", linewidth=1.5, elinewidth=1, capsize=3,
        label="held-out scenes, with 95 % intervals",
    )  # fmt: skip
    for each in bins:
        upper.annotate(
            f"{each.count:,}", (each.predicted, each.observed), (6, -12), textcoords="offset points", color=_QUIET,
            fontsize=8,
        )  # fmt: skip
    edges = np.linspace(0, 1, 2 * BINS + 1)
    for chosen, colour, name in ((labels, _SUCCESS, "success"), (~labels, _OTHER, "other scenes")):
        lower.hist(probabilities[chosen], bins=edges, histtype="step", color=colour, linewidth=1.5, label=name)
    lower.set_yscale("log")
    for axes in (upper, lower):
        axes.axvline(measures.threshold, color=_INK, linewidth=1, linestyle=":", label="threshold")
        axes.grid(color=_GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9, loc="upper left" if axes is upper else "upper center")
    upper.set(xlim=(-0.02, 1.02), ylim=(-0.05, 1.05), ylabel="observed share of success")
    lower.set(xlabel="predicted p(success | scene)", ylabel="scenes")
    caption = (
        f"{measures.scenes:,} scenes of {measures.episodes} held-out episodes, {measures.positives} of success;\n"
        f"Brier {measures.brier:.4f}, calibration error {measures.ece:.4f}"
    )
    upper.set_title(f"{title}\n{caption}", loc="left", color=_INK, fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson, JASA 1927)."""
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return (centre - half) / scale, (centre + half) / scale
