import numpy as np
import pytest
from made_gradients import steps_of

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper


@pytest.mark.parametrize("target", [0.1, 0.5, 0.9])
def test_bounds_are_those_of_the_geometric_update_in_numpy(target):
    norms = np.random.default_rng(1).lognormal(sigma=1.0, size=200)
    clipper = make_clipper(ClipSpec(kind="quantile", max_norm=0.3, options={"target": target}))
    log_bound = np.log(0.3)
    for norm, weight in zip(norms, steps_of(norms.tolist()), strict=True):
        clipper(weight)
        assert float(clipper.last.bound) == pytest.approx(np.exp(log_bound), rel=1e-4)
        log_bound -= 0.2 * (float(norm <= np.exp(log_bound)) - target)


@pytest.mark.parametrize("target", [0.2, 0.5, 0.9])
def test_in_the_long_run_the_wanted_share_of_steps_is_left_alone(target):
    norms = np.random.default_rng(2).lognormal(mean=3.0, size=3_000)
    clipper = make_clipper(ClipSpec(kind="quantile", options={"target": target}))
    is_clipped = []
    for weight in steps_of(norms.tolist()):
        clipper(weight)
        is_clipped.append(float(clipper.last.coefficient) < 1.0)
    assert np.mean(is_clipped[500:]) == pytest.approx(1 - target, abs=0.02)


def test_without_max_norm_the_first_norm_is_the_first_bound():
    clipper = make_clipper(ClipSpec(kind="quantile"))
    first, second = steps_of([7.0, 7.0])
    clipper(first)
    assert float(clipper.last.bound) == pytest.approx(7.0)
    clipper(second)
    assert float(clipper.last.bound) == pytest.approx(7.0 * np.exp(-0.2 * 0.5), rel=1e-6)


def test_the_bound_stays_within_its_bounds():
    clipper = make_clipper(ClipSpec(kind="quantile", options={"min_bound": 2.0, "max_bound": 3.0, "learning_rate": 1.0}))
    bounds = []
    for weight in steps_of([1.0] * 3 + [50.0] * 5 + [0.1] * 5):
        clipper(weight)
        bounds.append(float(clipper.last.bound))
    assert min(bounds) == 2.0
    assert max(bounds) == 3.0


def test_a_gradient_of_zero_moves_nothing():
    clipper = make_clipper(ClipSpec(kind="quantile", max_norm=1.0))
    for weight in steps_of([0.0] * 2_000):
        clipper(weight)
    assert clipper.state_dict() == {"bound": 1.0}
