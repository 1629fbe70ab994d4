import numpy as np
import pytest
from made_gradients import steps_of

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper


def norms_with_spikes(num_steps, seed=0):
    generator = np.random.default_rng(seed)
    norms = generator.gamma(20.0, 0.05, num_steps)
    norms[generator.random(num_steps) < 0.05] *= 12.0
    return norms


def expected_norms_after(norms, cap=np.inf, alpha=0.97, z_threshold=2.5, warmup_steps=25, epsilon=1e-6):
    """The algorithm once more, in numpy and float64, from the paper's description."""
    after, mean, variance = [], None, None
    for i, norm in enumerate(norms):
        kept = norm
        if i >= warmup_steps:
            deviation = np.sqrt(variance)
            z = (norm - mean) / (deviation + epsilon)
            if z > z_threshold:
                kept = mean + z_threshold * deviation / (z / z_threshold)
            mean = alpha * mean + (1 - alpha) * kept
            variance = alpha * variance + (1 - alpha) * (kept - mean) ** 2
        elif i == warmup_steps - 1:
            mean, variance = np.mean(norms[:warmup_steps]), np.var(norms[:warmup_steps])
        after.append(min(kept, cap))
    return after


@pytest.mark.parametrize("cap", [None, 1.05])
@pytest.mark.parametrize("changes", [{}, {"alpha": 0.8, "z_threshold": 1.5, "warmup_steps": 10}])
def test_norms_after_are_those_of_the_algorithm_in_numpy(cap, changes):
    norms = norms_with_spikes(300)
    clipper = make_clipper(ClipSpec(kind="zclip", max_norm=cap, options=changes))
    after = []
    for weight in steps_of(norms.tolist()):
        clipper(weight)
        after.append(float(weight.grad.norm()))
    expected = expected_norms_after(norms, np.inf if cap is None else cap, **changes)
    assert after == pytest.approx(expected, rel=1e-4)
    assert sum(np.array(after) < norms * 0.99) >= 10  # spikes there were


def test_the_further_out_a_norm_is_the_closer_to_the_mean_it_is_brought():
    brought_to = []
    for spike in (3.0, 10.0, 100.0):
        clipper = make_clipper(ClipSpec(kind="zclip"))
        for weight in steps_of([0.9, 1.1] * 20 + [spike]):
            clipper(weight)
        brought_to.append(float(weight.grad.norm()))
    assert brought_to == sorted(brought_to, reverse=True)
    assert brought_to[-1] == pytest.approx(1.0, abs=0.02)


def test_norms_that_never_change_are_not_clipped():
    clipper = make_clipper(ClipSpec(kind="zclip"))
    for weight in steps_of([1_000.0] * 60):
        clipper(weight)
        assert float(clipper.last.bound) == float("inf")


def test_nothing_is_clipped_in_the_warm_up():
    clipper = make_clipper(ClipSpec(kind="zclip", options={"warmup_steps": 5}))
    for weight in steps_of([1.0, 1.1, 1.0, 500.0, 1.0]):
        clipper(weight)
        assert float(clipper.last.coefficient) == 1.0


@pytest.mark.parametrize("when", [0, 3, 30])
@pytest.mark.parametrize("huge", [1e20, 3e38])
def test_a_norm_whose_square_is_no_float32_counts_for_nothing_and_the_state_stays_sound(when, huge):
    norms = norms_with_spikes(80).tolist()
    troubled, untroubled = (
        make_clipper(ClipSpec(kind="zclip", norm_type=np.inf, options={"warmup_steps": 10})) for _ in range(2)
    )
    for weight in steps_of([*norms[:when], huge, *norms[when:]]):
        troubled(weight)
    for weight in steps_of(norms):
        untroubled(weight)
    state = troubled.state_dict()
    make_clipper(ClipSpec(kind="zclip")).load_state_dict(state)
    if when < 10:
        assert state == untroubled.state_dict()
    else:  # it was brought to the mean, and counted as that
        assert (state["mean"], state["count"]) == (pytest.approx(untroubled.state_dict()["mean"], rel=0.1), 10)
