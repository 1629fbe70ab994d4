"""What the pages of retrains, rollouts and approvals show, row by row, in words."""

from collections.abc import Sequence
from typing import Any

from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import Contrast, GateCheck
from clipdrift_monitor.api.rows import retrain_row
from clipdrift_monitor.api.words import day
from clipdrift_monitor.approvals.approval import Approval
from clipdrift_monitor.approvals.figures import ApprovalFigures, Share
from clipdrift_monitor.rollout.accounting import RetrainWorth
from clipdrift_monitor.rollout.finding import Shown
from clipdrift_monitor.rollout.gate_history import Promise
from clipdrift_monitor.store.store import RetrainRow

CHECK_CSS = {"pass": "good", "fail": "bad", "inconclusive": "busy", "unreachable": "busy"}
STATE_CSS = {"waiting": "busy", "approved": "good", "rejected": "bad", "void": "soft", "expired": "soft"}
WORTH_CSS = {"worth it": "good", "not worth it": "bad", "measuring": "busy", "unknown": "soft"}
END_CSS = {"promoted": "good", "rolled back": "bad", "withdrawn": "bad", "held": "busy", "replaced": "soft"}
_WATCHED_WORDS = {"error": "error rate", "loss": "loss", "failures": "failed requests", "latency": "latency, 95th percentile"}


def listed_retrain(row: RetrainRow, worth: RetrainWorth | None, *, is_withheld: bool) -> dict[str, Any]:
    """A retrain in a line of a model's list; where its findings are withheld, none is in it."""
    known = retrain_row(row)
    run = row.run
    state = run.state if run is not None else row.state
    verdict = "" if is_withheld else known["verdict"]
    return {
        **known,
        "whole_key": row.key,
        "model": row.model,
        "state": "finished" if row.outcome is not None else state,
        "verdict": verdict,
        "css": known["css"] if verdict or row.outcome is None else "busy",
        "is_withheld": is_withheld,
        "winner": "" if is_withheld else known["winner"],
        "reasons": () if is_withheld else known["reasons"],
        "arms": [] if is_withheld else known["arms"],
        "cpu_seconds": row.outcome.cpu_seconds if row.outcome is not None else None,
        "link": link_of(row),
        "worth": worth,
        "worth_css": WORTH_CSS[worth.verdict] if worth is not None else "soft",
        "candidate": row.outcome.candidate_version if row.outcome is not None else "",
    }


def link_of(row: RetrainRow) -> str:
    """Where the CI shows the run; "" where it shows none, or not by HTTP."""
    places = (row.run.link if row.run is not None else "", row.outcome.run_url if row.outcome is not None else "")
    return next((one for one in places if one.startswith(("https://", "http://"))), "")


def check_row(one: GateCheck) -> dict[str, Any]:
    """A check of the gate: what was measured, with its interval, and what it was held against."""
    interval = f" ({_figure(one.low)} to {_figure(one.high)})" if one.low is not None and one.high is not None else ""
    rows = f"{one.num_rows:,} rows" if one.num_rows else ""
    return {
        "name": one.name.replace("_", " "),
        "slice": one.slice,
        "outcome": one.outcome,
        "css": CHECK_CSS[one.outcome],
        "value": "–" if one.value is None else f"{_figure(one.value)}{f' {one.unit}' if one.unit else ''}{interval}",
        "bound": "–" if one.bound is None else f"{_figure(one.bound)}{f' {one.unit}' if one.unit else ''}",
        "rows": ", ".join(part for part in (rows, f"{one.num_blocks} blocks" if one.num_blocks else "") if part),
        "words": one.words,
        "is_decisive": one.is_decisive,
    }


def contrast_row(one: Contrast) -> dict[str, str]:
    return {
        "slice": one.slice or "all rows",
        "metric": one.metric,
        "difference": f"{one.difference:+.4f}",
        "interval": f"{one.low:+.4f} to {one.high:+.4f}",
        "rows": f"{one.num_rows:,}",
        "css": "good" if one.high < 0 else "bad" if one.low > 0 else "soft",
    }


def approval_row(one: Approval) -> dict[str, Any]:
    """An approval in a line."""
    answer, said = one.answer, one.why_over
    if answer is not None:
        seconds = f", {answer.seconds:,.0f} s after opening" if answer.seconds is not None else ""
        emergency = " as an emergency" if answer.is_break_glass else ""
        said = f"{'approved' if answer.is_approved else 'rejected'} by {answer.actor}{emergency}{seconds}: {answer.reason}"
    if one.review is not None:
        said += f" Reviewed by {one.review.actor}: {one.review.reason}"
    return {
        "id": one.approval_id,
        "model": one.model,
        "key": one.key,
        "words": one.words,
        "state": one.state,
        "css": STATE_CSS[one.state],
        "asked": format_moment(one.asked_at_ms),
        "until": format_moment(one.expires_at_ms),
        "said": said,
        "needs_review": one.needs_review,
    }


def figure_rows(found: ApprovalFigures) -> dict[str, str]:
    """Shares as the page says them."""
    names = ("override", "override_told", "override_untold", "rubber_stamps", "expected_better")
    return {name: share_words(getattr(found, name)) for name in names}


def share_words(one: Share) -> str:
    """A part with its interval.

    Example:
        >>> share_words(Share(num=1, of=4, value=0.25, low=0.05, high=0.7)), share_words(Share(num=0, of=0, value=None,
        ...     low=None, high=None))
        ('1 of 4 (5 to 70 %)', '–')
    """
    if one.value is None or one.low is None or one.high is None:
        return "–"
    return f"{one.num} of {one.of} ({one.low:.0%} to {one.high:.0%})".replace("%", "", 1).replace("%", " %")


def shown_row(one: Shown) -> dict[str, Any]:
    """One thing that a rollout watches."""
    is_ratio = one.watched == "latency"
    digits = "{:.2f} times" if is_ratio else "{:+.4f}"
    interval = "" if one.low is None or one.high is None else f" ({one.low:+.4f} to {one.high:+.4f})"
    return {
        "watched": _WATCHED_WORDS[one.watched],
        "slice": one.slice or "all rows",
        "estimate": digits.format(one.estimate) + interval,
        "margin": "–" if one.margin is None else digits.format(one.margin),
        "num_labels": one.num_labels,
        "good": round(100 * min(1.0, max(0.0, one.good_level))),
        "harm": round(100 * min(1.0, max(0.0, one.harm_level))),
        "css": "bad" if one.is_worse else "good" if one.is_within else "soft",
        "words": "worse" if one.is_worse else "within its margin" if one.is_within else "not shown yet",
    }


def promise_rows(promises: Sequence[Promise]) -> list[dict[str, Any]]:
    """What the gate promised beside what came, the newest first."""
    css = {"kept": "good", "less": "bad", "more": "good", "not known": "soft"}
    words = {"kept": "came true", "less": "fell short", "more": "more than promised", "not known": "not measured yet"}
    return [
        {
            "at": day(one.at_ms),
            "version": one.version,
            "key": one.key,
            "promised": _with_interval(one.promised, one.promised_low, one.promised_high),
            "came": _with_interval(one.came, one.came_low, one.came_high),
            "how": "" if one.came is None else "on the same rows" if one.is_paired else "before and after: days differ",
            "css": css[one.verdict] if one.is_paired else "soft",
            "verdict": words[one.verdict] if one.is_paired or one.verdict == "not known" else "does not count",
        }
        for one in sorted(promises, key=lambda one: -one.at_ms)
    ]


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.4f}" if low is None or high is None else f"{value:+.4f} ({low:+.4f} to {high:+.4f})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
