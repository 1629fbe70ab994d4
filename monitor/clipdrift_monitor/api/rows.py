"""What the tables of the pages show, row by row, in words."""

from collections.abc import Sequence
from typing import Any

from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import ArmResult, Contrast, Decision, Diagnosis, EvidenceRow, Incident, RuleFinding
from clipdrift_monitor.api.answers import SliceTold, WindowTold
from clipdrift_monitor.api.words import clip_words, day, number, share
from clipdrift_monitor.incidents.history import PastIncident
from clipdrift_monitor.risk.detectability import two_digits
from clipdrift_monitor.risk.realised import Realised
from clipdrift_monitor.store.store import RetrainRow

SEVERITY_CSS = {"page": "bad", "ticket": "busy", "note": "soft"}
_OUTCOME_WORDS = {"holds": "holds", "unknown": "not known", "does_not_hold": "does not hold"}


def incident_row(one: Incident) -> dict[str, Any]:
    """What a list shows of an incident."""
    said = one.feedback[-1].verdict if one.feedback else ""
    seen_to = f"seen to by {one.acknowledgement.actor}" if one.acknowledgement else ""
    silenced = f"silenced by {one.silence.actor} until {format_moment(one.silence.until_ms)}" if one.silence else ""
    return {
        "id": one.incident_id,
        "model": one.model,
        "css": SEVERITY_CSS[one.severity] if one.is_open else "good",
        "word": one.severity if one.is_open else "over",
        "summary": one.summary,
        "plain": one.plain,
        "since": day(one.first_window_ms),
        "until": "" if one.is_open else day(one.last_window_ms - 1),
        "notes": "; ".join(part for part in (seen_to, silenced, f"people say: {said}" if said else "") if part),
    }


def decision_row(one: Decision) -> dict[str, Any]:
    return {
        "at": format_moment(one.at_ms),
        "action": one.action if one.would == "none" else f"would {one.would} (dry run)",
        "version": one.version,
        "reasons": one.reasons,
        "terms": {name.replace("_", " "): f"{value:.4g}" for name, value in one.terms.items()},
    }


def retrain_row(row: RetrainRow) -> dict[str, Any]:
    outcome = row.outcome
    return {
        "at": day(row.request.as_of_ms),
        "key": row.key[:12],
        "cause": row.request.cause,
        "state": row.state,
        "attempts": row.attempts,
        "verdict": outcome.verdict if outcome else "",
        "css": {"pass": "good", "fail": "bad"}.get(outcome.verdict, "busy") if outcome else "busy",
        "reasons": outcome.reasons if outcome else (),
        "winner": outcome.winner if outcome else "",
        "wall_seconds": outcome.wall_seconds if outcome else None,
        "arms": [_arm(result, outcome.winner) for result in outcome.arms] if outcome else [],
    }


def _arm(result: ArmResult, winner: str) -> dict[str, Any]:
    overall = result.validation[0] if result.validation else None
    return {
        "name": result.arm.name,
        "is_winner": result.arm.name == winner,
        "clip": clip_words(result.arm.clip),
        "removed": share(result.removed_mass_ratio, 0),
        "accuracy": share(overall.num_correct / overall.num_rows) if overall is not None and overall.num_rows else share(None),
        "against_same": _contrast(result.against_same),
        "against_champion": _contrast(result.against_champion),
    }


def _contrast(contrasts: Sequence[Contrast]) -> str:
    for one in contrasts:
        if one.slice == "" and one.metric == "brier":
            return f"{one.difference:+.4f} ({one.low:+.4f} to {one.high:+.4f})"
    return "–"


def diagnosis_told(one: Diagnosis | None) -> dict[str, Any] | None:
    """A diagnosis: first for anybody, then for an engineer; rules that hold or are not known before those that do not."""
    if one is None:
        return None
    findings = [_finding(found) for found in one.findings]
    return {
        "plain": one.plain or one.words,
        "words": one.words if one.plain and one.words != one.plain else "",
        "would_tell": one.would_tell,
        "confidence": one.confidence,
        "would_change": one.would_change,
        "contributing": [name.replace("_", " ") for name in one.contributing],
        "loss": one.accuracy_loss,
        "mix": one.mix_term,
        "within": one.within_term,
        "holding": [found for found in findings if found["outcome"] == "holds"],
        "unknown": [found for found in findings if found["outcome"] == "not known"],
        "others": [found for found in findings if found["outcome"] == "does not hold"],
    }


