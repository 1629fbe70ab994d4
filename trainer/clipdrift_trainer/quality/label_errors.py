"""Labels that are probably wrong."""

import importlib.util
from typing import Literal

import msgspec
import numpy as np

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.quality.confident import label_issues, noise_by_class, plateau
from clipdrift_trainer.quality.cross_fitting import by_linear_model, by_own_model, cross_fit
from clipdrift_trainer.quality.finding import Finding, level_of, skipped
from clipdrift_trainer.quality.intervals import wilson
from clipdrift_trainer.quality.table import Floats, Ints, Table, evenly_spaced

_MIN_ROWS = 200
_MOST_WRONG = 0.35  # a model that is wrong more often cannot call a label wrong
_FLAT = 0.5  # least ratio of the disagreement among the surest tenth of the rows to that among the surer half
_GROSS = 10.0  # robust standard deviations; of a t distribution with 3 degrees of freedom .15 % lie beyond


class LabelErrorsPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Confident learning: a model is trained on some days and judges the labels of the others."""

    enabled: bool = False
    """It trains `num_folds` small models, so a training leaves it out; `clipdrift check-data --labels` switches it on."""
    model: Literal["own", "linear"] = "own"
    """Whose scores judge: the task's own model, or a linear one that takes fractions of a second."""
    max_steps: int = 300
    """Optimizer steps of each fold's own model, at most."""
    num_folds: int = 3
    """Parts into which the days are dealt out."""
    max_rows: int = 10_000
    """Judged rows, evenly spaced over the window."""
    finder: Literal["auto", "clipdrift", "cleanlab"] = "auto"
    """Who picks the rows: cleanlab where the extra `labels` is installed (auto), or one of the two."""
    warn_share: float = 0.02
    """Share of wrong labels, by the lower end of its 95 % interval, from which on it warns."""
    stop_share: float = 0.2
    """Share from which on it stops, in mode enforce."""

    def __post_init__(self) -> None:
        if self.num_folds < 2 or self.max_steps < 1 or self.max_rows < 1:
            raise ValueError(
                "label_errors needs num_folds >= 2, max_steps >= 1 and max_rows >= 1, "
                f"got {self.num_folds!r}, {self.max_steps!r}, {self.max_rows!r}"
            )
        if not 0 < self.warn_share <= self.stop_share <= 1:
            raise ValueError(
                f"label_errors needs 0 < warn_share <= stop_share <= 1, got {self.warn_share!r} and {self.stop_share!r}"
            )


def check_label_errors(table: Table, policy: LabelErrorsPolicy, clip: ClipSpec | None = None) -> Finding:
    """Rows are named in any case; it warns only where wrong labels explain the disagreement.

    A label that disagrees with a sure model is wrong, or the outcome was chance. Where labels are wrong at random, the surer
    half of the rows disagrees as often as the surest tenth; where outcomes are chance, as with late flights, or where the model
    errs, the surest tenth disagrees less. A model that is hardly better than the most frequent class judges nobody.

    Source: Northcutt, Jiang, Chuang 2021 (JAIR 70, arXiv 1911.00068); the flatness is ours.
    """
    if len(table) < _MIN_ROWS:
        return skipped(f"fewer than {_MIN_ROWS} rows")
    rows = evenly_spaced(len(table), policy.max_rows)
    if clip is None or clip.kind == "per_sample":  # slow, and a budget of privacy is for the run alone
        clip = ClipSpec()
    predict = by_linear_model if policy.model == "linear" else by_own_model(clip, policy.max_steps)
    scores = cross_fit(table, rows, policy.num_folds, predict)
    if not np.isfinite(scores).all():
        return skipped("the model diverged; its scores are no numbers")
    label = table.rows.label[rows]
    if table.task.kind == "regression":
        return judge_residuals(scores[:, 0] - label, rows, policy)
    return judge_classes(scores, label.astype(np.int64), rows, table.task.classes, policy)


