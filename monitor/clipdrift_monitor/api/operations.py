"""Every call of the HTTP interface: routes, checks of what is asked and the OpenAPI document are all made of this table."""

from typing import Any, Literal, NamedTuple

import msgspec

from clipdrift_contract.events import Decision, Deployment, FeedbackVerdict, Incident, RunEnd, Signal
from clipdrift_monitor.api import answers
from clipdrift_monitor.api.access import MonitorScope
from clipdrift_monitor.api.hooks import HOOKS
from clipdrift_monitor.api.job_bodies import (
    Beating,
    Cancelled,
    Claimed,
    Hook,
    JobBeat,
    JobBody,
    JobClaim,
    JobOutcome,
    OutcomeTaken,
    Woken,
)
from clipdrift_monitor.api.retrain_answers import Agreement, ApprovalPage, ApprovalTold, Look, RetrainPage
from clipdrift_monitor.approvals.approval import Approval
from clipdrift_monitor.state import JudgedBlock
from clipdrift_monitor.store.audit import AuditVerdict
from clipdrift_monitor.store.store import RetrainRow

MAX_LIMIT = 500
END_OF_TIME_MS = 2**62
MAX_ACTOR_CHARACTERS = 64
MAX_REASON_CHARACTERS = 2_000


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, and by whom."""

    reason: str
    actor: str = "api"


class Until(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why, by whom, and until when."""

    reason: str
    actor: str
    until_ms: int


class Feedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether an incident was true, false, or true and known before; why, and who says so."""

    reason: str
    actor: str
    verdict: FeedbackVerdict


class Parameter(NamedTuple):
    """Something that is asked with. Whole numbers are in 0..`at_most`; words are one of `choices` where there are any."""

    name: str
    words: str
    default: int | str | None = None
    at_most: int | None = None
    choices: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        return self.at_most is not None


class Operation(NamedTuple):
    """A call. `name` is the method that answers it; `status` what it answers with where all is well."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    words: str
    answer: Any
    scope: MonitorScope | None = "read"  # None: for whatever watches the process
    parameters: tuple[Parameter, ...] = ()
    body: type[Order] | type[Until] | type[Feedback] | type[Look] | type[Agreement] | type[JobBody] | type[Hook] | None = None
    status: int = 200
    may_be: tuple[int, ...] = ()  # refusals of its own


