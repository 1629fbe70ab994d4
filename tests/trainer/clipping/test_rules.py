import inspect

import pytest
import torch

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import clip_grad_norm_, clip_grad_value_, make_clipper


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ClipSpec(kind="global_norm"), "needs max_norm"),
        (ClipSpec(kind="per_tensor"), "needs max_norm"),
        (ClipSpec(kind="per_sample", max_norm=1.0), "needs the module and the optimizer"),
        (ClipSpec(kind="value"), "needs max_norm"),
        (ClipSpec(kind="global_norm", max_norm=0.0), "must be > 0"),
        (ClipSpec(kind="global_norm", max_norm=float("nan")), "must be > 0"),
        (ClipSpec(kind="autoclip", percentile=101.0), "0..100"),
        (ClipSpec(kind="off", norm_type=0.0), "norm_type"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_words(spec, words):
    with pytest.raises(ValueError, match=words):
        make_clipper(spec)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("off", "off has no state, got ..norms..: the state is that of another rule"),
        ("zclip", "zclip keeps"),
        ("adagc", "gamma"),
    ],
)
def test_a_rule_refuses_anothers_state(kind, words):
    with pytest.raises(ValueError, match=words):
        make_clipper(ClipSpec(kind=kind)).load_state_dict({"norms": [1.0]})


@pytest.mark.parametrize("kind", ["autoclip", "zclip", "quantile", "adagc"])
def test_a_damaged_state_is_refused(kind):
    damaged = {key: [{}] for key in make_clipper(ClipSpec(kind=kind)).state_dict()}
    with pytest.raises(ValueError, match="is damaged"):
        make_clipper(ClipSpec(kind=kind)).load_state_dict(damaged)


@pytest.mark.parametrize(("ours", "theirs"), [(clip_grad_norm_, "clip_grad_norm_"), (clip_grad_value_, "clip_grad_value_")])
def test_the_drop_ins_take_torchs_own_arguments(ours, theirs):
    names = list(inspect.signature(ours).parameters)
    assert names == list(inspect.signature(getattr(torch.nn.utils, theirs)).parameters)


def test_a_generator_of_parameters_is_clipped():
    layer = torch.nn.Linear(3, 2)
    layer(torch.ones(4, 3)).sum().backward()
    clip_grad_norm_(layer.parameters(), 0.1, error_if_nonfinite=True)
    total = torch.nn.utils.get_total_norm([p.grad for p in layer.parameters()])
    assert float(total) == pytest.approx(0.1, rel=1e-4)


def test_error_if_nonfinite_raises_and_changes_nothing():
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([float("inf"), 1.0])
    with pytest.raises(RuntimeError, match="cannot be clipped"):
        clip_grad_norm_(weight, 1.0, error_if_nonfinite=True)
    assert weight.grad.tolist() == [float("inf"), 1.0]


def test_an_infinite_bound_only_measures():
    weight = torch.zeros(2, requires_grad=True)
    weight.grad = torch.tensor([3.0, 4.0])
    assert float(clip_grad_norm_(weight, float("inf"))) == 5.0
    assert weight.grad.tolist() == [3.0, 4.0]
