"""The numbers of the report: sums over a run, and its course in stretches of windows.

Axes: T stretches of the run.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from clipdrift_contract.events import ClipSpec, Fault, GradWindow, RunEnd, SliceGradient, Spike
from clipdrift_contract.norm_histogram import BUCKETS_PER_OCTAVE, quantile

MOST_STRETCHES = 160


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One layer, group or slice in one stretch: its mean norm."""

    name: str
    norm_mean: float


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Some windows in a row. A figure is None where no step of the stretch was finite."""

    step_first: int
    step_last: int
    num_steps: int
    norm_p10: float | None
    norm_p50: float | None
    norm_p90: float | None
    norm_max: float | None
    bound: float | None
    removed_mass_ratio: float | None
    clip_rate_ratio: float | None
    coefficient_mean: float | None
    coefficient_min: float | None
    learning_rate: float
    effective_learning_rate: float | None
    loss: float | None
    groups: tuple[Part, ...] = ()
    layers: tuple[Part, ...] = ()

    @property
    def step_middle(self) -> float:
        return (self.step_first + self.step_last) / 2


class SliceShare(msgspec.Struct, frozen=True, kw_only=True):
    """What a slice had of the run's samples and of its gradient."""

    name: str
    share_of_samples: float
    share_of_mass: float
    kind: str


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run: its sums and its course."""

    num_steps: int
    num_finite: int
    num_clipped: int
    num_nonfinite: int
    num_skipped: int
    num_zero: int
    num_checked: int
    num_ineffective: int
    removed_mass_ratio: float
    clip_rate_ratio: float
    norm_p10: float | None
    norm_p50: float | None
    norm_p90: float | None
    norm_max: float | None
    optimizer: str
    clip: ClipSpec
    histogram: dict[int, int]
    stretches: tuple[Stretch, ...]
    slices: tuple[SliceShare, ...]
    spikes: tuple[Spike, ...]
    faults: tuple[Fault, ...]

    @property
    def is_by_sample(self) -> bool:
        """Whether norms, their quantiles, histogram and removed share are those of samples, not of steps."""
        return self.clip.kind == "per_sample"


def course_of(windows: Sequence[GradWindow]) -> Course:
    """The course of a run.

    Args:
        windows: All of the run, by step; at least one.
    """
    histogram = _merged(windows)
    num_finite = sum(window.num_steps - window.num_nonfinite for window in windows)
    num_clipped = sum(window.num_clipped for window in windows)
    return Course(
        num_steps=sum(window.num_steps for window in windows),
        num_finite=num_finite,
        num_clipped=num_clipped,
        num_nonfinite=sum(window.num_nonfinite for window in windows),
        num_skipped=sum(window.num_skipped for window in windows),
        num_zero=sum(window.num_zero for window in windows),
        num_checked=sum(window.num_checked for window in windows),
        num_ineffective=sum(window.num_ineffective for window in windows),
        removed_mass_ratio=_ratio(sum(w.norm_removed_sum for w in windows), sum(w.norm_sum for w in windows)) or 0.0,
        clip_rate_ratio=_ratio(num_clipped, num_finite) or 0.0,
        norm_p10=quantile(histogram, 0.1),
        norm_p50=quantile(histogram, 0.5),
        norm_p90=quantile(histogram, 0.9),
        norm_max=max((window.norm_max for window in windows), default=0.0) if num_finite else None,
        optimizer=windows[-1].optimizer,
        clip=windows[-1].clip,
        histogram=histogram,
        stretches=tuple(_stretch(some) for some in _in_stretches(windows)),
        slices=slice_shares(one for window in windows for one in window.slices),
        spikes=tuple(spike for window in windows for spike in window.spikes),
        faults=faults_of(fault for window in windows for fault in window.faults),
    )


def course_of_end(end: RunEnd) -> Course:
    """What the end of a run says of its course, where no window was kept: sums alone."""
    num_finite = end.num_steps - end.num_nonfinite
    quantiles = end.norm_quantiles
    return Course(
        num_steps=end.num_steps,
        num_finite=num_finite,
        num_clipped=round(end.clip_rate_ratio * num_finite),
        num_nonfinite=end.num_nonfinite,
        num_skipped=0,
        num_zero=0,
        num_checked=end.num_checked,
        num_ineffective=end.num_ineffective,
        removed_mass_ratio=end.removed_mass_ratio,
        clip_rate_ratio=end.clip_rate_ratio,
        norm_p10=quantiles.p10 if quantiles else None,
        norm_p50=quantiles.p50 if quantiles else None,
        norm_p90=quantiles.p90 if quantiles else None,
        norm_max=None,
        optimizer=end.optimizer,
        clip=end.clip,
        histogram={},
        stretches=(),
        slices=slice_shares(end.slice_gradients),
        spikes=(),
        faults=end.faults,
    )


def removed_by(bound: float, histogram: Mapping[int, int]) -> float | None:
    """The share of norms that a bound would have removed from these; a bucket's geometric middle stands for its norms.

    Example:
        >>> round(removed_by(2 ** 0.125, {0: 50, 4: 50}), 3)  # norms c and 2 c
        0.333
    """
    norms = [(2.0 ** ((bucket + 0.5) / BUCKETS_PER_OCTAVE), count) for bucket, count in histogram.items()]
    return _ratio(sum(count * max(0.0, norm - bound) for norm, count in norms), sum(count * norm for norm, count in norms))


def faults_of(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Each kind and layer once, at its first step, with all its steps."""
    found: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        known = found.get((fault.kind, fault.layer))
        found[fault.kind, fault.layer] = (
            fault if known is None else msgspec.structs.replace(known, num_steps=known.num_steps + fault.num_steps)
        )
    return tuple(found.values())


