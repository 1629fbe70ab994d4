"""What the end of a run tells: how good the model is, slice by slice; the data; what a retrain would try."""

from collections.abc import Iterable, Sequence

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.events import Membership, PrivacyBudget, RunEnd, ScoreInterval
from clipdrift_deploy.clip_report import plots
from clipdrift_deploy.clip_report.figures import Course
from clipdrift_deploy.clip_report.page import NOTHING, Chapter, Section, number, share, would_remove

_MOST_SLICES = 25
_OUTCOMES = ("stop", "warn", "pass", "skipped")
_METRICS = {
    "accuracy": "accuracy", "nll": "log loss", "brier": "Brier score", "ece": "calibration error, without the bias of few rows",
    "overconfidence": "overconfidence", "auc": "AUC", "mae": "mean absolute error", "rmse": "root mean squared error",
}  # fmt: skip


def chapters_of_end(end: RunEnd, course: Course) -> list[Chapter]:
    """Chapters of what is filled in `end`."""
    chapters = [
        Chapter(
            title="How good the model is",
            words="On held-out rows.",
            sections=(*_all_rows(end), *_slices(end), *_hidden(end), *_reliability(end), *_calibration(end)),
        ),
        Chapter(title="The data", sections=tuple(_checks(end))),
        Chapter(title="Privacy", sections=(*_budget(end.privacy), *_membership(end.membership))),
        Chapter(title="What a retrain would try", sections=tuple(_candidates(end, course))),
    ]
    return [chapter for chapter in chapters if chapter.sections]


def _all_rows(end: RunEnd) -> Iterable[Section]:
    rows = [one for one in end.intervals if one.slice == ""]
    if rows:
        yield Section(
            title="All rows together",
            heads=("figure", "value", "95 % interval", "rows", "days"),
            rows=[
                [
                    _METRICS.get(one.metric, one.metric),
                    _digits(one.value),
                    _interval(one),
                    f"{one.num_rows:,}",
                    f"{one.num_blocks:,}",
                ]
                for one in rows
            ],
        )


def _slices(end: RunEnd) -> Iterable[Section]:
    """The figure that every slice has: accuracy, or for regression an error; without intervals, a table."""
    metric = next((name for name in ("accuracy", "mae", "rmse") if any(one.metric == name for one in end.intervals)), "")
    found = sorted((one for one in end.intervals if one.metric == metric and one.slice), key=lambda one: one.value)
    if metric in ("mae", "rmse"):
        found.reverse()
    if not found:
        yield from _slices_without_intervals(end)
        return
    shown, overall = found[:_MOST_SLICES], next((one for one in end.intervals if one.metric == metric and not one.slice), None)
    more = f" The {_MOST_SLICES} worst of {len(found)}." if len(found) > _MOST_SLICES else ""
    name = _METRICS[metric]
    yield Section(
        title=f"{name.capitalize()} by slice",
        words=f"Bars are 95 % intervals over blocks of time, since errors of one day hang together.{more}",
        svg=plots.scores(
            shown,
            overall.value if overall else None,
            name,
            f"{name.capitalize()} by slice with intervals; the worst is {shown[0].slice} with {_digits(shown[0].value)}"
            + (f", all rows {_digits(overall.value)}." if overall else "."),
        ),
        heads=("slice", name, "95 % interval", "rows"),
        rows=[[one.slice, _digits(one.value), _interval(one), f"{one.num_rows:,}"] for one in shown],
    )


def _slices_without_intervals(end: RunEnd) -> Iterable[Section]:
    is_regression = any(one.absolute_error_sum for one in end.validation)
    rows = [
        [
            one.slice or "all rows",
            _digits((one.absolute_error_sum if is_regression else one.num_correct) / one.num_rows),
            NOTHING if is_regression else _digits(one.nll_sum / one.num_rows),
            f"{one.num_rows:,}",
            f"{one.num_train:,}" if one.num_train else NOTHING,
        ]
        for one in end.validation[: _MOST_SLICES + 1]
        if one.num_rows
    ]
    if rows:
        heads = ("slice", "mean absolute error" if is_regression else "accuracy", "log loss", "rows", "trained on")
        yield Section(title="By slice", words="No intervals were recorded with this run.", heads=heads, rows=rows)


def _hidden(end: RunEnd) -> Iterable[Section]:
    if end.hidden_slices:
        yield Section(
            title="Slices that the figure of all rows hides",
            words="Each is worse than all rows together by more than chance, the number of slices counted in.",
            heads=("slice", "figure", "value", "all rows", "difference, 95 %", "of rows", "in words"),
            rows=[
                [
                    one.slice,
                    _METRICS.get(one.metric, one.metric),
                    _digits(one.value),
                    _digits(one.overall),
                    f"{one.difference_low:+.3f} to {one.difference_high:+.3f}",
                    share(one.share_of_rows),
                    one.words,
                ]
                for one in end.hidden_slices
            ],
            words_columns=(0, 1, 6),
        )


