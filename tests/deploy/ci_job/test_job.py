"""A job against a monitor of values: claimed once, done here, handed in whole, told once, and ended when it is told to end."""

import hashlib
import json
import sys
from urllib.parse import parse_qs, unquote

import httpx
import msgspec
import pytest

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Arm, ClipSpec, RetrainRequest, RunEnd
from clipdrift_deploy.ci_job import job
from clipdrift_deploy.ci_job.claimant import Claimant, claimant_of
from clipdrift_deploy.ci_job.client import JobClient, MonitorRefusal
from clipdrift_deploy.ci_job.job import FAILED, INCONCLUSIVE, NO_OUTCOME, PASSED, STOPPED, Place, carry_out_order

KEY, MODEL_BYTES = "k1", b"the model in service"
RUN = Claimant("github-7-1", "https://github.com/a/b/actions/runs/7/attempts/1")
ARM = Arm(name="same", clip=ClipSpec())
REQUEST = RetrainRequest(
    key=KEY, model="pump", cause="drift", decision_id="d1", requested_at_ms=0, as_of_ms=10, data_start_ms=0,
    champion_version="v1", champion_uri="file:///elsewhere/v1/model.onnx", champion_digest="sha256:1",
    champion_clip=ClipSpec(), generation=1, arms=(ARM,),
)  # fmt: skip
RUN_END = RunEnd(
    run_id="r", model="pump", version="v2", started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1, as_of_ms=1,
    data_digest="", code_revision="", seed=0, optimizer="Adam", learning_rate=0.1, clip=ClipSpec(), num_steps=1,
    retrain_key=KEY,
)  # fmt: skip
# The retrain of these tests: writes what a real one leaves, as the words behind the program say.
PROGRAM = """
import json, os, sys, time
from pathlib import Path
verdict, artifacts, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
request = json.loads((folder / "request.json").read_text())
(folder / "seen.json").write_text(json.dumps({"uri": request["champion_uri"], "environment": dict(os.environ)}))
if verdict == "dies":
    sys.exit(9)
if verdict == "for ever":
    (folder / "begun").touch()
    time.sleep(60)
if verdict == "pass":
    version = artifacts / "pump" / "v2"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"candidate")
    (version / "card.json").write_bytes(b"{}")
    (folder / "run_end.json").write_text(sys.argv[4] if len(sys.argv) > 4 else os.environ["RUN_END"])
outcome = {"key": "k1", "model": "pump", "finished_at_ms": 1, "verdict": verdict, "reasons": ["because"]}
if verdict == "pass":
    outcome |= {"candidate_version": "v2", "candidate_uri": "file:///runner/v2/model.onnx"}
(folder / "outcome.json").write_text(json.dumps(outcome))
"""


class Monitor:
    """What a monitor answers, and what it was told. `trouble` are answers that come first, None for a cut connection."""

    def __init__(self, request=REQUEST, beat_seconds=60):
        self.request, self.beat_seconds = request, beat_seconds
        self.owner, self.outcome, self.files, self.calls = None, None, {}, []
        self.trouble, self.is_cancelled, self.loses_answers = [], False, 0

    def __call__(self, asked: httpx.Request) -> httpx.Response:
        what = asked.url.path.removeprefix("/api/v1/")
        self.calls.append((asked.method, what))
        if self.trouble and (status := self.trouble.pop(0)) != 200:
            if status is None:
                raise httpx.ConnectError("cut", request=asked)
            return httpx.Response(status, json={"error": "not now"})
        answer = self._answer(asked, what)
        if self.loses_answers:  # done, and nobody hears of it
            self.loses_answers -= 1
            raise httpx.ReadTimeout("lost", request=asked)
        return answer

    def _answer(self, asked, what):
        if what == f"retrains/{KEY}/claim":
            return self._claim(json.loads(asked.content))
        if what == f"retrains/{KEY}/beat":
            return httpx.Response(
                409 if self.is_cancelled else 200, json={"beat_seconds": 1, "error": "it was cancelled by Ann"}
            )
        if what == f"retrains/{KEY}/outcome":
            told = json.loads(asked.content)
            self.outcome = told
            return httpx.Response(200, json={"is_taken": True, "words": "it decides"})
        if asked.method == "PUT":
            name, version = unquote(what.rsplit("/", 1)[1]), parse_qs(asked.url.query.decode())["version"][0]
            self.files[name] = asked.content
            return httpx.Response(200, json={"uri": f"file:///monitor/{version}/{name}"})
        digest = hashlib.sha256(MODEL_BYTES).hexdigest()
        if what.endswith("/files"):
            items = [{"name": "model.onnx", "num_bytes": len(MODEL_BYTES), "sha256": digest}]
            return httpx.Response(200, json={"items": items})
        return httpx.Response(200, content=MODEL_BYTES)

    def _claim(self, told):
        if self.owner not in (None, told["run"]):
            return httpx.Response(409, json={"error": f"retrain {KEY} is being carried out by {self.owner}"})
        self.owner = told["run"]
        request = msgspec.to_builtins(self.request)
        return httpx.Response(200, json={"request": request, "attempt": 2, "beat_seconds": self.beat_seconds})


