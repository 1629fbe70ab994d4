import by_hand
import lightning.pytorch as pl
import msgspec
import pytest
import torch
from lightning.fabric import Fabric
from lightning.pytorch.callbacks import BaseFinetuning
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer import watch
from clipdrift_trainer.integrations.lightning import RecordClipping

pytestmark = [  # what Lightning says to itself, and to owners of many cores
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*GPU available but not used"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]
QUIET = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False, "barebones": False,
}  # fmt: skip


class Module(pl.LightningModule):
    def __init__(self, optimizer=by_hand.make_optimizer):
        super().__init__()
        self.net = by_hand.make_module()
        self.make_optimizer = optimizer

    def training_step(self, batch, _):
        return by_hand.loss_of(self.net, batch)

    def configure_optimizers(self):
        return self.make_optimizer(self.net)


class ByHand(Module):
    """Manual optimization."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, _):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(by_hand.loss_of(self.net, batch))
        optimizer.step()


def loader(batches):
    return torch.utils.data.DataLoader(batches, batch_size=None)


def recording(windows, **settings):
    return RecordClipping(**({"max_norm": by_hand.MAX_NORM, "sinks": windows.append, "check_every": 1} | settings))


def fit(module, batches, window_steps=50, **trainer):
    windows = []
    callback = recording(windows, window_steps=window_steps)
    pl.Trainer(max_epochs=1, callbacks=[callback], **(QUIET | trainer)).fit(module, loader(batches))
    return windows


def half_precision():
    """Lightning itself takes bfloat16 on a CPU when asked for "16-mixed"."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0))


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level("ERROR", logger="lightning.pytorch")


@pytest.mark.parametrize("kind", [Module, ByHand])
def test_a_lightning_training_equals_the_loop_by_hand(kind):
    module, reference, batches = kind(), by_hand.make_module(), by_hand.make_batches()
    windows = fit(module, batches, window_steps=10)
    norms = by_hand.train_by_hand(reference, batches)
    by_hand.assert_same_weights(module.net, reference)
    total = by_hand.assert_tells(windows, norms)
    assert [window.num_steps for window in windows] == [10, 10, 4]
    assert total.model == kind.__name__
    assert total.layers[0].name == "net.0.weight"


def test_it_equals_lightnings_own_clipping():
    module, reference, batches = Module(), Module(), by_hand.make_batches()
    fit(module, batches)
    pl.Trainer(max_epochs=1, gradient_clip_val=by_hand.MAX_NORM, **QUIET).fit(reference, loader(batches))
    by_hand.assert_same_weights(module.net, reference.net)


def test_accumulated_batches_are_one_step_with_their_mean_loss():
    module, reference, batches = Module(), by_hand.make_module(), by_hand.make_batches()
    windows = fit(module, batches, accumulate_grad_batches=3)
    norms = by_hand.train_by_hand(reference, batches, accumulate=3)
    by_hand.assert_same_weights(module.net, reference)
    total = by_hand.assert_tells(windows, norms)
    unclipped = fit(Module(lambda net: torch.optim.SGD(net.parameters(), lr=0.0)), batches)
    still = fit(Module(lambda net: torch.optim.SGD(net.parameters(), lr=0.0)), batches, accumulate_grad_batches=3)
    assert total.num_checked == len(batches) // 3
    assert sum(w.loss_sum for w in still) == pytest.approx(sum(w.loss_sum for w in unclipped) / 3, rel=1e-5)


@pytest.mark.parametrize("precision", [{"precision": "bf16-mixed"}, {"plugins": [half_precision()]}], ids=["bf16", "fp16"])
def test_mixed_precision_is_recorded_by_its_true_norms_and_losses(precision):
    batches = by_hand.make_batches()
    (total,) = fit(Module(), batches, **precision)
    (exact,) = fit(Module(), batches)
    assert (total.num_steps, total.num_skipped, total.num_checked) == (len(batches), 0, len(batches))
    assert (total.num_ineffective, total.faults) == (0, ())
    assert total.norm_sum == pytest.approx(exact.norm_sum, rel=0.02)
    assert total.loss_sum == pytest.approx(exact.loss_sum, rel=0.02)


def test_a_step_that_the_scaler_skips_is_counted_apart():
    class Bad(Module):
        def training_step(self, batch, index):
            return super().training_step(batch, index) * (float("inf") if index == 7 else 1.0)

    (window,) = fit(Bad(), by_hand.make_batches(), plugins=[half_precision()])
    assert (window.num_steps, window.num_skipped, window.num_nonfinite) == (by_hand.NUM_STEPS - 1, 1, 0)
    assert window.faults == ()


