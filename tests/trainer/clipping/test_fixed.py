import pytest
import torch
from made_gradients import parameters_with, random_gradients

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper

BOUNDS = [0.01, 1.0, 1e6]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, float("inf")])
@pytest.mark.parametrize("max_norm", BOUNDS)
def test_global_norm_equals_torch_bit_for_bit(norm_type, max_norm):
    ours, theirs = parameters_with(random_gradients(6)), parameters_with(random_gradients(6))
    before = make_clipper(ClipSpec(kind="global_norm", max_norm=max_norm, norm_type=norm_type))(ours)
    assert torch.equal(before, torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type))
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("max_norm", BOUNDS)
def test_value_equals_torch_bit_for_bit(max_norm):
    ours, theirs = parameters_with(random_gradients(7)), parameters_with(random_gradients(7))
    make_clipper(ClipSpec(kind="value", max_norm=max_norm))(ours)
    torch.nn.utils.clip_grad_value_(theirs, max_norm)
    assert all(torch.equal(one.grad, other.grad) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
@pytest.mark.parametrize("max_norm", BOUNDS)
def test_per_tensor_equals_torch_on_each_tensor_alone(norm_type, max_norm):
    ours, theirs = parameters_with(random_gradients(8)), parameters_with(random_gradients(8))
    make_clipper(ClipSpec(kind="per_tensor", max_norm=max_norm, norm_type=norm_type))(ours)
    for one, other in zip(ours, theirs, strict=True):
        torch.nn.utils.clip_grad_norm_(other, max_norm, norm_type)
        assert torch.equal(one.grad, other.grad)


def test_off_changes_nothing_and_has_no_bound():
    parameters = parameters_with(random_gradients(9))
    clipper = make_clipper(ClipSpec(kind="off", max_norm=0.1))
    clipper(parameters)
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, random_gradients(9), strict=True))
    assert float(clipper.last.bound) == float("inf")


def test_a_norm_at_the_threshold_is_not_clipped_visibly():
    parameters = parameters_with([torch.tensor([3.0, 4.0])])
    make_clipper(ClipSpec(kind="global_norm", max_norm=5.0))(parameters)
    assert torch.allclose(parameters[0].grad, torch.tensor([3.0, 4.0]), rtol=1e-6)


def test_half_precision_that_torch_zeroes_without_a_word_is_scaled():
    ours, theirs = (parameters_with([torch.full((4,), 60_000.0, dtype=torch.float16)]) for _ in range(2))
    make_clipper(ClipSpec(kind="global_norm", max_norm=1.0))(ours)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    assert theirs[0].grad.tolist() == [0.0] * 4  # the norm, 120,000, is infinite in float16
    assert ours[0].grad.tolist() == pytest.approx([0.5] * 4, rel=1e-3)


@pytest.mark.parametrize("kind", ["global_norm", "per_tensor"])
def test_gradients_of_several_types_are_clipped_together(kind):
    mixed = [torch.full((4,), 3.0, dtype=dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)]
    parameters = parameters_with(mixed)
    before = make_clipper(ClipSpec(kind=kind, max_norm=1.0))(parameters)
    assert float(before) == pytest.approx((12 * 9) ** 0.5, rel=1e-6)
    assert [p.grad.dtype for p in parameters] == [torch.float64, torch.float32, torch.bfloat16]
    after = torch.cat([p.grad.double() for p in parameters]).norm()
    assert float(after) == pytest.approx(1.0 if kind == "global_norm" else 3**0.5, rel=0.01)
