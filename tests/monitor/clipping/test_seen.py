"""One record a version, block by block."""

import msgspec
import pytest

from clipdrift_contract.events import ClipSpec, GradProbe, NormQuantiles, ProbedSlice, RunEnd, SliceGradient, SliceScore
from clipdrift_monitor.clipping.seen import MAX_VERSIONS, SeenVersion, first_seen, with_block, with_probe
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.windows.view import View

QUANTILES = NormQuantiles(p10=0.5, p50=2.0, p90=5.0, p99=9.0)


def score(name, num_rows=100, num_correct=80):
    return SliceScore(
        slice=name, num_rows=num_rows, num_correct=num_correct, nll_sum=1.0, brier_sum=10.0, ece=0.0, num_train=900
    )


def run(version="v1", **changes):
    fields = {
        "run_id": "r", "model": "m", "version": version, "started_at_ms": 0, "ended_at_ms": 1, "data_start_ms": 0,
        "data_end_ms": 1, "as_of_ms": 7, "data_digest": "", "code_revision": "", "seed": 0, "optimizer": "SGD",
        "learning_rate": 0.1, "clip": ClipSpec(kind="global_norm", max_norm=0.5), "num_steps": 100, "removed_mass_ratio": 0.9,
        "clip_rate_ratio": 1.0, "norm_quantiles": QUANTILES, "validation": (score(""), score("a"), score("b", 50, 25)),
    }  # fmt: skip
    return RunEnd(**{**fields, **changes})


def seen_block(known=(), version="v1", num_labels=10, brier=0.2):
    figures = View(num_predictions=20, num_labels=num_labels, num_correct=8, brier=brier if num_labels else None)
    drift = DriftReport(features={"x": 0.1, "y": 0.3}, prediction=0.05, mix=0.01)
    return with_block(known, run(version), figures, drift, {"a": (6.0, 5.0), "nobody": (9.0, 9.0)})


def test_sums_grow_block_by_block():
    (one,) = seen_block(seen_block(), num_labels=30, brier=0.1)

    assert (one.num_blocks, one.num_labels) == (2, 40)
    assert one.brier_sum == pytest.approx(10 * 0.2 + 30 * 0.1)
    assert one.feature_drift_sum == pytest.approx(2 * 0.2)
    assert (one.slices["a"].num_labels, one.slices["a"].num_correct, one.slices["b"].num_labels) == (12.0, 10.0, 0.0)
    assert sorted(one.slices) == ["a", "b"]


def test_a_new_version_gets_a_record_of_its_own_and_the_oldest_go():
    known = []
    for i in range(MAX_VERSIONS + 3):
        known = seen_block(known, version=f"v{i}")
    assert len(known) == MAX_VERSIONS
    assert (known[0].version, known[-1].version) == ("v3", f"v{MAX_VERSIONS + 2}")


def test_a_block_without_labels_adds_none():
    (one,) = seen_block(num_labels=0)
    assert (one.num_labels, one.brier_sum, one.num_blocks) == (0, 0.0, 1)


def test_what_the_run_says_is_kept():
    gradients = (
        SliceGradient(slice="a", num_samples=9, grad_mass_sum=3.0, loss_sum=1.0, grad_mass_removed_sum=1.5),
        SliceGradient(slice="b", num_samples=9, grad_mass_sum=1.0, loss_sum=1.0),
    )
    one = first_seen(run(slice_gradients=gradients))

    assert one.effective_learning_rate == pytest.approx(0.1 * 0.5 / 2.0)
    assert one.validated_brier == pytest.approx(0.1)
    assert (one.slices["a"].removed_mass_ratio, one.slices["a"].mass_share) == (0.5, 0.75)
    assert one.slices["b"].validated_error == pytest.approx(0.5)
    assert first_seen(run(validation=(), norm_quantiles=None)).effective_learning_rate is None
    assert first_seen(run(clip=ClipSpec())).effective_learning_rate == 0.1
    assert first_seen(run(validation=())).slices == {}


def probed(rate, mass):
    return (ProbedSlice(slice="", num_rows=9, num_batches=9, norm_p10=1.0, norm_p50=1.0, norm_p90=1.0, would_clip_ratio=rate,
                        removed_mass_ratio=mass),)  # fmt: skip


def test_a_probe_is_kept_with_the_version_that_it_is_of_and_no_other():
    known = seen_block(seen_block(), version="v2")
    probe = GradProbe(
        model="m", version="v1", at_ms=1, clip=ClipSpec(), max_norm=0.5, batch_size=64, recent=probed(0.9, 0.6),
        trained=probed(0.4, 0.2),
    )  # fmt: skip
    first, second = with_probe(known, probe)

    assert (first.batch_size, first.probed_clip_ratio, first.probed_mass_ratio) == (64, pytest.approx(0.5), pytest.approx(0.4))
    assert second == known[1]
    assert with_probe(known, msgspec.structs.replace(probe, recent=())) == known


def test_a_record_is_saved_and_read_whole():
    (one,) = seen_block()
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=SeenVersion) == one
