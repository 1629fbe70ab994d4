"""The probe: what training would see today on recent rows, beside what it sees on the model's own training data.

It foretells how a training goes on from these weights, not how one from new weights goes (figures: docs/design/trainer.md).
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from torch import nn

from clipdrift_contract.events import ClipSpec, GradProbe, GradWindow, ProbedSlice
from clipdrift_contract.norm_histogram import quantile
from clipdrift_trainer.clipping.rules import Clipper, make_clipper
from clipdrift_trainer.probing.norms import BatchNorms, measure_batches
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.tasks.task import Rows, Task

_ALL = ""
_FIRST_STEPS = 100  # of the retrain that the probe is compared with


class ProbeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured."""

    num_batches: int = 50
    """Batches of all rows together."""
    num_slice_batches: int = 10
    """Batches of one slice alone."""
    most_slices: int = 12
    """The slices with the most recent rows are measured, so many."""
    min_slice_rows: int = 30
    """A slice with fewer rows is left out: its batches would be the same rows again and again."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)!r}")


def probe_gradients(
    task: Task,
    module: nn.Module,
    *,
    recent: Rows,
    trained: Rows,
    vocabularies: Mapping[str, tuple[str, ...]],
    clip: ClipSpec,
    model: str = "",
    version: str = "",
    at_ms: int = 0,
    seed: int = 0,
    config: ProbeConfig | None = None,
) -> GradProbe:
    """Gradient norms of `module` on recent rows and on the rows that it was trained on, and what `clip` would do to them.

    Batches are as large as in training; no optimizer step is taken. A rule whose bound follows the run first sees the batches
    of the training rows, since its state at the end of that training is not kept. A slice's batches hold rows of it alone.

    Args:
        task: Whose loss and batch size count.
        module: The fitted module; left as it was.
        recent: Labelled rows of today.
        trained: Rows that the module was trained on.
        vocabularies: Those that the module was built with.
        clip: The rule in service.
        model: For the record, like `version` and `at_ms`.
        version: See `model`.
        at_ms: When it is measured.
        seed: Of the batches.
        config: How much is measured.

    Raises:
        ValueError: A set has no rows, or the rule needs more than gradients (per_sample).
    """
    config = config or ProbeConfig()
    clipper = make_clipper(clip)
    chosen = _slices(task, recent, trained, config)

    def measure(rows: Rows) -> tuple[ProbedSlice, ...]:
        norms = measure_batches(task, module, rows, vocabularies, clipper, num_batches=config.num_batches, seed=seed)
        found = [_probed(_ALL, rows, norms)]
        learned = clipper.state_dict()
        for index, name in chosen:
            some = rows.select(slice_index(task, rows) == index)
            alone = _with_state(clip, learned)  # what one slice looks like must not move the bound for the next
            norms = measure_batches(task, module, some, vocabularies, alone, num_batches=config.num_slice_batches, seed=seed)
            found.append(_probed(name, some, norms))
        return tuple(found)

    of_trained = measure(trained)
    of_recent = measure(recent)
    assert clipper.last is not None
    bound = float(clipper.last.bound)
    return GradProbe(
        model=model, version=version, at_ms=at_ms, clip=clip, max_norm=bound if np.isfinite(bound) else None,
        batch_size=task.batch_size, recent=of_recent, trained=of_trained, words=_words(of_recent[0], of_trained[0], task),
    )  # fmt: skip


def with_seen(probe: GradProbe, windows: Sequence[GradWindow]) -> GradProbe:
    """The probe with what the windows of a training's first 100 steps showed; as it was where they showed no finite gradient.

    Args:
        probe: What was foretold.
        windows: Of the training that followed, with the same rule.
    """
    first = [window for window in windows if window.step_first < _FIRST_STEPS]
    num_finite = sum(window.num_steps - window.num_nonfinite for window in first)
    norm_sum = sum(window.norm_sum for window in first)
    if not num_finite or not norm_sum > 0:
        return probe
    return msgspec.structs.replace(
        probe,
        seen_norm_p50=median_norm(first),
        seen_would_clip_ratio=sum(window.num_clipped for window in first) / num_finite,
        seen_removed_mass_ratio=sum(window.norm_removed_sum for window in first) / norm_sum,
    )


def median_norm(windows: Sequence[GradWindow]) -> float:
    """The median of the norms by their histograms, evenly spread within a bucket; right to 9 %. 0 for no norm.

    Example:
        >>> window = GradWindow(run_id="", model="", started_at_ms=0, ended_at_ms=0, step_first=0, num_steps=3, num_clipped=0,
        ...                     norm_histogram={0: 1, 4: 1, 8: 1})
        >>> round(median_norm([window]), 3)  # half through the bucket from 2 to 2.378
        2.181
    """
    counts: dict[int, int] = {}
    for window in windows:
        for bucket, count in window.norm_histogram.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return quantile(counts, 0.5) or 0.0


def _slices(task: Task, recent: Rows, trained: Rows, config: ProbeConfig) -> list[tuple[int, str]]:
    """Index and name of the slices to measure: enough rows in both sets, the most frequent today first."""
    if task.slices is None:
        return []
    names = slice_names(task)
    recent_K, trained_K = (np.bincount(slice_index(task, rows), minlength=len(names)) for rows in (recent, trained))
    order = np.argsort(-recent_K, kind="stable")[: config.most_slices]
    return [(int(k), names[k]) for k in order if min(recent_K[k], trained_K[k]) >= config.min_slice_rows]


def _with_state(clip: ClipSpec, state: dict[str, object]) -> Clipper:
    clipper = make_clipper(clip)
    clipper.load_state_dict(state)
    return clipper


def _probed(name: str, rows: Rows, norms: BatchNorms) -> ProbedSlice:
    return ProbedSlice(
        slice=name,
        num_rows=len(rows),
        num_batches=len(norms.before_S),
        norm_p10=norms.quantile(0.1),
        norm_p50=norms.quantile(0.5),
        norm_p90=norms.quantile(0.9),
        would_clip_ratio=norms.would_clip_ratio,
        removed_mass_ratio=norms.removed_mass_ratio,
    )


def _words(recent: ProbedSlice, trained: ProbedSlice, task: Task) -> str:
    times = f"{recent.norm_p50 / trained.norm_p50:.2f} times" if trained.norm_p50 > 0 else "against none,"
    return (
        f"the median gradient of a batch of {task.batch_size} is {recent.norm_p50:.3g} on recent rows, {times} that on its own "
        f"training data; the rule in service would clip {recent.would_clip_ratio:.0%} of recent batches "
        f"({trained.would_clip_ratio:.0%} of its own) and remove {recent.removed_mass_ratio:.0%} of their gradient "
        f"({trained.removed_mass_ratio:.0%}); measured in eval mode, without a step: so a training would begin that goes on "
        "from these weights, one from new weights need not"
    )
