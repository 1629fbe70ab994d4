"""A retrain as Markdown, for the page that a CI shows of a run: it draws no pictures from files, so the plots are text."""

import math
from collections.abc import Sequence

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.events import ArmResult, Contrast, RetrainOutcome, RetrainRequest
from clipdrift_deploy.gate_report.rows import CheckRow, check_rows

_SIGNS = {"pass": "✅", "fail": "❌", "inconclusive": "⚠️", "unreachable": "⚠️"}
_WORDS = {
    "pass": "the candidate may go into service",
    "fail": "the candidate stays out: it did not show what it must",
    "inconclusive": "nothing is decided: too little could be measured",
}
_ESCAPED = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;", "`": "'", "[": "&#91;", "!": "&#33;"})
_WIDTH = 41  # characters of a plot, odd so that zero has one of its own
_MAX_SLICES = 30


def summary(request: RetrainRequest, outcome: RetrainOutcome) -> str:
    """Verdict, reasons, the gate's checks, slices and arms of a retrain as Markdown."""
    lines = [
        f"## Retrain of {_safe(outcome.model)}: {_SIGNS[outcome.verdict]} {outcome.verdict}",
        "",
        f"{_WORDS[outcome.verdict].capitalize()}. {_safe('; '.join(outcome.reasons))}",
        "",
        f"Ordered because: {_safe(request.cause)}. Model in service: {_safe(request.champion_version)}, candidate: "
        f"{_safe(outcome.candidate_version) or 'none'}. Key `{_safe(request.key)}`, attempt {outcome.attempt}. "
        f"{outcome.wall_seconds:.0f} s, {outcome.cpu_seconds:.0f} s of CPU time.",
    ]
    lines += _of_checks(check_rows(outcome.checks))
    lines += _of_slices(outcome)
    lines += _of_arms(outcome)
    return "\n".join(lines) + "\n"


def interval_plot(low: float, value: float, high: float, reach: float) -> str:
    """One line of text: `|` is zero in the middle, the ends are -reach and +reach, `●` the value, `─` its interval.

    What lies beyond an end is drawn at it. A figure that is NaN gives an empty line.

    Example:
        >>> interval_plot(-0.5, 0.0, 1.0, reach=1.0).strip()
        '──────────●────────────────────'
    """
    if not all(map(math.isfinite, (low, value, high, reach))) or reach <= 0:
        return " " * _WIDTH
    middle = _WIDTH // 2

    def place(figure: float) -> int:
        return middle + round(max(-1.0, min(1.0, figure / reach)) * middle)

    drawn = [" "] * _WIDTH
    drawn[middle] = "|"
    for at in range(place(low), place(high) + 1):
        drawn[at] = "─"
    drawn[place(value)] = "●"
    return "".join(drawn)


def _of_checks(rows: Sequence[CheckRow]) -> list[str]:
    if not rows:
        return []
    head = ["", "### Gate", "", "| | check | measured | allowed | on | |", "|---|---|---|---|---|---|"]
    return head + [
        f"| {_SIGNS[row.outcome]} | {_safe(_check_name(row))} | {_safe(row.value_words)} | {_safe(row.bound_words)} | "
        f"{_safe(row.rows_words)} | {_safe(row.words)} |"
        for row in rows
    ]


def _check_name(row: CheckRow) -> str:
    return f"{row.name} {row.slice}".strip() + ("" if row.role == "decides" else " (on trial)")


def _of_slices(outcome: RetrainOutcome) -> list[str]:
    best = _winner(outcome)
    contrasts = best.against_champion if best is not None else ()
    if not contrasts:
        return []
    shown = contrasts[:_MAX_SLICES]
    figures = [abs(figure) for one in shown for figure in (one.low, one.high) if math.isfinite(figure)]
    reach = max(figures, default=0.0)
    width = max(len(one.slice or "all rows") for one in shown)
    lines = ["", f"### Candidate minus model in service ({_safe(shown[0].metric)}; left of | is better)", "", "```text"]
    lines += [_slice_line(one, width, reach) for one in shown]
    more = [f"... and {len(contrasts) - len(shown)} more"] if len(contrasts) > len(shown) else []
    return [*lines, *more, "```"]


def _slice_line(one: Contrast, width: int, reach: float) -> str:
    name = (one.slice or "all rows").replace("`", "'").ljust(width)
    return f"{name} {interval_plot(one.low, one.difference, one.high, reach)} {one.difference:+.4f} ({one.num_rows:,} rows)"


def _of_arms(outcome: RetrainOutcome) -> list[str]:
    if not outcome.arms:
        return []
    head = ["", "### Clipping policies tried", "", "| arm | rule | removed | loss | |", "|---|---|---|---|---|"]
    return head + [
        f"| {_safe(one.arm.name)} | {_safe(describe_clip(one.arm.clip))} | {one.removed_mass_ratio:.1%} | {_loss_words(one)} | "
        f"{'**won**' if one.arm.name == outcome.winner else ''} |"
        for one in outcome.arms
    ]


def _loss_words(arm: ArmResult) -> str:
    overall = next((one for one in arm.against_champion if not one.slice), None)
    if overall is None:
        return "-"
    return f"{overall.difference:+.4f} [{overall.low:+.4f}, {overall.high:+.4f}] {overall.metric} against the model in service"


def _winner(outcome: RetrainOutcome) -> ArmResult | None:
    return next((one for one in outcome.arms if one.arm.name == outcome.winner), None)


def _safe(text: str) -> str:
    """Names and messages come from data: they must not become markup, links or another cell."""
    return " ".join(text.split()).translate(_ESCAPED)
