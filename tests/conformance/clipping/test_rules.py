"""One suite over every clipping rule that needs nothing but gradients and weights."""

import io
import json
from typing import get_args

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clipdrift_contract.events import ClipKind, ClipSpec
from clipdrift_trainer.clipping.rules import RULES, clip_grad_norm_, make_clipper

SPECS = [
    pytest.param(ClipSpec(kind="off"), id="off"),
    pytest.param(ClipSpec(kind="global_norm", max_norm=0.5), id="global_norm"),
    pytest.param(ClipSpec(kind="global_norm", max_norm=0.5, norm_type=1.0), id="global_norm-l1"),
    pytest.param(ClipSpec(kind="global_norm", max_norm=0.5, norm_type=float("inf")), id="global_norm-inf"),
    pytest.param(ClipSpec(kind="value", max_norm=0.1), id="value"),
    pytest.param(ClipSpec(kind="autoclip", percentile=10.0), id="autoclip"),
    pytest.param(ClipSpec(kind="autoclip", percentile=50.0, max_norm=0.7), id="autoclip-capped"),
    pytest.param(ClipSpec(kind="per_tensor", max_norm=0.5), id="per_tensor"),
    pytest.param(ClipSpec(kind="agc"), id="agc"),
    pytest.param(ClipSpec(kind="agc", norm_type=1.0, options={"clip_factor": 0.5, "exclude_last": 1}), id="agc-head"),
    pytest.param(ClipSpec(kind="zclip", options={"warmup_steps": 3}), id="zclip"),
    pytest.param(ClipSpec(kind="zclip", max_norm=2.0, options={"warmup_steps": 3}), id="zclip-capped"),
    pytest.param(ClipSpec(kind="adagc", options={"warmup_steps": 4}), id="adagc"),
    pytest.param(ClipSpec(kind="quantile"), id="quantile"),
    pytest.param(ClipSpec(kind="quantile", max_norm=0.5, options={"learning_rate": 1.0}), id="quantile-from-max_norm"),
]
every_rule = pytest.mark.parametrize("spec", SPECS)


def parameters_with(gradients):
    made = []
    for gradient in gradients:
        weight = torch.linspace(-1.0, 2.0, gradient.numel()).reshape(gradient.shape)
        parameter = torch.nn.Parameter(weight.to(gradient.dtype))
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


def rescaled(seed):
    """Gradients of which now this tensor is large and now that one, now all of them."""
    factors = [[1, 1, 1], [50, 1, 1], [1, 0.01, 30], [20, 20, 20]][seed % 4]
    return [gradient * factor for gradient, factor in zip(gradients(seed), factors, strict=True)]


@every_rule
def test_the_direction_is_kept_where_the_rule_says_so_and_only_there(spec):
    clipper = make_clipper(spec)
    similarities = []
    for seed in range(30):
        parameters = parameters_with(rescaled(seed))
        before = flat(parameters)
        clipper(parameters)
        similarities.append(float(torch.nn.functional.cosine_similarity(before, flat(parameters), dim=0)))
    is_kept = min(similarities) > 1 - 1e-5
    assert is_kept == RULES[spec.kind].keeps_direction


@every_rule
def test_a_step_counts_as_clipped_exactly_when_its_gradients_were_changed(spec):
    clipper = make_clipper(spec)
    outcomes = set()
    for seed in range(30):
        parameters = parameters_with(gradients(seed, scale=100.0 if seed == 25 else 10.0 ** (seed % 3 - 2)))
        before = flat(parameters)
        clipper(parameters)
        step = clipper.last
        assert torch.allclose(step.coefficient, step.norm_after / step.norm_before, rtol=1e-5)
        is_at_the_bound = torch.allclose(step.norm_before, step.bound, rtol=1e-4)
        if is_at_the_bound:  # torch's 1e-6 under the fraction takes a trace
            continue
        is_clipped = bool((step.norm_before > step.bound) & (step.coefficient < 1.0))
        assert is_clipped == (not torch.allclose(before, flat(parameters), rtol=1e-4, atol=0.0))
        outcomes.add(is_clipped)
    never = {"off": True, "agc": False}.get(spec.kind if not spec.options else "")
    assert outcomes == {False, True} - {never}


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
@pytest.mark.parametrize("num_before", [0, 12])
@pytest.mark.parametrize("lost", [float("nan"), float("inf"), None])
def test_a_step_that_is_not_finite_or_has_no_gradient_is_never_learned_from(spec, num_before, lost):
    clipper, untroubled = make_clipper(spec), make_clipper(spec)
    for seed in range(num_before):
        assert torch.equal(clipped_by(clipper, seed), clipped_by(untroubled, seed))
    parameters = parameters_with(gradients(3))
    for parameter in parameters:
        parameter.grad = None if lost is None else torch.full_like(parameter, lost)
    clipper(parameters)
    for seed in range(20, 30):
        assert torch.equal(clipped_by(clipper, seed), clipped_by(untroubled, seed))


