"""One whole small loop: trained, served, changed, noticed, retrained, promoted, better; and back by order of a person."""

import json

import httpx
import numpy as np
import pytest
from small_loop import Loop, MakeLoop, clipdrift, wait_until

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_deploy.demo.client import ServingClient
from clipdrift_deploy.demo.traffic import select
from clipdrift_trainer.export import score_rows

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]


def accuracy(scores_NK: np.ndarray, label_N: np.ndarray) -> float:
    return float((scores_NK.argmax(axis=1) == label_N).mean())


def test_the_change_is_noticed_and_repaired_once(finished: Loop) -> None:
    story, task = finished.story("valve"), finished.tasks["valve"]
    (retrain,) = story.retrains
    alarms = [signal for signal in story.alarms if signal.version == retrain.request.champion_version]

    assert {"repairable", "sudden_break"} <= {signal.kind for signal in alarms}
    days_until_alarm = min(signal.window_start_ms for signal in alarms) // MS_PER_DAY - task.turn_day
    assert days_until_alarm in (0, 1, 2), "and not a day before the change"
    assert retrain.outcome is not None
    assert retrain.outcome.verdict == "pass"
    assert [result.arm.name for result in retrain.outcome.arms] == ["same"], "Adam undoes any bound of the total norm"
    assert retrain.deployment is not None
    assert retrain.deployment.generation == 4
    assert {decision.action for decision in story.decisions.values()} >= {"none", "retrain", "canary", "promote"}


def test_what_repairs_it_answers_as_a_shadow_then_half_of_all_and_then_everything(finished: Loop) -> None:
    story, stream = finished.story("valve"), finished.streams["valve"]
    in_order = [one for _, one in sorted(story.deployments.items())]
    old, new = in_order[0].champion, in_order[3].champion
    beside = [(one.champion, one.canary, one.canary_weight, one.shadow, one.stage) for one in in_order]

    assert beside == [
        (old, None, 0.0, None, ""),
        (old, None, 0.0, new, "shadow"),
        (old, new, 0.5, None, "canary 0.5"),
        (new, None, 0.0, old, ""),  # so that it is known what the retrain was worth
        (new, None, 0.0, None, ""),
    ]
    day_N = stream.rows.time_ms // MS_PER_DAY
    share = [float((stream.version_N[day_N == day] == new.version).mean()) for day in sorted(set(day_N.tolist()))]
    mixed = [one for one in share if 0 < one < 1]
    assert share == [*[0.0] * share.count(0.0), *mixed, *[1.0] * share.count(1.0)]
    assert len(mixed) >= 2
    assert 0.3 < sum(mixed) / len(mixed) < 0.7
    assert share.count(0.0) > 23, "nobody gets the answers of a shadow"


def test_what_the_retrain_cost_and_was_worth_is_known(finished: Loop) -> None:
    (row,) = finished.get("/api/v1/models/valve/retrains")["items"]
    samples = finished.watcher.exposition()

    assert row["outcome"]["cpu_seconds"] > 0
    assert 'clipdrift_model_retrains_by_worth{model="valve",verdict="worth it"} 1.0' in samples
    assert 'clipdrift_model_false_retrain_ratio{model="valve"} 0.0' in samples
    assert 'clipdrift_model_rollouts_total{end="promoted",model="valve"} 1.0' in samples


def test_the_new_version_answers_and_is_better_on_the_rows_it_answered(finished: Loop) -> None:
    story, stream, task = finished.story("valve"), finished.streams["valve"], finished.tasks["valve"]
    first, second = (story.deployments[number].champion for number in (1, 4))
    is_new_N = stream.version_N == second.version
    served = stream.rows.select(is_new_N)
    path = finished.project.artifacts / "valve" / second.version / "model.onnx"

    assert sorted(set(stream.version_N)) == sorted([first.version, second.version])
    assert path.exists(), "made by the job, where models of the project lie"
    old_content = (finished.trained / ".clipdrift/models/valve" / first.version / "model.onnx").read_bytes()
    old = accuracy(score_rows(old_content, task.features, served), served.label)
    new = accuracy(stream.scores_NK[is_new_N], served.label)
    assert old < 0.6
    assert new > 0.75
    np.testing.assert_allclose(
        stream.scores_NK[is_new_N], score_rows(path.read_bytes(), task.features, served), rtol=1e-5, atol=1e-6
    )


def test_the_monitor_counts_what_the_raw_rows_say(finished: Loop) -> None:
    for model, stream in finished.streams.items():
        progress = finished.watcher.progress()["models"][model]
        assert progress == {"num_predictions": len(stream.rows), "num_labels": len(stream.rows)}
        assert finished.outcome(model).accuracy == finished.recount(model)
    assert finished.client.num_errors == 0


def test_where_nothing_changes_the_loop_stays_silent(finished: Loop) -> None:
    story = finished.story("steady")

    assert story.alarms == []
    assert story.requests == {}
    assert list(story.deployments) == [1]
    assert len(story.decisions) >= 30, "and yet each day was judged"
    assert {decision.action for decision in story.decisions.values()} == {"none"}


def test_a_person_brings_the_old_version_back_with_one_command(make_loop: MakeLoop) -> None:
    loop = make_loop("valve")
    loop.run()
    old, new = (loop.story("valve").deployments[number].champion.version for number in (1, 4))
    assert json.loads(clipdrift(loop.project.folder, "status", "--json"))[1]["version"] == new

    clipdrift(loop.project.folder, "rollback", "valve", "--why", "the plant says no")

    wait_until(lambda: loop.client.generation("valve") == 6)
    served = served_models(loop)["valve"]
    assert (served["version"], served["previous"]) == (old, new)
    answer = ServingClient.infer(loop.client, "valve", select(loop.streams["valve"].rows, slice(0, 5)))
    assert answer is not None
    assert answer.version == old
    shown = next(line for line in clipdrift(loop.project.folder, "status").splitlines() if line.split()[:1] == ["valve"])
    assert old in shown
    assert new not in shown
    last = loop.get("/api/v1/models/valve/decisions")["items"][0]
    assert last["action"] == "rollback"
    assert "the plant says no" in last["reasons"][0]
    assert loop.get("/api/v1/audit/verify")["is_intact"] is True


def served_models(loop: Loop) -> dict[str, dict[str, object]]:
    """What serving's admin listener says."""
    headers = {"authorization": f"Bearer {loop.running.admin_token}"}
    answer = httpx.get(f"{loop.running.serving_admin_url}/v1/models", headers=headers, trust_env=False)
    assert answer.status_code == httpx.codes.OK
    found: dict[str, dict[str, object]] = answer.json()
    return found