def _reliability(end: RunEnd) -> Iterable[Section]:
    every = [one for one in end.reliability if one.slice == ""]
    bins = [one for one in every if one.binning == "mass"] or every
    if bins:
        furthest = max(bins, key=lambda one: abs(one.event_rate - one.probability_mean))
        yield Section(
            title="Do probabilities keep their word?",
            words="Each point is a bin of about equally many rows, with its 95 % interval. On the dashed line, what was "
            "said came true as often as was said; below it, the model says too much.",
            svg=plots.reliability(
                bins,
                f"Reliability: furthest from honest where {_digits(furthest.probability_mean)} was said and "
                f"{_digits(furthest.event_rate)} came true.",
            ),
            heads=("said", "came true", "95 % interval", "rows"),
            rows=[
                [
                    _digits(one.probability_mean),
                    _digits(one.event_rate),
                    f"{one.event_rate_low:.3f} to {one.event_rate_high:.3f}",
                    f"{one.num_rows:,}",
                ]
                for one in bins
            ],
            words_columns=(),
        )


def _calibration(end: RunEnd) -> Iterable[Section]:
    """A temperature other than 1 is part of the model, and what was measured is what it gained; else what one would gain."""
    calibration = end.calibration
    if calibration is not None:
        is_part = end.temperature != 1.0
        yield Section(
            title="What the model's temperature gained" if is_part else "What a temperature would gain",
            words=f"Scores divided by {calibration.temperature:.3g}, "
            + (
                f"as the model does, fitted on other days than those of the {calibration.num_rows:,} rows that judge here."
                if is_part
                else f"each of the {calibration.num_rows:,} rows judged by a fit on other days than its own."
            ),
            heads=("figure", *(("without it", "as it is") if is_part else ("as it is", "with temperature"))),
            rows=[
                ["log loss", _digits(calibration.nll_before), _digits(calibration.nll_after)],
                ["calibration error, of bins", _digits(calibration.ece_before), _digits(calibration.ece_after)],
            ],
        )


def _checks(end: RunEnd) -> Iterable[Section]:
    if end.data_checks:
        has_features = any(check.features for check in end.data_checks)
        yield Section(
            title="Checks before training",
            heads=("check", "outcome", "what was found", *(("features",) if has_features else ())),
            rows=[
                [
                    check.name.replace("_", " "),
                    check.outcome,
                    check.words or NOTHING,
                    *((", ".join(check.features) or NOTHING,) if has_features else ()),
                ]
                for check in sorted(end.data_checks, key=lambda check: _OUTCOMES.index(check.outcome))
            ],
            words_columns=(0, 1, 2, 3),
        )


def _budget(privacy: PrivacyBudget | None) -> Iterable[Section]:
    if privacy is not None:
        yield Section(
            title="What the run spent",
            words=f"Differentially private training, by the accountant {privacy.accountant}.",
            heads=("epsilon", "delta", "noise multiplier", "bound a sample", "sample rate", "steps"),
            rows=[
                [
                    number(privacy.epsilon),
                    number(privacy.delta),
                    number(privacy.noise_multiplier),
                    number(privacy.max_norm),
                    number(privacy.sample_rate),
                    f"{privacy.num_steps:,}",
                ]
            ],
            words_columns=(),
        )


def _membership(membership: Membership | None) -> Iterable[Section]:
    if membership is not None:
        yield Section(
            title="Can it be told what was trained on?",
            words="How well the loss tells rows that were trained on from rows that were not: an AUC of 0.5 is not at all.",
            heads=("AUC", "95 % interval", "found at 1 % false alarms", "trained on", "others"),
            rows=[
                [
                    _digits(membership.auc),
                    f"{membership.auc_low:.3f} to {membership.auc_high:.3f}",
                    share(membership.tpr_at_fpr_1),
                    f"{membership.num_members:,}",
                    f"{membership.num_others:,}",
                ]
            ],
            words_columns=(),
        )


def _candidates(end: RunEnd, course: Course) -> Iterable[Section]:
    if end.candidates:
        yield Section(
            title="",
            words="A retrain trains each of these on the same data and seeds and takes the best, if it beats the model in "
            "service. Nothing here says which that will be.",
            heads=("name", "policy", "would have removed here", "where it comes from"),
            rows=[
                [arm.name, describe_clip(arm.clip, digits=4), would_remove(arm.clip, course), arm.provenance or NOTHING]
                for arm in end.candidates
            ],
            words_columns=(0, 1, 3),
        )


def accuracy_words(end: RunEnd) -> Sequence[tuple[str, str]]:
    """The validation figure of all rows, for the top of the page."""
    overall = next((one for one in end.validation if one.slice == "" and one.num_rows), None)
    if overall is None:
        return ()
    if overall.absolute_error_sum:
        return ((number(overall.absolute_error_sum / overall.num_rows), "mean absolute error, held-out rows"),)
    return ((f"{overall.num_correct / overall.num_rows:.3f}", "accuracy, held-out rows"),)


def _interval(one: ScoreInterval) -> str:
    """Nothing from one day: such an interval spans all that is possible."""
    return f"{_digits(one.low)} to {_digits(one.high)}" if one.num_blocks > 1 else NOTHING


def _digits(value: float) -> str:
    """
    Example:
        >>> _digits(0.8123), _digits(12.345)
        ('0.812', '12.3')
    """
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"