def _finding(one: RuleFinding) -> dict[str, Any]:
    return {
        "rule": one.rule,
        "outcome": _OUTCOME_WORDS[one.outcome],
        "words": one.words,
        "confidence": one.confidence if one.outcome != "unknown" else None,
        "would_change": one.would_change,
        "rows": [evidence_row(row) for row in one.rows],
    }


def evidence_row(one: EvidenceRow) -> dict[str, str]:
    """A figure and what it was held against, each with its unit.

    Example:
        >>> evidence_row(EvidenceRow(name="removed_mass_ratio", value=0.8, unit="share", bound=0.75))
        {'name': 'removed mass ratio', 'value': '80.0 %', 'bound': '75.0 %'}
    """
    return {
        "name": one.name.replace("_", " "),
        "value": _with_unit(one.value, one.unit),
        "bound": "" if one.bound is None else _with_unit(one.bound, one.unit),
    }


def _with_unit(value: float, unit: str) -> str:
    if unit == "share":
        return share(value)
    return f"{value:,.0f} {unit}".strip() if value == round(value) and abs(value) >= 1 else f"{value:.3g} {unit}".strip()


def maturity_words(one: WindowTold) -> str:
    """How far a window is labelled, in words; "" where nothing is to be said."""
    known = one.maturity
    if known.share is None:
        return ""
    here = f"{share(known.share, 0)} labelled"
    if known.is_mature or known.expected_share is None:
        return here
    told = f"{here}, {share(known.expected_share, 0)} expected by now; labels still coming"
    if known.accuracy is None or one.view.accuracy is None or abs(known.accuracy - one.view.accuracy) < 0.005:
        return told
    return f"{told} (accuracy {share(known.accuracy)} once it is allowed for which come first)"


def slice_rows(found: Sequence[SliceTold]) -> dict[str, Any]:
    """Slices beside each other on one axis, which begins at a tenth below all of them."""
    lows = [one.live.accuracy_low for one in found if one.live.accuracy_low is not None]
    lows += [one.validated_accuracy for one in found if one.validated_accuracy is not None]
    floor = max(0.0, int(10 * min(lows, default=0.0)) / 10)
    rows = []
    for one in found:
        seen, live = one.would_be_seen, one.live
        within = "–" if seen is None else "never" if seen.num_labels is None else f"{two_digits(seen.num_labels)} labels"
        known = one.validated_accuracy
        rows.append(
            {
                "told": one,
                "range": in_range(live.accuracy, live.accuracy_low, live.accuracy_high, floor),
                "aim": None if known is None else round(100 * (known - floor) / (1 - floor), 1),
                "within": within,
            }
        )
    return {"rows": rows, "axis": f"{share(floor, 0)} to 100 %"}


def in_range(value: float | None, low: float | None, high: float | None, floor: float = 0.0) -> dict[str, float] | None:
    """Where an interval and its value lie on a bar from `floor` to 1, in per cent of its width; None where there is none."""
    if value is None or low is None or high is None:
        return None
    left, right, at = (round(100 * (one - floor) / (1 - floor), 1) for one in (low, high, value))
    return {"left": left, "width": round(right - left, 1), "at": at}


def realised_rows(found: Sequence[Realised], past: Sequence[PastIncident]) -> list[dict[str, Any]]:
    """False alarms in 90 days by severity: the promise, what the model's own days would bring, and what really came."""
    top = max((max(one.promised, one.high) for one in found), default=1.0) or 1.0
    rows = []
    for one in found:
        raised = [incident for incident in past if incident.severity == one.severity]
        verdicts = {word: sum(incident.verdict == word for incident in raised) for word in ("true", "false", "known")}
        rows.append(
            {
                "severity": one.severity,
                "promised": number(one.promised, 2),
                "mean": number(one.mean, 2),
                "low": number(one.low, 2),
                "high": number(one.high, 2),
                "num_days": one.num_days,
                "is_kept": one.mean <= one.promised,
                "is_broken": one.low > one.promised,
                "range": in_range(one.mean / top, one.low / top, one.high / top),
                "aim": round(100 * one.promised / top, 1),
                "num_raised": len(raised),
                "verdicts": ", ".join(f"{count} {word}" for word, count in verdicts.items() if count)
                or ("none judged by people yet" if raised else ""),
            }
        )
    return rows