@pytest.fixture
def do(tmp_path, monkeypatch):
    """Carry out the order in this folder, the retrain being a program that comes to `verdict`."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    place = Place(artifacts=tmp_path / "models", jobs=tmp_path / "jobs", report=tmp_path / "report")

    def carry_out(monitor, verdict="pass", run=RUN, model="pump", environment=None):
        given = {"RUN_END": msgspec.json.encode(RUN_END).decode(), "PATH": "/usr/bin"} | (environment or {})
        command = (sys.executable, "-c", PROGRAM, verdict, str(place.artifacts))
        with JobClient(
            "http://monitor", "a-key", run.name, transport=httpx.MockTransport(monitor), pause=lambda _: None
        ) as client:
            return carry_out_order(
                client, run, place, command, model=model, key=KEY, attempt=2, environment=given
            )  # fmt: skip

    carry_out.place = place
    return carry_out


def test_a_job_that_passes_hands_in_all_files_with_the_model_last_and_tells_where_they_are(do):
    monitor = Monitor()

    ended = do(monitor)

    handed_in = [what.rsplit("/", 1)[1] for method, what in monitor.calls if method == "PUT"]
    assert (ended.status, ended.words) == (PASSED, "pass: because")
    assert (handed_in, monitor.files["model.onnx"]) == (["card.json", "model.onnx"], b"candidate")
    assert monitor.outcome["outcome"]["candidate_uri"] == "file:///monitor/v2/model.onnx"
    assert monitor.outcome["run_end"]["artifact_uri"] == "file:///monitor/v2/model.onnx"
    assert (monitor.outcome["outcome"]["run_url"], monitor.outcome["outcome"]["attempt"]) == (RUN.url, 2)


def test_the_retrain_gets_the_model_in_service_and_no_secret_of_the_monitor(do):
    do(Monitor(), environment={"CLIPDRIFT_API_TOKEN": "a-key", "CLIPDRIFT_REGISTRY_URL": "none"})

    seen = json.loads((do.place.jobs / KEY / "seen.json").read_text())
    local = do.place.artifacts / "pump" / "v1" / "model.onnx"
    assert (seen["uri"], local.read_bytes()) == (local.resolve().as_uri(), MODEL_BYTES)
    assert "CLIPDRIFT_API_TOKEN" not in seen["environment"]
    assert seen["environment"]["CLIPDRIFT_REGISTRY_URL"] == "none"


@pytest.mark.parametrize(("verdict", "status"), [("fail", FAILED), ("inconclusive", INCONCLUSIVE)])
def test_a_verdict_that_is_no_pass_is_told_and_shown_by_the_status(do, verdict, status):
    monitor = Monitor()
    assert do(monitor, verdict).status == status
    assert (monitor.outcome["outcome"]["verdict"], monitor.files) == (verdict, {})


def test_a_second_run_has_nothing_to_do_and_is_no_failure(do):
    monitor = Monitor()
    monitor.owner = "github-6-1"
    ended = do(monitor)
    assert (ended.status, "github-6-1" in ended.words, len(monitor.calls)) == (PASSED, True, 1)


def test_a_retrain_that_dies_is_told_to_nobody_so_that_the_monitor_begins_another(do):
    monitor = Monitor()
    assert do(monitor, "dies").status == NO_OUTCOME
    assert monitor.outcome is None


def test_a_cancelled_retrain_is_ended_at_the_next_beat_and_tells_nothing(do):
    monitor = Monitor(beat_seconds=0.05)
    monitor.is_cancelled = True
    ended = do(monitor, "for ever")
    assert (ended.status, "cancelled by Ann" in ended.words, monitor.outcome) == (STOPPED, True, None)


@pytest.mark.parametrize("trouble", [[503], [None], [500, None, 429]])
def test_a_monitor_that_is_away_for_a_while_costs_nothing(do, trouble):
    monitor = Monitor()
    monitor.trouble = [*trouble, 200, *trouble]
    assert do(monitor).status == PASSED
    assert monitor.files["model.onnx"] == b"candidate"


def test_a_call_whose_answer_is_lost_is_made_again_and_done_once(do):
    monitor = Monitor()
    monitor.loses_answers = 2
    assert do(monitor).status == PASSED
    assert monitor.owner == RUN.name


def test_a_job_that_is_started_again_in_its_folder_only_tells(do):
    do(Monitor())
    again = Monitor()
    (do.place.jobs / KEY / "seen.json").unlink()
    assert do(again, "dies").status == PASSED  # the program would have died: what is there counts
    assert again.outcome["outcome"]["verdict"] == "pass"


def test_a_refused_key_says_how_to_make_a_good_one(do):
    monitor = Monitor()
    monitor.trouble = [403]
    with pytest.raises(MonitorRefusal, match="clipdrift key ci --scope report"):
        do(monitor)


def test_a_monitor_that_never_answers_ends_the_job(do):
    monitor = Monitor()
    monitor.trouble = [None] * 1000
    with pytest.raises(MonitorRefusal, match="does not answer"):
        do(monitor)


def test_an_order_of_another_model_is_not_carried_out(do):
    with pytest.raises(ClipdriftError, match="order to retrain pump"):
        do(Monitor(), model="valve")


def test_a_model_that_was_changed_on_the_way_is_not_trained_against(do):
    monitor = Monitor()
    answer = monitor._answer
    monitor._answer = lambda asked, what: (
        httpx.Response(200, content=b"another")
        if what.endswith("files/model.onnx") and asked.method == "GET"
        else answer(asked, what)
    )
    do(monitor, "inconclusive")
    seen = json.loads((do.place.jobs / KEY / "seen.json").read_text())
    assert seen["uri"] == REQUEST.champion_uri  # the retrain then finds no such file, and says so
    assert not (do.place.artifacts / "pump" / "v1" / "model.onnx").exists()


def test_the_report_holds_what_people_and_scripts_read(do):
    do(Monitor(), "fail")
    names = {path.name for path in do.place.report.iterdir()}
    assert {"summary.md", "gate.html", "outcome.json", "request.json"} <= names
    assert json.loads((do.place.report / "outcome.json").read_text())["verdict"] == "fail"


def test_two_pods_and_two_attempts_are_never_one_claimant():
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    names = {claimant_of({**pod, "HOSTNAME": f"retrain-{n}"}).name for n in range(2)}
    names |= {claimant_of({"GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": str(n)}).name for n in range(2)}
    assert len(names) == 4
    with pytest.raises(ValueError, match="CLIPDRIFT_RUN_NAME"):
        claimant_of({"HOSTNAME": "laptop"})


def test_statuses_are_those_of_the_commands_help():
    assert (job.PASSED, job.NO_OUTCOME, job.FAILED, job.INCONCLUSIVE, job.STOPPED) == (0, 1, 3, 4, 5)
