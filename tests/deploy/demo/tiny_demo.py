"""One model's two months, small enough to reckon by hand: first the stale version answers, then the one that replaced it."""

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import (
    Arm,
    ArmResult,
    ClipSpec,
    Contrast,
    Decision,
    Deployment,
    Diagnosis,
    GradWindow,
    RetrainOutcome,
    RetrainRequest,
    RunEnd,
    ServedVersion,
    Signal,
    SliceScore,
)
from clipdrift_deploy.demo.figures import months_of
from clipdrift_deploy.demo.lives import MonthScores
from clipdrift_deploy.demo.result import Control, Facts, ModelResult, Result, model_result
from clipdrift_deploy.demo.story import Story

START_MS = 1_362_096_000_000  # 2013-03-01
ROWS_A_DAY = 40
NUM_DAYS = 61  # March and April
CLIP = ClipSpec(kind="global_norm", max_norm=0.05)
Scores = npt.NDArray[np.float64]


def two_columns(p_N: Scores) -> Scores:
    return np.stack([1 - p_N, p_N], axis=1)


def served(version: str) -> ServedVersion:
    return ServedVersion(version=version, uri=f"file:///models/{version}", digest=f"sha256:{version}")


def deployment(generation: int, version: str, day: int = 0, model: str = "one") -> Deployment:
    return Deployment(
        model=model, generation=generation, champion=served(version), decided_at_ms=START_MS + day * MS_PER_DAY, reason="r"
    )


def rollout_story(end: str = "promoted") -> Story:
    """v2 as a shadow, then with a tenth of the requests, then in service or out again."""
    steps = [
        msgspec.structs.replace(deployment(2, "v1", 22), shadow=served("v2"), stage="shadow"),
        msgspec.structs.replace(deployment(3, "v1", 26), canary=served("v2"), canary_weight=0.1, stage="canary 0.1"),
    ]
    if end == "promoted":
        steps.append(msgspec.structs.replace(deployment(4, "v2", 30), shadow=served("v1")))
    elif end == "taken out":
        steps.append(deployment(4, "v1", 30))
    steps = [msgspec.structs.replace(one, rollout_id="one-k") for one in steps]
    alone = [deployment(5, "v2", 44)] if end == "promoted" else []
    return story(run("v2", "k"), *steps, *alone, is_promoted=False)


def signal(kind: str = "repairable", severity: str = "ticket", day: int = 20, **others: object) -> Signal:
    at_ms = START_MS + day * MS_PER_DAY
    return Signal(
        signal_id=f"{kind}-{day}", model="one", version="v1", kind=kind, severity=severity, detector=kind,
        window_start_ms=at_ms, window_end_ms=at_ms + MS_PER_DAY, statistic=2.0, threshold=1.0, summary="it would gain",
        **others,
    )  # fmt: skip


def decision(action: str = "retrain", day: int = 22, clipping: str | None = "not_implicated") -> Decision:
    diagnosis = Diagnosis(cause="drift", clipping=clipping, words="The world has moved.") if clipping else None
    return Decision(
        decision_id=f"{action}-{day}", model="one", version="v1", at_ms=START_MS + day * MS_PER_DAY, action=action,
        reasons=("A repair is proven.", "No cooldown."), policy_version="p", evidence_digest="d", diagnosis=diagnosis,
    )  # fmt: skip


def request(key: str = "k", day: int = 22) -> RetrainRequest:
    at_ms = START_MS + day * MS_PER_DAY
    return RetrainRequest(
        key=key, model="one", cause="drift", decision_id="d", requested_at_ms=at_ms, as_of_ms=at_ms, data_start_ms=0,
        champion_version="v1", champion_uri="file:///models/v1", champion_digest="sha256:v1", champion_clip=CLIP, generation=1,
        arms=(Arm(name="same", clip=CLIP), Arm(name="q90", clip=ClipSpec(kind="global_norm", max_norm=0.3))),
    )  # fmt: skip


