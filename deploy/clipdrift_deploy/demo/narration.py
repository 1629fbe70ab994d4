"""Events in plain words: one line each on the terminal, one row each in the report. Pure text."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from clipdrift_contract.events import Decision, Deployment, Event, RetrainOutcome, RetrainRequest, Signal
from clipdrift_monitor.risk.severity import KIND_WORDS

Tone = Literal["bad", "busy", "good", "plain"]
_RANKS: tuple[type[Any], ...] = (Signal, Decision, RetrainRequest, RetrainOutcome, Deployment)
_VERDICTS = {"pass": "passes the gate", "fail": "fails the gate", "inconclusive": "stays inconclusive"}


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, when by the flights' own time, to which model, and why."""

    at_ms: int
    model: str
    what: str
    why: str
    tone: Tone

    @property
    def day(self) -> str:
        return day_of(self.at_ms)


def day_of(time_ms: int) -> str:
    """A day as people say it.

    Example:
        >>> day_of(1362700800000)
        '8 March'
    """
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{moment.day} {moment:%B}"


def tell(event: Event, champion_before: str = "") -> Line | None:
    """The line for an event; None for what is not worth one.

    Args:
        event: What happened.
        champion_before: Of a deployment: the version in service until then.
    """
    if isinstance(event, Signal):
        return _tell_signal(event)
    if isinstance(event, Decision):
        return _tell_decision(event)
    if isinstance(event, RetrainRequest):
        arms = ", ".join(arm.name for arm in event.arms)
        return Line(at_ms=event.as_of_ms, model=event.model, what="retrain begins", why=f"arms {arms}", tone="busy")
    if isinstance(event, RetrainOutcome):
        what = f"retrain {_VERDICTS[event.verdict]}" + (f" with arm {event.winner}" if event.winner else "")
        tone: Tone = "good" if event.verdict == "pass" else "plain"
        return Line(at_ms=event.finished_at_ms, model=event.model, what=what, why="; ".join(event.reasons), tone=tone)
    if isinstance(event, Deployment):
        what, tone = _deployed(event, champion_before)
        return Line(at_ms=event.decided_at_ms, model=event.model, what=what, why=event.reason, tone=tone)
    return None


def _deployed(event: Deployment, champion_before: str) -> tuple[str, Tone]:
    champion = event.champion.version
    if champion != champion_before:
        return f"version {champion} goes into service", "good"
    if event.canary is not None:
        return f"version {event.canary.version} answers {event.canary_weight:.0%} of the requests", "busy"
    if event.shadow is not None:
        return f"version {event.shadow.version} answers as a shadow, unseen", "busy"
    if event.rollout_id:
        return f"version {champion} answers everything again", "bad"
    return f"version {champion} answers alone", "plain"


def _tell_signal(signal: Signal) -> Line | None:
    if signal.severity == "note":
        return None
    where = f" in {signal.slice}" if signal.slice else ""
    return Line(
        at_ms=signal.window_end_ms - 1,  # a window of one day is that day's, not the next one's
        model=signal.model,
        what=f"{KIND_WORDS[signal.kind]}{where}",
        why=signal.summary,
        tone="bad",
    )


def _tell_decision(decision: Decision) -> Line | None:
    if decision.action in ("none", "hold", "canary", "promote"):  # an outcome and a deployment tell of these
        return None
    return Line(
        at_ms=decision.at_ms,
        model=decision.model,
        what=f"decision: {decision.action}",
        why=" ".join(decision.reasons),
        tone="busy" if decision.action == "retrain" else "plain",
    )


def tell_in_order(
    events: Iterable[Event], orders: Mapping[str, RetrainRequest], champions: Mapping[tuple[str, int], str] | None = None
) -> list[Line]:
    """Lines in the order of event time and, within a moment, of cause and effect.

    Args:
        events: What happened, in any order.
        orders: Retrain orders by key: an outcome knows no event time of its own and stands with its order.
        champions: The version in service by model and generation, to tell a new one from a step beside it.
    """
    found = []
    for event in events:
        before = (champions or {}).get((event.model, event.generation - 1), "") if isinstance(event, Deployment) else ""
        line = tell(event, before)
        if line is None:
            continue
        if isinstance(event, RetrainOutcome) and event.key in orders:
            line = msgspec.structs.replace(line, at_ms=orders[event.key].as_of_ms)
        found.append((line.at_ms, _RANKS.index(type(event)), line))
    return [line for _, _, line in sorted(found, key=lambda one: one[:2])]
