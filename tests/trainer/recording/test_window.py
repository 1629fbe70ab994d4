import numpy as np
import pytest

from clipdrift_contract.events import Fault, GradWindow, SliceGradient, Spike
from clipdrift_trainer.recording.groups import layer_groups
from clipdrift_trainer.recording.spikes import find_spikes
from clipdrift_trainer.recording.window import build_window, merge, merge_slices


def rows_of(norm_SP, coefficient=1.0, bound=np.inf):
    total = np.linalg.norm(norm_SP, axis=1)
    nothing = np.zeros(len(norm_SP))
    columns = [total, total * coefficient, nothing + coefficient, nothing + bound, nothing, nothing + np.nan]
    return np.column_stack([norm_SP, *columns])


def test_a_groups_norm_is_that_over_all_its_tensors():
    window = build_window(
        rows_of(np.array([[3.0, 4.0, 1.0]])), ["a.w", "a.b", "c"], groups=["a", "a", "c"],
        run_id="r", model="m", step_first=0, started_at_ms=0, ended_at_ms=0,
    )  # fmt: skip
    assert [(group.name, group.norm_sum) for group in window.groups] == [("a", 5.0), ("c", 1.0)]


def test_the_effective_learning_rate_is_what_clipping_leaves_of_it():
    window = build_window(
        rows_of(np.ones((4, 1)), coefficient=0.25, bound=0.25), ["w"], learning_rate_S=np.full(4, 0.1),
        run_id="r", model="m", step_first=0, started_at_ms=0, ended_at_ms=0,
    )  # fmt: skip
    assert window.effective_learning_rate_sum == pytest.approx(0.25 * window.learning_rate_sum)


def test_many_modules_become_at_most_twelve_groups_with_no_tensor_left_out():
    names = [f"layer{i}.weight" for i in range(31)]
    groups = layer_groups(names)
    assert len(groups) == len(names)
    assert len(set(groups)) <= 12
    assert groups[0] == "layer0 to layer2"


def test_the_deepest_level_that_is_few_enough_is_chosen():
    names = [f"encoder.blocks.{i}.{part}.weight" for i in range(6) for part in ("attention", "mlp")]
    assert set(layer_groups(names)) == {f"encoder.blocks.{i}.{part}" for i in range(6) for part in ("attention", "mlp")}
    assert set(layer_groups(names, most=11)) == {f"encoder.blocks.{i}" for i in range(6)}


def test_a_tail_that_is_always_heavy_has_no_spikes():
    norms = np.random.default_rng(0).lognormal(sigma=1.2, size=(400, 1))
    found = [
        spike
        for start in range(0, 400, 50)
        for spike in find_spikes(rows_of(norms[start : start + 50]), ["w"], range(50), [""] * 50)
    ]
    assert len(found) <= 1


def test_a_spike_names_its_batch_and_the_tensor_with_the_largest_norm():
    norms = np.ones((50, 2))
    norms[31] = (2.0, 40.0)
    (spike,) = find_spikes(rows_of(norms), ["a", "b"], range(100, 150), [f"batch-{i}" for i in range(50)])
    assert (spike.step, spike.layer, spike.batch_id) == (131, "b", "batch-31")


def test_a_step_that_is_not_finite_is_a_spike_without_a_number():
    norms = np.ones((20, 2))
    norms[5, 1] = np.nan
    (spike,) = find_spikes(rows_of(norms), ["a", "b"], range(20), [""] * 20)
    assert (spike.step, spike.norm, spike.layer) == (5, None, "b")


def test_slices_merge_by_name_and_kind():
    one = SliceGradient(slice="a", num_samples=2, grad_mass_sum=1.0, loss_sum=0.5, num_clipped=1)
    exact = SliceGradient(slice="a", num_samples=1, grad_mass_sum=9.0, loss_sum=0.0, kind="exact")
    merged = {(s.slice, s.kind): s for s in merge_slices((one, exact), (one,))}
    assert (merged["a", "head"].num_samples, merged["a", "head"].grad_mass_sum) == (4, 2.0)
    assert merged["a", "exact"].num_samples == 1


def window_with(**fields):
    return GradWindow(run_id="r", model="m", started_at_ms=0, ended_at_ms=0, step_first=0, num_steps=1, num_clipped=0, **fields)


def test_a_fault_of_several_windows_is_told_once_with_all_its_steps():
    early = window_with(faults=(Fault(kind="nan", step=7, num_steps=1, layer="a"),))
    late = window_with(
        faults=(Fault(kind="nan", step=60, num_steps=2, layer="a"), Fault(kind="nan", step=61, num_steps=1, layer="b"))
    )
    assert [(f.layer, f.step, f.num_steps) for f in merge(early, late).faults] == [("a", 7, 3), ("b", 61, 1)]


def test_of_many_spikes_the_largest_stay_in_the_order_of_their_steps():
    spikes = tuple(Spike(step=i, norm=None if i == 3 else float(i), typical_norm=1.0, layer="w") for i in range(100))
    kept = merge(window_with(spikes=spikes[:50]), window_with(spikes=spikes[50:])).spikes
    assert [spike.step for spike in kept] == [3, *range(37, 100)]
