"""The status pages: rendered on the server, one file each, no script, nothing loaded from anywhere."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import Signal
from clipdrift_monitor.api import plots
from clipdrift_monitor.api.charts import sparkline
from clipdrift_monitor.api.intervals import anytime
from clipdrift_monitor.api.reader import Reader, UnknownSliceError
from clipdrift_monitor.api.rows import (
    decision_row,
    diagnosis_told,
    in_range,
    incident_row,
    maturity_words,
    realised_rows,
    retrain_row,
    slice_rows,
)
from clipdrift_monitor.api.words import clip_words, clipping_word, code, day, in_words, number, share, window_words
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.evidence.order import paths_of
from clipdrift_monitor.risk.detectability import two_digits
from clipdrift_monitor.risk.severity import KIND_WORDS
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.windows.view import View

_STATE_CSS = {
    "healthy": "good",
    "harmed": "bad",
    "data broken": "bad",
    "retraining": "busy",
    "not judged": "bad",
    "no labels due yet": "soft",
}
_SIGNS = {"good": "✓", "bad": "!", "busy": "↻", "soft": "·"}
_MAX_CARDS = 24  # of models with trouble; the others stand in a table
_NUM_INCIDENTS = 200
_INTERVAL_WORDS = (
    "The interval holds however often it is looked at while labels come in, and allows for errors that hang together and days "
    "that differ as much as validation says."
)


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
        self._templates.filters |= {
            "share": share,
            "number": number,
            "moment": format_moment,
            "day": day,
            "about": two_digits,
            "code": code,
        }
        for name in self._templates.list_templates():
            self._templates.get_template(name)  # compiled now, not while the first reader waits

    def index(self) -> str:
        """All models at a glance: those with trouble first, the healthy ones in a table where they are many."""
        states = [self._reader.state(name) for name in self._reader.names()]
        cards = sorted((self._card(state) for state in states), key=lambda card: (_ORDER[card["css"]], card["name"]))
        num_cards = len(cards) if len(cards) <= _MAX_CARDS else min(_MAX_CARDS, sum(card["css"] == "bad" for card in cards))
        incidents = [one for state in states for one in state.incidents if one.is_open and one.severity != "note"]
        snapshot = self._reader.snapshot
        return self.render(
            "index.html.j2",
            title=self._config.project_name or "Clipdrift",
            models=cards,
            cards=cards[:num_cards],
            rows=cards[num_cards:],
            num_harmed=sum(card["is_harming"] for card in cards),
            incidents=[
                incident_row(one) for one in sorted(incidents, key=lambda one: (one.severity != "page", -one.opened_at_ms))
            ],
            waiting=[one.waiting_approval.approval for one in states if one.waiting_approval is not None],
            rollouts=[one for one in states if one.rollout is not None],
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
        marks = plots.deployment_marks(deployments)
        decisions = self._reader.decisions(name, 500)
        run, told = self._reader.run(state), self._reader.describe(name)
        drift = sorted(state.drift.features.items(), key=lambda one: -one[1])
        return self.render(
            "model.html.j2",
            title=name,
            card=self._card(state),
            told=told,
            run=run,
            clip_words=clip_words(run.clip) if run else "",
            accuracy_svg=plots.accuracy_chart(self._views(name, blocks), marks, told.validated_accuracy),
            newest=self._newest(name),
            corrections=[one for one in blocks if one.correction is not None and one.correction.words][-_NUM_CORRECTIONS:],
            evidence_svg=plots.evidence_chart(blocks, marks),
            losses_svg=plots.losses_chart(blocks, marks),
            drift_svg=plots.drift_chart(
                blocks, [feature for feature, _ in drift[:3]], marks, self._config.policy.drift.min_score
            ),
            slices=slice_rows(self._reader.slices(name)),
            drift=drift,
            drift_limit=self._config.policy.drift.min_score,
            drift_state=state.drift,
            diagnosis=diagnosis_told(state.diagnosis),
            realised=realised_rows(told.realised, state.past_incidents),
            association=state.association,
            last_said=next((one for one in decisions if one.diagnosis is not None and one.action != "none"), None),
            incidents=[incident_row(one) for one in self._reader.incidents(name, 20)],
            signals=[self._signal(signal) for signal in self._reader.signals(name, 200) if signal.severity != "note"],
            notes=[signal for signal in state.open_signals if signal.severity == "note"],
            decisions=[decision_row(one) for one in decisions if one.action != "none" or one.would != "none"],
            num_nothing=state.num_decisions.get("none", 0),
            retrains=[retrain_row(row) for row in self._reader.retrains(name) if row.key != _withheld_key(state)],
            waiting=state.waiting_approval.approval if state.waiting_approval is not None else None,
            rollout=state.rollout,
            deployments=deployments,
            policy=self._config.policy,
            window_words=window_words(self._config),
        )

    def slice(self, model: str, name: str) -> str:
        """One slice of a model.

        Raises:
            UnknownModelError: There is no such model.
            UnknownSliceError: It has no such slice.
        """
        state = self._reader.state(model)
        slices = self._reader.slices(model)
        told = next((one for one in slices if one.slice == name), None)
        if told is None:
            known = ", ".join(one.slice for one in slices) or "none that has labels in view"
            raise UnknownSliceError(f"{model} has no slice {name[:100]!r}; there are: {known}")
        of_slice = self._reader.windows(model, 0, None, name)
        totals: dict[int, int] = {}
        for one in self._reader.windows(model, 0, None, ""):
            totals[one.start_ms] = totals.get(one.start_ms, 0) + one.view.num_predictions
        marks = plots.deployment_marks(self._reader.deployments(model, 100))
        blocks = self._reader.blocks(model)
        statements = [one for block in blocks[-1:] for one in block.statements if one.slice == name]
        incidents = [one for one in self._reader.incidents(model, _NUM_INCIDENTS) if name in one.slices]
        return self.render(
            "slice.html.j2",
            title=name,
            model=model,
            told=told,
            range=in_range(told.live.accuracy, told.live.accuracy_low, told.live.accuracy_high),
            card=self._card(state),
            accuracy_svg=plots.accuracy_chart(
                [(one.start_ms, one.view) for one in of_slice], marks, told.validated_accuracy, f" of {name}"
            ),
            share_svg=plots.share_chart(of_slice, totals, told.validated_share, marks),
            statements=statements,
            windows=[(one, maturity_words(one)) for one in of_slice[-_NUM_WINDOWS:][::-1]],
            incidents=[incident_row(one) for one in incidents[:20]],
            window_words=window_words(self._config),
        )

    def incidents(self) -> str:
        """Every incident, those that are open first."""
        found = [one for name in self._reader.names() for one in self._reader.incidents(name, _NUM_INCIDENTS)]
        found.sort(key=lambda one: (not one.is_open, _SEVERITIES.index(one.severity) if one.is_open else 0, -one.at_ms))
        budget = self._config.policy.budget
        return self.render(
            "incidents.html.j2", title="Incidents", incidents=[incident_row(one) for one in found[:_NUM_INCIDENTS]],
            num_open=sum(one.is_open for one in found), precision=self._reader.precision(), budget=budget,
        )  # fmt: skip

    def incident(self, incident_id: str) -> str:
        """One incident: what it is, since when, why, what people said, and how to answer it.

        Raises:
            UnknownIncidentError: There is no such incident.
        """
        one = self._reader.incident(incident_id)
        blocks = self._reader.blocks(one.model)
        marks = plots.incident_marks(one)
        run = self._reader.run(self._reader.state(one.model))
        shown = one.slices[0] if one.slices else ""
        of_what = f" in {shown}" if shown else ""
        if shown:
            views = [(seen.start_ms, seen.view) for seen in self._reader.windows(one.model, 0, None, shown)]
        else:
            views = self._views(one.model, blocks)
        wanted = set(one.signal_ids)
        signals = [signal for signal in self._reader.signals(one.model, 500) if signal.signal_id in wanted]
        decisions = [made for made in self._reader.decisions(one.model, 500) if wanted & set(made.signal_ids)]
        features = [name for name in one.features if not name.startswith("(")][:3]
        return self.render(
            "incident.html.j2",
            title=one.summary or one.incident_id,
            incident=one,
            row=incident_row(one),
            diagnosis=diagnosis_told(one.diagnosis),
            shown=shown,
            accuracy_svg=plots.accuracy_chart(views, marks, self._reader.validated_accuracy(run, shown), of_what),
            evidence_svg=plots.evidence_chart(blocks, marks),
            drift_svg=plots.drift_chart(blocks, features, marks, self._config.policy.drift.min_score) if features else "",
            features=features,
            signals=[self._signal(signal) for signal in signals],
            decisions=[decision_row(made) for made in decisions[:20]],
            answer_commands="\n".join(f"clipdrift incidents {one} --why '...'" for one in _answers(incident_id)),
        )

    def _views(self, model: str, blocks: Sequence[JudgedBlock]) -> list[tuple[int, View]]:
        """Each block's figures as they are known now, with the interval that is shown everywhere."""
        return [
            (
                one.start_ms,
                anytime(
                    one.view if one.correction is None else one.correction.after, self._reader.inflation(model, one.version)
                ),
            )
            for one in blocks
        ]

    def _newest(self, model: str) -> list[dict[str, str]]:
        """Windows of which labels are still to come, and how far they are."""
        windows = self._reader.windows(model, slice_name="")
        young = [one for one in windows if not one.maturity.is_mature and one.view.num_predictions]
        return [{"day": day(one.start_ms), "words": maturity_words(one)} for one in young[-_NUM_YOUNG:]]

    def render(self, template: str, **values: Any) -> str:
        """A page of one of the templates."""
        return self._templates.get_template(template).render(
            project=self._config.project_name or "Clipdrift", interval_words=_INTERVAL_WORDS, **values
        )

    def _card(self, state: ModelState) -> dict[str, Any]:
        """What the first page shows of a model: only what is in its state already, since there may be hundreds."""
        live = self._reader.judged_overall(state)
        loud = [one for one in state.incidents if one.is_open and one.severity != "note"]
        return {
            "name": state.model,
            "word": state.word,
            "css": _STATE_CSS[state.word],
            "sign": _SIGNS[_STATE_CSS[state.word]],
            "version": state.in_service.version if state.in_service else None,
            "live": live,
            "worst": max(state.levels.values(), default=0.0),
            "spark": sparkline(state.recent_accuracy),
            "words": in_words(state),
            "is_harming": _STATE_CSS[state.word] == "bad" or any(one.root in ("harm", "data") for one in loud),
            "clipping": clipping_word(state.diagnosis.clipping if state.diagnosis else "unknown"),
        }

    def _signal(self, signal: Signal) -> dict[str, Any]:
        evidence = paths_of(self._config.evidence_dir, signal.signal_id).html
        return {
            "signal": signal,
            "words": KIND_WORDS[signal.kind],
            "evidence": f"/evidence/{evidence.name}" if evidence.exists() else "",
        }


def _withheld_key(state: ModelState) -> str:
    """Of the retrain whose findings a person sees only after they said what they expect; "" where there is none."""
    waiting = state.waiting_approval
    return waiting.approval.key if waiting is not None and waiting.approval.asks_expectation else ""


_ORDER = {"bad": 0, "busy": 1, "soft": 2, "good": 3}
_SEVERITIES = ("page", "ticket", "note")
_NUM_WINDOWS = 60
_NUM_CORRECTIONS = 5
_NUM_YOUNG = 3


def _answers(incident_id: str) -> tuple[str, ...]:
    named = shlex.quote(incident_id)
    return (f"ack {named} --for 8h", f"silence {named} --for 2d", f"feedback {named} true")
