import by_hand
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.integrations.transformers import record_clipping


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = by_hand.make_module()

    def forward(self, inputs, labels):
        return {"loss": by_hand.loss_of(self.net, (inputs, labels))}


ROWS = [{"inputs": inputs, "labels": label} for batch in by_hand.make_batches() for inputs, label in zip(*batch, strict=True)]


def trainer_of(model, folder, **settings):
    arguments = {
        "output_dir": str(folder), "use_cpu": True, "report_to": [], "max_steps": by_hand.NUM_STEPS, "logging_steps": 1,
        "per_device_train_batch_size": by_hand.BATCH, "max_grad_norm": by_hand.MAX_NORM, "save_strategy": "no",
        "disable_tqdm": True, "train_sampling_strategy": "sequential", "dataloader_pin_memory": False,
    }  # fmt: skip
    arguments = TrainingArguments(**(arguments | settings))
    optimizer = by_hand.make_optimizer(model)
    constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    return Trainer(model, arguments, train_dataset=ROWS, optimizers=(optimizer, constant))


def train(model, folder, *, record=True, resume=None, recording=None, **settings):
    windows = []
    trainer = trainer_of(model, folder, **settings)
    if record:
        record_clipping(trainer, **({"sinks": windows.append, "window_steps": 10, "check_every": 1} | (recording or {})))
    trainer.train(resume_from_checkpoint=resume)
    return windows, [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry], trainer


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_trainer_equals_the_loop_by_hand_and_logs_the_norm_before_clipping(tmp_path, accumulate):
    model, reference, batches = Model(), by_hand.make_module(), by_hand.make_batches()
    steps = {"gradient_accumulation_steps": accumulate, "max_steps": by_hand.NUM_STEPS // accumulate}
    windows, logged, _ = train(model, tmp_path, **steps)
    norms = by_hand.train_by_hand(reference, batches, accumulate=accumulate)
    by_hand.assert_same_weights(model.net, reference)
    assert logged == pytest.approx(norms, rel=1e-5)
    total = by_hand.assert_tells(windows, norms)
    assert total.num_checked == len(batches) // accumulate
    assert (total.model, total.layers[0].name) == ("Model", "net.0.weight")


def test_it_equals_the_trainers_own_clipping(tmp_path):
    model, reference = Model(), Model()
    _, logged, _ = train(model, tmp_path)
    _, expected, _ = train(reference, tmp_path, record=False)
    by_hand.assert_same_weights(model, reference)
    assert logged == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_a_step_is_the_mean_of_its_batches(tmp_path):
    still = {"sinks": (apart := []).append}
    _, _, trainer = train(Model(), tmp_path, recording=still, gradient_accumulation_steps=3, max_steps=8)
    told = sum(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert sum(window.loss_sum for window in apart) == pytest.approx(told, rel=1e-3)


def test_another_rule_clips_where_the_trainers_is_off(tmp_path):
    model, reference, batches = Model(), by_hand.make_module(), by_hand.make_batches()
    clip = ClipSpec(kind="global_norm", max_norm=0.1)
    windows, logged, _ = train(model, tmp_path, recording={"clip": clip}, max_grad_norm=0.0)
    norms = by_hand.train_by_hand(reference, batches, max_norm=0.1)
    by_hand.assert_same_weights(model.net, reference)
    assert logged == pytest.approx(norms, rel=1e-5)
    by_hand.assert_tells(windows, norms, max_norm=0.1)


def test_without_any_bound_nothing_is_clipped(tmp_path):
    windows, _, _ = train(Model(), tmp_path, max_grad_norm=0.0, max_steps=3)
    assert [(window.num_steps, window.num_clipped) for window in windows] == [(3, 0)]
    assert windows[0].clip.kind == "off"


def test_a_rule_beside_the_trainers_own_bound_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"set max_grad_norm=0.0 in TrainingArguments, or leave clip out"):
        record_clipping(trainer_of(Model(), tmp_path), clip=ClipSpec(kind="autoclip"))


def test_a_trainer_that_clips_by_code_of_its_own_is_refused(tmp_path):
    class Own(Trainer):
        def _clip_grad_norm(self, model):
            return nn.utils.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)

    trainer = trainer_of(Model(), tmp_path)
    trainer.__class__ = Own
    record_clipping(trainer)
    with pytest.raises(ConfigError, match=r"Own clips past .* clip=ClipSpec\(kind='global_norm', max_norm=0.5\)"):
        trainer.train()


