import pytest
import torch
from made_gradients import SHAPES, parameters_with, random_gradients
from pytorch_optimizer import AdaGC

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper

SHORT = ClipSpec(kind="adagc", options={"warmup_steps": 5})


def scales(seed):
    return [1.0, 0.2, 30.0 if seed % 7 == 0 else 1.0, 5.0 if seed % 5 == 0 else 0.1]


@pytest.mark.parametrize("max_norm", [None, 0.3, 1e6])
@pytest.mark.parametrize("changes", [{}, {"beta": 0.5, "lambda_rel": 2.0}])
def test_adagc_clips_as_pytorch_optimizer_does(max_norm, changes):
    theirs = parameters_with([torch.zeros(shape) for shape in SHAPES])
    # with no first momentum its average is the clipped gradient itself
    adam = {"lr": 0.0, "betas": (0.0, 0.999), "weight_decay": 0.0}
    reference = AdaGC(theirs, **adam, warmup_steps=5, lambda_abs=max_norm or 1.0, **changes)
    clipper = make_clipper(ClipSpec(kind="adagc", max_norm=max_norm, options={"warmup_steps": 5, **changes}))
    for seed in range(40):
        ours = parameters_with(random_gradients(seed, scales(seed)))
        for parameter, gradient in zip(theirs, random_gradients(seed, scales(seed)), strict=True):
            parameter.grad = gradient
        clipper(ours)
        reference.step()
        for one, other in zip(ours, theirs, strict=True):
            assert torch.allclose(one.grad, reference.state[other]["exp_avg"], rtol=2e-6, atol=0)
    gamma = [float(reference.state[parameter]["gamma"]) for parameter in theirs]
    assert clipper.state_dict() == {"step": 40, "gamma": pytest.approx(gamma, rel=1e-5)}


def test_a_tensor_that_comes_late_has_a_warm_up_step_of_its_own():
    clipper = make_clipper(SHORT)
    for seed in range(10):
        parameters = parameters_with(random_gradients(seed))
        parameters[1].grad = None
        clipper(parameters)
    assert clipper.state_dict()["gamma"][1] is None
    late = parameters_with([g if i == 1 else torch.full_like(g, 1e-3) for i, g in enumerate(random_gradients(11))])
    before = late[1].grad.clone()
    norm = clipper(late)
    assert torch.allclose(late[1].grad, before / (norm + 1e-8))  # the global norm is above 1, so it is brought to 1
    assert clipper.state_dict()["gamma"][1] == pytest.approx(float(late[1].grad.norm()), rel=1e-5)


@pytest.mark.parametrize("when", [2, 8])
def test_a_gradient_of_zero_does_not_freeze_its_tensor(when):
    clipper = make_clipper(SHORT)
    for seed in range(12):
        gradients = random_gradients(seed)
        if seed == when:
            gradients[0] = torch.zeros_like(gradients[0])
        clipper(parameters_with(gradients))
    assert clipper.state_dict()["gamma"][0] > 0.1


def test_another_number_of_parameters_is_refused():
    clipper = make_clipper(SHORT)
    clipper(parameters_with(random_gradients(1)))
    with pytest.raises(ValueError, match="remembers 4 tensors and got 3"):
        clipper(parameters_with(random_gradients(2)[:3]))
