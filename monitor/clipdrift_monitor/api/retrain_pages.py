"""The pages of retrains, rollouts and approvals: what happened, what it rests on, and what to do next."""

import shlex
from typing import Any

from clipdrift_contract.clock import format_moment
from clipdrift_contract.events import Decision
from clipdrift_monitor.api import rollout_plots
from clipdrift_monitor.api.pages import Pages
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.api.retrain_answers import ApprovalTold
from clipdrift_monitor.api.retrain_reader import RetrainReader
from clipdrift_monitor.api.retrain_rows import (
    END_CSS,
    approval_row,
    check_row,
    contrast_row,
    figure_rows,
    link_of,
    listed_retrain,
    promise_rows,
    share_words,
    shown_row,
)
from clipdrift_monitor.api.rows import decision_row
from clipdrift_monitor.rollout.accounting import false_retrain_ratio
from clipdrift_monitor.rollout.course import PastRollout, Rollout
from clipdrift_monitor.rollout.finding import Finding
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.store import RetrainRow

_NUM_DECISIONS = 500
_NUM_APPROVALS = 100


class RetrainPages:
    """Renders pages from what the readers know. Thread-safe.

    Args:
        pages: Whose templates are rendered.
        reader: Of what the monitor knows of models.
        retrains: Of what it knows of retrains, rollouts and approvals.
    """

    def __init__(self, pages: Pages, reader: Reader, retrains: RetrainReader) -> None:
        self._pages = pages
        self._reader = reader
        self._retrains = retrains

    def retrains(self, model: str) -> str:
        """Every retrain and rollout of a model, and whether the gate's promises came true.

        Raises:
            UnknownModelError: There is no such model.
        """
        state = self._reader.state(model)
        worths, withheld = self._retrains.worths(model), self._retrains.withheld_keys(model)
        rows = [
            listed_retrain(row, worths.get(row.key), is_withheld=row.key in withheld) for row in self._retrains.retrains(model)
        ]
        known = [worths[key].verdict for key in worths]
        return self._pages.render(
            "retrains.html.j2",
            title=f"Retrains of {model}",
            model=model,
            rows=rows,
            next=_next_of_model(state),
            waiting=[approval_row(one) for one in self._retrains.waiting(model)],
            rollout=_running(state),
            past=[{"one": one, "css": END_CSS[one.end]} for one in self._retrains.past_rollouts(model)],
            promises=promise_rows(self._retrains.promises(model)),
            record=self._retrains.record(model),
            false_ratio=false_retrain_ratio(list(worths.values())),
            num_worth=known.count("worth it"),
            num_not_worth=known.count("not worth it"),
            cpu_hours=state.history.cpu_seconds / 3600,
            order_command=f"clipdrift retrain {shlex.quote(model)} --why '...'",
        )

    def retrain(self, model: str, key: str) -> str:
        """One retrain: where it ran, what its arms and its gate found, what people said, what came of it.

        Raises:
            UnknownModelError: There is no such model.
            UnknownRetrainError: It has no such retrain.
        """
        row = self._retrains.retrain(model, key)
        is_withheld = row.key in self._retrains.withheld_keys(model)
        outcome, state = row.outcome, self._reader.state(model)
        best = next((one for one in outcome.arms if one.arm.name == outcome.winner), None) if outcome is not None else None
        shows = outcome is not None and not is_withheld
        promise = next((one for one in self._retrains.promises(model) if one.key == row.key), None)
        worth = self._retrains.worths(model).get(row.key)
        return self._pages.render(
            "retrain.html.j2",
            title=f"Retrain of {model}, {format_moment(row.request.as_of_ms)}",
            model=model,
            one=listed_retrain(row, worth, is_withheld=is_withheld),
            request=row.request,
            outcome=outcome,
            run=row.run,
            link=link_of(row),
            checks=[check_row(one) for one in outcome.checks] if shows and outcome is not None else [],
            contrasts=[contrast_row(one) for one in best.against_champion] if shows and best is not None else [],
            approvals=[approval_row(one) for one in self._retrains.of_retrain(row)],
            rollout_id=self._rollout_of(state, row.key),
            decisions=[decision_row(one) for one in self._decisions_of(row)],
            promises=promise_rows([promise] if promise is not None and not is_withheld else []),
            next=self._next_of_retrain(row, state),
        )

    def rollout(self, model: str, rollout_id: str) -> str:
        """One rollout: its stages over time, what was watched, and the verdict in words.

        Raises:
            UnknownModelError: There is no such model.
            UnknownRetrainError: It has no such rollout.
        """
        state = self._reader.state(model)
        trace, past = self._retrains.trace(model, rollout_id)
        running = state.rollout if past is None else None
        finding = (state.finding or Finding()) if past is None else None
        policy = self._retrains.config.policy.rollout
        points = trace.points
        overall = next((one for one in trace.shown if one.slice == "" and one.watched in ("error", "loss")), None)
        end_ms = past.ended_at_ms if past is not None else state.watermark_ms
        steps = [one for one in reversed(self._reader.deployments(model, 500)) if one.rollout_id == rollout_id and one.stage]
        decisions = [
            one for one in self._reader.decisions(model, _NUM_DECISIONS) if one.decision_id.startswith(f"{rollout_id}-")
        ]
        return self._pages.render(
            "rollout.html.j2",
            title=f"Rollout of {model}",
            model=model,
            rollout_id=rollout_id,
            running=running,
            past=past,
            css=END_CSS[past.end] if past is not None else "busy",
            stages=[one.name for one in running.stages] if running is not None else [],
            plain=trace.plain or (finding.plain if finding is not None else ""),
            words=trace.words or (finding.words if finding is not None else ""),
            newest=points[-1] if points else None,
            needed=policy.min_labels,
            watched=overall.watched if overall is not None else "error",
            weight_svg=rollout_plots.weight_chart(steps, end_ms),
            difference_svg=rollout_plots.difference_chart(points, overall.margin if overall is not None else None),
            labels_svg=rollout_plots.labels_chart(points, policy.min_labels),
            evidence_svg=rollout_plots.evidence_chart(points),
            shown=[shown_row(one) for one in trace.shown],
            decisions=[decision_row(one) for one in decisions],
            next=_next_of_rollout(model, running, past),
            key=running.key if running is not None else past.key if past is not None else "",
        )

    def approvals(self) -> str:
        """What people are and were asked, and whether they really look."""
        figures = self._retrains.figures()
        waiting = self._retrains.waiting()
        known = {one.approval_id for one in waiting}
        past = [one for one in self._retrains.approvals(limit=_NUM_APPROVALS) if one.approval_id not in known]
        return self._pages.render(
            "approvals.html.j2",
            title="Approvals",
            waiting=[approval_row(one) for one in waiting],
            past=[approval_row(one) for one in past],
            figures=figures,
            shares=figure_rows(figures),
            people=[
                {"name": name, "figures": one, "override": share_words(one.override), "stamps": share_words(one.rubber_stamps)}
                for name, one in self._retrains.people().items()
            ],
            policy=self._retrains.config.policy.approval,
        )

    def approval(
        self, told: ApprovalTold, *, message: str = "", is_refused: bool = False, said: dict[str, str] | None = None
    ) -> str:
        """One approval: what is asked, what it rests on, and the forms to answer it.

        Args:
            told: The approval as this reader may see it.
            message: What came of the reader's last step.
            is_refused: Whether that was refused.
            said: What the reader typed, to be typed once only; never a key.
        """
        one, findings = told.approval, told.findings
        named = shlex.quote(one.approval_id)
        return self._pages.render(
            "approval.html.j2",
            title=one.words,
            told=told,
            approval=one,
            row=approval_row(one),
            checks=[check_row(check) for check in findings.checks] if findings is not None else [],
            contrasts=[contrast_row(found) for found in findings.against_champion] if findings is not None else [],
            link=told.run_url if told.run_url.startswith(("https://", "http://")) else "",
            message=message,
            is_refused=is_refused,
            said=said or {},
            policy=self._retrains.config.policy.approval,
            commands="\n".join(
                f"clipdrift approvals {what}"
                for what in (
                    f"show {named}",
                    f"approve {named} --evidence {one.binding.evidence_digest[:12]} --why '...'",
                    f"reject {named} --evidence {one.binding.evidence_digest[:12]} --why '...'",
                )
            ),
        )  # fmt: skip

    def _decisions_of(self, row: RetrainRow) -> list[Decision]:
        """What was decided about a retrain, the newest first."""
        return [
            one
            for one in self._reader.decisions(row.model, _NUM_DECISIONS)
            if row.key in (one.cause_key, one.decision_id) or one.decision_id == row.request.decision_id
        ]

    def _rollout_of(self, state: ModelState, key: str) -> str:
        if state.rollout is not None and state.rollout.key == key:
            return state.rollout.rollout_id
        return next((one.rollout_id for one in reversed(state.past_rollouts) if one.key == key), "")

    def _next_of_retrain(self, row: RetrainRow, state: ModelState) -> str:
        if row.outcome is None:
            return "Nothing: it runs. Its outcome comes by itself; a run that nobody sees any more is ended by rule."
        if any(one.state == "waiting" for one in self._retrains.of_retrain(row)):
            return "A person decides: see below."
        if row.outcome.verdict == "inconclusive":
            return "Nothing was promoted, since it could not be told. Read the reasons: often labels or days are too few."
        if row.outcome.verdict == "fail":
            return "Nothing was promoted. The next retrain of this cause waits for the cooldown, which has doubled."
        if state.rollout is not None and state.rollout.key == row.key:
            return "Its candidate takes traffic step by step: see its rollout."
        return "Nothing: what came of it is told below."


