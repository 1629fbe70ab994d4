"""Runs made by hand, with everything in them that a run can have."""

import math

from clipdrift_contract.events import (
    Arm,
    Calibration,
    ClipSpec,
    DataCheck,
    Fault,
    GradWindow,
    HiddenSlice,
    LayerNorms,
    Membership,
    NormQuantiles,
    PrivacyBudget,
    ReliabilityBin,
    RunEnd,
    ScoreInterval,
    SliceGradient,
    SliceScore,
    Spike,
)

CLIP = ClipSpec(kind="global_norm", max_norm=1.0)
FAULT = Fault(kind="clip_after_step", step=0, num_steps=50, words="clipping is called after the optimizer's step")


def norms(name: str, norm: float) -> LayerNorms:
    return LayerNorms(name=name, norm_sum=50 * norm, norm_sq_sum=50 * norm**2, norm_max=1.5 * norm)


def window(step: int, norm: float = 2.0, **changes: object) -> GradWindow:
    """Fifty steps of one norm, clipped to 1."""
    given = {
        "run_id": "run-1", "model": "pump", "started_at_ms": 1_362_096_000_000 + step, "ended_at_ms": 1_362_096_000_050 + step,
        "step_first": step, "num_steps": 50, "num_clipped": 50 if norm > 1 else 0, "num_checked": 5, "optimizer": "SGD",
        "clip": CLIP, "max_norm_last": 1.0, "learning_rate_sum": 5.0, "effective_learning_rate_sum": 5.0 / max(1.0, norm),
        "norm_sum": 50 * norm, "norm_sq_sum": 50 * norm**2, "norm_min": norm, "norm_max": norm,
        "norm_removed_sum": 50 * max(0.0, norm - 1), "coefficient_sum": 50 / max(1.0, norm),
        "coefficient_min": 1 / max(1.0, norm),
        "loss_sum": 50 * norm / 4, "norm_histogram": {math.floor(4 * math.log2(norm)): 50},
    }  # fmt: skip
    return GradWindow(**(given | changes))


def rich_windows(num: int = 30) -> tuple[GradWindow, ...]:
    """A run with groups, layers, slices, spikes and faults."""
    made = []
    for i in range(num):
        norm = 1.2 + 3 * math.exp(-i / 8) + 0.3 * math.sin(i)
        layers = tuple(norms(f"blocks.{n}.attention.projection.weight", norm / (n + 2)) for n in range(8))
        slices = tuple(
            SliceGradient(slice=name, num_samples=n, grad_mass_sum=mass, loss_sum=1.0)
            for name, n, mass in (("north", 900, 300.0), ("south", 100, 500.0), ("<west & co>", 10, 20.0))
        )
        spikes = (
            (Spike(step=50 * i + 7, norm=40.0, typical_norm=2.0, layer="blocks.3", batch_id=f"batch {i}"),)
            if i % 9 == 4
            else ()
        )
        histogram = {math.floor(4 * math.log2(norm)) + offset: count for offset, count in ((-2, 10), (0, 30), (2, 10))}
        extra = {"layers": layers, "groups": tuple(norms(f"block {n}", norm / (n + 1)) for n in range(4)), "slices": slices}
        made.append(window(50 * i, norm, spikes=spikes, norm_histogram=histogram, norm_max=1.6 * norm, **extra))
    return tuple(made)


def rich_end(**changes: object) -> RunEnd:
    """An end with every field filled."""
    scores = (("", 0.86, 0.84, 0.88), ("south", 0.71, 0.64, 0.78), ("north", 0.88, 0.86, 0.9), ("<west & co>", 0.8, 0.6, 0.95))
    given = {
        "run_id": "run-1", "model": "pump", "version": "20130301-abc", "started_at_ms": 1_362_096_000_000,
        "ended_at_ms": 1_362_097_000_000,
        "data_start_ms": 1_356_998_400_000, "data_end_ms": 1_362_096_000_000, "as_of_ms": 1_362_096_000_000, "data_digest": "d",
        "code_revision": "c", "seed": 0, "optimizer": "SGD", "learning_rate": 0.1, "clip": CLIP, "num_steps": 1_500,
        "removed_mass_ratio": 0.5, "clip_rate_ratio": 1.0, "num_checked": 150,
        "norm_quantiles": NormQuantiles(p10=1.1, p50=1.5, p90=2.5, p99=4.0),
        "candidates": (
            Arm(name="same", clip=CLIP, provenance="the policy of the model in service"),
            Arm(name="autoclip_p10", clip=ClipSpec(kind="autoclip"), provenance="AutoClip"),
            Arm(name="q90", clip=ClipSpec(kind="global_norm", max_norm=2.5), provenance="90 % quantile"),
        ),
        "validation": (SliceScore(slice="", num_rows=1_000, num_correct=860, nll_sum=350.0, brier_sum=200.0, ece=0.03),),
        "intervals": tuple(
            ScoreInterval(slice=s, metric="accuracy", value=v, low=lo, high=hi, num_rows=300, num_blocks=20)
            for s, v, lo, hi in scores
        ),
        "hidden_slices": (
            HiddenSlice(
                slice="south", metric="accuracy", value=0.71, overall=0.86, difference_low=-0.22, difference_high=-0.08,
                share_of_rows=0.1, words="one row in ten",
            ),
        ),
        "calibration": Calibration(
            temperature=1.3, nll_before=0.36, nll_after=0.34, ece_before=0.05, ece_after=0.02, num_rows=500
        ),
        "reliability": tuple(
            ReliabilityBin(
                slice="", binning="mass", num_rows=100, num_blocks=20, probability_mean=p, event_rate=p**1.3,
                event_rate_low=max(0, p**1.3 - 0.08), event_rate_high=min(1, p**1.3 + 0.08),
            )
            for p in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
        ),
        "data_checks": (DataCheck(name="label_errors", outcome="warn", words="12 labels look wrong", features=("site",)),),
        "privacy": PrivacyBudget(
            epsilon=3.1, delta=1e-5, noise_multiplier=1.1, max_norm=1.0, sample_rate=0.01, num_steps=1_500, accountant="rdp"
        ),
        "membership": Membership(auc=0.53, auc_low=0.51, auc_high=0.55, tpr_at_fpr_1=0.012, num_members=500, num_others=500),
    }  # fmt: skip
    return RunEnd(**(given | changes))
