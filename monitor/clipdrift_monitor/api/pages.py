"""The status pages: rendered on the server, one file each, no script, nothing loaded from anywhere."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from clipdrift_contract.clipping import describe_clip
from clipdrift_contract.events import ArmResult, ClipSpec, Contrast, Decision, Signal
from clipdrift_monitor.api.charts import Line, Mark, Point, sparkline, time_chart
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.evidence.order import paths_of
from clipdrift_monitor.risk.harm import TEST_NAMES
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import RetrainRow

_KIND_WORDS = {
    "sudden_break": "sudden break",
    "worse_than_validated": "worse than validated",
    "repairable": "a retrain would help",
    "feature_drift": "inputs have moved",
    "prediction_drift": "predictions have moved",
    "mix_drift": "the mix of slices has moved",
    "labels_missing": "labels are missing",
    "data_broken": "the data look broken",
    "training_fault": "training went wrong",
}
_TEST_CSS = {"sudden_break": "c", "worse_than_validated": "b", "repairable": "a"}
_STATE_CSS = {"healthy": "good", "harmed": "bad", "data broken": "bad", "retraining": "busy", "no labels due yet": "soft"}
_STATE_SIGN = {"healthy": "✓", "harmed": "!", "data broken": "!", "retraining": "↻", "no labels due yet": "·"}
_NUM_SPARK = 60


class Pages:
    """Renders pages from what the reader knows. Thread-safe.

    Args:
        reader: Of what the monitor knows.
        config: Of the monitor.
    """

    def __init__(self, reader: Reader, config: MonitorConfig) -> None:
        self._reader = reader
        self._config = config
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"share": share, "number": number, "moment": moment, "day": day}

    def index(self) -> str:
        """All models at a glance."""
        models = [self._card(self._reader.state(name)) for name in self._reader.names()]
        snapshot = self._reader.snapshot
        return self._render(
            "index.html.j2",
            title=self._config.project_name or "Clipdrift",
            models=models,
            num_harmed=sum(model["css"] == "bad" for model in models),
            lag=snapshot.lag,
            waits_for=snapshot.waits_for,
            is_audit_intact=snapshot.is_audit_intact,
        )

    def model(self, name: str) -> str:
        """One model in full.

        Raises:
            UnknownModelError: There is no such model.
        """
        state = self._reader.state(name)
        blocks = self._reader.blocks(name)
        deployments = self._reader.deployments(name, 100)
        marks = [
            Mark(time_ms=one.decided_at_ms, words=f"version {one.champion.version} goes into service") for one in deployments
        ]
        decisions = self._reader.decisions(name, 500)
        run = self._reader.run(state)
        return self._render(
            "model.html.j2",
            title=name,
            card=self._card(state),
            told=self._reader.describe(name),
            run=run,
            clip_words=clip_words(run.clip) if run else "",
            accuracy_svg=_accuracy_chart(blocks, marks),
            evidence_svg=_evidence_chart(blocks, marks),
            losses_svg=_losses_chart(blocks, marks),
            drift=sorted(state.drift.features.items(), key=lambda one: -one[1]),
            drift_limit=self._config.policy.drift.min_score,
            drift_state=state.drift,
            diagnosis=state.diagnosis,
            last_said=next((one for one in decisions if one.diagnosis is not None and one.action != "none"), None),
            signals=[self._signal(signal) for signal in self._reader.signals(name, 200) if signal.severity != "note"],
            notes=[signal for signal in state.open_signals if signal.severity == "note"],
            decisions=[_decision(one) for one in decisions if one.action != "none"],
            num_nothing=state.num_decisions.get("none", 0),
            retrains=[_retrain(row) for row in self._reader.retrains(name)],
            deployments=deployments,
            policy=self._config.policy,
            window_words=_window_words(self._config),
        )

    def _render(self, template: str, **values: Any) -> str:
        return self._templates.get_template(template).render(project=self._config.project_name or "Clipdrift", **values)

    def _card(self, state: ModelState) -> dict[str, Any]:
        told = self._reader.describe(state.model)
        blocks = self._reader.blocks(state.model)[-_NUM_SPARK:]
        worst = max(state.levels.values(), default=0.0)
        return {
            "name": state.model,
            "word": state.word,
            "css": _STATE_CSS[state.word],
            "sign": _STATE_SIGN[state.word],
            "told": told,
            "worst": worst,
            "spark": sparkline([one.view.accuracy for one in blocks if one.view.accuracy is not None]),
            "words": _in_words(state),
            "clipping": _clipping_word(told["clipping"]),
        }

    def _signal(self, signal: Signal) -> dict[str, Any]:
        evidence = paths_of(self._config.evidence_dir, signal.signal_id).html
        return {
            "signal": signal,
            "words": _KIND_WORDS[signal.kind],
            "evidence": f"/evidence/{evidence.name}" if evidence.exists() else "",
        }


# --- words ---


def share(value: float | None, digits: int = 1) -> str:
    """A ratio in per cent; "–" for None.

    Example:
        >>> share(0.8123), share(-0.0001), share(None)
        ('81.2 %', '0.0 %', '–')
    """
    return "–" if value is None else f"{round(100 * value, digits) + 0.0:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number; "–" for None.

    Example:
        >>> number(0.12345), number(1200), number(None)
        ('0.123', '1,200', '–')
    """
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def moment(time_ms: int) -> str:
    """Date and minute in UTC.

    Example:
        >>> moment(0)
        '1970-01-01 00:00'
    """
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def day(time_ms: int) -> str:
    """Date in UTC.

    Example:
        >>> day(0)
        '1970-01-01'
    """
    return moment(time_ms)[:10]


