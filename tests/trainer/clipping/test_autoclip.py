import numpy as np
import pytest
from made_gradients import parameters_with, random_gradients, steps_of

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper


@pytest.mark.parametrize("percentile", [0.0, 10.0, 37.5, 100.0])
def test_the_bound_is_numpys_percentile_of_all_norms_with_the_present_one(percentile):
    clipper = make_clipper(ClipSpec(kind="autoclip", percentile=percentile))
    history = []
    for seed in range(60):
        history.append(float(clipper(parameters_with(random_gradients(seed, [1.0 + seed % 7] * 4)))))
        assert float(clipper.last.bound) == pytest.approx(np.percentile(history, percentile), rel=1e-6)


def test_a_run_longer_than_the_first_room_keeps_every_norm():
    norms = np.random.default_rng(0).lognormal(size=2_500).astype(np.float32)
    clipper = make_clipper(ClipSpec(kind="autoclip", percentile=25.0))
    seen = [float(clipper(weight)) for weight in steps_of(norms.tolist())]
    assert clipper.state_dict()["norms"] == sorted(seen)
    assert float(clipper.last.bound) == pytest.approx(np.percentile(seen, 25.0), rel=1e-6)


def test_a_cap_holds_where_the_percentile_is_above_it():
    clipper = make_clipper(ClipSpec(kind="autoclip", percentile=100.0, max_norm=2.0))
    bounds = []
    for weight in steps_of([1.0, 5.0]):
        clipper(weight)
        bounds.append(float(clipper.last.bound))
    assert bounds == pytest.approx([1.0, 2.0])


def test_before_any_finite_norm_there_is_no_bound():
    clipper = make_clipper(ClipSpec(kind="autoclip"))
    for weight in steps_of([float("inf"), float("nan")]):
        clipper(weight)
        assert float(clipper.last.bound) == float("inf")
    assert clipper.state_dict() == {"norms": []}