class Unfreezing(BaseFinetuning):
    """Trains the head alone in the first epoch, all of it from the second."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.net[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[0], optimizer)


class Met(pl.Callback):
    """The norms that the optimizer met."""

    def __init__(self):
        self.norms = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        gradients = [one.grad for one in pl_module.parameters() if one.grad is not None]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


def test_layers_that_are_unfrozen_later_are_clipped_too():
    windows, met = [], Met()
    head_only = Module(lambda net: torch.optim.SGD([one for one in net.parameters() if one.requires_grad], lr=0.01))
    callbacks = [Unfreezing(), recording(windows, max_norm=0.01), met]
    pl.Trainer(max_epochs=2, callbacks=callbacks, **QUIET).fit(head_only, loader(by_hand.make_batches(6)))
    assert max(met.norms) <= 0.01 * (1 + 1e-4)
    assert [len(window.layers) for window in windows] == [2, 4]
    assert not any(window.faults for window in windows)


def test_two_optimizers_are_clipped_and_recorded_each_by_itself():
    class Two(Module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self):
            return by_hand.make_optimizer(self.net[0]), by_hand.make_optimizer(self.net[2])

        def training_step(self, batch, _):
            for optimizer in self.optimizers():
                self.zero_grad()
                self.manual_backward(by_hand.loss_of(self.net, batch))
                optimizer.step()

    module, reference, batches = Two(), by_hand.make_module(), by_hand.make_batches()
    windows = []
    callback = recording(windows, name="pair")
    pl.Trainer(max_epochs=1, callbacks=[callback], **QUIET).fit(module, loader(batches))
    optimizers = [by_hand.make_optimizer(reference[0]), by_hand.make_optimizer(reference[2])]
    norms = ([], [])
    for batch in batches:
        for index, optimizer in enumerate(optimizers):
            reference.zero_grad()
            by_hand.loss_of(reference, batch).backward()
            norms[index].append(float(nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], by_hand.MAX_NORM)))
            optimizer.step()
    by_hand.assert_same_weights(module.net, reference)
    assert [window.model for window in windows] == ["pair-0", "pair-1"]
    for index, window in enumerate(windows):
        by_hand.assert_tells([window], norms[index])


def test_a_resumed_training_tells_what_an_uninterrupted_one_tells(tmp_path):
    def training(**settings):
        windows = []
        clip = ClipSpec(kind="autoclip", percentile=50)
        callback = recording(windows, max_norm=None, clip=clip, window_steps=10, **settings)
        checkpoint = pl.callbacks.ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")
        settings = QUIET | {"enable_checkpointing": True, "max_epochs": 3}
        return windows, pl.Trainer(callbacks=[callback, checkpoint], **settings)

    batches = loader(by_hand.make_batches(8))
    uninterrupted, resumed = Module(), Module()
    windows, trainer = training(run_id="r")
    trainer.fit(uninterrupted, batches)
    again, trainer = training()
    trainer.fit(resumed, batches, ckpt_path=tmp_path / "epoch=1.ckpt")
    by_hand.assert_same_weights(resumed.net, uninterrupted.net, 0.0)
    assert [(window.run_id, window.step_first, window.num_steps) for window in again] == [("r", 10, 10), ("r", 20, 4)]
    for window, later in zip(windows[1:], again, strict=True):
        same = {"started_at_ms": 0, "ended_at_ms": 0}
        assert msgspec.structs.replace(window, **same) == msgspec.structs.replace(later, **same)


def test_a_second_fit_goes_on_counting():
    module, windows = Module(), []
    callback = recording(windows)
    for _ in range(2):
        pl.Trainer(max_epochs=1, callbacks=[callback], **QUIET).fit(module, loader(by_hand.make_batches()))
    assert [(w.step_first, w.num_steps) for w in windows] == [(0, by_hand.NUM_STEPS), (by_hand.NUM_STEPS, by_hand.NUM_STEPS)]
    assert windows[0].run_id == windows[1].run_id


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loop_with_fabric_is_watched_like_a_plain_one(precision):
    fabric = Fabric(accelerator="cpu", precision=precision)
    module, reference, windows = by_hand.make_module(), by_hand.make_module(), []
    model, optimizer = fabric.setup(module, by_hand.make_optimizer(module))
    recorder = watch(model, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1)
    for batch in by_hand.make_batches():
        loss = by_hand.loss_of(model, batch)
        fabric.backward(loss)
        recorder.clip(loss)
        optimizer.step()
        optimizer.zero_grad()
    recorder.finish()
    if precision == "32-true":
        by_hand.assert_tells(windows, by_hand.train_by_hand(reference, by_hand.make_batches()))
        by_hand.assert_same_weights(module, reference)
    assert (windows[0].model, windows[0].layers[0].name, windows[0].faults) == ("Sequential", "0.weight", ())


def test_a_trainer_that_clips_too_is_refused():
    with pytest.raises(ConfigError, match=r"gradient_clip_val=1.0\) clips too: gradients would be clipped twice"):
        fit(Module(), by_hand.make_batches(1), gradient_clip_val=1.0)


def test_a_module_that_clips_too_is_refused():
    class Own(Module):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            self.clip_gradients(optimizer, 1.0, "norm")

    with pytest.raises(ConfigError, match="Own has a configure_gradient_clipping of its own"):
        fit(Own(), by_hand.make_batches(1))


def test_a_module_that_clips_in_its_manual_step_is_refused():
    class Own(ByHand):
        def training_step(self, batch, _):
            self.manual_backward(by_hand.loss_of(self.net, batch))
            self.clip_gradients(self.optimizers(), 1.0, "norm")
            self.optimizers().step()

    with pytest.raises(ConfigError, match=r"clip_gradients\(gradient_clip_val=1.0\) was called"):
        fit(Own(), by_hand.make_batches(1))


def test_two_rules_are_refused_before_the_training_starts():
    with pytest.raises(ValueError, match="either max_norm or clip"):
        RecordClipping(1.0, clip=ClipSpec(kind="autoclip"))


def test_what_was_recorded_before_an_error_is_sent():
    class Broken(Module):
        def training_step(self, batch, index):
            if index == 5:
                raise RuntimeError("out of data")
            return super().training_step(batch, index)

    windows = []
    with pytest.raises(RuntimeError, match="out of data"):
        pl.Trainer(max_epochs=1, callbacks=[recording(windows)], **QUIET).fit(Broken(), loader(by_hand.make_batches()))
    assert [window.num_steps for window in windows] == [5]
