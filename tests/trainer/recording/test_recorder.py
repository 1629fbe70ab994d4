import msgspec
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.recording.recorder import Recorder
from clipdrift_trainer.recording.slices import SliceMass
from clipdrift_trainer.recording.window import build_window, merge, norm_histogram

CLIP = ClipSpec(kind="global_norm", max_norm=0.5)


def start(windows, clip=CLIP, window_steps=10, check_every=1, module=None, slices=()):
    torch.manual_seed(0)
    module = module or torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    recorder = Recorder(
        make_clipper(clip), module.named_parameters(), optimizer, run_id="r", model="m",
        on_window=windows.append, clock=ManualClock(), window_steps=window_steps, check_every=check_every,
        slices=SliceMass(module, slices) if slices else None,
    )  # fmt: skip
    return module, optimizer, recorder


def backward(module, optimizer, step):
    generator = torch.Generator().manual_seed(step)
    loss = module(torch.randn(8, 4, generator=generator)).square().mean() * 3
    optimizer.zero_grad()
    loss.backward()
    return loss


def run(num_steps, **settings):
    windows = []
    module, optimizer, recorder = start(windows, **settings)
    norms = []
    for step in range(num_steps):
        loss = backward(module, optimizer, step)
        norms.append(float(recorder.clip(loss)))
        optimizer.step()
    recorder.finish()
    return windows, norms, recorder


def test_a_window_holds_the_sums_of_its_steps():
    (window,), norms, _ = run(10)
    assert (window.num_steps, window.num_clipped) == (10, sum(norm > 0.5 for norm in norms))
    assert window.norm_sum == pytest.approx(sum(norms))
    assert window.norm_removed_sum == pytest.approx(sum(max(0.0, norm - 0.5) for norm in norms), rel=1e-4)
    assert sum(window.norm_histogram.values()) == 10
    assert window.learning_rate_sum == pytest.approx(1.0)
    assert [layer.name for layer in window.layers] == ["weight", "bias"]


def test_windows_follow_one_another_and_the_last_may_be_short():
    windows, _, _ = run(25)
    assert [(w.step_first, w.num_steps) for w in windows] == [(0, 10), (10, 10), (20, 5)]


def test_every_check_belongs_to_the_window_of_its_step():
    windows, _, _ = run(20)
    assert [w.num_checked for w in windows] == [10, 10]


@pytest.mark.parametrize("kind", ["off", "global_norm", "value", "autoclip"])
def test_an_honest_loop_is_never_called_ineffective(kind):
    bound = {"global_norm": 0.5, "value": 0.05}.get(kind)
    windows, _, _ = run(30, clip=ClipSpec(kind=kind, max_norm=bound))
    assert sum(w.num_ineffective for w in windows) == 0
    assert sum(w.num_checked for w in windows) == 30


def test_clipping_after_the_optimizers_step_is_found_out():
    windows = []
    module, optimizer, recorder = start(windows)
    for step in range(10):
        loss = backward(module, optimizer, step)
        optimizer.step()
        recorder.clip(loss)
    recorder.finish()
    assert windows[0].num_ineffective == 10


def test_clipping_before_backward_is_found_out():
    windows = []
    module, optimizer, recorder = start(windows)
    for step in range(10):
        optimizer.zero_grad()
        recorder.clip(torch.zeros(()))
        backward(module, optimizer, step)
        optimizer.step()
    recorder.finish()
    assert windows[0].num_ineffective == 10


def test_a_step_that_is_not_finite_is_counted_apart_and_leaves_the_sums_finite():
    windows = []
    module, optimizer, recorder = start(windows)
    for step in range(10):
        loss = backward(module, optimizer, step)
        if step == 4:
            module.weight.grad[0, 0] = float("nan")
        recorder.clip(loss)
        optimizer.step()
    recorder.finish()
    assert (windows[0].num_nonfinite, windows[0].num_ineffective) == (1, 0)
    assert np.isfinite(windows[0].norm_sum)
    assert torch.isfinite(module.weight).all()
    assert b"null" not in msgspec.json.encode(windows[0].layers)


def test_a_parameter_without_gradient_has_norm_zero_and_the_others_keep_their_names():
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = torch.nn.Linear(4, 4, bias=False)
            self.busy = torch.nn.Linear(4, 2, bias=False)

        def forward(self, x):
            return self.busy(x)

    (window,), norms, _ = run(5, module=Half())
    by_name = {layer.name: layer.norm_sum for layer in window.layers}
    assert by_name["idle.weight"] == 0.0
    assert by_name["busy.weight"] == pytest.approx(sum(norms))