def _running(state: ModelState) -> dict[str, Any] | None:
    if state.rollout is None:
        return None
    finding = state.finding or Finding()
    return {
        "id": state.rollout.rollout_id,
        "version": state.rollout.candidate.version,
        "stage": state.rollout.stage.name,
        "plain": finding.plain or "No labels of its rows are due yet.",
        "progress": round(100 * finding.progress),
        "more_labels": finding.more_labels,
        "is_held": state.rollout.is_held,
    }


def _next_of_model(state: ModelState) -> str:
    if state.waiting_approval is not None:
        return "A person is asked: answer below, before anything else of this model goes on."
    if state.rollout is not None:
        return "A candidate takes traffic step by step. Nothing is to be done: it is promoted, or rolled back, by itself."
    if state.history.running_key:
        return "A retrain runs. Its outcome comes by itself."
    return "Nothing is to be done. The monitor orders a retrain when one is proven to help; a person may order one at any time."


def _next_of_rollout(model: str, running: Rollout | None, past: PastRollout | None) -> str:
    named = shlex.quote(model)
    if past is not None:
        return {
            "promoted": f"It is in service. `clipdrift rollback {named} --why ...` brings the version before back at once.",
            "rolled back": "The model in service answers all requests again. The candidate is kept out, the cooldown doubled.",
            "withdrawn": "A person ended it. The candidate is kept out.",
            "held": "Time was over without proof either way: nothing changed. Order a retrain when there are more labels.",
            "replaced": "Another deployment took its place.",
        }[past.end]
    if running is not None and running.is_held:
        return (
            f"The longest time is over without proof. `clipdrift rollback {named} --why ...` ends it; harm ends it by itself."
        )
    return f"Nothing: it waits for labels. `clipdrift rollback {named} --why ...` ends it at once."
