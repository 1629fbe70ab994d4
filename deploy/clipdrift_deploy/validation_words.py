"""What a finished training says of its model, in a few lines for the terminal."""

from clipdrift_contract.events import RunEnd, ScoreInterval

_WORTH_A_WORD = 0.005  # nats a row that a temperature must gain before anybody is told of it


def validation_words(run: RunEnd) -> str:
    """The figure of all held-out rows with its interval; below it slices that this figure hides, what a temperature gained or
    would gain, why weights are 8-bit or are not, and what was spent of privacy."""
    lines = [
        f"{_figure(run)} on {run.validation[0].num_rows:,} held-out rows",
        *(f"hidden: {one.words}" for one in run.hidden_slices),
        *_calibration(run),
        *([f"stored as {run.precision}: {run.precision_words}"] if run.precision_words else []),
        *_privacy(run),
    ]
    return "\n".join(lines)


def _figure(run: RunEnd) -> str:
    overall, num_rows = run.validation[0], max(1, run.validation[0].num_rows)
    if run.profile is not None and run.profile.task == "regression":
        return f"mean absolute error {overall.absolute_error_sum / num_rows:.4g}{_interval(run, 'mae', '.4g')}"
    return f"accuracy {overall.num_correct / num_rows:.3f}{_interval(run, 'accuracy', '.3f')}"


def _interval(run: RunEnd, metric: str, form: str) -> str:
    """Nothing where days are too few: an interval that spans all is no news."""
    found: ScoreInterval | None = next((one for one in run.intervals if not one.slice and one.metric == metric), None)
    return f" [{found.low:{form}}, {found.high:{form}}]" if found is not None and found.num_blocks > 1 else ""


def _calibration(run: RunEnd) -> list[str]:
    found = run.calibration
    if found is not None and run.clip.kind == "per_sample" and run.temperature != 1.0:
        return [
            f"clipping by sample spoils probabilities; a temperature of {found.temperature:.2f} takes the calibration error "
            f"from {found.ece_before:.3f} to {found.ece_after:.3f} on days that it was not fitted on"
        ]
    if found is None or run.temperature != 1.0 or found.nll_before - found.nll_after < _WORTH_A_WORD:
        return []
    return [
        f"its probabilities could be better: a temperature of {found.temperature:.2f} takes the log loss from "
        f"{found.nll_before:.4f} to {found.nll_after:.4f} on days that it was not fitted on (calibrate = true in [training])"
    ]


def _privacy(run: RunEnd) -> list[str]:
    budget, attack = run.privacy, run.membership
    words = []
    if budget is not None:
        words.append(f"private: epsilon {budget.epsilon:.2f} at delta {budget.delta:.1e} for one row, by {budget.accountant}")
    if attack is not None:
        words.append(
            f"membership by the loss: AUC {attack.auc:.3f} [{attack.auc_low:.3f}, {attack.auc_high:.3f}] (0.5 is a guess), "
            f"{attack.tpr_at_fpr_1:.1%} found at 1 % false alarms"
        )
    return words
