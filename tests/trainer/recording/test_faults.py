"""Each silent failure of clipping, planted in a loop as people write it, is named in the first window; a sound loop is not."""

import itertools

import pytest
import torch
from torch import nn

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.recording.recorder import Recorder

CLIP = ClipSpec(kind="global_norm", max_norm=0.5)
WINDOW = 12


class Loop:
    """A module, its optimizer and a recorder; steps are taken by the test, in whatever order it wants to try."""

    def __init__(self, module=None, clip=CLIP, optimizer=None, trained=None, scaler=None, shape=(8, 4)):
        torch.manual_seed(0)
        self.module = module or nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        make_optimizer = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.05))
        self.optimizer = make_optimizer(list(trained or self.module.parameters()))
        self.windows = []
        self.shape = shape
        self.recorder = Recorder(
            make_clipper(clip), self.module.named_parameters(), self.optimizer, run_id="r", model="m",
            on_window=self.windows.append, clock=ManualClock(), window_steps=WINDOW, check_every=4, scaler=scaler,
        )  # fmt: skip

    def loss(self, step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(self.shape, generator=generator).to(next(self.module.parameters()).dtype)
        return self.module(x).float().square().mean() * 3 + 0.1

    def faults(self):
        self.recorder.finish()
        return {fault.kind: fault for fault in self.windows[0].faults}


def zero_and_backward(loop, step):
    loop.optimizer.zero_grad()
    loss = loop.loss(step)
    loss.backward()
    return loss


def healthy_step(loop, step):
    loss = zero_and_backward(loop, step)
    loop.recorder.clip(loss)
    loop.optimizer.step()


def clip_before_backward(loop, step):
    loop.optimizer.zero_grad()
    loop.recorder.clip()
    loop.loss(step).backward()
    loop.optimizer.step()


def clip_before_zero_grad(loop, step):
    loop.recorder.clip()
    zero_and_backward(loop, step)
    loop.optimizer.step()


def clip_before_zeroing_in_place(loop, step):
    loop.optimizer.zero_grad(set_to_none=False)
    loop.recorder.clip()
    loop.loss(step).backward()
    loop.optimizer.step()


def clip_after_step(loop, step):
    zero_and_backward(loop, step)
    loop.optimizer.step()
    loop.recorder.clip()


def no_clip(loop, step):
    zero_and_backward(loop, step)
    loop.optimizer.step()


def clip_each_micro_batch(loop, step):
    loop.optimizer.zero_grad()
    for part in range(4):
        loss = loop.loss(step * 4 + part) / 4
        loss.backward()
        loop.recorder.clip(loss)
    loop.optimizer.step()


def clip_only_the_head(loop, step):
    loss = zero_and_backward(loop, step)
    loop.recorder.clip(loss, parameters=loop.module[2].parameters())
    loop.optimizer.step()


def changed_behind_the_back(loop, step):
    loss = zero_and_backward(loop, step)
    loop.recorder.clip(loss)
    for parameter in loop.module.parameters():
        parameter.grad.mul_(3.0)
    loop.optimizer.step()


def one_entry(value):
    def step_with_it(loop, step):
        loss = zero_and_backward(loop, step)
        if step == 7:
            loop.module[2].weight.grad[0, 3] = value
        loop.recorder.clip(loss)
        loop.optimizer.step()

    return step_with_it


PLANTED = [
    pytest.param(clip_before_backward, "clip_before_backward", id="clip, backward, step"),
    pytest.param(clip_before_zero_grad, "clip_before_backward", id="clip, zero_grad, backward, step"),
    pytest.param(clip_before_zeroing_in_place, "clip_before_backward", id="zero in place, clip, backward, step"),
    pytest.param(clip_after_step, "clip_after_step", id="backward, step, clip"),
    pytest.param(no_clip, "clip_missing", id="never clipped"),
    pytest.param(clip_each_micro_batch, "double_clip", id="clipped through accumulation"),
    pytest.param(clip_only_the_head, "wrong_parameters", id="only the head clipped"),
    pytest.param(changed_behind_the_back, "not_as_promised", id="gradients changed after clipping"),
    pytest.param(one_entry(float("nan")), "nan", id="one NaN"),
    pytest.param(one_entry(float("inf")), "inf", id="one Inf"),
    pytest.param(one_entry(float("-inf")), "inf", id="one negative Inf"),
]


@pytest.mark.parametrize(("take", "kind"), PLANTED)
def test_a_planted_fault_is_named_in_the_first_window_and_nothing_else_is(take, kind):
    loop = Loop()
    for step in range(WINDOW):
        take(loop, step)
    assert set(loop.faults()) == {kind}


@pytest.mark.parametrize("take", [clip_before_backward, clip_before_zero_grad, clip_after_step, no_clip])
def test_steps_that_were_not_clipped_are_counted_as_such_and_tell_the_true_norms(take):
    loop = Loop()
    for step in range(WINDOW):
        take(loop, step)
    loop.recorder.finish()
    window = loop.windows[0]
    assert window.num_steps == window.num_ineffective == window.num_checked == WINDOW
    assert window.norm_removed_sum == 0.0
    assert window.norm_min > 0


def test_only_the_steps_of_the_optimizer_count_when_micro_batches_are_clipped():
    loop = Loop()
    for step in range(WINDOW // 4):
        clip_each_micro_batch(loop, step)
    fault = loop.faults()["double_clip"]
    assert (loop.windows[0].num_steps, fault.num_steps) == (3, 9)


def test_a_fault_says_first_step_number_of_steps_and_layer():
    loop = Loop()
    for step in range(WINDOW):
        one_entry(float("nan"))(loop, step)
    fault = loop.faults()["nan"]
    assert (fault.step, fault.num_steps, fault.layer) == (7, 1, "2.weight")


def test_a_model_whose_copy_is_trained_is_found_out():
    module = nn.Linear(4, 2)
    loop = Loop(module, trained=nn.Linear(4, 2).parameters())
    for step in range(WINDOW):
        healthy_step(loop, step)
    assert loop.faults()["wrong_parameters"].words.startswith("the optimizer trains 2 tensors that are not clipped")


def test_a_tensor_that_no_optimizer_trains_is_named():
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    loop = Loop(module, trained=module[2].parameters())
    for step in range(WINDOW):
        healthy_step(loop, step)
    assert loop.faults()["wrong_parameters"].layer == "0.weight"


class CutOff(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.front(x)).detach())


def test_a_layer_that_no_gradient_reaches_is_named():
    loop = Loop(CutOff())
    for step in range(WINDOW):
        healthy_step(loop, step)
    loop.recorder.finish()
    assert [(fault.kind, fault.layer) for fault in loop.windows[0].faults] == [
        ("frozen_layer", "front.weight"),
        ("frozen_layer", "front.bias"),
    ]


def test_a_layer_frozen_on_purpose_is_none():
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    module[0].requires_grad_(False)
    loop = Loop(module, trained=[parameter for parameter in module.parameters() if parameter.requires_grad])
    for step in range(WINDOW):
        healthy_step(loop, step)
    assert not loop.faults()


def test_float16_gradients_that_overflow_torchs_norm_are_named_and_not_zeroed():
    module = nn.Linear(4, 2).half()
    loop = Loop(module, clip=ClipSpec(kind="global_norm", max_norm=1.0))
    for _ in range(WINDOW):
        for parameter in module.parameters():
            parameter.grad = torch.full_like(parameter, 60_000.0)
        for hook in list(module.parameters())[-1]._post_accumulate_grad_hooks.values():
            hook(None)  # the gradients are set by hand: backward in half precision would not give such ones
        loop.recorder.clip()
        assert module.weight.grad.abs().min() > 0.2, "torch's own clip_grad_norm_ leaves zeros here"
        loop.optimizer.step()
    fault = loop.faults()["half_overflow"]
    assert fault.num_steps == WINDOW
    assert set(loop.faults()) == {"half_overflow"}


def test_the_norm_of_half_precision_overflows_in_torch_itself():
    """If torch mends this, what the fault says is no longer true."""
    weight = torch.zeros(8, dtype=torch.float16, requires_grad=True)
    weight.grad = torch.full_like(weight, 60_000.0)
    nn.utils.clip_grad_norm_([weight], 1.0)
    assert weight.grad.abs().max() == 0


def scaled_step(loop, scaler, step, *, is_unscaled=True, is_infinite=False, set_to_none=True):
    loop.optimizer.zero_grad(set_to_none=set_to_none)
    loss = loop.loss(step) * (float("inf") if is_infinite else 1.0)
    scaler.scale(loss).backward()
    if is_unscaled:
        scaler.unscale_(loop.optimizer)
    loop.recorder.clip(loss)
    scaler.step(loop.optimizer)
    scaler.update()


def test_steps_that_a_loss_scaler_skips_are_counted_apart_and_are_no_fault():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    loop = Loop(scaler=scaler)
    for step in range(WINDOW):
        scaled_step(loop, scaler, step, is_infinite=step in (3, 9))
    assert not loop.faults()
    window = loop.windows[0]
    assert (window.num_steps, window.num_skipped, window.num_nonfinite) == (WINDOW - 2, 2, 0)


def test_gradients_that_were_not_unscaled_are_named():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    loop = Loop(scaler=scaler)
    for step in range(WINDOW):
        scaled_step(loop, scaler, step, is_unscaled=False)
    assert "scaled_gradients" in loop.faults()


def test_a_scale_that_is_too_high_still_comes_down_where_unscaling_was_forgotten():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    loop = Loop(scaler=scaler)
    before = loop.module[0].weight.detach().clone()
    for step in range(WINDOW):
        scaled_step(loop, scaler, step, is_unscaled=False)
    assert scaler.get_scale() < 2.0**127
    assert not torch.equal(loop.module[0].weight, before)
    loop.recorder.finish()


def test_an_optimizer_that_runs_backward_in_a_closure_is_sound():
    loop = Loop()
    for step in range(WINDOW):

        def closure(step=step):
            loss = zero_and_backward(loop, step)
            loop.recorder.clip(loss)
            return loss

        loop.optimizer.step(closure)
    assert not loop.faults()
    assert (loop.windows[0].num_steps, loop.windows[0].num_ineffective, loop.windows[0].num_checked) == (WINDOW, 0, 3)


class Sequence(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(8, 2)

    def forward(self, x):
        out = self.layer(x)
        return self.head((out[0] if isinstance(out, tuple) else out)[:, -1])


class Words(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.words, self.head = nn.Embedding(10, 8, sparse=sparse), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.words(x.abs().mul(3).long().clamp(max=9)).mean(dim=1))


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.norm, self.head = nn.Conv1d(8, 8, 3), nn.BatchNorm1d(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.convolution(x.transpose(1, 2)))).mean(dim=2))


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)), (8, 4)),
    "relu": (lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, 2)), (8, 4)),
    "lstm": (lambda: Sequence(nn.LSTM(8, 8, batch_first=True)), (4, 5, 8)),
    "gru": (lambda: Sequence(nn.GRU(8, 8, batch_first=True, bidirectional=False)), (4, 5, 8)),
    "transformer": (lambda: Sequence(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), (4, 5, 8)),
    "convolution": (Convolution, (4, 6, 8)),
    "embedding": (lambda: Words(False), (8, 4)),
    "bfloat16": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).bfloat16(), (8, 4)),
    "double": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double(), (8, 4)),
    "sparse": (lambda: Words(True), (8, 4)),
}
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
    "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
}
SOUND = [
    pytest.param(model, optimizer, id=f"{model}-{optimizer}")
    for model, optimizer in itertools.product(MODELS, OPTIMIZERS)
    if model != "sparse"
] + [pytest.param("sparse", "sgd", id="sparse-sgd")]


