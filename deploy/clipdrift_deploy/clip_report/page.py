"""What stands on the page: chapters of sections, each a picture with a table of the same figures beside it."""

from collections.abc import Callable, Sequence

import msgspec

from clipdrift_contract.clipping import percent
from clipdrift_contract.events import ClipSpec
from clipdrift_deploy.clip_report import plots
from clipdrift_deploy.clip_report.figures import Course, Part, Stretch, removed_by, thinned
from clipdrift_deploy.clip_report.verdict import ADVICE

Cells = Callable[[Stretch], Sequence[str]]
NOTHING = "–"
_MOST_SLICES = 25
_MOST_SPIKES = 30


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table, and the picture of it where there is one."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    words: str = ""
    svg: str = ""
    words_columns: tuple[int, ...] = (0,)


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    sections: tuple[Section, ...]
    words: str = ""


def chapters_of(course: Course) -> list[Chapter]:
    """What windows tell: what clipping did, where in the model, on which rows, and what was wrong."""
    chapters = [
        Chapter(title="What was wrong", sections=tuple(_faults(course))),
        Chapter(title="What clipping did", sections=tuple(_course(course)) if course.stretches else ()),
        Chapter(title="Where in the model", sections=(*_groups(course), *_layers(course))),
        Chapter(title="On which rows", sections=(*_slices(course), *_spikes(course))),
    ]
    return [chapter for chapter in chapters if chapter.sections]


def tiles_of(course: Course) -> list[tuple[str, str]]:
    """The figures at the top; removed mass first."""
    by_sample = course.is_by_sample
    tiles = [
        (percent(course.removed_mass_ratio), f"of {'samples’ gradient norms' if by_sample else 'the gradient norm'} removed"),
        (
            percent(course.clip_rate_ratio),
            "of the steps had a sample clipped" if by_sample else "of the steps clipped (says little by itself)",
        ),
        (number(course.norm_p50), f"median norm{' of a sample’s gradient' if by_sample else ''} before clipping"),
        (f"{course.num_steps:,}", "steps"),
    ]
    if course.num_nonfinite:
        tiles.append((f"{course.num_nonfinite:,}", "steps not finite"))
    if course.num_skipped:
        tiles.append((f"{course.num_skipped:,}", "steps skipped by the loss scaler"))
    return tiles


def number(value: float | None) -> str:
    """Three digits, or a whole number in the thousands.

    Example:
        >>> number(1234.5), number(0.000123), number(2.5e7), number(None)
        ('1,234', '0.000123', '2.5e+07', '–')
    """
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1_000_000 else f"{value:.3g}"


def share(value: float | None) -> str:
    """
    Example:
        >>> share(0.256), share(None)
        ('26 %', '–')
    """
    return NOTHING if value is None else percent(value)


def would_remove(clip: ClipSpec, course: Course) -> str:
    """What a fixed bound of the norm would have removed from this run's norms; nothing where that cannot be said."""
    if clip.kind != "global_norm" or clip.max_norm is None or not course.histogram:
        return NOTHING
    return share(removed_by(clip.max_norm, course.histogram))


