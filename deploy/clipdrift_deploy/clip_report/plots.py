"""The report's pictures. Colours are those of Okabe and Ito, which colour-blind people tell apart; lines differ in their dashes
too, and every picture says its content in words for those who do not see it.

Source: Okabe and Ito, Color Universal Design, 2008.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from clipdrift_contract.events import ReliabilityBin, ScoreInterval
from clipdrift_contract.norm_histogram import BUCKETS_PER_OCTAVE
from clipdrift_deploy.clip_report.figures import Course, SliceShare, Stretch
from clipdrift_deploy.svg import INK, drawn_in_style, to_svg

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"
_CYCLE = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
_DASHES = ("-", "--", ":", "-.")
_SIZE = (5.6, 3.1)
MOST_LAYERS = 40
Value = Callable[[Stretch], float | None]


@contextmanager
def _in_style() -> Iterator[None]:
    """The reports' style; a dollar in somebody's name of a layer or slice is no formula."""
    with drawn_in_style(), mpl.rc_context({"text.parse_math": False}):
        yield


def norms(course: Course, alt: str) -> str:
    """Norms before clipping over the steps: the band from p10 to p90, the median, the maxima, the bound, the spikes."""
    with _in_style():
        figure, axis = _axes()
        steps = _steps(course)
        low, high = (_values(course, lambda one: one.norm_p10), _values(course, lambda one: one.norm_p90))
        axis.fill_between(steps, low, high, color=BLUE, alpha=0.25, lw=0, label="10 % to 90 %")
        axis.plot(steps, _values(course, lambda one: one.norm_p50), color=BLUE, lw=1.8, label="median", marker=_marker(course))
        axis.plot(steps, _values(course, lambda one: one.norm_max), ".", color=INK, ms=3.5, alpha=0.6, label="largest")
        bound = _values(course, lambda one: one.bound)
        if np.isfinite(bound).any():
            axis.plot(steps, bound, "--", color=VERMILION, lw=1.8, label="bound")
        spikes = [(spike.step, spike.norm) for spike in course.spikes if spike.norm]
        if spikes:
            axis.plot(*zip(*spikes, strict=True), "x", color=VERMILION, ms=7, mew=1.6, label="spike")
        _logarithmic(axis)
        axis.set_ylabel("norm before clipping")
        return _finish(figure, axis, alt)


def shares(course: Course, alt: str) -> str:
    """Removed mass and clip rate over the steps, in per cent."""
    lines = [
        ("norm removed", lambda one: _times(one.removed_mass_ratio, 100), BLUE, "-", 2.4),
        ("steps clipped", lambda one: _times(one.clip_rate_ratio, 100), ORANGE, "--", 1.6),
    ]
    return _lines(course, lines, "%", alt, limits=(-2, 102))


def coefficients(course: Course, alt: str) -> str:
    """What gradients were multiplied with: 1 is not clipped."""
    lines = [
        ("mean", lambda one: one.coefficient_mean, BLUE, "-", 2.2),
        ("smallest", lambda one: one.coefficient_min, ORANGE, "--", 1.4),
    ]
    return _lines(course, lines, "factor on the gradient", alt, limits=(-0.02, 1.02))


def rates(course: Course, alt: str) -> str:
    """The learning rate that was set, and what clipping left of it."""
    lines = [
        ("learning rate", lambda one: one.learning_rate, INK, "--", 1.4),
        ("times the factor of clipping", lambda one: one.effective_learning_rate, BLUE, "-", 2.2),
    ]
    return _lines(course, lines, "learning rate", alt)


def losses(course: Course, alt: str) -> str:
    """The training loss."""
    return _lines(course, [("training loss", lambda one: one.loss, BLUE, "-", 1.8)], "loss", alt)


def histogram(course: Course, alt: str) -> str:
    """Norms of all steps, by quarter octaves, and the bound."""
    with _in_style():
        figure, axis = _axes()
        buckets = [bucket for bucket in course.histogram if bucket > -80] or [0]
        total = max(1, sum(course.histogram.values()))
        edges = range(min(buckets), max(buckets) + 1)
        left = [2.0 ** (bucket / BUCKETS_PER_OCTAVE) for bucket in edges]
        widths = [2.0 ** ((bucket + 1) / BUCKETS_PER_OCTAVE) - 2.0 ** (bucket / BUCKETS_PER_OCTAVE) for bucket in edges]
        counts = [100 * course.histogram.get(bucket, 0) / total for bucket in edges]
        axis.bar(left, counts, widths, align="edge", color=BLUE, alpha=0.8)
        bound = course.stretches[-1].bound
        if bound is not None and bound > 0:
            axis.axvline(bound, color=VERMILION, ls="--", lw=1.8, label="bound at the end")
            axis.legend(loc="best")
        axis.set_xscale("log")
        _plain_numbers(axis.xaxis)
        axis.set_xlabel("norm before clipping")
        axis.set_ylabel(f"% of {'samples' if course.is_by_sample else 'steps'}")
        return _labelled(figure, alt)


def groups(course: Course, alt: str) -> str:
    """The mean norm of each group of layers over the steps."""
    names = list(dict.fromkeys(part.name for stretch in course.stretches for part in stretch.groups))
    with _in_style():
        figure, axis = _axes(height=3.1 + 0.12 * len(names))
        for name, (dash, colour) in zip(names, itertools.cycle(itertools.product(_DASHES, _CYCLE)), strict=False):
            series = [_part(stretch, name) for stretch in course.stretches]
            axis.plot(_steps(course), series, dash, color=colour, lw=1.7, label=name, marker=_marker(course))
        _logarithmic(axis)
        axis.set_xlabel("step")
        axis.set_ylabel("mean norm")
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
        return _labelled(figure, alt)


def heat_map(course: Course, alt: str) -> str:
    """The mean norm of each tensor over the steps, on a logarithmic scale; the largest 40 where there are more."""
    names = loudest_layers(course)
    grid = np.array([[_layer(stretch, name) for stretch in course.stretches] for name in names], dtype=float)
    with _in_style():
        figure, axis = _axes(height=1.1 + 0.2 * len(names))
        with np.errstate(divide="ignore"):
            shown = np.log10(np.where(grid > 0, grid, np.nan))
        first, last = course.stretches[0].step_first, course.stretches[-1].step_last + 1
        picture = axis.imshow(
            shown, aspect="auto", cmap="cividis", interpolation="nearest", extent=(first, last, len(names) - 0.5, -0.5)
        )
        axis.set_yticks(range(len(names)), [_short(name, 32) for name in names], fontsize=8)
        axis.set_xlabel("step")
        axis.grid(visible=False)
        bar = figure.colorbar(picture, ax=axis, pad=0.02)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{float(f'{10**value:.2g}'):g}")
        bar.set_label("mean norm")
        return _labelled(figure, alt)


def slice_shares(slices: Sequence[SliceShare], alt: str) -> str:
    """Each slice's share of the samples against its share of the gradient."""
    with _in_style():
        figure, axis = _axes(height=0.9 + 0.28 * len(slices))
        for row, one in enumerate(slices):
            axis.plot([100 * one.share_of_samples, 100 * one.share_of_mass], [row, row], color=INK, lw=1, alpha=0.5)
        rows = range(len(slices))
        axis.plot(
            [100 * one.share_of_samples for one in slices],
            rows,
            "o",
            mfc="none",
            mec=ORANGE,
            mew=1.8,
            ms=8,
            label="of the samples",
        )
        axis.plot([100 * one.share_of_mass for one in slices], rows, "s", color=BLUE, ms=6, label="of the gradient")
        _named_rows(axis, [one.name for one in slices])
        axis.set_xlabel("share, %")
        axis.set_xlim(left=0)
        _legend_above(figure, axis)
        return _labelled(figure, alt)