def accumulated_step(loop, step):
    loop.optimizer.zero_grad()
    for part in range(2):
        loss = loop.loss(step * 2 + part) / 2
        loss.backward()
    loop.recorder.clip(loss)
    loop.optimizer.step()


def step_zeroed_in_place(loop, step):
    loop.optimizer.zero_grad(set_to_none=False)
    loss = loop.loss(step)
    loss.backward()
    loop.recorder.clip(loss)
    loop.optimizer.step()


def step_zeroed_at_the_end(loop, step):
    loss = loop.loss(step)
    loss.backward()
    loop.recorder.clip(loss)
    loop.optimizer.step()
    loop.optimizer.zero_grad()


WAYS = (healthy_step, accumulated_step, step_zeroed_in_place, step_zeroed_at_the_end)


@pytest.mark.parametrize(("model", "optimizer"), SOUND)
def test_a_sound_loop_is_never_accused(model, optimizer):
    make, shape = MODELS[model]
    ways = (healthy_step, accumulated_step, step_zeroed_at_the_end) if model == "sparse" else WAYS
    for take, clip in zip(ways, (CLIP, ClipSpec(kind="off"), ClipSpec(kind="value", max_norm=0.01), CLIP), strict=False):
        loop = Loop(make(), clip=clip, optimizer=OPTIMIZERS[optimizer], shape=shape)
        for step in range(WINDOW):
            take(loop, step)
        assert not loop.faults(), take.__name__
        assert (loop.windows[0].num_steps, loop.windows[0].num_ineffective) == (WINDOW, 0)