def judge_classes(scores_NK: Floats, label_N: Ints, rows: Ints, names: tuple[str, ...], policy: LabelErrorsPolicy) -> Finding:
    """The finding for out-of-sample scores.

    Args:
        scores_NK: Class probabilities.
        label_N: Given labels.
        rows: What the rows are called in the finding.
        names: Of the classes.
        policy: Thresholds.
    """
    error_rate = float((scores_NK.argmax(axis=1) != label_N).mean())
    most_wrong = _MOST_WRONG * float(1 - (np.bincount(label_N) / len(label_N)).max()) / 0.5
    if error_rate > min(_MOST_WRONG, most_wrong):
        return skipped(f"the model itself is wrong on {error_rate:.0%} of the rows: it cannot tell which labels are")
    issues = _find(scores_NK, label_N, policy)
    half, _, tenth = plateau(scores_NK, label_N)
    share_low, share_high = wilson(half[1], half[0])
    share = half[1] / max(1, half[0])
    is_flat = wilson(tenth[1], tenth[0])[1] >= share and tenth[1] / max(1, tenth[0]) >= _FLAT * share
    figures = {
        "num_rows": float(len(label_N)), "num_issues": float(len(issues)), "noise_rate": share, "noise_rate_low": share_low,
        "noise_rate_high": share_high, "model_error_rate": error_rate,
    }  # fmt: skip
    for name, (num_rows, num_found) in zip(names, noise_by_class(issues, label_N, len(names)), strict=True):
        low, high = wilson(num_found, num_rows)
        figures |= {f"rate_{name}": num_found / max(1, num_rows), f"rate_{name}_low": low, f"rate_{name}_high": high}
    if not is_flat or share_low < policy.warn_share:
        why = "" if is_flat else ", fewer where the model is surer: chance or its own mistakes, not wrong labels"
        return Finding(
            level="pass",
            words=f"{share:.1%} of the labels disagree with a sure model{why}; the least credible rows are named",
            figures=figures, rows=rows[issues],
        )  # fmt: skip
    return Finding(
        level=level_of(share_low, policy.warn_share, policy.stop_share),
        words=f"about {share:.1%} of the labels are wrong (95 % interval {share_low:.1%} to {share_high:.1%}); look at the "
        "named rows first, correct them or leave them out",
        figures=figures,
        rows=rows[issues],
    )


def judge_residuals(residual_N: Floats, rows: Ints, policy: LabelErrorsPolicy) -> Finding:
    """The finding for a regression: values further than ten robust standard deviations from what the model expects."""
    middle = float(np.median(residual_N))
    scale = 1.4826 * float(np.median(np.abs(residual_N - middle)))
    distance_N = np.abs(residual_N - middle) / (scale if scale > 0 else float(residual_N.std()) or 1.0)
    gross = np.flatnonzero(distance_N > _GROSS)
    gross = gross[np.argsort(-distance_N[gross], kind="stable")]
    share, (low, high) = len(gross) / max(1, len(rows)), wilson(len(gross), len(rows))
    figures = {"share": share, "share_low": low, "share_high": high, "robust_deviation": scale}
    words = f"{share:.2%} of the labels lie further than {_GROSS:g} robust deviations from what the model expects"
    level = level_of(low, policy.warn_share / 4, policy.stop_share)
    if level == "pass":
        return Finding(level="pass", words=words, figures=figures, rows=rows[gross])
    return Finding(level=level, words=f"{words}; look at the named rows first", figures=figures, rows=rows[gross])


def _find(scores_NK: Floats, label_N: Ints, policy: LabelErrorsPolicy) -> Ints:
    is_installed = importlib.util.find_spec("cleanlab") is not None
    if policy.finder == "cleanlab" and not is_installed:
        raise ValueError("label_errors.finder is cleanlab, which is not installed: pip install 'clipdrift[labels]'")
    has_all_classes = bool((np.bincount(label_N, minlength=scores_NK.shape[1]) > 0).all())
    if policy.finder == "clipdrift" or not is_installed or not has_all_classes:
        return label_issues(scores_NK, label_N)
    from clipdrift_trainer.quality.cleanlab_issues import cleanlab_issues  # noqa: PLC0415  an extra

    return cleanlab_issues(scores_NK, label_N)