def _course(course: Course) -> list[Section]:
    first, last = course.stretches[0], course.stretches[-1]
    return [
        Section(
            title="Norms and the bound",
            words=f"The {'norm of each sample’s gradient' if course.is_by_sample else 'gradient’s norm'} before clipping. "
            "What lies above the bound is cut down to it.",
            svg=plots.norms(
                course,
                f"Norms over {course.num_steps:,} steps: median {number(first.norm_p50)} at first, {number(last.norm_p50)} at "
                f"the end, largest {number(course.norm_max)}; bound {number(last.bound)} at the end.",
            ),
            heads=("steps", "p10", "median", "p90", "largest", "bound"),
            rows=_rows(course, lambda s: [number(v) for v in (s.norm_p10, s.norm_p50, s.norm_p90, s.norm_max, s.bound)]),
        ),
        Section(
            title="How much was removed",
            words="The share of the norm that clipping took away is what counts. The share of steps that were clipped says "
            "little: "
            + ("one clipped sample makes a step count." if course.is_by_sample else "all may be clipped, and nothing lost."),
            svg=plots.shares(
                course,
                f"Norm removed: {share(first.removed_mass_ratio)} at first, {share(last.removed_mass_ratio)} at the end. "
                f"Steps clipped: {share(first.clip_rate_ratio)} at first, {share(last.clip_rate_ratio)} at the end.",
            ),
            heads=("steps", "norm removed", "steps clipped"),
            rows=_rows(course, lambda s: [share(s.removed_mass_ratio), share(s.clip_rate_ratio)]),
        ),
        Section(
            title="The factor on the gradient",
            words="What clipping multiplied gradients with; 1 is not clipped.",
            svg=plots.coefficients(
                course, f"Mean factor {number(first.coefficient_mean)} at first, {number(last.coefficient_mean)} at the end."
            ),
            heads=("steps", "mean", "smallest"),
            rows=_rows(course, lambda s: [number(s.coefficient_mean), number(s.coefficient_min)]),
        ),
        _rates(course, first, last),
        Section(
            title=f"All {'samples’ ' if course.is_by_sample else ''}norms of the run",
            words="By quarter octaves: each bar is 19 % wider than the one before.",
            svg=plots.histogram(
                course,
                f"Distribution of the norms of all {_counted(course)}: 10 % below {number(course.norm_p10)}, half below "
                f"{number(course.norm_p50)}, 90 % below {number(course.norm_p90)}.",
            ),
            heads=("norm up to", f"% of {_counted(course)}"),
            rows=_histogram_rows(course),
            words_columns=(),
        ),
        Section(
            title="Training loss",
            svg=plots.losses(course, f"Training loss: {number(first.loss)} at first, {number(last.loss)} at the end."),
            heads=("steps", "loss"),
            rows=_rows(course, lambda s: [number(s.loss)]),
        ),
    ]


def _rates(course: Course, first: Stretch, last: Stretch) -> Section:
    has_effective = any(stretch.effective_learning_rate is not None for stretch in course.stretches)
    words = (
        "Clipping by a common factor is a smaller learning rate for that step. An adaptive optimizer divides the factor out."
    )
    return Section(
        title="Learning rate",
        words=words if has_effective else "The learning rate that was set; what clipping left of it was not recorded.",
        svg=plots.rates(
            course,
            f"Learning rate {number(first.learning_rate)} at first, {number(last.learning_rate)} at the end; times the factor "
            f"of clipping {number(first.effective_learning_rate)} and {number(last.effective_learning_rate)}.",
        ),
        heads=("steps", "set", "times factor"),
        rows=_rows(course, lambda s: [number(s.learning_rate), number(s.effective_learning_rate)]),
    )


def _counted(course: Course) -> str:
    return "samples" if course.is_by_sample else "steps"


