"""Kubernetes: a Job for each attempt, whose name follows from it: making it twice makes it once (409 is success)."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from clipdrift_contract.clock import Clock
from clipdrift_monitor.actions.backends.backend import Attempt, AwayError, CiRun, CiState, tail_of
from clipdrift_monitor.actions.backends.ci_client import CiClient, json_of, told_by
from clipdrift_monitor.actions.config import KubernetesConfig

_KEPT_SECONDS = 7 * 86_400  # longer than any attempt is asked for: while the Job is there, its name is taken
_NUM_LOG_LINES = "20"
_DIGEST_CHARACTERS = 20


class Kubernetes:
    """Jobs of one namespace.

    Args:
        config: Which, and what runs in them.
        token: Gives the token for the next request; those of service accounts change every hour.
        run_seconds: After which Kubernetes ends a Job.
        clock: For when to ask again.
        transport: In place of the network, for tests.
    """

    def __init__(
        self,
        config: KubernetesConfig,
        token: Callable[[], str],
        run_seconds: int,
        clock: Clock,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._config = config
        self._run_seconds = run_seconds
        verify: Any = config.ca_file if config.ca_file and Path(config.ca_file).exists() else True
        self._http = CiClient("Kubernetes", config.api_url, clock, bearer=token, transport=transport, verify=verify)
        self._jobs = f"/apis/batch/v1/namespaces/{config.namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{config.namespace}/pods"

    def find(self, attempt: Attempt) -> CiRun | None:
        return self.look(attempt, name_of(attempt))

    def dispatch(self, attempt: Attempt) -> CiRun:
        answer = self._http.change("POST", self._jobs, expected=(200, 201, 202, 409), json=self.manifest(attempt))
        if answer.status_code == 409:
            found = self.find(attempt)
            if found is None:
                raise AwayError(f"Kubernetes: a Job {name_of(attempt)} was there and is no more")
            return found
        return self._run_of(told_by(answer), attempt)

    def look(self, attempt: Attempt, run_id: str) -> CiRun | None:
        answer = self._http.read(f"{self._jobs}/{run_id}", expected=(200, 404))
        return None if answer.status_code == 404 else self._run_of(json_of(answer), attempt)

    def cancel(self, attempt: Attempt, run_id: str) -> None:
        self._http.change(
            "DELETE", f"{self._jobs}/{run_id}", expected=(200, 202, 404),
            params={"propagationPolicy": "Background"},  # the pods with it
        )  # fmt: skip

    def log_tail(self, attempt: Attempt, run_id: str) -> str:
        answer = self._http.read(self._pods, params={"labelSelector": f"job-name={run_id}"})
        pods = json_of(answer).get("items", [])
        if not pods:
            return ""
        answer = self._http.read(
            f"{self._pods}/{pods[-1]['metadata']['name']}/log", expected=(200, 400, 404),
            params={"tailLines": _NUM_LOG_LINES},
        )  # fmt: skip
        return tail_of(answer.text) if answer.status_code == 200 else ""

    def close(self) -> None:
        self._http.close()

    def manifest(self, attempt: Attempt) -> dict[str, Any]:
        """The Job. It is never repeated by Kubernetes itself: the monitor decides about another attempt."""
        config = self._config
        resources = {"cpu": config.cpu, "memory": config.memory}
        labels = {"app.kubernetes.io/name": "clipdrift-retrain", "clipdrift.dev/retrain": _digest(attempt)}
        container = {
            "name": "retrain",
            "image": config.image,
            "args": ["retrain", attempt.request.model, "--key", attempt.request.key, "--attempt", str(attempt.number)],
            "envFrom": [{"secretRef": {"name": config.secret}}],
            "resources": {"requests": resources, "limits": resources},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        pod = {
            "restartPolicy": "Never",
            "serviceAccountName": config.service_account,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                "name": name_of(attempt),
                "namespace": config.namespace,
                "labels": labels,
                "annotations": {f"clipdrift.dev/{name}": value for name, value in attempt.inputs.items()},
            },
            "spec": {
                "backoffLimit": 0,
                "activeDeadlineSeconds": self._run_seconds,
                "ttlSecondsAfterFinished": _KEPT_SECONDS,
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }

    def _run_of(self, job: dict[str, Any], attempt: Attempt) -> CiRun:
        name = job.get("metadata", {}).get("name", name_of(attempt))
        return CiRun(run_id=name, url=f"{self._config.api_url.rstrip('/')}{self._jobs}/{name}", state=_state_of(job))


def name_of(attempt: Attempt) -> str:
    """The Job's name: the same for the same attempt, and at most 63 characters."""
    return f"clipdrift-{_digest(attempt)}-{attempt.number}"


def _digest(attempt: Attempt) -> str:
    request = attempt.request
    return hashlib.sha256(f"{request.model} {request.key}".encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _state_of(job: dict[str, Any]) -> CiState:
    status = job.get("status") or {}
    is_so = {one.get("type") for one in status.get("conditions") or () if one.get("status") == "True"}
    if "Complete" in is_so:
        return "succeeded"
    if "Failed" in is_so:
        return "failed"
    if job.get("metadata", {}).get("deletionTimestamp"):
        return "cancelled"
    return "running" if status.get("ready") else "queued"
