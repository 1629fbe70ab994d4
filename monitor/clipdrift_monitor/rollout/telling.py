"""A finding in words: for an engineer with estimate, interval and labels, and for anybody."""

import msgspec

from clipdrift_monitor.rollout.evidence_config import EvidenceConfig
from clipdrift_monitor.rollout.finding import Finding, Shown

_NAMES = {"error": "error rate", "loss": "loss", "failures": "share of failed requests", "latency": "latency"}


def with_words(finding: Finding, config: EvidenceConfig) -> Finding:
    """The finding with its words."""
    tell = {"promote": _promote, "roll_back": _roll_back, "go_on": _go_on}[finding.verdict]
    words, plain = tell(finding, config)
    return msgspec.structs.replace(finding, words=words, plain=plain)


def hold_words(finding: Finding) -> tuple[str, str]:
    """For an engineer and for anybody, where the longest time is over and nothing was shown."""
    slowest = f" {figures(finding.slowest)}" if finding.slowest is not None else ""
    words = (
        f"Neither good enough nor worse was shown within the longest time, by {_labels(finding)}.{slowest}{_outlook(finding)}"
    )
    plain = (
        "The new model could be shown neither to be good enough nor to be worse in the time that it had, so the old one stays. "
        "The new one may be tried again."
    )
    return words, plain


def figures(one: Shown) -> str:
    """What is known of one thing that is watched.

    Example:
        >>> figures(Shown(watched="error", slice="AA", estimate=0.012, low=-0.02, high=0.044, num_labels=800, num_blocks=4))
        "The error rate in slice 'AA' is 1.2 points higher (95 % -2.0 to +4.4, 800 labels in 4 blocks)."
        >>> figures(Shown(watched="latency", estimate=4.0, num_labels=500))
        'The latency of 19 answers of 20 is 4.0 times that of the model in service (500 requests).'
    """
    if one.watched == "latency":
        times = f"{one.estimate:.1f} times that of the model in service"
        return f"The latency of 19 answers of 20 is {times} ({one.num_labels} requests)."
    where = f" in slice {one.slice!r}" if one.slice else ""
    side = "higher" if one.estimate > 0 else "lower"
    size = f"The {_NAMES[one.watched]}{where} is {_size(one.watched, abs(one.estimate))} {side}"
    if one.low is None or one.high is None:
        return f"{size} ({one.num_labels} requests)."
    factor, digits = (100, 1) if one.watched == "error" else (1, 3)
    interval = f"95 % {factor * one.low:+.{digits}f} to {factor * one.high:+.{digits}f}"
    return f"{size} ({interval}, {one.num_labels} labels in {one.num_blocks} blocks)."


def _size(watched: str, value: float) -> str:
    return f"{value:.3f}" if watched == "loss" else f"{100 * value:.1f} points"


def _promote(finding: Finding, config: EvidenceConfig) -> tuple[str, str]:
    overall = " ".join(figures(one) for one in finding.shown if one.slice == "" and one.margin is not None)
    num_slices = len({one.slice for one in finding.shown if one.slice and one.margin is not None})
    where = f"overall and in {num_slices} slices" if num_slices else "overall"
    words = (
        f"Good enough {where}: worse by the margins ({100 * config.margin_error:g} points of errors, {config.margin_loss:g} of "
        f"loss; in a slice {100 * config.slice_margin_error:g} and {config.slice_margin_loss:g}) is rejected at "
        f"{config.wrong_promotion:g}. {overall}"
    )
    plain = (
        f"The new model has shown on {_labels(finding)} that it is about as good as the old one or better"
        f"{', also in the groups that are watched' if num_slices else ''}."
    )
    return words, plain


def _roll_back(finding: Finding, config: EvidenceConfig) -> tuple[str, str]:
    assert finding.culprit is not None
    words = f"Worse, at a chance of {config.wrong_rollback:g} to say so of one that is not. {figures(finding.culprit)}"
    group = f" in the group {finding.culprit.slice!r}" if finding.culprit.slice else ""
    what = {
        "error": f"makes more mistakes than the old one{group}",
        "loss": f"is more often surely wrong than the old one{group}",
        "failures": "fails to answer more often than the old one",
        "latency": "answers more slowly than the old one",
    }[finding.culprit.watched]
    return words, f"The new model {what}, so the old one is put back."


def _go_on(finding: Finding, config: EvidenceConfig) -> tuple[str, str]:
    if not finding.num_blocks:
        return "No mature labels yet.", "Nothing is known of the new model yet: the true answers are still to come."
    slowest = f" {figures(finding.slowest)}" if finding.slowest is not None else ""
    doubt = f" Evidence of harm stands at {finding.harm_level:.0%}." if finding.harm_level > 0 else ""
    so_far = f"Not decided: {finding.progress:.0%} of the evidence that a promotion needs, by {_labels(finding)}."
    words = f"{so_far}{slowest}{doubt}{_outlook(finding)}"
    plain = f"It is not clear yet whether the new model is good enough; {_labels(finding)} have been compared."
    return words, plain


def _outlook(finding: Finding) -> str:
    if finding.more_labels is None:
        return " At the difference seen so far more labels are not expected to show that it is good enough."
    return f" About {_round(finding.more_labels):,} more labels would show it, if they come as those did."


def _labels(finding: Finding) -> str:
    return f"{finding.num_labels:,} labels in {finding.num_blocks} blocks"


def _round(value: int) -> int:
    """To two digits: it is a forecast."""
    return value if value < 100 else round(value, 2 - len(str(value)))
