"""Learning curves as PNG. Matplotlib is imported only when one is drawn, and never through pyplot's global state."""

from __future__ import annotations

import io
import itertools
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmagent_ros.durable import write_atomic
from llmagent_ros.recording.episodes import Episode
from llmagent_ros.recording.summary import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WINDOW = 20
_INK, _QUIET, _GRID = "#24292f", "#6e7781", "#e6e8eb"
_SUCCESS, _FAILURE, _RETURN, _SWAP = "#1f6feb", "#cf5c36", "#2a7f62", "#8250df"
_RUN_COLOURS = ("#1f6feb", "#cf5c36", "#2a7f62", "#8250df", "#b08800", "#0a7ea4")

Array = NDArray[np.float64]


def wilson_interval(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a binomial proportion; z = 1.96 covers 95 %.

    With p = successes / n: (p + z^2/2n ± z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    (Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927).
    """
    if trials <= 0:
        return 0.0, 1.0
    p = successes / trials
    centre = p + z * z / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def moving_mean(values: Sequence[float] | Array, window: int = WINDOW) -> Array:
    """Mean over the last min(window, i + 1) values at each i, shape (values,)."""
    data = np.asarray(values, dtype=np.float64)
    return np.array([data[max(0, i + 1 - window) : i + 1].mean() for i in range(len(data))])


def import_early() -> None:
    """Import Matplotlib on a thread of its own, so that drawing at the end of a run does not wait for the disk."""
    threading.Thread(target=_figure, name="matplotlib", daemon=True).start()


def plot_learning_curve(episodes: Sequence[Episode], path: Path, title: str) -> None:
    """Draw one run: successes with their moving share and its Wilson band, returns, and adapter swaps.

    Raises:
        StoreError: `path` cannot be written; an older picture there is kept.
    """
    figure = _figure()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _frame(upper, title, _caption(episodes))
    _frame(lower)
    upper.set_ylabel(f"success, last {WINDOW}")
    lower.set_ylabel("return")
    lower.set_xlabel("episode")
    _share_axis(upper)
    if episodes:
        _draw_success(upper, episodes)
        _draw_returns(lower, episodes)
        _draw_swaps(upper, lower, episodes)
        lower.set_xlim(0.5, max(len(episodes), 10) + 0.5)
        _legend(figure, upper, lower)
    else:
        upper.text(0.5, 0.5, "no finished episode", transform=upper.transAxes, ha="center", color=_QUIET)
    _save(figure, path)


def plot_runs(runs: Sequence[tuple[str, Sequence[Episode]]], path: Path, title: str) -> None:
    """Draw several runs (label, episodes) of one setting: each thin, their median thick.

    The median is drawn as far as at least two runs go (or the only one), over those that go that far.

    Raises:
        StoreError: `path` cannot be written; an older picture there is kept.
    """
    figure = _figure()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _frame(upper, title, f"{len(runs)} runs: each thin, median thick, moving mean over {WINDOW} episodes")
    _frame(lower)
    upper.set_ylabel(f"success, last {WINDOW}")
    lower.set_ylabel(f"return, mean of last {WINDOW}")
    lower.set_xlabel("episode")
    _share_axis(upper)
    success = [(label, moving_mean([float(e.success) for e in run])) for label, run in runs if run]
    returns = [(label, moving_mean([e.total_reward for e in run])) for label, run in runs if run]
    for axes, curves in ((upper, success), (lower, returns)):
        for index, (label, curve) in enumerate(curves):
            colour = _RUN_COLOURS[index % len(_RUN_COLOURS)]
            axes.plot(_episodes_axis(curve), curve, color=colour, lw=1.1, alpha=0.65, label=label)
        if curves:
            median = _median([curve for _, curve in curves])
            axes.plot(_episodes_axis(median), median, color=_INK, lw=2.6, label="median", solid_capstyle="round")
    if success:
        lower.set_xlim(0.5, max(max(len(curve) for _, curve in success), 10) + 0.5)
        _legend(figure, upper)
    else:
        upper.text(0.5, 0.5, "no finished episode", transform=upper.transAxes, ha="center", color=_QUIET)
    _save(figure, path)


def plot_curves(
    methods: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    path: Path,
    *,
    title: str,
    y: str,
    threshold: float | None = None,
) -> None:
    """Draw evaluations along environment steps, on a logarithmic axis: seeds thin, the median of each method thick.

    Args:
        methods: curves of (steps, value) by method, one for each seed; the median is drawn where at least half of a
            method's seeds have an evaluation at the same steps.
        y: what the values are. threshold: a line at it.

    Raises:
        StoreError: `path` cannot be written; an older picture there is kept.
    """
    figure = _figure()
    axes = figure.subplots()
    seeds = max((len(curves) for curves in methods.values()), default=0)
    _frame(axes, title, f"{seeds} seeds: each thin, median thick")
    for index, (method, curves) in enumerate(methods.items()):
        colour = _RUN_COLOURS[index % len(_RUN_COLOURS)]
        at: dict[float, list[float]] = {}
        for curve in curves:
            axes.plot([x for x, _ in curve], [value for _, value in curve], color=colour, lw=0.8, alpha=0.35)
            for x, value in curve:
                at.setdefault(x, []).append(value)
        middle = [(x, float(np.median(v))) for x, v in sorted(at.items()) if 2 * len(v) >= len(curves)]
        axes.plot([x for x, _ in middle], [v for _, v in middle], color=colour, lw=2.4, label=method)
    if threshold is not None:
        axes.axhline(threshold, color=_QUIET, lw=1.0, ls="--", label=f"{threshold:g}")
    _logarithmic(axes)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(y)
    _legend(figure, axes)
    _save(figure, path)


def _logarithmic(axes: Axes) -> None:
    """An axis of steps with ticks at 1,000, 2,000, 5,000, 10,000 …, of which a few show even within one decade."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_success(axes: Axes, episodes: Sequence[Episode]) -> None:
    hits = np.array([episode.success for episode in episodes], dtype=bool)
    number = _episodes_axis(hits)
    share = moving_mean(hits.astype(np.float64))
    counts = [(int(hits[max(0, i + 1 - WINDOW) : i + 1].sum()), min(WINDOW, i + 1)) for i in range(len(hits))]
    band = np.array([wilson_interval(*count) for count in counts])
    axes.fill_between(number, band[:, 0], band[:, 1], color=_SUCCESS, alpha=0.13, lw=0, label="95 % Wilson band")
    axes.plot(number, share, color=_SUCCESS, lw=2.4, label="share of successes", solid_capstyle="round")
    size = float(np.clip(1800 / len(hits), 3, 16))
    axes.scatter(number[hits], np.full(hits.sum(), 1.045), s=size, color=_SUCCESS, lw=0, label="reached")
    misses = ~hits
    axes.scatter(number[misses], np.full(misses.sum(), -0.045), s=size, color=_FAILURE, lw=0, label="failed")
    axes.annotate(f"{percent(share[-1])}", (number[-1], share[-1]), (6, 0), textcoords="offset points", va="center",
                  color=_SUCCESS, fontweight="bold", annotation_clip=False)  # fmt: skip


def _draw_returns(axes: Axes, episodes: Sequence[Episode]) -> None:
    returns = np.array([episode.total_reward for episode in episodes])
    number = _episodes_axis(returns)
    size = float(np.clip(1800 / len(returns), 3, 16))
    axes.scatter(number, returns, s=size, color=_RETURN, alpha=0.4, lw=0, label="return")
    axes.plot(number, moving_mean(returns), color=_RETURN, lw=2.0, label=f"mean of last {WINDOW}")


def _draw_swaps(upper: Axes, lower: Axes, episodes: Sequence[Episode]) -> None:
    """Ticks on the line between the panels: many swaps stay readable there, unlike lines across the curves."""
    pairs = itertools.pairwise(episodes)
    swaps = [i + 1.5 for i, (before, after) in enumerate(pairs) if before.adapter != after.adapter]
    if swaps:
        lower.plot(swaps, np.ones(len(swaps)), transform=lower.get_xaxis_transform(), ls="", marker="|", ms=7, mew=1.1,
                   color=_SWAP, clip_on=False, zorder=5, label="adapter swapped")  # fmt: skip


def _caption(episodes: Sequence[Episode]) -> str:
    if not episodes:
        return ""
    first, last = episodes[:30], episodes[-30:]
    shares = [sum(episode.success for episode in part) / len(part) for part in (first, last)]
    versions = len({episode.adapter for episode in episodes} - {""})
    return (
        f"{len(episodes)} episodes, {episodes[-1].env_steps:,} steps, {versions} adapter versions;  "
        f"success first {len(first)}: {percent(shares[0])}, last {len(last)}: {percent(shares[1])}"
    )


def _median(curves: Sequence[Array]) -> Array:
    lengths = sorted((len(curve) for curve in curves), reverse=True)
    reach = lengths[min(1, len(lengths) - 1)]
    return np.array([np.median([curve[i] for curve in curves if i < len(curve)]) for i in range(reach)])


def _episodes_axis(values: Any) -> Array:
    return np.arange(1, len(values) + 1, dtype=np.float64)


def _figure() -> Figure:
    from matplotlib.figure import Figure as MatplotlibFigure

    return MatplotlibFigure(figsize=(9.0, 5.8), dpi=130, layout="constrained", facecolor="white")


def _frame(axes: Axes, title: str = "", caption: str = "") -> None:
    if title:
        plain = title.replace("$", r"\$")  # a path with two dollar signs is not mathematics
        axes.set_title(plain, loc="left", color=_INK, fontsize=13, fontweight="bold", pad=24)
        axes.text(0, 1.035, caption, transform=axes.transAxes, color=_QUIET, fontsize=9.5)
    axes.grid(True, color=_GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GRID)
    axes.tick_params(colors=_QUIET, length=0, labelsize=9.5)
    axes.xaxis.label.set_color(_QUIET)
    axes.yaxis.label.set_color(_QUIET)


def _share_axis(axes: Axes) -> None:
    axes.set_ylim(-0.09, 1.09)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0 %", "25 %", "50 %", "75 %", "100 %"])


def _legend(figure: Figure, *panels: Axes) -> None:
    """One legend below the panels, where it hides no point."""
    found = [panel.get_legend_handles_labels() for panel in panels]
    handles = [handle for part in found for handle in part[0]]
    labels = [label for part in found for label in part[1]]
    columns = min(len(labels), 7)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=9, frameon=False,
                  labelcolor=_INK, handlelength=1.4, columnspacing=1.5)  # fmt: skip


def _save(figure: Figure, path: Path) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())
