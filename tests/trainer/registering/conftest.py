"""Runs as trainings report them."""

import pytest

from clipdrift_contract.events import (
    ClipSpec,
    DataCheck,
    GateCheck,
    HiddenSlice,
    NormQuantiles,
    RunEnd,
    ScoreInterval,
    SliceScore,
)
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile
from clipdrift_trainer.registering.card import CardGate


@pytest.fixture
def run() -> RunEnd:
    scores = [
        SliceScore(slice=name, num_rows=rows, num_correct=right, nll_sum=rows * 0.5, brier_sum=rows * 0.2, ece=0.05, auc=auc)
        for name, rows, right, auc in (("", 100, 80, 0.9), ("north|east", 60, 54, None), ("south", 40, 26, 0.7))
    ]
    return RunEnd(
        run_id="run-1", model="pump", version="20130301-abc123", started_at_ms=1362096000000, ended_at_ms=1362096060000,
        data_start_ms=0, data_end_ms=1362096000000, as_of_ms=1362096000000, data_digest="sha256:data", code_revision="c",
        seed=3, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(kind="global_norm", max_norm=1.0), num_steps=10,
        num_parameters=1234, removed_mass_ratio=0.25, clip_rate_ratio=0.5, num_ineffective=1, num_checked=10,
        norm_quantiles=NormQuantiles(p10=0.1, p50=0.5, p90=2.0, p99=4.0), validation=tuple(scores),
        profile=ReferenceProfile(
            task="binary", classes=("holds", "leaks"),
            features=(FeatureProfile(spec=FeatureSpec(name="pressure", kind="numeric", nullable=True), edges=(1.0,)),),
        ),
        artifact_uri="file:///models/pump/20130301-abc123/model.onnx", artifact_digest="sha256:artifact", retrain_key="key-1",
        arm="half", data_checks=(DataCheck(name="duplicates", outcome="warn", words="3 rows come twice", rows=(5, 7)),),
        intervals=(
            ScoreInterval(slice="", metric="accuracy", value=0.8, low=0.7, high=0.9, num_rows=100, num_blocks=9),
        ),
        hidden_slices=(
            HiddenSlice(
                slice="south", metric="brier", value=0.4, overall=0.2, difference_low=0.1, difference_high=0.3,
                share_of_rows=0.4, words="south is worse than all rows",
            ),
        ),
    )  # fmt: skip


@pytest.fixture
def gate() -> CardGate:
    return CardGate(
        verdict="pass",
        reasons=("better in both sites",),
        checks=(
            GateCheck(name="latency", outcome="pass", words="one row takes 1.5 ms", value=1.5, bound=5.0, unit="ms"),
            GateCheck(name="membership", outcome="unreachable", words="no rows to ask", is_decisive=False),
        ),
    )
