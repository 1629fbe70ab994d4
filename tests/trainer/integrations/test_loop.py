import copy
import subprocess
import sys
from pathlib import Path

import by_hand
import pytest
import torch
from torch import nn

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer import watch
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.recording.sinks.lines import LinesReader, LinesSink
from clipdrift_trainer.recording.slices import SliceMass


def train(module, batches, *, accumulate=1, at_step=False, **settings):
    windows = []
    optimizer = by_hand.make_optimizer(module)
    settings = {"max_norm": by_hand.MAX_NORM, "window_steps": 10, "check_every": 1} | settings
    recorder = watch(module, optimizer, at_step=at_step, **{"sinks": windows.append} | settings)
    for first in range(0, len(batches), accumulate):
        optimizer.zero_grad()
        for batch in batches[first : first + accumulate]:
            loss = by_hand.loss_of(module, batch) / accumulate
            loss.backward()
            recorder.note(loss)
        if not at_step:
            recorder.clip()
        optimizer.step()
    recorder.finish()
    return windows


@pytest.mark.parametrize("at_step", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_watched_loop_equals_torchs_own_clipping(at_step, accumulate):
    module, reference, batches = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches()
    windows = train(module, batches, accumulate=accumulate, at_step=at_step)
    norms = by_hand.train_by_hand(reference, batches, accumulate=accumulate)
    by_hand.assert_same_weights(module, reference)
    total = by_hand.assert_tells(windows, norms)
    assert total.num_checked == len(norms) == len(batches) // accumulate


def test_the_loss_of_a_step_is_that_of_all_its_micro_batches():
    batches = by_hand.make_batches(12)
    joined = [tuple(torch.cat(parts) for parts in zip(*batches[i : i + 3], strict=True)) for i in range(0, 12, 3)]
    (apart,) = train(by_hand.make_module(), batches, accumulate=3)
    (together,) = train(by_hand.make_module(), joined)
    assert apart.loss_sum == pytest.approx(together.loss_sum, rel=1e-5)


def test_a_step_with_a_closure_is_clipped_and_checked_inside_it():
    module, reference, batches = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches()
    optimizer, windows = by_hand.make_optimizer(module), []
    recorder = watch(module, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1, at_step=True)
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            loss = by_hand.loss_of(module, batch)
            loss.backward()
            return loss

        assert optimizer.step(closure) > 0
    recorder.finish()
    norms = by_hand.train_by_hand(reference, batches)
    by_hand.assert_same_weights(module, reference)
    by_hand.assert_tells(windows, norms)


def test_without_a_rule_everything_is_recorded_and_nothing_is_clipped():
    module, reference, batches = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches()
    windows = train(module, batches, max_norm=None)
    by_hand.train_by_hand(reference, batches, max_norm=float("inf"))
    by_hand.assert_same_weights(module, reference)
    assert sum(window.num_clipped for window in windows) == 0
    assert sum(window.norm_sum for window in windows) > 0


def test_the_model_is_named_after_its_class_and_a_run_gets_an_identity():
    windows = train(by_hand.make_module(), by_hand.make_batches(2))
    again = train(by_hand.make_module(), by_hand.make_batches(2))
    assert windows[0].model == "Sequential"
    assert windows[0].run_id
    assert windows[0].run_id != again[0].run_id


def test_layers_of_a_compiled_model_have_the_names_that_the_user_gave():
    module = nn.Sequential(torch.compile(nn.Linear(4, 2), backend="eager"))
    (window,) = train(torch.compile(module, backend="eager"), by_hand.make_batches(2))
    assert [layer.name for layer in window.layers] == ["0.weight", "0.bias"]


def test_the_package_can_be_imported_where_torch_is_not():
    code = "import clipdrift_trainer, sys; assert 'torch' not in sys.modules; clipdrift_trainer.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "AttributeError: module 'clipdrift_trainer' has no attribute 'nothing'" in done.stderr


def test_two_rules_are_refused():
    module = by_hand.make_module()
    with pytest.raises(ValueError, match="either max_norm or clip"):
        watch(module, by_hand.make_optimizer(module), 1.0, clip=ClipSpec(kind="autoclip"))


def test_a_rule_may_be_given_as_a_clipper():
    clipper = make_clipper(ClipSpec(kind="value", max_norm=0.1))
    (window,) = train(by_hand.make_module(), by_hand.make_batches(2), max_norm=None, clip=clipper)
    assert window.clip.kind == "value"


def test_what_hides_its_gradients_is_refused():
    class DeepSpeedEngine(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    module = by_hand.make_module()
    with pytest.raises(ValueError, match="gradient_clipping in its configuration"):
        watch(DeepSpeedEngine(module), by_hand.make_optimizer(module), 1.0)


def test_a_sink_that_raises_ends_neither_the_training_nor_the_other_sinks(caplog):
    def broken(window):
        raise OSError("no space left")

    windows, module = [], by_hand.make_module()
    optimizer = by_hand.make_optimizer(module)
    recorder = watch(module, optimizer, 1.0, sinks=[broken, windows.append])
    by_hand.loss_of(module, by_hand.make_batches(1)[0]).backward()
    recorder.clip()
    optimizer.step()
    recorder.finish()
    assert len(windows) == 1
    assert "no space left" in caplog.text


def test_a_place_is_told_by_a_thread_of_its_own_and_has_everything_at_the_end(tmp_path):
    windows = []
    train(by_hand.make_module(), by_hand.make_batches(), sinks=[LinesSink(tmp_path / "run.jsonl"), windows.append])
    assert LinesReader(tmp_path / "run.jsonl").read() == windows
    assert sum(window.num_steps for window in windows) == by_hand.NUM_STEPS


def test_what_can_take_no_window_is_refused():
    with pytest.raises(ValueError, match=r"places with send .*, got PosixPath"):
        train(by_hand.make_module(), by_hand.make_batches(), sinks=Path("run.jsonl"))


def test_a_recorder_that_clips_by_itself_refuses_to_be_asked():
    module = by_hand.make_module()
    recorder = watch(module, by_hand.make_optimizer(module), 1.0, at_step=True)
    with pytest.raises(ValueError, match="note"):
        recorder.clip()


def test_after_the_end_the_optimizer_steps_as_if_nothing_had_been():
    module, windows = by_hand.make_module(), []
    optimizer = by_hand.make_optimizer(module)
    recorder = watch(module, optimizer, 1e-9, sinks=windows.append, at_step=True)
    recorder.finish()
    recorder.finish()
    before = module[0].weight.clone()
    by_hand.loss_of(module, by_hand.make_batches(1)[0]).backward()
    optimizer.step()
    assert (module[0].weight - before).abs().max() > 1e-4
    assert windows == []


@pytest.mark.parametrize(("loss", "got"), [(0.5, "float"), (torch.ones(8), r"shape \(8,\)")])
def test_a_loss_that_is_not_one_number_is_refused(loss, got):
    module = by_hand.make_module()
    with pytest.raises(ValueError, match=got):
        watch(module, by_hand.make_optimizer(module), 1.0).clip(loss)


def test_a_setting_that_is_refused_leaves_nothing_at_the_optimizer():
    module = by_hand.make_module()
    optimizer = by_hand.make_optimizer(module)
    with pytest.raises(ValueError, match="window_steps"):
        watch(module, optimizer, 1.0, window_steps=0, at_step=True)
    by_hand.loss_of(module, by_hand.make_batches(1)[0]).backward()
    optimizer.step()


def test_what_is_no_optimizer_or_takes_several_gradients_a_step_is_refused():
    module = by_hand.make_module()
    with pytest.raises(ValueError, match=r"must be a torch.optim.Optimizer .* got Sequential"):
        watch(module, module, 1.0)
    with pytest.raises(ValueError, match="L-BFGS takes several gradients a step"):
        watch(module, torch.optim.LBFGS(module.parameters()), 1.0)


def test_a_second_recorder_is_refused_until_the_first_has_ended():
    module = by_hand.make_module()
    optimizer = by_hand.make_optimizer(module)
    first = watch(module, optimizer, 1.0)
    with pytest.raises(ValueError, match=r"watched already.* call finish\(\) or abandon\(\)"):
        watch(module, optimizer, 1.0, at_step=True)
    first.abandon()
    watch(module, optimizer, 1.0, at_step=True).finish()
    watch(module, optimizer, 1.0).finish()


class Wrapper(torch.optim.Optimizer):
    """Looks like an optimizer, takes hooks, and never runs them: as several libraries wrap one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self._optimizer_step_pre_hooks = {}

    def step(self):
        self.optimizer.step()

    def zero_grad(self):
        self.optimizer.zero_grad()


def test_an_optimizer_inside_another_is_found_and_clipped():
    module, windows = by_hand.make_module(), []
    optimizer = Wrapper(Wrapper(torch.optim.SGD(module.parameters(), lr=0.1)))
    recorder = watch(module, optimizer, 0.1, sinks=windows.append, check_every=1, at_step=True)
    for batch in by_hand.make_batches(6):
        optimizer.zero_grad()
        by_hand.loss_of(module, batch).backward()
        optimizer.step()
    recorder.finish()
    assert (windows[0].num_steps, windows[0].num_checked, windows[0].faults, windows[0].optimizer) == (6, 6, (), "SGD")


def test_a_watched_model_can_be_copied_and_saved(tmp_path):
    module, windows = by_hand.make_module(), []
    optimizer = by_hand.make_optimizer(module)
    recorder = watch(module, optimizer, 1.0, sinks=windows.append, slices=SliceMass(module[2], ("a",)))
    copied = copy.deepcopy(module)
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    by_hand.loss_of(copied, by_hand.make_batches(1)[0]).backward()
    by_hand.loss_of(module, by_hand.make_batches(1)[0]).backward()
    recorder.clip(slice_index=torch.zeros(by_hand.BATCH, dtype=torch.int64))
    optimizer.step()
    recorder.finish()
    assert (windows[0].faults, windows[0].slices[0].num_samples) == ((), by_hand.BATCH)


def scaled_training(module, batches, *, at_step, bad_step=None, optimizer=None):
    windows = []
    optimizer = optimizer or by_hand.make_optimizer(module)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    recorder = watch(module, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1, scaler=scaler, at_step=at_step)
    for step, batch in enumerate(batches):
        optimizer.zero_grad()
        loss = by_hand.loss_of(module, batch) * (float("inf") if step == bad_step else 1.0)
        scaler.scale(loss).backward()
        if not at_step:
            scaler.unscale_(optimizer)
            recorder.clip(loss)
        scaler.step(optimizer)
        scaler.update()
    recorder.finish()
    return windows


@pytest.mark.parametrize("at_step", [False, True])
def test_gradients_of_a_loss_scaler_are_clipped_by_their_true_norm(at_step):
    module, reference, batches = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches()
    windows = scaled_training(module, batches, at_step=at_step)
    norms = by_hand.train_by_hand(reference, batches)
    by_hand.assert_same_weights(module, reference, 1e-5)
    by_hand.assert_tells(windows, norms)


def test_a_step_that_the_scaler_skips_is_counted_apart():
    module, reference, batches = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches()
    (window,) = scaled_training(module, batches, at_step=False, bad_step=7)
    norms = by_hand.train_by_hand(reference, batches[:7] + batches[8:])
    by_hand.assert_same_weights(module, reference, 1e-5)
    assert (window.num_steps, window.num_skipped, window.num_nonfinite) == (len(batches) - 1, 1, 0)
    assert window.norm_sum == pytest.approx(sum(norms), rel=1e-5)


def test_a_fused_optimizer_that_would_unscale_behind_clippings_back_is_refused():
    module = by_hand.make_module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, fused=True)
    with pytest.raises(ValueError, match="unscale_"):
        scaled_training(module, by_hand.make_batches(1), at_step=True, optimizer=optimizer)
