"""One suite over every clipping rule."""

import copy

import numpy as np
import pytest
import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper

SPECS = [
    pytest.param(ClipSpec(kind="off"), id="off"),
    pytest.param(ClipSpec(kind="global_norm", max_norm=0.5), id="global_norm"),
    pytest.param(ClipSpec(kind="global_norm", max_norm=0.5, norm_type=1.0), id="global_norm-l1"),
    pytest.param(ClipSpec(kind="global_norm", max_norm=0.5, norm_type=float("inf")), id="global_norm-inf"),
    pytest.param(ClipSpec(kind="value", max_norm=0.1), id="value"),
    pytest.param(ClipSpec(kind="autoclip", percentile=10.0), id="autoclip"),
    pytest.param(ClipSpec(kind="autoclip", percentile=50.0, max_norm=0.7), id="autoclip-capped"),
]
every_rule = pytest.mark.parametrize("spec", SPECS)


def parameters_with(gradients):
    made = []
    for gradient in gradients:
        parameter = torch.nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient.clone()
        made.append(parameter)
    return made


def gradients(seed, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(shape, generator=generator) * scale).to(dtype) for shape in ((3, 4), (5,), (2, 2, 2))]


def flat(parameters):
    return torch.cat([parameter.grad.float().flatten() for parameter in parameters])


@every_rule
def test_a_norm_is_never_raised(spec):
    clipper = make_clipper(spec)
    for seed in range(30):
        parameters = parameters_with(gradients(seed, scale=10.0 ** (seed % 5 - 3)))
        before = flat(parameters)
        clipper(parameters)
        after = flat(parameters)
        assert torch.linalg.vector_norm(after, spec.norm_type) <= torch.linalg.vector_norm(before, spec.norm_type) * (1 + 1e-6)


@every_rule
def test_the_norm_before_clipping_is_returned_and_both_norms_are_kept(spec):
    clipper = make_clipper(spec)
    parameters = parameters_with(gradients(1))
    before = flat(parameters)
    returned = clipper(parameters)
    assert returned.shape == ()
    assert torch.allclose(returned, torch.linalg.vector_norm(before, spec.norm_type))
    assert torch.allclose(clipper.last.norm_before, returned)
    assert torch.allclose(clipper.last.norm_after, torch.linalg.vector_norm(flat(parameters), spec.norm_type), rtol=1e-5)
    assert torch.allclose(torch.linalg.vector_norm(clipper.last.norm_P, spec.norm_type), returned)


@every_rule
def test_the_direction_is_kept_by_every_rule_but_value(spec):
    if spec.kind == "value":
        pytest.skip("clamping entries changes the direction, and says so")
    parameters = parameters_with(gradients(2, scale=5.0))
    before = flat(parameters)
    make_clipper(spec)(parameters)
    assert torch.nn.functional.cosine_similarity(before, flat(parameters), dim=0) > 1 - 1e-6


@every_rule
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_a_step_that_is_not_finite_is_zeroed_and_never_spreads(spec, broken):
    clipper = make_clipper(spec)
    bad = gradients(3)
    bad[1][2] = broken
    parameters = parameters_with(bad)
    returned = clipper(parameters)
    assert not torch.isfinite(returned)
    assert torch.count_nonzero(flat(parameters)) == 0
    assert float(clipper.last.coefficient) == 0.0
    assert float(clipper.last.norm_after) == 0.0


@every_rule
def test_the_step_after_one_that_was_not_finite_is_as_if_it_had_not_been(spec):
    clipper, untroubled = make_clipper(spec), make_clipper(spec)
    bad = gradients(3)
    bad[0][0, 0] = float("nan")
    clipper(parameters_with(bad))
    first, second = parameters_with(gradients(4)), parameters_with(gradients(4))
    clipper(first)
    untroubled(second)
    assert torch.equal(flat(first), flat(second))