def clipped_by(clipper, seed):
    parameters = parameters_with(rescaled(seed))
    clipper(parameters)
    return flat(parameters)


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
@pytest.mark.parametrize("num_before", [0, 1, 4, 15])  # around the ends of the warm-ups too
@pytest.mark.parametrize("carry", ["json", "torch"])
def test_a_resumed_run_clips_as_the_uninterrupted_one_bit_for_bit(spec, num_before, carry):
    straight, first = make_clipper(spec), make_clipper(spec)
    for seed in range(num_before):
        assert torch.equal(clipped_by(straight, seed), clipped_by(first, seed))
    resumed = make_clipper(spec)
    resumed.load_state_dict(carried(first.state_dict(), carry))
    for seed in range(num_before, num_before + 10):
        assert torch.equal(clipped_by(straight, seed), clipped_by(resumed, seed))
        assert torch.equal(straight.last.bound, resumed.last.bound)
    assert straight.state_dict() == resumed.state_dict()


def carried(state, how):
    if how == "json":
        return json.loads(json.dumps(state, allow_nan=False))
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@every_rule
def test_the_state_is_a_copy_that_later_steps_leave_alone(spec):
    clipper = make_clipper(spec)
    clipped_by(clipper, 1)
    kept = clipper.state_dict()
    as_it_was = json.dumps(kept)
    for seed in range(2, 8):
        clipped_by(clipper, seed)
    assert json.dumps(kept) == as_it_was


@every_rule
def test_gradients_scaled_for_half_precision_clip_alike_once_unscaled(spec):
    plain, scaled = make_clipper(spec), make_clipper(spec)
    for seed in range(6):
        ours, theirs = parameters_with(gradients(seed)), parameters_with(gradients(seed))
        optimizer = torch.optim.SGD(theirs, lr=0.1)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        scaler.scale(torch.ones(()))  # the scaler makes its scale when it is first used
        for parameter in theirs:
            parameter.grad.mul_(2.0**12)
        scaler.unscale_(optimizer)
        plain(ours)
        scaled(theirs)
        assert torch.equal(flat(ours), flat(theirs))


@every_rule
def test_accumulated_gradients_are_clipped_as_those_of_the_joined_batch(spec):
    generator = torch.Generator().manual_seed(8)
    x, y = torch.randn(12, 4, generator=generator), torch.randn(12, 1, generator=generator)
    joined, accumulated = torch.nn.Linear(4, 1), torch.nn.Linear(4, 1)
    accumulated.load_state_dict(joined.state_dict())
    torch.nn.functional.mse_loss(joined(x), y).backward()
    for part in range(3):
        rows = slice(part * 4, part * 4 + 4)
        (torch.nn.functional.mse_loss(accumulated(x[rows]), y[rows]) / 3).backward()
    make_clipper(spec)(joined.parameters())
    make_clipper(spec)(accumulated.parameters())
    for one, other in zip(joined.parameters(), accumulated.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5)


@every_rule
def test_one_parameter_may_come_without_a_list(spec):
    [bare], listed = parameters_with(gradients(9)[:1]), parameters_with(gradients(9)[:1])
    before_bare, before_listed = make_clipper(spec)(bare), make_clipper(spec)(listed)
    assert torch.equal(before_bare, before_listed)
    assert torch.equal(bare.grad, listed[0].grad)