def thinned(rows: Sequence[Sequence[str]], most: int = 12) -> list[Sequence[str]]:
    """At most `most` of the rows, evenly spread, the first and the last among them.

    Example:
        >>> [row[0] for row in thinned([[str(i)] for i in range(100)], 4)]
        ['0', '33', '66', '99']
    """
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


def _in_stretches(windows: Sequence[GradWindow]) -> list[Sequence[GradWindow]]:
    num = min(len(windows), MOST_STRETCHES)
    edges = [round(i * len(windows) / num) for i in range(num + 1)]
    return [windows[start:end] for start, end in itertools.pairwise(edges)]


def _stretch(windows: Sequence[GradWindow]) -> Stretch:
    histogram = _merged(windows)
    num_steps = sum(window.num_steps for window in windows)
    num_finite = sum(window.num_steps - window.num_nonfinite for window in windows)
    with_rate = [window for window in windows if window.effective_learning_rate_sum > 0]
    num_with_rate = sum(window.num_steps - window.num_nonfinite for window in with_rate)
    return Stretch(
        step_first=windows[0].step_first,
        step_last=windows[-1].step_first + windows[-1].num_steps - 1,
        num_steps=num_steps,
        norm_p10=quantile(histogram, 0.1),
        norm_p50=quantile(histogram, 0.5),
        norm_p90=quantile(histogram, 0.9),
        norm_max=max(window.norm_max for window in windows) if num_finite else None,
        bound=windows[-1].max_norm_last,
        removed_mass_ratio=_ratio(sum(w.norm_removed_sum for w in windows), sum(w.norm_sum for w in windows)),
        clip_rate_ratio=_ratio(sum(window.num_clipped for window in windows), num_finite),
        coefficient_mean=_ratio(sum(window.coefficient_sum for window in windows), num_finite),
        coefficient_min=min(window.coefficient_min for window in windows) if num_finite else None,
        learning_rate=_ratio(sum(window.learning_rate_sum for window in windows), num_steps) or 0.0,
        effective_learning_rate=_ratio(sum(window.effective_learning_rate_sum for window in with_rate), num_with_rate),
        loss=_ratio(sum(window.loss_sum for window in windows), num_finite),
        groups=_parts(windows, "groups", num_finite),
        layers=_parts(windows, "layers", num_finite),
    )


def _parts(windows: Sequence[GradWindow], field: str, num_finite: int) -> tuple[Part, ...]:
    sums: dict[str, float] = {}
    for window in windows:
        for one in getattr(window, field):
            sums[one.name] = sums.get(one.name, 0.0) + one.norm_sum
    return tuple(Part(name=name, norm_mean=total / num_finite) for name, total in sums.items()) if num_finite else ()


def slice_shares(gradients: Iterable[SliceGradient]) -> tuple[SliceShare, ...]:
    """What each slice had of the samples and of the gradient, by its share of the gradient, the largest first."""
    samples: dict[str, int] = {}
    masses: dict[str, float] = {}
    kinds: dict[str, str] = {}
    for one in gradients:
        samples[one.slice] = samples.get(one.slice, 0) + one.num_samples
        masses[one.slice] = masses.get(one.slice, 0.0) + one.grad_mass_sum
        kinds[one.slice] = one.kind
    all_samples, all_mass = sum(samples.values()), sum(masses.values())
    shares = [
        SliceShare(
            name=name,
            share_of_samples=_ratio(samples[name], all_samples) or 0.0,
            share_of_mass=_ratio(masses[name], all_mass) or 0.0,
            kind=kinds[name],
        )
        for name in samples
        if samples[name]
    ]
    return tuple(sorted(shares, key=lambda one: -one.share_of_mass))


def _merged(windows: Sequence[GradWindow]) -> dict[int, int]:
    counts: dict[int, int] = {}
    for window in windows:
        for bucket, count in window.norm_histogram.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return counts


def _ratio(part: float, whole: float) -> float | None:
    ratio = part / whole if whole > 0 else None
    return ratio if ratio is not None and math.isfinite(ratio) else None