def _histogram_rows(course: Course) -> list[list[str]]:
    """By octaves: sixteen times coarser tables are read, finer ones are not."""
    octaves: dict[int, int] = {}
    for bucket, count in course.histogram.items():
        octaves[bucket // 4] = octaves.get(bucket // 4, 0) + count
    total = max(1, sum(octaves.values()))
    return [[number(2.0 ** (octave + 1)), f"{100 * octaves[octave] / total:.1f}"] for octave in sorted(octaves)]


def _groups(course: Course) -> list[Section]:
    table = _parts_table([stretch.groups for stretch in course.stretches])
    if not table:
        return []
    return [
        Section(
            title="Groups of layers",
            words="A group whose norm is far above the others' decides what everything is clipped by.",
            svg=plots.groups(
                course, "Mean norm of each group of layers over the steps; first and last values are in the table."
            ),
            heads=("group", "at first", "at the end", "largest"),
            rows=table,
        )
    ]


def _layers(course: Course) -> list[Section]:
    table = _parts_table([stretch.layers for stretch in course.stretches])
    if not table:
        return []
    kept = set(plots.loudest_layers(course))
    more = f" The {plots.MOST_LAYERS} loudest of {len(table)} tensors." if len(table) > plots.MOST_LAYERS else ""
    return [
        Section(
            title="Every layer over time",
            words=f"Light is a large norm, dark a small one; a blank has none.{more}",
            svg=plots.heat_map(course, "Mean norm of each tensor over the steps; first and last values are in the table."),
            heads=("tensor", "at first", "at the end", "largest"),
            rows=[row for row in table if row[0] in kept],
        )
    ]


def _parts_table(courses: Sequence[Sequence[Part]]) -> list[list[str]]:
    """First, last and largest mean norm by name."""
    series: dict[str, list[float]] = {}
    for parts in courses:
        for part in parts:
            series.setdefault(part.name, []).append(part.norm_mean)
    return [[name, number(norms[0]), number(norms[-1]), number(max(norms))] for name, norms in series.items()]


def _slices(course: Course) -> list[Section]:
    if not course.slices:
        return []
    shown = course.slices[:_MOST_SLICES]
    top = shown[0]
    is_exact = all(one.kind == "exact" for one in shown)
    measured = (
        "Measured exactly, over all parameters."
        if is_exact
        else "Measured at the head layer: it ranks slices, its size says nothing."
    )
    more = f" The {_MOST_SLICES} largest of {len(course.slices)}." if len(course.slices) > _MOST_SLICES else ""
    return [
        Section(
            title="Slices by their part of the gradient",
            words="A slice with far more of the gradient than of the samples is hard to learn, or its labels are noisy. "
            f"{measured}{more}",
            svg=plots.slice_shares(
                shown,
                f"Share of samples and of the gradient by slice; {top.name} has the largest part of the gradient, "
                f"{share(top.share_of_mass)}, with {share(top.share_of_samples)} of the samples.",
            ),
            heads=("slice", "of samples", "of gradient", "ratio"),
            rows=[
                [
                    one.name,
                    share(one.share_of_samples),
                    share(one.share_of_mass),
                    number(one.share_of_mass / one.share_of_samples if one.share_of_samples else None),
                ]
                for one in shown
            ],
        )
    ]


def _spikes(course: Course) -> list[Section]:
    largest = sorted(course.spikes, key=lambda spike: float("inf") if spike.norm is None else spike.norm, reverse=True)
    shown = sorted(largest[:_MOST_SPIKES], key=lambda spike: spike.step)
    if not shown:
        return []
    more = f" The {_MOST_SPIKES} largest of {len(course.spikes):,}." if len(course.spikes) > _MOST_SPIKES else ""
    return [
        Section(
            title="Spikes",
            words=f"Steps whose norm stood out. Look at their batches first: a few rows are often behind them.{more}",
            heads=("step", "norm", "typical", "times", "layer with the largest part", "batch"),
            rows=[
                [
                    f"{spike.step:,}",
                    "not finite" if spike.norm is None else number(spike.norm),
                    number(spike.typical_norm),
                    number(spike.norm / spike.typical_norm if spike.norm and spike.typical_norm else None),
                    spike.layer,
                    spike.batch_id or NOTHING,
                ]
                for spike in shown
            ],
            words_columns=(4, 5),
        )
    ]


def _faults(course: Course) -> list[Section]:
    if not course.faults:
        return []
    return [
        Section(
            title="",
            heads=("fault", "first step", "steps", "layer", "what was seen", "what to do"),
            rows=[
                [
                    fault.kind.replace("_", " "),
                    f"{fault.step:,}",
                    f"{fault.num_steps:,}",
                    fault.layer or NOTHING,
                    fault.words or NOTHING,
                    ADVICE[fault.kind],
                ]
                for fault in course.faults
            ],
            words_columns=(0, 3, 4, 5),
        )
    ]


def _rows(course: Course, cells: Cells) -> list[Sequence[str]]:
    rows = [[_steps(stretch), *cells(stretch)] for stretch in course.stretches]
    return thinned(rows)


def _steps(stretch: Stretch) -> str:
    return f"{stretch.step_first:,}\u2060–\u2060{stretch.step_last:,}"  # joined: no line breaks there