_API = "/api/v1"
_MODEL = f"{_API}/models/{{model}}"
_INCIDENT = f"{_API}/incidents/{{incident_id}}"
_APPROVAL = f"{_API}/approvals/{{approval_id}}"
_RETRAIN = f"{_API}/retrains/{{key}}"
_PAGED = (
    Parameter("limit", "At most so many", 50, MAX_LIMIT),
    Parameter("offset", "So many are left out first", 0, 2**31),
)
_SPAN = (
    Parameter("start_ms", "From this moment of event time on", 0, END_OF_TIME_MS),
    Parameter("end_ms", "To before this moment", END_OF_TIME_MS, END_OF_TIME_MS),
)
_OF_SLICE = Parameter("slice", "Only this slice; the empty name is all slices together")
_ONE = (404,)
_ORDERED = (400, 404, 408, 409, 413)
_HOOKED = (400, 408, 413)

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/healthz", "health", "Whether the process answers", answers.Health, None),
    Operation("GET", "/readyz", "ready", "Whether all that was saved is read", answers.Ready, None),
    Operation("GET", f"{_API}/progress", "progress", "How far the monitor has come", answers.Progress),
    Operation("GET", f"{_API}/audit/verify", "verify_audit", "Walk the whole audit log", AuditVerdict),
    Operation("GET", f"{_API}/models", "models", "Every model", answers.Page[answers.ModelRow]),
    Operation("GET", _MODEL, "model", "One model in full", answers.ModelTold, may_be=_ONE),
    Operation(
        "GET", f"{_MODEL}/accuracy", "accuracy", "Labels and right answers by slice, all versions together",
        answers.CountedAccuracy, parameters=_SPAN, may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/slices", "slices", "The slices of the version in service, live and validated",
        answers.Page[answers.SliceTold], may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/windows", "windows", "Figures of windows, the oldest first; without a span those of the sliding view",
        answers.Page[answers.WindowTold],
        parameters=(*(one._replace(default=None) for one in _SPAN), _OF_SLICE, *_PAGED), may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/blocks", "blocks", "Every judged block, the oldest first", answers.Page[JudgedBlock],
        parameters=_SPAN, may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/signals", "signals", "Signals, the newest first, each in its last state", answers.Page[Signal],
        parameters=_PAGED, may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/decisions", "decisions", "Decisions, the newest first, also those to do nothing",
        answers.Page[Decision], parameters=_PAGED, may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/deployments", "deployments", "What was put into service, the newest first", answers.Page[Deployment],
        parameters=_PAGED, may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/runs", "runs", "Training runs, the newest first", answers.Page[RunEnd], parameters=_PAGED, may_be=_ONE
    ),
    Operation(
        "GET", f"{_MODEL}/retrains", "retrains", "Every ordered retrain, what it cost and was worth", RetrainPage,
        may_be=_ONE,
    ),
    Operation(
        "GET", f"{_MODEL}/evidence", "evidence", "Packs of evidence for the model's signals, the newest first",
        answers.Page[answers.EvidenceTold], parameters=_PAGED, may_be=_ONE,
    ),
    Operation(
        "GET", f"{_API}/incidents", "incidents", "Incidents, the last changed first", answers.IncidentPage,
        parameters=(
            Parameter("model", "Only of this model"),
            Parameter("state", "Only in this state", "all", choices=("open", "resolved", "all")),
            Parameter("severity", "Only of this severity", choices=("page", "ticket", "note")),
            *_PAGED,
        ),
        may_be=_ONE,
    ),
    Operation("GET", _INCIDENT, "incident", "One incident", Incident, may_be=_ONE),
    Operation(
        "POST", f"{_INCIDENT}/acknowledge", "acknowledge", "Somebody sees to an incident until a time", Incident, "respond",
        body=Until, may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_INCIDENT}/silence", "silence", "An incident is not to be heard until a time, unless it grows worse",
        Incident, "respond", body=Until, may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_INCIDENT}/feedback", "feedback", "Say whether an incident was true, false, or known before", Incident,
        "respond", body=Feedback, may_be=_ORDERED,
    ),
    Operation(
        "GET", f"{_API}/approvals", "approvals", "What people are and were asked, the last asked first, and how they answered",
        ApprovalPage,
        parameters=(
            Parameter("model", "Only of this model"),
            Parameter("state", "Only in this state", choices=("waiting", "approved", "rejected", "void", "expired")),
            *_PAGED,
        ),
        may_be=_ONE,
    ),
    Operation("GET", _APPROVAL, "approval", "One approval with what it rests on", ApprovalTold, may_be=_ONE),
    Operation(
        "POST", f"{_APPROVAL}/look", "look", "Open the evidence: the findings, and the digest that an answer names",
        ApprovalTold, "approve", body=Look, may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_APPROVAL}/approve", "approve", "Agree: what was asked is done", Approval, "approve", body=Agreement,
        may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_APPROVAL}/reject", "reject", "Do not agree: it is not done", Approval, "approve", body=Agreement,
        may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_APPROVAL}/review", "review", "Say what was found of an emergency, as another person", Approval, "approve",
        body=Order, may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_MODEL}/rollback", "rollback", "Bring the version before the present one back into service",
        answers.RolledBack, "operate", body=Order, may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_MODEL}/retrain", "retrain", "Order a retrain", answers.RetrainOrdered, "operate", body=Order, status=202,
        may_be=_ORDERED,
    ),
    Operation("GET", _RETRAIN, "ordered_retrain", "One retrain, with its run", RetrainRow, may_be=_ONE),
    Operation("POST", f"{_RETRAIN}/claim", "claim", "A job asks for it", Claimed, "report", body=JobClaim, may_be=_ORDERED),
    Operation("POST", f"{_RETRAIN}/beat", "beat", "A job says that it lives", Beating, "report", body=JobBeat, may_be=_ORDERED),
    Operation(
        "POST", f"{_RETRAIN}/outcome", "outcome", "A job tells what it found", OutcomeTaken, "report", body=JobOutcome,
        may_be=_ORDERED,
    ),
    Operation(
        "POST", f"{_RETRAIN}/cancel", "cancel", "End a retrain: nobody waits for it any more", Cancelled, "operate", body=Order,
        status=202, may_be=_ORDERED,
    ),
    *(
        Operation(
            "POST", f"{_API}/hooks/{name}", f"{name}_hook", f"A webhook of {name.capitalize()}: a look at its run at once",
            Woken, None, body=Hook, status=202, may_be=_HOOKED,
        )
        for name in HOOKS
    ),
)  # fmt: skip