def test_at_least_fifty_sound_runs_are_tried():
    assert len(SOUND) * 4 > 50


def test_a_skipped_step_whose_gradients_are_zeroed_in_place_is_no_double_clip():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    loop = Loop(scaler=scaler)
    for step in range(WINDOW):
        scaled_step(loop, scaler, step, is_infinite=step in (3, 9), set_to_none=False)
    assert not loop.faults()
    assert loop.windows[0].num_skipped == 2


class Turns(nn.Module):
    """Forty parts of which each step reaches one."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(4, 2) for _ in range(20))
        self.turn = 0

    def forward(self, x):
        self.turn += 1
        return self.parts[self.turn % 20](x)


def test_a_step_that_reaches_only_a_few_of_many_tensors_is_sound():
    loop = Loop(Turns())
    for step in range(WINDOW):
        healthy_step(loop, step)
    assert set(loop.faults()) == {"frozen_layer"}, "the parts whose turn has not come in this window"
    assert loop.windows[0].num_ineffective == 0


def test_a_layer_that_is_unfrozen_later_is_clipped_from_then_on():
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    module[0].requires_grad_(False)
    loop = Loop(module, clip=ClipSpec(kind="global_norm", max_norm=0.01))
    for step in range(2 * WINDOW):
        if step == 5:
            module[0].requires_grad_(True)
        healthy_step(loop, step)
        met = torch.stack([one.grad.norm() for one in module.parameters() if one.grad is not None]).norm()
        assert met <= 0.01 * (1 + 1e-4)
    loop.recorder.finish()
    assert [window.num_steps for window in loop.windows] == [5, WINDOW, WINDOW - 5]
    assert [len(window.layers) for window in loop.windows] == [2, 4, 4]
    assert not any(window.faults for window in loop.windows)


def test_a_layer_that_is_frozen_later_is_no_fault():
    loop = Loop()
    for step in range(2 * WINDOW):
        if step == WINDOW:
            loop.module[0].requires_grad_(False)
        healthy_step(loop, step)
    loop.recorder.finish()
    assert not any(window.faults for window in loop.windows)


def test_tensors_that_another_recorder_clips_are_none_of_this_ones_business():
    module = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    windows = []
    recorders = [
        Recorder(
            make_clipper(CLIP),
            part.named_parameters(),
            optimizer,
            run_id="r",
            model="m",
            on_window=windows.append,
            clock=ManualClock(),
            window_steps=WINDOW,
            check_every=4,
            is_partial=True,
        )
        for part in (module[0], module[2])
    ]
    for step in range(WINDOW):
        optimizer.zero_grad()
        module(torch.randn((8, 4), generator=torch.Generator().manual_seed(step))).square().mean().backward()
        for recorder in recorders:
            recorder.clip()
        optimizer.step()
    for recorder in recorders:
        recorder.finish()
    assert [(window.num_checked, window.num_ineffective, window.faults) for window in windows] == [(3, 0, ())] * 2
