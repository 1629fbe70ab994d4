import pytest
import torch
from made_gradients import parameters_with, random_gradients
from pytorch_optimizer.optimizer.agc import agc

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper


@pytest.mark.parametrize("clip_factor", [0.01, 0.3, 100.0])
@pytest.mark.parametrize("eps", [1e-3, 0.5])
def test_agc_equals_pytorch_optimizer_bit_for_bit(clip_factor, eps):
    parameters = parameters_with(random_gradients(1, scales=(1.0, 0.1, 10.0, 0.001)))
    expected = [agc(p.detach(), p.grad.clone(), agc_eps=eps, agc_clip_val=clip_factor) for p in parameters]
    make_clipper(ClipSpec(kind="agc", options={"clip_factor": clip_factor, "eps": eps}))(parameters)
    assert all(torch.equal(p.grad, other) for p, other in zip(parameters, expected, strict=True))


def test_a_unit_of_a_conv1d_is_an_output_channel():
    [parameter] = parameters_with([torch.randn((2, 3, 5), generator=torch.Generator().manual_seed(2))])
    make_clipper(ClipSpec(kind="agc"))([parameter])
    for channel in range(2):
        weight_norm = float(parameter[channel].detach().norm())
        assert float(parameter.grad[channel].norm()) == pytest.approx(0.01 * weight_norm, rel=1e-5)


def test_the_head_can_be_left_out_even_when_it_has_no_gradient():
    parameters = parameters_with(random_gradients(3))
    make_clipper(ClipSpec(kind="agc", options={"exclude_last": 2}))(parameters)
    untouched = random_gradients(3)
    assert [torch.equal(p.grad, g) for p, g in zip(parameters, untouched, strict=True)] == [False, False, True, True]
    parameters = parameters_with(random_gradients(3))
    parameters[-1].grad = None
    make_clipper(ClipSpec(kind="agc", options={"exclude_last": 2}))(parameters)
    assert [torch.equal(p.grad, g) for p, g in zip(parameters[:3], untouched, strict=False)] == [False, False, True]


def test_more_excluded_tensors_than_there_are_leave_all_alone():
    parameters = parameters_with(random_gradients(4))
    make_clipper(ClipSpec(kind="agc", options={"exclude_last": 99}))(parameters)
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, random_gradients(4), strict=True))


def test_a_zero_weight_can_still_grow():
    weight = torch.nn.Parameter(torch.zeros(1, 3))
    weight.grad = torch.tensor([[3.0, 0.0, 4.0]])
    make_clipper(ClipSpec(kind="agc"))([weight])
    assert float(weight.grad.norm()) == pytest.approx(0.01 * 1e-3, rel=1e-5)