@pytest.mark.parametrize("kind", sorted(kind for kind, rule in RULES.items() if rule.takes_max_norm))
def test_an_infinite_max_norm_only_measures(kind):
    parameters = parameters_with(gradients(10, scale=1e4))
    before = flat(parameters)
    clipper = make_clipper(ClipSpec(kind=kind, max_norm=float("inf")))
    assert torch.allclose(clipper(parameters), torch.linalg.vector_norm(before))
    assert torch.allclose(flat(parameters), before, rtol=1e-6, atol=0.0)


@every_rule
def test_gradients_that_carry_a_graph_leave_none_in_what_is_kept(spec):
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    (weight**3).sum().backward(create_graph=True)
    clipper = make_clipper(spec)
    returned = clipper([weight])
    assert not any(figure.requires_grad for figure in (returned, *clipper.last))


@every_rule
def test_the_host_never_waits_for_the_device_of_the_gradients(spec):
    clipper = make_clipper(spec)
    for _ in range(6):
        parameters = [torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in ((3, 4), (5,), (2, 2, 2))]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        clipper(parameters)  # a meta tensor is on a device of its own and has no numbers: whoever reads one raises
    assert {figure.device.type for figure in clipper.last} == {"meta"}


class Moves(TorchDispatchMode):
    """Counts what goes from the host to the gradients' device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        given = [one for one in arguments if isinstance(one, torch.Tensor)]
        if isinstance(result, torch.Tensor) and len({one.device for one in (*given, result)}) > 1:
            self.found.append(str(function))
        return result


@every_rule
@pytest.mark.parametrize("lacks_one", [False, True])
def test_after_its_first_step_a_rule_copies_nothing_to_the_device(spec, lacks_one):
    parameters = [torch.nn.Parameter(torch.empty(shape, device="meta")) for shape in ((3, 4), (5,), (2, 2, 2))]
    for parameter in parameters[lacks_one:]:
        parameter.grad = torch.empty_like(parameter)
    clipper = make_clipper(spec)
    clipper(parameters)
    with Moves() as moves:
        clipper(parameters)
    assert moves.found == []


def test_the_drop_in_copies_nothing_to_the_device_in_any_step():
    parameters = [torch.nn.Parameter(torch.empty(3, device="meta")) for _ in range(4)]
    for parameter in parameters:
        parameter.grad = torch.empty_like(parameter)
    with Moves() as moves:
        clip_grad_norm_(parameters, 1.0)
    assert moves.found == []


class OneDevice(TorchDispatchMode):
    """Changes in place must have all they need where the gradient is."""

    def __init__(self):
        super().__init__()
        self.num_changes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if "mul_" in str(function) or "masked_fill_" in str(function):
            self.num_changes += 1
            leaves = torch.utils._pytree.tree_leaves(arguments)
            assert len({one.device for one in leaves if isinstance(one, torch.Tensor)}) == 1, function
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("kind", ["off", "global_norm", "per_tensor", "agc", "adagc"])
def test_a_model_whose_layers_are_on_two_devices_is_clipped_on_each_with_what_is_there(kind):
    spec = ClipSpec(kind=kind, max_norm=0.5 if RULES[kind].needs_max_norm else None)
    with FakeTensorMode(allow_non_fake_inputs=True), OneDevice() as one_device:  # devices without numbers, and without a GPU
        parameters = [
            torch.nn.Parameter(torch.empty(shape, device=f"cuda:{device}"))
            for device, shape in ((0, (3, 4)), (1, (5,)), (1, (3, 3)), (0, (4,)))
        ]
        for parameter in parameters:
            parameter.grad = torch.empty_like(parameter)
        clipper = make_clipper(spec)
        for _ in range(2):
            clipper(parameters)
    assert one_device.num_changes > 0


def test_every_kind_of_the_contract_has_a_rule_here_but_the_one_that_needs_the_module():
    assert set(RULES) == set(get_args(ClipKind)) - {"per_sample"}
    assert {parameter.values[0].kind for parameter in SPECS} == set(RULES)
