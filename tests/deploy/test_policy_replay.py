"""`clipdrift policy replay` over a small history in a store, and the how-to about it."""

import json
import re
import sys
from pathlib import Path

import msgspec
import pytest

from clipdrift_contract.events import ClipSpec, Decision, Diagnosis, RetrainOutcome, RetrainRequest
from clipdrift_deploy.policy_replay.gathering import read_policy
from clipdrift_monitor.risk.harm import Statement
from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import Changes, Store
from clipdrift_monitor.windows.view import View

DAY = 86_400_000
FIRST = 15_706 * DAY  # 2013-01-01
PAGE = Path(__file__).parents[2] / "docs" / "howto" / "try-a-policy.md"
ALARMS = (10, 30)
DRIFT = Diagnosis(cause="drift", clipping="unknown", words="The world has moved.")


def history(project, model="pump"):
    """Forty days; a repair is proven on the 10th and the 30th, and a retrain ordered on the 10th, which did not pass."""
    Path(project.store_url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    store, changes = Store(project.store_url), Changes(models={model: msgspec.msgpack.encode(ModelState(model=model))})
    for day in range(40):
        start_ms = FIRST + day * DAY
        alarms = ("repairable",) if day in ALARMS else ()
        said = Statement(
            test="repairable", level=float(day), bound=100.0, is_alarm=bool(alarms), effect=0.01, effect_low=0.002,
            effect_high=0.018,
        )  # fmt: skip
        seen = View(num_predictions=500, num_labels=400, num_correct=300, maturity=0.8)
        block = JudgedBlock(
            version="v1", start_ms=start_ms, end_ms=start_ms + DAY, view=seen, levels={"repairable": 1.0 if alarms else 0.3},
            statements=(said,), alarms=alarms,
        )  # fmt: skip
        changes.blocks[model, "v1", start_ms] = msgspec.msgpack.encode(block)
        action = "retrain" if day == 10 else "alert" if alarms else "none"
        changes.decisions.append(
            Decision(
                decision_id=f"{model}-v1-{start_ms}",
                model=model,
                version="v1",
                at_ms=start_ms + 2 * DAY,
                action=action,
                reasons=("r",),
                policy_version="p",
                evidence_digest="e",
                diagnosis=DRIFT,
            )
        )
    order = RetrainRequest(
        key="k", model=model, cause="drift", decision_id=f"{model}-v1-{FIRST + 10 * DAY}", requested_at_ms=FIRST + 12 * DAY,
        as_of_ms=FIRST + 12 * DAY, data_start_ms=0, champion_version="v1", champion_uri="", champion_digest="d",
        champion_clip=ClipSpec(), generation=1, arms=(),
    )  # fmt: skip
    changes.requests.append(order)
    changes.outcomes.append(
        RetrainOutcome(key="k", model=model, finished_at_ms=1, verdict="fail", reasons=(), cpu_seconds=60.0)
    )
    store.commit(changes)
    store.close()


def replayed(clipdrift, project, *words):
    return clipdrift("policy", "replay", "--project", project.folder, *words)


def policy_file(project, text):
    path = project.folder / "careful.toml"
    path.write_text(text)
    return path


def test_the_projects_own_policy_is_replayed_and_the_table_says_what_was_done_and_what_would_be(make_project, clipdrift):
    project = make_project()
    history(project)
    found = replayed(clipdrift, project)

    assert found.exit_code == 0, found.output
    assert "pump: retrains 1, rollbacks 0; under this policy 1 and 0; of 40 blocks 0 are ruled otherwise." in found.output
    assert "retrain (fail)" in found.output
    assert "Not known: Alarms are those that the tests raised then" in found.output


def test_another_policy_is_told_apart_and_the_page_has_a_picture_of_it(make_project, clipdrift, tmp_path):
    project = make_project()
    history(project)
    cheap = policy_file(project, "[policy]\ncooldown_days = 1.0\n[policy.cost]\nper_retrain = 20.0\n")
    page = tmp_path / "replay.html"
    found = replayed(clipdrift, project, "--policy", cheap, "--out", page)

    assert "under this policy 2 and 0; of 40 blocks 1 are ruled otherwise" in found.output
    text = page.read_text()
    assert text.count("<svg") == 1
    assert "What a replay cannot know" in text
    assert "not carried out then: 1" in text
    assert "<script" not in text


def test_numbers_come_as_json_between_two_moments(make_project, clipdrift):
    project = make_project()
    history(project)
    dear = policy_file(project, "[policy.cost]\nper_retrain = 1e6\n")
    found = replayed(clipdrift, project, "--policy", dear, "--from", "2013-01-12", "--to", "2013-01-20", "--json")
    (told,) = json.loads(found.output)

    assert len(told["blocks"]) == 8
    (ordered,) = [one for one in told["blocks"] if one["did"] == "retrain"]
    assert ordered["would"] == "alert"
    assert ordered["terms"]["loss"] == pytest.approx(0.01 * 500 * 28)
    assert ordered["terms"]["cost"] == 1e6


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[policy]\ncooldown = 3\n", "did you mean cooldown_days?"),
        ("[polcy]\n", "has no table [policy]"),
        ("[policy\n", "is no TOML"),
        ("[policy]\nneeded_blocks = 9\n", "needed_blocks and of_blocks"),
        ("[policy.cost]\nper_retrain = -1.0\n", "per_retrain must be"),
    ],
)
def test_a_file_that_is_no_policy_is_refused_with_the_reason(make_project, clipdrift, text, words):
    project = make_project()
    history(project)
    found = replayed(clipdrift, project, "--policy", policy_file(project, text))
    assert found.exit_code == 2
    assert words in found.output


def test_what_is_not_there_is_named(make_project, clipdrift):
    project = make_project()
    assert "no monitor has written" in replayed(clipdrift, project).output
    assert not Path(project.store_url.removeprefix("sqlite:///")).exists()
    history(project)
    assert "knows no model 'pmp'; there are: pump" in replayed(clipdrift, project, "--model", "pmp").output
    assert "cannot be read" in replayed(clipdrift, project, "--policy", "nowhere.toml").output


def test_the_policies_of_the_howto_are_policies_and_its_code_runs(make_project, tmp_path, monkeypatch, capsys):
    project = make_project()
    history(project)
    page = PAGE.read_text()
    careful, dry = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert read_policy(project, policy_file(project, careful)).cost.per_retrain == 40.0
    dry_path = tmp_path / "dry.toml"
    dry_path.write_text(dry)
    assert read_policy(project, dry_path).is_dry_run
    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)

    exec(compile(code, str(PAGE), "exec"), {})

    assert capsys.readouterr().out.startswith("pump: 1 retrains less, expected to be worth")