def scores(intervals: Sequence[ScoreInterval], overall: float | None, metric: str, alt: str) -> str:
    """A validation figure of each slice with its 95 % interval; a dashed line at that of all rows."""
    with _in_style():
        figure, axis = _axes(height=0.9 + 0.28 * len(intervals))
        for row, one in enumerate(intervals):
            if one.num_blocks > 1:
                axis.plot([one.low, one.high], [row, row], color=BLUE, lw=2.4, solid_capstyle="round")
            axis.plot([one.value], [row], "o", color=BLUE, ms=6)
        if overall is not None:
            axis.axvline(overall, color=INK, ls="--", lw=1.2, alpha=0.7, label="all rows")
            _legend_above(figure, axis)
        _named_rows(axis, [one.slice or "all rows" for one in intervals])
        axis.set_xlabel(f"{metric}, with its 95 % interval")
        return _labelled(figure, alt)


def reliability(bins: Sequence[ReliabilityBin], alt: str) -> str:
    """What was said against what came; honest probabilities lie on the dashed line."""
    with _in_style():
        figure, axis = _axes(height=4.2)
        axis.plot([0, 1], [0, 1], "--", color=INK, lw=1.2, alpha=0.7)
        for one in bins:
            ends = [one.event_rate_low, one.event_rate_high]
            axis.plot([one.probability_mean] * 2, ends, color=BLUE, lw=1.8, alpha=0.7)
        axis.plot([one.probability_mean for one in bins], [one.event_rate for one in bins], "o", color=BLUE, ms=6)
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        axis.set_aspect("equal")
        axis.set_xlabel("probability that was said")
        axis.set_ylabel("share that came true")
        return _labelled(figure, alt)