def test_merging_windows_equals_recording_their_steps_together():
    parts, _, _ = run(30)
    (whole,), _, _ = run(30, window_steps=30)
    assert_alike(merge(merge(parts[0], parts[1]), parts[2]), whole)


def test_merging_is_associative():
    a, b, c = run(30)[0]
    assert_alike(merge(merge(a, b), c), merge(a, merge(b, c)))


def test_windows_of_different_runs_do_not_merge():
    window = run(10)[0][0]
    with pytest.raises(ValueError, match="different runs"):
        merge(window, msgspec.structs.replace(window, run_id="other"))


def test_recording_changes_no_weight():
    plain = torch.nn.Linear(4, 2)
    torch.manual_seed(0)
    plain.reset_parameters()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    torch.manual_seed(0)
    module, watched_optimizer, recorder = start([])
    plain.load_state_dict(module.state_dict())
    for step in range(20):
        backward(plain, optimizer, step)
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
        recorder.clip(backward(module, watched_optimizer, step))
        watched_optimizer.step()
    assert torch.allclose(plain.weight, module.weight, rtol=1e-6)


def test_a_value_bound_that_no_entry_exceeds_is_no_clipping_though_the_norm_is_larger():
    rows = np.array([[1.0, 1.0, 1.0, 1.0, 0.6, 0.0, np.nan]])  # one tensor; total, after, coefficient 1; bound .6; loss 0
    window = build_window(rows, ["w"], run_id="r", model="m", step_first=0, started_at_ms=0, ended_at_ms=0)
    assert window.num_clipped == 0


def test_quantiles_are_those_of_the_last_half():
    _, norms, recorder = run(30)
    assert recorder.norm_quantiles().p50 == pytest.approx(np.percentile(norms[15:], 50), rel=1e-5)


def test_buckets_have_four_to_the_octave_and_hold_zero_at_the_bottom():
    assert norm_histogram(np.array([0.0, 1.0, 1.2, 2.0, 1e30])) == {-80: 1, 0: 1, 1: 1, 4: 1, 80: 1}


def assert_alike(a, b):
    for name in a.__struct_fields__:
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, float):
            assert left == pytest.approx(right, rel=1e-6), name
        elif name in ("layers", "groups"):
            assert [layer.name for layer in left] == [layer.name for layer in right]
            assert [layer.norm_sum for layer in left] == pytest.approx([layer.norm_sum for layer in right])
        else:
            assert left == right, name


def state_after(num_steps, stop=None):
    """Windows of a run; with `stop` it is stopped there, and taken up by a new recorder from what the old one saved."""
    windows = []
    module, optimizer, recorder = start(windows)
    for step in range(num_steps):
        if step == stop:
            state, weights = recorder.state_dict(), module.state_dict()
            module, optimizer, recorder = start(windows)
            module.load_state_dict(weights)
            recorder.load_state_dict(state)
        loss = backward(module, optimizer, step)
        recorder.clip(loss, batch_id=f"b{step}")
        optimizer.step()
    recorder.finish()
    return windows, recorder.norm_quantiles()


@pytest.mark.parametrize("stop", [1, 9, 10, 17])
def test_a_recorder_that_was_stopped_and_taken_up_tells_the_same(stop):
    assert state_after(25, stop) == state_after(25)


def test_the_state_of_another_model_is_refused():
    _, _, recorder = start([])
    _, _, other = start([], module=torch.nn.Linear(4, 2, bias=False))
    with pytest.raises(ValueError, match="another model or window_steps"):
        other.load_state_dict({**recorder.state_dict(), "rows": torch.zeros(1, 99)})


class Waits(TorchDispatchMode):
    """Counts what would make a host wait for a device: reading a number, finding entries."""

    def __init__(self):
        super().__init__()
        self.counted = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.counted += function in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return function(*arguments, **(keywords or {}))


def test_between_two_flushes_recording_never_waits_for_the_device():
    module, optimizer, recorder = start([], window_steps=50, check_every=5)
    alone, together = Waits(), Waits()
    for step in range(49):
        loss = backward(module, optimizer, step)
        with alone:  # on a CPU the rule itself may look: there is nobody to wait for
            make_clipper(CLIP)(module.parameters())
        loss = backward(module, optimizer, step)
        with together:
            recorder.clip(loss)
            optimizer.step()
    assert together.counted == alone.counted


