"""The monitor's HTTP interface as the command line uses it."""

import json
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_deploy.ports import url_of
from clipdrift_deploy.project import Project
from clipdrift_deploy.report import Page, join_pages
from clipdrift_deploy.up import ADDRESSES
from clipdrift_deploy.wiring import listeners

STATUS_COLUMNS = ("model", "version", "state", "live accuracy", "labels", "clipping")
_MOST = 500  # that the monitor lists at once
_MIN_DIGITS = 8  # of a digest
_CLIPPING_WORDS = {
    "implicated": "did it",
    "associated": "associated",
    "not_implicated": "not implicated",
    "unknown": "cannot tell yet",
}


class MonitorError(ClipdriftError):
    """The monitor refused, or could not be reached; the message says what to do."""


class MonitorClient:
    """A connection to a running monitor. A context manager; raises `MonitorError` for every refusal.

    Args:
        url: Where the monitor listens.
        token: Bearer token for the calls that change something; sent to `url` alone and never shown.
        approval_key: The same for approvals, of a person; empty: the token.
    """

    def __init__(self, url: str, token: str, approval_key: str = "") -> None:
        self.url = url
        self._approval_key = approval_key
        # a proxy knows nothing of this machine's ports, and must not see the token
        self._http = httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30.0, trust_env=False)

    def __enter__(self) -> "MonitorClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Every model that the monitor knows, each in full."""
        listed = self._call("GET", "/api/v1/models")
        items: list[dict[str, Any]] = listed["items"] if isinstance(listed, dict) else listed
        return [self._call("GET", _path_of(item["model"])) for item in items]

    def deployments(self, model: str) -> list[dict[str, Any]]:
        """What was put into service, the newest first; the last 500."""
        items: list[dict[str, Any]] = self._call("GET", _path_of(model, f"/deployments?limit={_MOST}"))["items"]
        return items

    def rollback(self, model: str, reason: str) -> dict[str, Any]:
        """Order the previous version back into service."""
        answer: dict[str, Any] = self._call("POST", _path_of(model, "/rollback"), {"reason": reason, "actor": "cli"})
        return answer

    def order_retrain(self, model: str, reason: str) -> dict[str, Any]:
        """Order a retrain; the answer holds its key."""
        answer: dict[str, Any] = self._call("POST", _path_of(model, "/retrain"), {"reason": reason, "actor": "cli"})
        return answer

    def cancel_retrain(self, key: str, reason: str) -> dict[str, Any]:
        """End an ordered retrain, by its key."""
        path = f"/api/v1/retrains/{quote(key, safe='')}/cancel"
        answer: dict[str, Any] = self._call("POST", path, {"reason": reason, "actor": "cli"})
        return answer

    def incidents(
        self, *, model: str | None = None, severity: str | None = None, state: str = "open", limit: int = 50
    ) -> dict[str, Any]:
        """Incidents, the newest first, as `items`, and how often they have been right, as `precision`.

        Args:
            model: Only those of this model.
            severity: Only those of this severity.
            state: "open", "resolved" or "all".
            limit: At most so many.
        """
        asked = {"model": model, "severity": severity, "state": state, "limit": limit}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        answer: dict[str, Any] = self._call("GET", f"/api/v1/incidents?{query}")
        return answer

    def incident(self, part: str) -> dict[str, Any]:
        """One incident in full, by its id or a part of it.

        Raises:
            MonitorError: There is none, or the part could mean several.
        """
        answer: dict[str, Any] = self._call("GET", _incident_path(self._incident_id(part)))
        return answer

    def hold_incident(
        self, what: Literal["acknowledge", "silence"], part: str, reason: str, actor: str, until_ms: int
    ) -> dict[str, Any]:
        """Say that somebody sees to an incident, or that it be silent, until a time; the incident as it is then."""
        path = f"{_incident_path(self._incident_id(part))}/{what}"
        answer: dict[str, Any] = self._call("POST", path, {"reason": reason, "actor": actor, "until_ms": until_ms})
        return answer

    def judge_incident(self, part: str, verdict: str, reason: str, actor: str) -> dict[str, Any]:
        """Say whether an incident was true; the incident as it is then."""
        path = f"{_incident_path(self._incident_id(part))}/feedback"
        answer: dict[str, Any] = self._call("POST", path, {"verdict": verdict, "reason": reason, "actor": actor})
        return answer

    def approvals(self, *, model: str | None = None, state: str | None = None, limit: int = 50) -> dict[str, Any]:
        """Approvals, the last asked first, as `items`, and how people answered, as `figures`."""
        asked = {"model": model, "state": state, "limit": limit}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        answer: dict[str, Any] = self._call("GET", f"/api/v1/approvals?{query}")
        return answer

    def approval(self, part: str) -> dict[str, Any]:
        """One approval with what it rests on, by its id or a part of it.

        Raises:
            MonitorError: There is none, or the part could mean several.
        """
        answer: dict[str, Any] = self._call("GET", _approval_path(self._approval_id(part)))
        return answer

    def look_at_approval(self, part: str, actor: str, expectation: str) -> dict[str, Any]:
        """Open the evidence of an approval: the same with its findings, and on record from now on."""
        path = f"{_approval_path(self._approval_id(part))}/look"
        return self._answered(path, {"expectation": expectation}, actor)

    def answer_approval(
        self, what: Literal["approve", "reject"], part: str, reason: str, actor: str, evidence: str, *, is_emergency: bool
    ) -> dict[str, Any]:
        """Approve or reject; the approval as it is then.

        Args:
            what: Which.
            part: The approval's id or a part of it.
            reason: Kept in the record.
            actor: Who answers, where no key says so.
            evidence: The digest of the evidence that was opened, or how it begins.
            is_emergency: Of an approval: it passes over looking and over who ordered the retrain.

        Raises:
            MonitorError: The evidence is another one, or the monitor refuses.
        """
        approval = self.approval(part)["approval"]
        known = str(approval["binding"]["evidence_digest"])
        if len(evidence) < _MIN_DIGITS or not known.startswith(evidence):
            raise MonitorError(
                f"the evidence of {approval['approval_id']} is not {evidence!r}: name the digest that `clipdrift approvals "
                f"show` says, or its first {_MIN_DIGITS} digits at least"
            )
        body = {"reason": reason, "evidence_digest": known, "is_break_glass": is_emergency}
        return self._answered(f"{_approval_path(approval['approval_id'])}/{what}", body, actor)

    def review_approval(self, part: str, reason: str, actor: str) -> dict[str, Any]:
        """Say what was found of an emergency; the approval as it is then."""
        return self._answered(f"{_approval_path(self._approval_id(part))}/review", {"reason": reason}, actor)

    def _answered(self, path: str, body: dict[str, Any], actor: str) -> dict[str, Any]:
        """With a key its name is who answers; otherwise the actor."""
        named = body if self._approval_key else {**body, "actor": actor}
        answer: dict[str, Any] = self._call("POST", path, named, key=self._approval_key)
        return answer

    def _approval_id(self, part: str) -> str:
        """The id that `part` stands for: of all, else of those that wait."""
        listed = self.approvals(limit=_MOST)["items"]
        found = [one["approval_id"] for one in listed if part in one["approval_id"]]
        waiting = [one["approval_id"] for one in listed if part in one["approval_id"] and one["state"] == "waiting"]
        if part in found or not found:
            return part  # where there is none, the monitor says so
        if len(found) > 1 and len(waiting) != 1:
            raise MonitorError(f"{part!r} could be any of {', '.join(found[:5])}; give more of the id")
        return str(waiting[0] if len(found) > 1 else found[0])

    def _incident_id(self, part: str) -> str:
        """The id that `part` stands for: of all, else of those that are open."""
        found = [one["incident_id"] for one in self.incidents(state="all", limit=_MOST)["items"] if part in one["incident_id"]]
        if part in found or not found:
            return part  # where there is none, the monitor says so
        if len(found) > 1:
            shown = [one["incident_id"] for one in self.incidents(limit=_MOST)["items"] if part in one["incident_id"]]
            if len(shown) == 1:
                return str(shown[0])
            raise MonitorError(f"{part!r} could be any of {', '.join(found[:5])}; give more of the id")
        return str(found[0])

    def page(self, path: str) -> str:
        """A status page's HTML."""
        return self._send("GET", path, None).text

    def save_report(self, path: Path, name: str, note: str = "") -> int:
        """Write what the status pages show as one HTML file that needs no server; returns the number of models.

        Args:
            path: The file.
            name: Its title.
            note: A line at its end, such as when it was written.

        Raises:
            MonitorError: The monitor does not answer, or the file cannot be written.
        """
        names = [model["model"] for model in self.models()]
        pages = [Page("overview", "/", self.page("/"))]
        pages += [Page(model, _page_of(model), self.page(_page_of(model))) for model in names]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(join_pages(name, pages, note))
        except OSError as error:
            raise MonitorError(f"{path} cannot be written ({error.strerror}); name another file with --out") from error
        return len(names)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None, key: str = "") -> Any:
        answer = self._send(method, path, body, key)
        try:
            return answer.json()
        except ValueError as error:
            raise MonitorError(f"what listens at {self.url} is no Clipdrift monitor: {answer.text.strip()[:100]!r}") from error

    def _send(self, method: str, path: str, body: dict[str, Any] | None, key: str = "") -> httpx.Response:
        try:
            headers = {"authorization": f"Bearer {key}"} if key else None
            answer = self._http.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            raise MonitorError(f"the monitor at {self.url} does not answer ({error}); is `clipdrift up` running?") from error
        if answer.is_error:
            raise MonitorError(f"the monitor refused: {_reason(answer)}")
        return answer


