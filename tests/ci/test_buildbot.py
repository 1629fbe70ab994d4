"""Retrains through a real Buildbot, from a drift to a promotion, and what becomes of bad candidates."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from real_buildbot import HOOK_SECRET, PASSWORD, RealBuildbot
from small_loop import REPLAY_DAY, Loop, clipdrift, train_project, wait_until
from typer.testing import CliRunner

from clipdrift_deploy.cli import app
from clipdrift_deploy.pipeline_files import PIPELINES, write_pipeline

pytestmark = [pytest.mark.ci, pytest.mark.timeout(400)]
CANARY_DAY = 6  # by then the gate has newer days than the champion has seen
CANCELLED = 6  # what Buildbot calls it
Changes = dict[str, dict[str, str]]  # by file of the project: text -> what is there instead


def changed(folder: Path, changes: Changes) -> None:
    for name, texts in changes.items():
        text = (folder / name).read_text()
        for before, after in texts.items():
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        (folder / name).write_text(text)


class House:
    """A project whose retrains a Buildbot carries out, with a copy of the project at the worker."""

    def __init__(self, trained: Path, folder: Path, models: tuple[str, ...], here: Changes, there: Changes) -> None:
        source = folder / "source"
        shutil.copytree(trained, source)
        write_pipeline(source, "buildbot")
        self.at_worker = folder / "at_worker"
        shutil.copytree(source, self.at_worker, ignore=shutil.ignore_patterns(".clipdrift", "__pycache__"))
        changed(self.at_worker, there)
        self.buildbot = RealBuildbot(folder / "buildbot", source / "buildbot" / "master.cfg", self.at_worker)
        key, lines = made_key()
        (source / "keys.toml").write_text(lines)
        settings = PIPELINES["buildbot"].settings.replace("http://127.0.0.1:8010", self.buildbot.url)
        settings = settings.replace("[monitor.ci]\n", "[monitor.ci]\npoll_seconds = 1.0\nmax_poll_seconds = 2.0\n")
        changed(source, here)
        changed(source, {"clipdrift.toml": {"[monitor]\n": '[monitor]\napi_keys_file = "keys.toml"\n'}})
        (source / "clipdrift.toml").write_text((source / "clipdrift.toml").read_text() + f"\n{settings}\n")
        self.loop = Loop(source, folder / "loop", models)
        self.buildbot.start(self.loop.running.monitor_url, key)

    def close(self) -> None:
        self.buildbot.stop()
        self.loop.close()

    def retrains(self, model: str) -> list[dict[str, Any]]:
        """The newest first."""
        found: list[dict[str, Any]] = self.loop.get(f"/api/v1/models/{model}/retrains")["items"]
        return found

    def page(self, path: str) -> str:
        answer = httpx.get(self.loop.running.monitor_url + path, trust_env=False, timeout=30.0)
        answer.raise_for_status()
        return answer.text


def made_key() -> tuple[str, str]:
    """A key for the worker, and the lines of the file of keys, as `clipdrift key` prints them."""
    said = CliRunner().invoke(app, ["key", "ci", "--scope", "report"]).stdout
    head, lines = said[: said.index("[[key]]")], said[said.index("[[key]]") :]
    return next(word for word in head.split() if word.startswith("clipdrift_")), lines


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_project(tmp_path_factory.mktemp("trained") / "project")


@pytest.fixture
def make_house(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., House]]:
    monkeypatch.setenv("CLIPDRIFT_CI_TOKEN", PASSWORD)
    monkeypatch.setenv("CLIPDRIFT_CI_HOOK_SECRET", HOOK_SECRET)
    made: list[House] = []

    def make(*models: str, here: Changes | None = None, there: Changes | None = None) -> House:
        made.append(House(trained, tmp_path / "house", models, here or {}, there or {}))
        return made[-1]

    yield make
    for house in made:
        house.close()


def test_a_drift_is_repaired_by_a_forced_build_and_bad_candidates_and_cancelled_ones_change_nothing(make_house) -> None:
    house = make_house("valve", "steady")
    loop, buildbot = house.loop, house.buildbot
    loop.run()

    # a drift: build, gate, shadow, canary, promotion
    (retrain,) = house.retrains("valve")
    (build,) = buildbot.builds()
    assert retrain["outcome"]["verdict"] == "pass"
    assert retrain["run"]["state"] == "succeeded"
    assert build["properties"]["key"][0] == retrain["request"]["key"]
    assert (build["results"], len(retrain["run"]["past"])) == (0, 0)
    stages = [one.stage for _, one in sorted(loop.story("valve").deployments.items())]
    assert stages[:3] == ["", "shadow", "canary 0.5"]
    assert loop.story("valve").deployments[4].champion.version == retrain["outcome"]["candidate_version"]

    # the run's link on the pages
    link = retrain["outcome"]["run_url"]
    assert link.startswith(f"{buildbot.url}#/")
    for path in (f"/models/valve/retrains/{retrain['request']['key']}", "/models/valve/retrains"):
        assert link in house.page(path), path

    # a bad commit on the worker: the candidate learns nothing, and the gate stops it
    changed(house.at_worker, {"valves.py": {"lr=1e-2": "lr=1e-9"}})
    before = loop.client.generation("steady")
    clipdrift(loop.project.folder, "retrain", "steady", "--why", "a commit that breaks the training")
    loop.replay.settle()
    bad = house.retrains("steady")[0]
    assert bad["outcome"]["verdict"] == "fail", bad["outcome"]["reasons"]
    wait_until(lambda: house.retrains("steady")[0]["run"]["state"] == "succeeded")  # the job did what it was to do
    assert loop.client.generation("steady") == before

    # cancelled by a person: the build ends, and nothing waits for it
    changed(house.at_worker, {"valves.py": {"num_steps = 200": "num_steps = 2_000_000"}})
    clipdrift(loop.project.folder, "retrain", "steady", "--why", "one that takes for ever")
    running = wait_until(lambda: [one for one in house.retrains("steady") if one["run"]["state"] == "running"])
    key = running[0]["request"]["key"]
    clipdrift(loop.project.folder, "cancel", key, "--why", "it takes too long")
    ended = wait_until(lambda: [one for one in buildbot.builds() if one["properties"]["key"][0] == key and one["complete"]])
    assert ended[0]["results"] == CANCELLED
    wait_until(lambda: house.retrains("steady")[0]["run"]["state"] == "cancelled")
    assert PASSWORD not in (loop.project.logs / "monitor.log").read_text()


def test_a_bad_candidate_that_its_gate_has_passed_is_rolled_back_by_its_canary_and_kept_out(make_house) -> None:
    house = make_house(
        "steady",
        here={"clipdrift.toml": {"steps = [0.5]": "has_shadow = false\nsteps = [0.5]"}},
        there={"clipdrift.toml": {"{turn_day = 100000}": f"{{turn_day = 100000, spoil_day = {REPLAY_DAY + 1}}}"}},
    )
    loop = house.loop
    loop.replay.await_first_versions(["steady"])
    for day in range(CANARY_DAY + 5):
        if day == CANARY_DAY:
            clipdrift(loop.project.folder, "retrain", "steady", "--why", "the north looks odd")
            loop.replay.settle()
        loop.live(day)

    (retrain,) = house.retrains("steady")
    candidate = retrain["outcome"]["candidate_version"]
    told = json.loads(clipdrift(loop.project.folder, "status", "--json"))[0]
    in_order = [one for _, one in sorted(loop.story("steady").deployments.items())]
    assert retrain["outcome"]["verdict"] == "pass"
    assert [one.stage for one in in_order] == ["", "canary 0.5", ""]
    assert in_order[1].canary.version == candidate
    assert in_order[2].champion == in_order[0].champion
    assert told["rollout"] is None
    assert 'clipdrift_model_quarantined_versions{model="steady"} 1.0' in loop.watcher.exposition()
    assert retrain["outcome"]["run_url"] in house.page(f"/models/steady/retrains/{retrain['request']['key']}")