def loudest_layers(course: Course) -> list[str]:
    """Names of the tensors with the largest mean norms, in the model's order."""
    sums: dict[str, float] = {}
    for stretch in course.stretches:
        for part in stretch.layers:
            sums[part.name] = sums.get(part.name, 0.0) + part.norm_mean
    kept = set(sorted(sums, key=lambda name: -sums[name])[:MOST_LAYERS])
    return [name for name in sums if name in kept]


def _lines(
    course: Course,
    lines: Sequence[tuple[str, Value, str, str, float]],
    label: str,
    alt: str,
    limits: tuple[float, float] | None = None,
) -> str:
    with _in_style():
        figure, axis = _axes()
        for name, value, colour, dash, width in lines:
            series = _values(course, value)
            if np.isfinite(series).any():
                axis.plot(_steps(course), series, dash, color=colour, lw=width, label=name, marker=_marker(course))
        if limits is not None:
            axis.set_ylim(*limits)
        axis.set_ylabel(label)
        return _finish(figure, axis, alt, has_legend=len(lines) > 1)


def _finish(figure: Figure, axis: Axes, alt: str, *, has_legend: bool = True) -> str:
    axis.set_xlabel("step")
    if has_legend:
        _legend_above(figure, axis)
    return _labelled(figure, alt)


def _legend_above(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=5, fontsize=8.5, columnspacing=1.2, handletextpad=0.5)


def _labelled(figure: Figure, alt: str) -> str:
    """The picture as SVG that says in words what it shows."""
    return to_svg(figure).replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1)


def _axes(width: float = _SIZE[0], height: float = _SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _named_rows(axis: Axes, names: Sequence[str]) -> None:
    axis.set_yticks(range(len(names)), [_short(name, 26) for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")


def _short(name: str, most: int) -> str:
    """Both ends of a name that is too long: tensors of one module differ at the front, parts of one block at the end.

    Example:
        >>> _short("blocks.11.attention.projection.weight", 20)
        'blocks.11…ion.weight'
    """
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"


def _logarithmic(axis: Axes) -> None:
    """A logarithmic axis, where there is anything to be shown on one."""
    shown = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axis.lines] or [np.zeros(0)])
    if (shown[np.isfinite(shown)] > 0).any():
        axis.set_yscale("log")
        _plain_numbers(axis.yaxis)


def _plain_numbers(axis: Axis) -> None:
    """On a logarithmic axis 0.2, 0.5, 1, 2, 5; over many decades the powers of ten alone."""
    low, high = axis.get_view_interval()
    is_wide = low > 0 and high / low > 1_000
    axis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}")


def _steps(course: Course) -> list[float]:
    return [stretch.step_middle for stretch in course.stretches]


def _values(course: Course, value: Value) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    found = [value(stretch) for stretch in course.stretches]
    return np.array([math.nan if one is None else one for one in found], dtype=np.float64)


def _marker(course: Course) -> str | None:
    """A single point makes no line."""
    return "o" if len(course.stretches) == 1 else None


def _part(stretch: Stretch, name: str) -> float:
    return next((part.norm_mean for part in stretch.groups if part.name == name), math.nan)


def _layer(stretch: Stretch, name: str) -> float:
    return next((part.norm_mean for part in stretch.layers if part.name == name), math.nan)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else factor * value
