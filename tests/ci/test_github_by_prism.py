"""GitHub's backend against a server that Prism makes of GitHub's own OpenAPI document: what is asked must fit it, and what it
answers is understood. Faults are put in between."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from node import tool

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec, RetrainRequest
from clipdrift_deploy.ports import free_port
from clipdrift_monitor.actions.backends.backend import Attempt, AwayError, UnsureError
from clipdrift_monitor.actions.backends.github import Github
from clipdrift_monitor.actions.config import GithubConfig

pytestmark = [pytest.mark.ci, pytest.mark.timeout(200)]
NOW_MS = 1_800_000_000_000
_ACTIONS = "/repos/{owner}/{repo}/actions"
USED = (
    "/workflows/{workflow_id}/dispatches", "/workflows/{workflow_id}/runs", "/runs/{run_id}", "/runs/{run_id}/cancel",
    "/runs/{run_id}/jobs", "/jobs/{job_id}/logs",
)  # fmt: skip
ATTEMPT = Attempt(
    request=RetrainRequest(
        key="k1", model="pump", cause="drift", decision_id="d", requested_at_ms=0, as_of_ms=0, data_start_ms=0,
        champion_version="v1", champion_uri="", champion_digest="", champion_clip=ClipSpec(), generation=1, arms=(),
    ),
    number=1, ordered_at_ms=NOW_MS,
)  # fmt: skip


def trimmed(document: dict[str, Any]) -> dict[str, Any]:
    """The paths that the backend uses, with all that they refer to; the whole document takes Prism a minute to read."""
    kept: dict[str, Any] = {"openapi": document["openapi"], "info": document["info"], "components": {}}
    kept["paths"] = {f"{_ACTIONS}{place}": document["paths"][f"{_ACTIONS}{place}"] for place in USED}
    waiting = re.findall(r'"#/components/(\w+)/([^"]+)"', json.dumps(kept["paths"]))
    while waiting:
        kind, name = waiting.pop()
        if name not in kept["components"].setdefault(kind, {}):
            kept["components"][kind][name] = document["components"][kind][name]
            waiting += re.findall(r'"#/components/(\w+)/([^"]+)"', json.dumps(document["components"][kind][name]))
    return kept


@pytest.fixture(scope="module")
def prism(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address. Requests that do not fit the document are refused with 4xx."""
    words = tool("@stoplight/prism-cli/dist/index.js")
    source = Path(words[1]).parents[3] / "@octokit" / "openapi" / "generated" / "api.github.com.json"
    document = trimmed(json.loads(source.read_text()))
    for run in document["components"]["examples"]["workflow-run-paginated"]["value"]["workflow_runs"]:
        run["display_title"] = ATTEMPT.title  # the only thing of the example that must be ours, to be found
    created = document["components"]["parameters"]["created"]
    assert "search syntax" in created["description"]  # ">=2027-01-15T08:00:00Z"; its schema says a plain moment
    created["schema"].pop("format")
    folder = tmp_path_factory.mktemp("prism")
    (folder / "github.json").write_text(json.dumps(document))
    port = free_port("127.0.0.1")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*words, "mock", "-p", str(port), str(folder / "github.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 90
    while True:
        try:
            httpx.get(url, trust_env=False)
            break
        except httpx.TransportError:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
    yield url
    process.terminate()
    process.wait(20)


class Between(httpx.BaseTransport):
    """The network to Prism, with one fault for each entry of `faults`: an answer in place of a request, an answer that is lost,
    or a status that is asked of Prism. The log's own address, which is elsewhere, is answered here."""

    def __init__(self, *faults: httpx.Response | str) -> None:
        self._network = httpx.HTTPTransport()
        self.faults = list(faults)
        self.forwarded: list[tuple[str, str, int]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "127.0.0.1":
            assert "authorization" not in request.headers
            return httpx.Response(200, text="line 1\nValueError: no rows\n")
        fault = self.faults.pop(0) if self.faults else ""
        if isinstance(fault, httpx.Response):
            return fault
        assert request.headers["accept"] == "application/vnd.github+json"  # as GitHub's pages ask for
        request.headers["accept"] = "application/json"  # the document names that alone, and Prism takes them for two
        if fault.isdigit():
            request.headers["prefer"] = f"code={fault}"
        answer = self._network.handle_request(request)
        answer.read()
        self.forwarded.append((request.method, request.url.path, answer.status_code))
        violations = json.loads(answer.headers.get("sl-violations", "[]"))  # some of GitHub's examples do not fit its schemas
        assert not [one for one in violations if one["location"][0] == "request"], violations
        if fault == "lost":
            raise httpx.ReadTimeout("no answer", request=request)
        return answer


def github(prism: str, *faults: httpx.Response | str) -> tuple[Github, Between]:
    between = Between(*faults)
    config = GithubConfig(repository="acme/pumps", api_url=prism)
    return Github(config, lambda: "a-token", ManualClock(now_ms=NOW_MS), between), between


def test_prism_refuses_what_does_not_fit_githubs_document(prism: str) -> None:
    answer = httpx.post(
        f"{prism}/repos/acme/pumps/actions/workflows/clipdrift-retrain.yml/dispatches", json={"inputs": {}}, trust_env=False
    )
    assert answer.status_code == 422
    assert "ref" in answer.text


def test_a_run_is_begun_found_looked_at_read_and_cancelled(prism: str) -> None:
    backend, between = github(prism)
    begun = backend.dispatch(ATTEMPT)
    found = backend.find(ATTEMPT)
    assert begun.run_id.isdigit()
    assert begun.url.startswith("https://github.com/")
    assert found is not None
    assert found.url.startswith("https://github.com/")
    looked = backend.look(ATTEMPT, found.run_id)
    assert looked is not None
    assert "no rows" in backend.log_tail(ATTEMPT, found.run_id)
    backend.cancel(ATTEMPT, found.run_id)
    backend.close()
    actions = "/repos/acme/pumps/actions"
    assert [(method, path.removeprefix(actions)) for method, path, _ in between.forwarded][:3] == [
        ("POST", "/workflows/clipdrift-retrain.yml/dispatches"), ("GET", "/workflows/clipdrift-retrain.yml/runs"),
        ("GET", f"/runs/{found.run_id}"),
    ]  # fmt: skip
    assert [status for _, _, status in between.forwarded] == [200, 200, 200, 200, 302, 202]


def test_both_answers_to_a_dispatch_are_understood(prism: str) -> None:
    backend, _ = github(prism, "204")
    begun = backend.dispatch(ATTEMPT)
    assert (begun.run_id, begun.url, begun.state) == ("", "", "queued")  # it is found by its title then


def test_a_run_that_has_ended_already_cannot_be_cancelled_and_that_is_no_error(prism: str) -> None:
    backend, between = github(prism, "409")
    backend.cancel(ATTEMPT, "1")
    assert between.forwarded[0][2] == 409


def test_a_time_out_after_it_was_taken_is_unsure_and_is_never_sent_again(prism: str) -> None:
    backend, between = github(prism, "lost")
    with pytest.raises(UnsureError):
        backend.dispatch(ATTEMPT)
    assert [status for _, _, status in between.forwarded] == [200]  # it has begun
    assert backend.find(ATTEMPT) is not None  # and is adopted


@pytest.mark.parametrize("status", [500, 502])
def test_a_500_to_a_dispatch_is_unsure(prism: str, status: int) -> None:
    backend, between = github(prism, httpx.Response(status, text="it hurts"))
    with pytest.raises(UnsureError):
        backend.dispatch(ATTEMPT)
    assert between.forwarded == []


def test_a_403_with_retry_after_puts_off_and_nothing_is_asked_before(prism: str) -> None:
    backend, between = github(
        prism, httpx.Response(403, headers={"retry-after": "30"}, json={"message": "secondary rate limit"})
    )
    with pytest.raises(AwayError) as caught:
        backend.dispatch(ATTEMPT)
    assert caught.value.retry_at_ms == NOW_MS + 30_000
    with pytest.raises(AwayError, match="patience"):
        backend.dispatch(ATTEMPT)
    assert between.forwarded == []