def test_gradient_mass_comes_by_slice_and_what_clipping_took_of_it():
    windows = []
    module, optimizer, recorder = start(windows, slices=("a", "b"))
    for step in range(10):
        loss = backward(module, optimizer, step)
        recorder.clip(loss, slice_index=torch.tensor([0, 0, 0, 0, 0, 0, 1, 1]))
        optimizer.step()
    a, b = windows_after(recorder, windows)[0].slices
    assert (a.num_samples, b.num_samples) == (60, 20)
    assert 0 < a.grad_mass_removed_sum < a.grad_mass_sum
    assert b.num_clipped == 2 * windows[0].num_clipped


def test_slices_that_do_not_fit_the_batch_end_the_recording_of_slices_and_not_the_training(caplog):
    windows = []
    module, optimizer, recorder = start(windows, slices=("a", "b"))
    for step in range(10):
        recorder.clip(backward(module, optimizer, step), slice_index=torch.zeros(3, dtype=torch.int64))
        optimizer.step()
    assert windows_after(recorder, windows)[0].slices == ()
    assert windows[0].num_steps == 10
    assert "no longer recorded" in caplog.text


def windows_after(recorder, windows):
    recorder.finish()
    return windows


def test_an_index_that_no_slice_has_ends_the_recording_of_slices_and_not_the_training(caplog):
    windows = []
    module, optimizer, recorder = start(windows, slices=("a", "b"))
    for step in range(20):
        index = torch.full((8,), 7 if step == 4 else 0)
        recorder.clip(backward(module, optimizer, step), slice_index=index)
        optimizer.step()
    assert [window.num_steps for window in windows_after(recorder, windows)] == [10, 10]
    assert "no longer recorded" in caplog.text


def test_a_saved_state_does_not_change_while_the_run_goes_on():
    module, optimizer, recorder = start([], slices=("a", "b"))
    for step in range(10):
        if step == 5:
            state = recorder.state_dict()
            rows, sums = state["rows"].clone(), state["slice_sums"].clone()
        recorder.clip(backward(module, optimizer, step), slice_index=torch.zeros(8, dtype=torch.int64))
        optimizer.step()
    recorder.finish()
    assert torch.equal(state["rows"].nan_to_num(), rows.nan_to_num())
    assert torch.equal(state["slice_sums"], sums)


def test_the_loss_is_that_of_the_steps_that_the_norms_are_of():
    windows = []
    module, optimizer, recorder = start(windows)
    for step in range(10):
        backward(module, optimizer, step)
        if step < 8:
            module.weight.grad[0, 0] = float("inf")
        recorder.clip(torch.tensor(2.0))
        optimizer.step()
    (window,) = windows_after(recorder, windows)
    assert window.loss_sum / (window.num_steps - window.num_nonfinite) == 2.0


def test_a_state_that_does_not_fit_is_refused_whole():
    _, _, recorder = start([], slices=("a", "b", "c"))
    module, optimizer, other = start([], slices=("a", "b"))
    other.clip(backward(module, optimizer, 0))
    before = other.state_dict()
    with pytest.raises(ValueError, match="holds 3 slices, this recorder has 2"):
        other.load_state_dict(recorder.state_dict())
    with pytest.raises(ValueError, match="lacks num_clips: it was written by another release"):
        other.load_state_dict({name: value for name, value in before.items() if name != "num_clips"})
    assert other.state_dict()["notes"] == before["notes"]


def test_a_fault_is_named_alike_where_a_run_was_stopped_at_a_full_window():
    def faults(stop):
        windows = []
        module, optimizer, recorder = start(windows, module=torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)))
        for step in range(15):
            if step == stop:
                state = recorder.state_dict()
                recorder.finish()
                windows.clear()
                recorder = Recorder(
                    make_clipper(CLIP), module.named_parameters(), optimizer, run_id="r", model="m",
                    on_window=windows.append, clock=ManualClock(), window_steps=10, check_every=1,
                )  # fmt: skip
                recorder.load_state_dict(state)
            loss = backward(module, optimizer, step)
            recorder.clip(loss, parameters=module[1].parameters())
            optimizer.step()
        return [window.faults for window in windows_after(recorder, windows)]

    assert faults(10) == faults(None)