@every_rule
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_norms_are_accumulated_in_float32(spec, dtype):
    parameters = parameters_with([torch.full((16,), 30_000.0, dtype=dtype)])  # their norm, 120,000, is no float16
    clipper = make_clipper(spec)
    returned = clipper(parameters)
    expected = torch.linalg.vector_norm(torch.full((16,), 30_000.0), spec.norm_type)
    assert returned.dtype == torch.float32
    assert torch.allclose(returned, expected, rtol=0.01)
    assert torch.count_nonzero(flat(parameters)) == 16


@every_rule
def test_a_missing_gradient_is_left_out(spec):
    parameters = parameters_with(gradients(5))
    parameters.insert(1, torch.nn.Parameter(torch.zeros(7)))
    clipper = make_clipper(spec)
    clipper(parameters)
    assert clipper.last.norm_P.shape == (3,)
    assert parameters[1].grad is None


@every_rule
@pytest.mark.parametrize("nothing", [[], [torch.nn.Parameter(torch.zeros(2))]])
def test_no_gradient_at_all_has_norm_zero(spec, nothing):
    assert float(make_clipper(spec)(nothing)) == 0.0


@every_rule
def test_zero_gradients_stay_zero(spec):
    parameters = parameters_with([torch.zeros(3), torch.zeros(2, 2)])
    assert float(make_clipper(spec)(parameters)) == 0.0
    assert torch.equal(flat(parameters), torch.zeros(7))


@every_rule
def test_a_sparse_gradient_is_clipped_like_its_dense_form(spec):
    table = torch.nn.Embedding(10, 3, sparse=True)
    dense = torch.nn.Embedding(10, 3)
    dense.load_state_dict(table.state_dict())
    index = torch.tensor([1, 1, 7])  # a row twice: its two contributions must be added before the norm is taken
    for embedding in (table, dense):
        (embedding(index) * 10).sum().backward()
    before_sparse = make_clipper(spec)(table.parameters())
    before_dense = make_clipper(spec)(dense.parameters())
    assert torch.allclose(before_sparse, before_dense)
    assert torch.allclose(table.weight.grad.to_dense(), dense.weight.grad)


@every_rule
def test_a_resumed_run_clips_as_the_uninterrupted_one(spec):
    straight, first = make_clipper(spec), make_clipper(spec)
    for seed in range(10):
        straight(parameters_with(gradients(seed, 1.0 + seed)))
        first(parameters_with(gradients(seed, 1.0 + seed)))
    resumed = make_clipper(spec)
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    for seed in range(10, 20):
        one, two = parameters_with(gradients(seed)), parameters_with(gradients(seed))
        straight(one)
        resumed(two)
        assert torch.equal(flat(one), flat(two))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", [0.01, 1.0, 1e6])
def test_global_norm_equals_torch(norm_type, max_norm):
    ours, theirs = parameters_with(gradients(6)), parameters_with(gradients(6))
    before = make_clipper(ClipSpec(kind="global_norm", max_norm=max_norm, norm_type=norm_type))(ours)
    assert torch.allclose(before, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    assert torch.allclose(flat(ours), flat(theirs), rtol=1e-6, atol=0)


def test_value_equals_torch():
    ours, theirs = parameters_with(gradients(7)), parameters_with(gradients(7))
    make_clipper(ClipSpec(kind="value", max_norm=0.3))(ours)
    torch.nn.utils.clip_grad_value_(theirs, 0.3)
    assert torch.equal(flat(ours), flat(theirs))


@pytest.mark.parametrize("percentile", [0.0, 10.0, 37.5, 100.0])
def test_autoclip_bounds_by_numpys_percentile_of_all_norms_with_the_present_one(percentile):
    clipper = make_clipper(ClipSpec(kind="autoclip", percentile=percentile))
    history = []
    for seed in range(40):
        history.append(float(clipper(parameters_with(gradients(seed, 1.0 + seed % 7)))))
        assert float(clipper.last.bound) == pytest.approx(np.percentile(history, percentile), rel=1e-6)


def test_a_norm_at_the_threshold_is_not_clipped_visibly():
    parameters = parameters_with([torch.tensor([3.0, 4.0])])
    make_clipper(ClipSpec(kind="global_norm", max_norm=5.0))(parameters)
    assert torch.allclose(parameters[0].grad, torch.tensor([3.0, 4.0]), rtol=1e-6)