def test_bfloat16_precision_is_recorded(tmp_path):
    (window,), logged, _ = train(Model(), tmp_path, bf16=True, max_steps=6)
    assert (window.num_checked, window.num_ineffective, window.faults) == (6, 0, ())
    assert window.norm_sum == pytest.approx(sum(logged), rel=1e-5)


@pytest.mark.parametrize("place", ["output_dir", "elsewhere"])
def test_a_resumed_training_tells_what_an_uninterrupted_one_tells(tmp_path, place):
    whole, resumed = Model(), Model()
    rule = {"clip": ClipSpec(kind="autoclip", percentile=50), "run_id": "r"}
    settings = {"save_strategy": "steps", "save_steps": 14, "max_grad_norm": 0.0}
    windows, _, _ = train(whole, tmp_path, recording=rule, **settings)
    checkpoint = tmp_path / "checkpoint-14"
    if place == "elsewhere":
        checkpoint = checkpoint.rename(tmp_path / "kept")
    again, _, _ = train(resumed, tmp_path / "again", recording=rule | {"run_id": ""}, resume=str(checkpoint), **settings)
    by_hand.assert_same_weights(resumed, whole, 0.0)
    assert [(w.run_id, w.step_first, w.num_steps, w.norm_sum, w.loss_sum) for w in again] == [
        (w.run_id, w.step_first, w.num_steps, w.norm_sum, w.loss_sum) for w in windows[1:]
    ]


@pytest.mark.parametrize("lost", ["other rule", "other window", "no file"])
def test_a_training_is_resumed_with_what_fits_and_counts_its_steps_on(tmp_path, caplog, lost):
    settings = {"save_strategy": "steps", "save_steps": 4, "max_grad_norm": 0.0}
    rule = {"clip": ClipSpec(kind="autoclip"), "run_id": "r", "window_steps": 5}
    train(Model(), tmp_path, recording=rule, **settings, max_steps=4)
    if lost == "no file":
        (tmp_path / "checkpoint-4" / "clipdrift-0.pt").unlink()
    changed = {"other rule": {"clip": ClipSpec(kind="value", max_norm=1.0)}, "other window": {"window_steps": 1}}.get(lost, {})
    windows, _, _ = train(
        Model(), tmp_path, recording=rule | changed, resume=str(tmp_path / "checkpoint-4"), **settings, max_steps=6
    )
    assert windows[-1].step_first + windows[-1].num_steps == 6
    assert windows[0].step_first == (0 if lost == "other rule" else 4)
    assert {window.run_id for window in windows} == {"r"}
    assert "without all of its state" in caplog.text or "the record begins anew at step 4" in caplog.text


def test_a_second_training_is_a_run_of_its_own(tmp_path):
    windows, _, trainer = train(Model(), tmp_path, recording={"run_id": "night"}, max_steps=3)
    trainer.train()
    assert [(window.run_id, window.step_first, window.num_steps) for window in windows] == [("night", 0, 3), ("night-2", 0, 3)]


def test_after_the_training_the_accelerator_clips_by_itself_again(tmp_path):
    windows, _, trainer = train(Model(), tmp_path, max_steps=2)
    weight = nn.Parameter(torch.zeros(8, 4))
    weight.grad = torch.ones(8, 4)
    trainer.accelerator.clip_grad_norm_([weight], 0.1)
    assert float(weight.grad.norm()) == pytest.approx(0.1, rel=1e-4)
    assert [window.num_steps for window in windows] == [2]