def clip_words(clip: ClipSpec) -> str:
    """A clipping rule as people say it.

    Example:
        >>> clip_words(ClipSpec(kind="global_norm", max_norm=0.05)), clip_words(ClipSpec()), clip_words(ClipSpec(kind="zclip"))
        ('clipped to global norm 0.05', 'not clipped', 'clipped by ZClip')
    """
    if clip.kind == "off":
        return "not clipped"
    how = "by" if clip.kind in ("autoclip", "zclip", "agc", "adagc", "quantile") else "to"
    return f"clipped {how} {describe_clip(clip, digits=3)}"


def _clipping_word(verdict: str) -> str:
    return {"implicated": "clipping holds it back", "associated": "clipping is suspected",
            "not_implicated": "clipping is not the cause", "unknown": "clipping: not known yet"}[verdict]  # fmt: skip


def _in_words(state: ModelState) -> str:
    """What is going on, in a sentence."""
    if state.in_service is None:
        return "No version is in service."
    loud = [signal for signal in state.open_signals if signal.severity != "note"]
    if state.history.running_key:
        return "A retrain is running: several clipping policies are tried on the same data, and the gate compares them."
    if loud and state.diagnosis is not None:
        return state.diagnosis.words
    if loud:
        return loud[-1].summary
    if not state.num_version_labels:
        return (
            "No window has been judged since this version came into service, so nothing can be said about it yet."
            if state.generation > 1
            else "This version has no labels that are due yet, so nothing can be said about its accuracy."
        )
    return "No test has found it worse than it was when it was validated."


def _window_words(config: MonitorConfig) -> str:
    hours = config.window_ms / 3_600_000
    width = "day" if hours == 24 else f"{hours:g} hours"
    return f"last {config.view_windows} windows of one {width} whose labels are due"


# --- charts ---


def _accuracy_chart(blocks: Sequence[JudgedBlock], marks: Sequence[Mark]) -> str:
    points = tuple(
        Point(one.start_ms, one.view.accuracy, one.view.accuracy_low, one.view.accuracy_high)
        for one in blocks
        if one.view.accuracy is not None
    )
    return time_chart(
        [Line(name="accuracy", css="a", points=points)], marks=marks, title="Live accuracy by day, with 95 % interval"
    )


def _evidence_chart(blocks: Sequence[JudgedBlock], marks: Sequence[Mark]) -> str:
    lines = [
        Line(
            name=test,
            css=_TEST_CSS[test],
            points=tuple(Point(one.start_ms, one.levels[test]) for one in blocks if test in one.levels),
        )
        for test in TEST_NAMES
    ]
    return time_chart(
        lines,
        marks=marks,
        limit=1.0,
        limit_words="alarm",
        is_ratio=False,
        floor=0.0,
        ceiling=1.25,
        title="Evidence of harm by test; 1 is an alarm",
    )


def _losses_chart(blocks: Sequence[JudgedBlock], marks: Sequence[Mark]) -> str:
    lines = [
        Line(
            name=name,
            css=css,
            points=tuple(Point(one.start_ms, value) for one in blocks if (value := getattr(one.view, name)) is not None),
        )
        for name, css in (("brier", "a"), ("ece", "b"))
    ]
    return time_chart(lines, marks=marks, is_ratio=False, floor=0.0, title="Brier score and calibration error by day")


# --- rows ---


def _decision(one: Decision) -> dict[str, Any]:
    return {"at": moment(one.at_ms), "action": one.action, "version": one.version, "reasons": one.reasons}


def _retrain(row: RetrainRow) -> dict[str, Any]:
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
