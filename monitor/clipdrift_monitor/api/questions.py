"""Answers what may be asked over HTTP, as values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import Decision, Deployment, Incident, RunEnd, Signal
from clipdrift_monitor.api import answers
from clipdrift_monitor.api.reader import Reader
from clipdrift_monitor.api.retrain_answers import ApprovalPage, ApprovalTold, RetrainPage
from clipdrift_monitor.api.retrain_reader import RetrainReader
from clipdrift_monitor.engine.retrains import NoSuchRetrainError
from clipdrift_monitor.evidence.order import paths_of
from clipdrift_monitor.state import JudgedBlock
from clipdrift_monitor.store.audit import AuditVerdict
from clipdrift_monitor.store.store import RetrainRow, Store

T = TypeVar("T")
Asked = Mapping[str, Any]
"""What was asked with, by name, checked as the operation says; `path` is the address without the query, `given` the query."""


class Questions:
    """One method for each operation that only asks. Thread-safe.

    Args:
        reader: Of what the monitor knows.
        store: For the audit log and incidents.
        retrains: Of retrains and approvals.
        evidence_dir: Where evidence packs lie.
    """

    def __init__(self, reader: Reader, store: Store, retrains: RetrainReader, evidence_dir: Path) -> None:
        self._reader = reader
        self._retrains = retrains
        self._store = store
        self._evidence_dir = evidence_dir

    def health(self, asked: Asked) -> answers.Health:
        return answers.Health(status="ok", is_idle=self._reader.snapshot.is_idle)

    def ready(self, asked: Asked) -> answers.Ready:
        """Raises RetryableError while it is not."""
        snapshot = self._reader.snapshot
        if not snapshot.is_loaded or snapshot.waits_for:
            raise RetryableError(snapshot.waits_for or "the monitor is reading what it has saved")
        return answers.Ready(status="ok")

    def progress(self, asked: Asked) -> answers.Progress:
        snapshot = self._reader.snapshot
        models = {
            name: answers.Counted(num_predictions=state.num_predictions, num_labels=state.num_labels)
            for name, state in snapshot.models.items()
        }
        return answers.Progress(is_idle=snapshot.is_idle, lag=snapshot.lag, models=models)

    def verify_audit(self, asked: Asked) -> AuditVerdict:
        return self._store.verify_audit()

    def models(self, asked: Asked) -> answers.Page[answers.ModelRow]:
        states = [self._reader.state(name) for name in self._reader.names()]
        return answers.Page(
            items=tuple(
                answers.ModelRow(
                    model=state.model,
                    version=state.in_service.version if state.in_service else None,
                    state=state.word,
                    num_open_incidents=sum(one.is_open for one in state.incidents),
                )
                for state in states
            )
        )

    def model(self, asked: Asked) -> answers.ModelTold:
        return self._reader.describe(asked["model"])

    def accuracy(self, asked: Asked) -> answers.CountedAccuracy:
        return answers.CountedAccuracy(slices=tuple(self._reader.accuracy(asked["model"], asked["start_ms"], asked["end_ms"])))

    def slices(self, asked: Asked) -> answers.Page[answers.SliceTold]:
        return answers.Page(items=tuple(self._reader.slices(asked["model"])))

    def windows(self, asked: Asked) -> answers.Page[answers.WindowTold]:
        found = self._reader.windows(asked["model"], asked["start_ms"], asked["end_ms"], asked["slice"])
        return _paged(found[asked["offset"] : asked["offset"] + asked["limit"] + 1], asked)

    def blocks(self, asked: Asked) -> answers.Page[JudgedBlock]:
        self._reader.state(asked["model"])
        return answers.Page(items=tuple(self._reader.blocks(asked["model"], asked["start_ms"], asked["end_ms"])))

    def signals(self, asked: Asked) -> answers.Page[Signal]:
        return self._listed("signals", asked)

    def decisions(self, asked: Asked) -> answers.Page[Decision]:
        return self._listed("decisions", asked)

    def deployments(self, asked: Asked) -> answers.Page[Deployment]:
        return self._listed("deployments", asked)

    def runs(self, asked: Asked) -> answers.Page[RunEnd]:
        return self._listed("runs", asked)

    def retrains(self, asked: Asked) -> RetrainPage:
        return self._retrains.page(asked["model"])

    def ordered_retrain(self, asked: Asked) -> RetrainRow:
        found = self._store.retrain(asked["key"])
        if found is None:
            raise NoSuchRetrainError(f"no retrain {asked['key'][:100]!r} was ordered here")
        return found

    def evidence(self, asked: Asked) -> answers.Page[answers.EvidenceTold]:
        page: answers.Page[Signal] = self._listed("signals", asked)
        packs = ((one, paths_of(self._evidence_dir, one.signal_id)) for one in page.items)
        items = tuple(
            answers.EvidenceTold(signal_id=one.signal_id, address=f"/evidence/{quote(paths.html.name)}", is_ready=True)
            for one, paths in packs
            if paths.html.exists()
        )
        return answers.Page(items=items, next=page.next)

    def incidents(self, asked: Asked) -> answers.IncidentPage:
        if asked["model"] is not None:
            self._reader.state(asked["model"])
        is_open = {"open": True, "resolved": False, "all": None}[asked["state"]]
        limit, offset = asked["limit"], asked["offset"]
        found = self._store.incidents(
            asked["model"], is_open=is_open, severity=asked["severity"], limit=limit + 1, offset=offset
        )
        page = _paged(found, asked)
        return answers.IncidentPage(items=page.items, next=page.next, precision=self._reader.precision())

    def incident(self, asked: Asked) -> Incident:
        """Raises LookupError when there is none."""
        return self._reader.incident(asked["incident_id"])

    def approvals(self, asked: Asked) -> ApprovalPage:
        model, limit = asked["model"], asked["limit"]
        if model is not None:
            self._reader.state(model)
        page = _paged(self._retrains.approvals(model, asked["state"], limit + 1, asked["offset"]), asked)
        return ApprovalPage(items=page.items, next=page.next, figures=self._retrains.figures(model))

    def approval(self, asked: Asked) -> ApprovalTold:
        """Raises LookupError when there is none."""
        return self._retrains.told(self._retrains.approval(asked["approval_id"]))

    def _listed(self, kind: str, asked: Asked) -> answers.Page[Any]:
        self._reader.state(asked["model"])
        return _paged(getattr(self._reader, kind)(asked["model"], asked["limit"] + 1, asked["offset"]), asked)


def _paged(found: Sequence[T], asked: Asked) -> answers.Page[T]:
    """`found` holds one more than was asked for where there is more."""
    limit = asked["limit"]
    has_more = len(found) > limit > 0
    query = urlencode(asked["given"] | {"offset": asked["offset"] + limit})
    return answers.Page(items=tuple(found[:limit]), next=f"{asked['path']}?{query}" if has_more else None)
