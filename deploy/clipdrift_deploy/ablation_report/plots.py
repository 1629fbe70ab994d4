"""The pictures of an ablation: one figure over the threshold, with other rules and no clipping beside the axis."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipdrift_contract.clipping import describe_clip
from clipdrift_deploy.ablation_report import rows
from clipdrift_deploy.svg import drawn_in_style, to_svg
from clipdrift_trainer.ablation.grid import PRESENT, REASONABLE_FROM
from clipdrift_trainer.ablation.result import ArmFigures, SetFigures

HELD_OUT_COLOUR, LATER_COLOUR = "#2f6fde", "#d98a1f"
_RECOMMENDED_COLOUR = "#2f9e6e"
_SIZE = (6.8, 4.5)
_CATEGORY_STEP = 0.45  # decades between rules that have no threshold
_LABEL_ROOM = 0.28  # decades that a label needs
_PADDING = 0.12
_TALL = 6.4  # inches, for two sets of rows one below the other


class _Point(NamedTuple):
    place: float
    value: float
    half: float | None  # of the interval; None where there is nothing to compare with
    arm: str


def figure_over_threshold(arms: Sequence[ArmFigures], figure: rows.Figure, recommended: str) -> str:
    """One figure of every arm. Bars are the paired 95 % interval of the difference from the present policy, laid round the
    arm's own figure: where one does not reach the dashed line, the arm differs by more than chance.

    Args:
        arms: All arms.
        figure: Which figure.
        recommended: The arm that gets a ring.
    """
    sense = "" if figure.is_better_higher is None else f" ({'higher' if figure.is_better_higher else 'lower'} is better)"
    places = places_of(arms)
    sets = {"held-out days": _points(arms, places, figure, lambda one: one.validation)}
    later = _points(arms, places, figure, lambda one: one.later)
    sets |= {"later months": later} if later else {}
    with drawn_in_style():
        drawn = Figure(figsize=(_SIZE[0], _SIZE[1] if len(sets) == 1 else _TALL), layout="constrained")
        axes = drawn.subplots(len(sets), 1, sharex=True, squeeze=False)[:, 0]  # scales of their own: months may differ a lot
        for axis, (name, points), colour in zip(axes, sets.items(), (HELD_OUT_COLOUR, LATER_COLOUR), strict=False):
            _draw(axis, arms, points, colour, _limits(arms, points))
            _ring(axis, points, recommended)
            axis.set_title(f"{figure.name}, {name}{sense}")
        _name_places(axes[-1], arms, places)
        return to_svg(drawn)


def share_over_threshold(
    arms: Sequence[ArmFigures], name: str, share: Callable[[ArmFigures], float | None], recommended: str
) -> str:
    """A share of the training (norm removed, steps clipped) of every arm, in per cent."""
    with drawn_in_style():
        drawn = Figure(figsize=_SIZE, layout="constrained")
        axis = drawn.subplots()
        places = places_of(arms)
        points: list[_Point] = [
            _Point(places[one.arm.name], 100 * value, None, one.arm.name)
            for one in rows.by_bound(arms)
            if (value := share(one)) is not None
        ]
        _draw(axis, arms, points, HELD_OUT_COLOUR, (-5.0, 105.0))
        _ring(axis, points, recommended)
        _name_places(axis, arms, places)
        axis.set_title(name)
        return to_svg(drawn)


def places_of(arms: Sequence[ArmFigures]) -> dict[str, float]:
    """Where each arm stands on the horizontal axis: the decimal logarithm of its threshold; what has none to the right."""
    ordered = rows.by_bound(arms)
    places = {
        one.arm.name: math.log10(one.arm.clip.max_norm)
        for one in ordered
        if rows.has_bound(one) and one.arm.clip.max_norm is not None
    }
    right = max(places.values(), default=0.0)
    others = [one.arm.name for one in ordered if one.arm.name not in places]
    return places | {name: right + 0.2 + _CATEGORY_STEP * (i + 1) for i, name in enumerate(others)}


def _points(
    arms: Sequence[ArmFigures], places: dict[str, float], figure: rows.Figure, of: Callable[[ArmFigures], SetFigures | None]
) -> list[_Point]:
    points: list[_Point] = []
    for one in rows.by_bound(arms):
        figures = of(one)
        value = figure.value(figures) if figures is not None else None
        if figures is None or value is None:
            continue
        contrast = figure.contrast(figures)
        half = (contrast.high - contrast.low) / 2 if contrast is not None else None
        points.append(_Point(places[one.arm.name], value, half, one.arm.name))
    return points


def _draw(axis: Axes, arms: Sequence[ArmFigures], points: Sequence[_Point], colour: str, limits: tuple[float, float]) -> None:
    """One set of rows. A collapsed arm far outside the limits is a triangle at the edge; its figure stands in the table."""
    low, high = limits
    axis.set_ylim(low, high)
    bounded = {one.arm.name for one in arms if rows.has_bound(one)}
    line = [point for point in points if point.arm in bounded]
    axis.plot([point.place for point in line], [point.value for point in line], "-", color=colour, lw=1.4, alpha=0.7)
    for place, value, half, name in points:
        if not low <= value <= high:
            edge, marker = (high, "^") if value > high else (low, "v")
            axis.plot([place], [edge], marker, color="#8a8f98", ms=7, clip_on=False)
            continue
        if name == PRESENT and half is None:
            axis.axhline(value, color=colour, lw=1.1, ls="--", alpha=0.8)
        axis.plot([place, place], [value - _bar(half), value + _bar(half)], color=colour, lw=1.6, alpha=0.75)
    shown = [point for point in points if low <= point.value <= high]
    axis.plot([point.place for point in shown], [point.value for point in shown], "o", color=colour, ms=5.5, ls="none")


def _ring(axis: Axes, points: Sequence[_Point], recommended: str) -> None:
    for place, value, _, name in points:
        if name == recommended:
            axis.plot([place], [value], "o", mfc="none", mec=_RECOMMENDED_COLOUR, mew=2, ms=13)


def _limits(arms: Sequence[ArmFigures], points: Sequence[_Point]) -> tuple[float, float]:
    """What the vertical axis must show: all that somebody might set, with its bars."""
    usual = {one.arm.name for one in arms if one.multiple_of_median is not None and one.multiple_of_median >= REASONABLE_FROM}
    shown = [point for point in points if point.arm in usual | {PRESENT}] or list(points)
    if not shown:
        return 0.0, 1.0
    low = min(point.value - _bar(point.half) for point in shown)
    high = max(point.value + _bar(point.half) for point in shown)
    room = _PADDING * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _bar(half: float | None) -> float:
    return half if half is not None and half < 1e6 else 0.0


def _name_places(axis: Axes, arms: Sequence[ArmFigures], places: dict[str, float]) -> None:
    """Labels below the axis; of labels that would overlap the present policy's goes first, then the one further left."""
    by_name = {one.arm.name: one for one in arms}
    shown: dict[float, str] = {}
    for name in sorted(places, key=lambda each: (each != PRESENT, places[each])):
        if all(abs(places[name] - other) >= _LABEL_ROOM for other in shown):
            one = by_name[name]
            words = f"{one.arm.clip.max_norm:g}" if rows.has_bound(one) else describe_clip(one.arm.clip)
            shown[places[name]] = words.replace(", ", ",\n")
    axis.set_xticks(list(shown), list(shown.values()), rotation=40, ha="right", rotation_mode="anchor", fontsize=8.5)
    if places:
        axis.set_xlim(min(places.values()) - 0.2, max(places.values()) + 0.2)
    axis.set_xlabel("threshold (logarithmic); other rules on the right")