def outcome(key: str = "k", verdict: str = "pass", version: str = "v2") -> RetrainOutcome:
    def contrast(difference: float, slice_name: str = "", metric: str = "brier") -> Contrast:
        return Contrast(
            slice=slice_name, num_rows=400, num_blocks=9, metric=metric, difference=difference, low=difference - 0.01,
            high=difference + 0.01,
        )  # fmt: skip

    def arm(name: str, clip: ClipSpec, removed: float, against_same: tuple[Contrast, ...]) -> ArmResult:
        whole = SliceScore(slice="", num_rows=400, num_correct=300, nll_sum=200.0, brier_sum=60.0, ece=0.02)
        return ArmResult(
            arm=Arm(name=name, clip=clip), run_id=name, version=version, artifact_uri="", artifact_digest="",
            removed_mass_ratio=removed, validation=(whole,), against_same=against_same,
            against_champion=(contrast(-0.9, "JFK"), contrast(-0.8, metric="nll"), contrast(-0.05)),
        )  # fmt: skip

    wide = ClipSpec(kind="global_norm", max_norm=0.3)
    return RetrainOutcome(
        key=key, model="one", finished_at_ms=1_790_000_000_000, verdict=verdict, reasons=("better than before",), winner="q90",
        arms=(arm("same", CLIP, 0.7, ()), arm("q90", wide, 0.1, (contrast(-0.03),))), candidate_version=version,
        wall_seconds=3.0, cpu_seconds=5.0,
    )  # fmt: skip


def run(version: str = "v1", retrain_key: str = "") -> RunEnd:
    return RunEnd(
        run_id=f"run-{version}", model="one", version=version, started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1,
        as_of_ms=1, data_digest="d", code_revision="c", seed=0, optimizer="SGD", learning_rate=0.1, clip=CLIP, num_steps=100,
        removed_mass_ratio=0.7, retrain_key=retrain_key,
    )  # fmt: skip


def window(run_id: str = "run-v1") -> GradWindow:
    return GradWindow(
        run_id=run_id, model="one", started_at_ms=0, ended_at_ms=1, step_first=0, num_steps=100, num_clipped=90,
        max_norm_last=0.05, norm_histogram={-8: 60, -6: 40},
    )  # fmt: skip


def story(*more: object, is_promoted: bool = True) -> Story:
    made = Story()
    events = [run(), window(), deployment(1, "v1"), signal(), decision("none", 10, None), decision(), request(), outcome()]
    for event in [*events, *([run("v2", "k"), deployment(2, "v2", 23)] if is_promoted else []), *more]:
        made.add(event)
    return made


def facts(live_after: float = 0.85, told: Story | None = None) -> Facts:
    """Truth: P(late) is 0.85 or 0.15 by a coin. The stale version is right until day 15, and then always says a half.

    Args:
        live_after: What the second version, in service from day 23 on, says where the truth is 0.85.
        told: The story; by default of one retrain that was promoted.
    """
    generator = np.random.default_rng(7)
    day_N = np.repeat(np.arange(NUM_DAYS), ROWS_A_DAY)
    time_N = START_MS + day_N * MS_PER_DAY + np.tile(np.arange(ROWS_A_DAY) * 60_000, NUM_DAYS)
    truth_N = np.where(generator.random(len(day_N)) < 0.5, 0.85, 0.15)
    label_N = (generator.random(len(day_N)) < truth_N).astype(np.float64)
    stale_N = np.where(day_N < 15, truth_N, 0.5 + 0.001 * (truth_N - 0.5))
    repaired_N = np.where(truth_N > 0.5, live_after, 1 - live_after)
    is_new_N = day_N >= 23
    months = months_of(time_N)
    oracle = {
        month.name: MonthScores(
            model="one",
            month=month.name,
            scores={"same": two_columns(stale_N[month.rows]), "q90": two_columns(truth_N[month.rows])},
            cpu_seconds={"same": 2.0, "q90": 2.5},
        )
        for month in months
    }
    return Facts(
        label_N=label_N,
        time_ms=time_N,
        live_NK=two_columns(np.where(is_new_N, repaired_N, stale_N)),
        stale_NK=two_columns(stale_N),
        version_N=np.where(is_new_N, "v2", "v1").astype(object),
        story=told or story(),
        months=months,
        lives=oracle,
        shadowed={"v1": two_columns(stale_N)},
        control=Control(num_labels=1200, num_alarms=0, num_retrains=0),
    )


def result(**changes: object) -> Result:
    models: dict[str, ModelResult] = {"one": model_result(facts())}
    given = {"wall_seconds": 12.3, "num_predictions": 2440, "num_labels": 2440, "serving_errors": 0, "live_accuracy_error": 0.0}
    return Result(**(given | {"models": models} | changes))
