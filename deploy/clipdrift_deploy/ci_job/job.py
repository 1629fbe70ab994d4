"""Carries out one order in a CI: claim, fetch the model in service, retrain, hand in the candidate, tell the outcome.

The retrain itself is the process that a monitor on this machine would start, in a folder and with a bus of its own; this
process only talks. A job that dies at any point is begun again by the monitor.
"""

import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import RetrainOutcome, RetrainRequest, RunEnd, Verdict
from clipdrift_contract.jobs import JobFolder
from clipdrift_contract.version_files import sha256_of
from clipdrift_deploy.ci_job.beats import Beats
from clipdrift_deploy.ci_job.claimant import Claimant
from clipdrift_deploy.ci_job.client import Claimed, JobClient, MonitorRefusal, NotOursError, VersionFile
from clipdrift_deploy.ci_job.report import write_report

MODEL_FILE = "model.onnx"
PASSED, NO_OUTCOME, FAILED, INCONCLUSIVE, STOPPED = 0, 1, 3, 4, 5  # 2: a setting is wrong, or the monitor refuses
_STATUS: Mapping[Verdict, int] = {"pass": PASSED, "fail": FAILED, "inconclusive": INCONCLUSIVE}
_END_SECONDS = 10.0
_log = logging.getLogger(__name__)


class Ended(NamedTuple):
    """How a job ended: its exit status, and why."""

    status: int
    words: str


class Place(NamedTuple):
    """Where a job works."""

    artifacts: Path  # versions, as MODEL/VERSION/model.onnx
    jobs: Path
    report: Path


def carry_out_order(
    client: JobClient,
    claimant: Claimant,
    place: Place,
    command: Sequence[str],
    *,
    model: str,
    key: str,
    attempt: int,
    environment: Mapping[str, str] = os.environ,
) -> Ended:
    """Carry out the retrain `key`, if no other run does; the report is in `place.report` then.

    Args:
        client: Talks to the monitor.
        claimant: Which run this is.
        place: Where to work.
        command: Carries out the order in a job's folder, whose path is appended.
        model: That the CI was told to retrain.
        key: The order.
        attempt: Which try the CI was told that it is.
        environment: Of the command.

    Raises:
        MonitorRefusal: The monitor refused, or did not answer.
        ClipdriftError: The order is of another model.
    """
    try:
        claimed = client.claim(key, attempt, claimant.url)
    except NotOursError as error:
        return Ended(PASSED, f"duplicate, nothing to do: {error}")
    if claimed.request.model != model:
        raise ClipdriftError(f"{key} is an order to retrain {claimed.request.model}, and not {model}: start the pipeline anew")
    folder = JobFolder(place.jobs, key)
    _log.info("%s is ours (attempt %d)", key, claimed.attempt)
    process = _Process()
    with Beats(lambda: client.beat(key), claimed.beat_seconds, process.end) as beats:
        folder.write_request(_with_champion(client, claimed.request, place.artifacts))
        status = process.run((*command, str(folder.path)), _environment(environment, folder))
        if beats.why_stopped:
            return Ended(STOPPED, f"ended before it was done: {beats.why_stopped}")
        found = folder.read_outcome()
        if found is None:
            return Ended(NO_OUTCOME, f"the retrain ended with status {status} and without an outcome; the log above says why")
        try:
            outcome, run_end = _hand_in(client, claimed, _complete(found, claimed, claimant), folder.read_run_end(), place)
        except NotOursError as error:
            return Ended(STOPPED, f"ended before the candidate was handed in: {error}")
        taken = client.report(key, outcome, run_end)
    write_report(place.report, claimed.request, outcome, run_end)
    words = f"{outcome.verdict}: {'; '.join(outcome.reasons)}"
    if not taken.is_taken:
        return Ended(STOPPED, f"{words} (told, and it decides nothing: {taken.words})")
    return Ended(_STATUS[outcome.verdict], words)


class _Process:
    """The retrain's own process, which another thread may end, also before it begins."""

    def __init__(self) -> None:
        self._is_ended = False
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        # not in a session of its own: whoever ends this job with all that belongs to it, ends that too
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=dict(environment)) as self._process:
            try:
                if self._is_ended:
                    self._process.terminate()
                return self._process.wait()
            except BaseException:  # this job is being ended
                self.end()
                raise

    def end(self) -> None:
        self._is_ended = True
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _environment(environment: Mapping[str, str], folder: JobFolder) -> dict[str, str]:
    """What the retrain gets: nothing that it could tell the monitor with, and a bus of its own."""
    kept = {name: value for name, value in environment.items() if not name.startswith(("CLIPDRIFT_API_", "CLIPDRIFT_CI_"))}
    return kept | {"CLIPDRIFT_BUS_URL": f"sqlite:///{(folder.path / 'bus.db').resolve()}"}


def _with_champion(client: JobClient, request: RetrainRequest, artifacts: Path) -> RetrainRequest:
    """The order with the model in service on this machine. Where it cannot be had, the retrain says so in its outcome."""
    folder = artifacts / request.model / request.champion_version
    try:
        files = client.files_of(request.model, request.champion_version)
        for file in sorted(files, key=lambda one: one.name == MODEL_FILE):  # last: where it is, all is there
            if not _is_there(folder / file.name, file):
                client.fetch(request.model, request.champion_version, file, folder / file.name)
    except (MonitorRefusal, OSError) as error:
        _log.warning("the model in service was not fetched: %s", error)
        return request
    if not (folder / MODEL_FILE).exists():
        return request
    return msgspec.structs.replace(request, champion_uri=(folder / MODEL_FILE).resolve().as_uri())


def _is_there(path: Path, file: VersionFile) -> bool:
    return path.is_file() and path.stat().st_size == file.num_bytes and sha256_of(path) == file.sha256


def _complete(outcome: RetrainOutcome, claimed: Claimed, claimant: Claimant) -> RetrainOutcome:
    return msgspec.structs.replace(outcome, attempt=claimed.attempt, run_url=claimant.url)


def _hand_in(
    client: JobClient, claimed: Claimed, outcome: RetrainOutcome, run_end: RunEnd | None, place: Place
) -> tuple[RetrainOutcome, RunEnd | None]:
    """The candidate's files at the monitor, and outcome and run with their addresses there."""
    version = outcome.candidate_version
    folder = place.artifacts / outcome.model / version
    if not version or run_end is None or run_end.version != version or not (folder / MODEL_FILE).exists():
        return outcome, None
    uri = ""
    for path in sorted((path for path in folder.iterdir() if path.is_file()), key=lambda path: path.name == MODEL_FILE):
        uri = client.store(claimed.request.key, version, path)
    arms = tuple(
        msgspec.structs.replace(arm, artifact_uri=uri) if arm.version == version else arm for arm in outcome.arms
    )  # fmt: skip
    return (
        msgspec.structs.replace(outcome, candidate_uri=uri, arms=arms),
        msgspec.structs.replace(run_end, artifact_uri=uri),
    )
