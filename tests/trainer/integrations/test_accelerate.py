import by_hand
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.integrations.accelerate import watch_accelerated


@pytest.fixture(autouse=True)
def _fresh():
    """Accelerate keeps its state for the whole process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def prepare(module, **settings):
    accelerator = Accelerator(cpu=True, **settings)
    return accelerator, *accelerator.prepare(module, by_hand.make_optimizer(module))


def train(module, batches, *, accumulate=1, window_steps=10, **settings):
    windows, norms = [], []
    accelerator, model, optimizer = prepare(module, gradient_accumulation_steps=accumulate, **settings)
    recorder = watch_accelerated(
        accelerator, model, optimizer, by_hand.MAX_NORM, sinks=windows.append, window_steps=window_steps, check_every=1
    )
    for batch in batches:
        with accelerator.accumulate(model):
            loss = by_hand.loss_of(model, batch)
            accelerator.backward(loss)
            norm_before_clip = recorder.clip(loss)
            optimizer.step()
            optimizer.zero_grad()
        if norm_before_clip is not None:
            norms.append(float(norm_before_clip))
    recorder.finish()
    return windows, norms


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loop_with_accelerate_equals_the_loop_by_hand(accumulate):
    module, reference, batches = by_hand.make_module(), by_hand.make_module(), by_hand.make_batches()
    windows, norms = train(module, batches, accumulate=accumulate)
    expected = by_hand.train_by_hand(reference, batches, accumulate=accumulate)
    by_hand.assert_same_weights(module, reference)
    assert norms == pytest.approx(expected, rel=1e-5)
    total = by_hand.assert_tells(windows, expected)
    assert total.num_checked == len(batches) // accumulate
    assert total.layers[0].name == "0.weight"


def test_the_loss_of_a_step_is_the_mean_of_its_batches():
    batches = by_hand.make_batches(12)
    joined = [tuple(torch.cat(parts) for parts in zip(*batches[i : i + 3], strict=True)) for i in range(0, 12, 3)]
    (apart,), _ = train(by_hand.make_module(), batches, accumulate=3)
    (together,), _ = train(by_hand.make_module(), joined)
    assert apart.loss_sum == pytest.approx(together.loss_sum, rel=1e-5)


def test_bfloat16_precision_is_recorded():
    (window,), _ = train(by_hand.make_module(), by_hand.make_batches(), window_steps=50, mixed_precision="bf16")
    (exact,), _ = train(by_hand.make_module(), by_hand.make_batches(), window_steps=50)
    assert (window.num_checked, window.num_ineffective, window.faults) == (by_hand.NUM_STEPS, 0, ())
    assert window.norm_sum == pytest.approx(exact.norm_sum, rel=0.02)


def test_accelerates_checkpoints_take_the_recorder_along(tmp_path):
    def begin():
        windows, module = [], by_hand.make_module()
        accelerator, model, optimizer = prepare(module)
        recorder = watch_accelerated(
            accelerator, model, optimizer, clip=ClipSpec(kind="autoclip"), run_id="r", sinks=windows.append, window_steps=10
        )
        accelerator.register_for_checkpointing(recorder)
        return accelerator, model, optimizer, recorder, windows

    def go_on(accelerator, model, optimizer, recorder, batches):
        for batch in batches:
            loss = by_hand.loss_of(model, batch)
            accelerator.backward(loss)
            recorder.clip(loss)
            optimizer.step()
            optimizer.zero_grad()

    batches = by_hand.make_batches()
    *loop, windows = begin()
    go_on(*loop, batches[:14])
    loop[0].save_state(tmp_path)
    go_on(*loop, batches[14:])
    loop[3].finish()
    *other, again = begin()
    other[0].load_state(tmp_path)
    go_on(*other, batches[14:])
    other[3].finish()
    by_hand.assert_same_weights(other[1], loop[1], 0.0)
    assert [(w.step_first, w.num_steps, w.norm_sum, w.loss_sum) for w in again] == [
        (w.step_first, w.num_steps, w.norm_sum, w.loss_sum) for w in windows[1:]
    ]


def test_an_optimizer_that_was_not_prepared_is_refused():
    module = by_hand.make_module()
    accelerator, model, _ = prepare(module)
    with pytest.raises(ValueError, match=r"prepare the optimizer first \(accelerator.prepare\), got SGD"):
        watch_accelerated(accelerator, model, by_hand.make_optimizer(module), 1.0)