def connect(project: Project) -> MonitorClient:
    """A client for the monitor of `project`: at the address that `clipdrift up` left behind, else where the settings say."""
    left = project.state / ADDRESSES
    try:
        url = json.loads(left.read_text())["monitor"] if left.exists() else url_of(*listeners(project)["monitor"])
    except (ValueError, KeyError) as error:
        raise ConfigError(f"{left} is damaged; delete it, `clipdrift up` writes it anew") from error
    return MonitorClient(url, project.secrets().api_token, project.environment.approval_key)


def status_row(model: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one model in the table that `clipdrift status` shows; what is not known yet is a dash.

    Behind the accuracy stands half the width of its 95 % interval. The table fits 80 columns.

    Example:
        >>> status_row({"model": "pump", "version": "3", "state": "healthy",
        ...             "accuracy": {"value": 0.8512, "low": 0.84, "high": 0.86, "n": 12000}})
        ('pump', '3', 'healthy', '0.851 ± 0.010', '12,000', '-')
    """
    accuracy = model.get("accuracy") or {}
    return (
        str(model.get("model") or "-"),
        str(model.get("version") or "-"),
        str(model.get("state") or "-"),
        _accuracy_words(accuracy),
        f"{accuracy['n']:,}" if accuracy.get("n") is not None else "-",
        _CLIPPING_WORDS.get(str(model.get("clipping")), str(model.get("clipping") or "-")),
    )


def status_words(model: dict[str, Any]) -> list[str]:
    """What the monitor makes of a model that is not well, in sentences: its diagnosis, and what would settle it.

    Example:
        >>> status_words({"model": "pump", "state": "harmed", "diagnosis": {"words": "drift of vibration", "would_tell": ""}})
        ['pump: drift of vibration']
    """
    diagnosis = model.get("diagnosis") or {}
    words = [str(diagnosis[name]) for name in ("words", "would_tell") if diagnosis.get(name)]
    told = [f"{model.get('model')}: {'; what would tell: '.join(words)}"] if words else []
    rollout, approval = model.get("rollout") or {}, model.get("approval")
    if rollout:
        told.append(
            f"{model.get('model')}: version {rollout['version']} is on its way ({rollout['stage']}): {rollout['words']}"
        )
    if approval:
        told.append(f"{model.get('model')}: waits for a person: `clipdrift approvals show {approval}`")
    return told


def _accuracy_words(accuracy: dict[str, Any]) -> str:
    if accuracy.get("value") is None:
        return "-"
    shown = f"{accuracy['value']:.3f}"
    has_interval = accuracy.get("low") is not None and accuracy.get("high") is not None
    return f"{shown} ± {(accuracy['high'] - accuracy['low']) / 2:.3f}" if has_interval else shown


def _path_of(model: str, action: str = "") -> str:
    return f"/api/v1/models/{quote(model, safe='')}{action}"


def _incident_path(incident_id: str) -> str:
    return f"/api/v1/incidents/{quote(incident_id, safe='')}"


def _approval_path(approval_id: str) -> str:
    return f"/api/v1/approvals/{quote(approval_id, safe='')}"


def _page_of(model: str) -> str:
    return f"/models/{quote(model, safe='')}"


def _reason(answer: httpx.Response) -> str:
    """The refusal's own sentence, where it is JSON that holds one."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    words = body.get("error") or body.get("detail") if isinstance(body, dict) else None
    return f"{words or answer.text.strip()[:300]} (status {answer.status_code})"
