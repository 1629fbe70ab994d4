"""What labels that came after a window was judged change in what was said of it."""

import msgspec

from clipdrift_monitor.windows.view import View

_MATERIAL_SHARE = 0.1  # of the mean absolute error, for values


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """A judged window seen again. What the tests of harm said stands: labels are evidence once, and in order."""

    corrected_at_ms: int  # event time at which the newest of the labels was known
    before: View  # as it was told last
    after: View  # as it is
    num_late_labels: int  # that came since it was judged
    told: View | None = None  # the newest figures that a correction was told of; None: none changed what was said
    words: str = ""  # of that correction


def correct(judged: View, known: Correction | None, seen: View, at_ms: int, min_label_share: float) -> Correction | None:
    """The correction of a window that was judged on `judged` and shows `seen` now; None where nothing has changed.

    Its `told` is `seen` where that differs from what was said last by more than chance or than a tenth: then it is to be told.

    Args:
        judged: Figures that the window was judged on.
        known: An earlier correction of it.
        seen: Figures now.
        at_ms: Event time now.
        min_label_share: Below this maturity a window counts as hardly labelled.

    Example:
        >>> def figures(n, right): return View(num_predictions=100, num_labels=n, num_correct=right, accuracy=right / n,
        ...     accuracy_low=right / n - 0.1, accuracy_high=right / n + 0.1, maturity=n / 100)
        >>> correct(figures(60, 48), None, figures(100, 65), 0, 0.5).words
        'Accuracy is 65.0 % by 100 labels; it was told as 80.0 % (70.0 % to 90.0 %) by 60.'
    """
    if seen.num_labels <= (judged if known is None else known.after).num_labels:
        return known
    said = judged if known is None or known.told is None else known.told
    words = _words(said, seen, min_label_share)
    return Correction(
        corrected_at_ms=at_ms,
        before=said,
        after=seen,
        num_late_labels=seen.num_labels - judged.num_labels,
        told=seen if words else (known.told if known is not None else None),
        words=words or (known.words if known is not None else ""),
    )


def _words(said: View, seen: View, min_label_share: float) -> str:
    """In what the statement has changed; empty where it stands."""
    if said.accuracy is not None and seen.accuracy is not None:
        low, high = said.accuracy_low or 0.0, 1.0 if said.accuracy_high is None else said.accuracy_high
        if not low <= seen.accuracy <= high:
            return (
                f"Accuracy is {seen.accuracy:.1%} by {seen.num_labels} labels; "
                f"it was told as {said.accuracy:.1%} ({low:.1%} to {high:.1%}) by {said.num_labels}."
            ).replace("%", " %")
    elif seen.accuracy is not None:
        return f"Accuracy is {seen.accuracy:.1%} by {seen.num_labels} labels; there were none.".replace("%", " %")
    if said.mean_absolute_error is not None and seen.mean_absolute_error is not None:
        if abs(seen.mean_absolute_error - said.mean_absolute_error) > _MATERIAL_SHARE * said.mean_absolute_error:
            return (
                f"The mean absolute error is {seen.mean_absolute_error:.4g} by {seen.num_labels} labels; "
                f"it was told as {said.mean_absolute_error:.4g} by {said.num_labels}."
            )
    elif seen.mean_absolute_error is not None:
        return f"The mean absolute error is {seen.mean_absolute_error:.4g} by {seen.num_labels} labels; there were none."
    if (said.maturity or 0.0) < min_label_share <= (seen.maturity or 0.0):
        return f"{seen.maturity:.0%} of the predictions have a label now; it was {said.maturity or 0.0:.0%}.".replace("%", " %")
    return ""
