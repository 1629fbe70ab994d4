"""The small training of `training_ranks` on two processes in Lightning, in a Hugging Face Trainer, and with Accelerate."""

import tempfile
from typing import Any

import lightning.pytorch as pl
import torch
from accelerate import Accelerator
from training_ranks import NUM_RANKS, Seen, by_hand, halves
from transformers import Trainer, TrainingArguments

from clipdrift_trainer.integrations.accelerate import watch_accelerated
from clipdrift_trainer.integrations.lightning import RecordClipping
from clipdrift_trainer.integrations.transformers import record_clipping

SETTINGS = {"window_steps": 10, "check_every": 1}


class Lit(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = by_hand.make_module()

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return by_hand.loss_of(self.net, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return by_hand.make_optimizer(self.net)


class Hug(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = by_hand.make_module()

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": by_hand.loss_of(self.net, (inputs, labels))}


def frameworks(rank: int) -> Seen:
    """What each of the three told and learned."""
    return {"lightning": _lightning(rank), "accelerate": _accelerate(rank), "transformers": _transformers()}


def _lightning(rank: int) -> Seen:
    module, windows = Lit(), []
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", devices=NUM_RANKS, strategy="ddp", use_distributed_sampler=False, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[RecordClipping(by_hand.MAX_NORM, sinks=windows.append, **SETTINGS)],
    )  # fmt: skip
    trainer.fit(module, torch.utils.data.DataLoader(halves(rank), batch_size=None))
    return {"windows": windows, "weights": _weights(module.net)}


def _accelerate(rank: int) -> Seen:
    module, windows = by_hand.make_module(), []
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(module, by_hand.make_optimizer(module))
    recorder = watch_accelerated(accelerator, model, optimizer, by_hand.MAX_NORM, sinks=windows.append, **SETTINGS)
    for batch in halves(rank):
        loss = by_hand.loss_of(model, batch)
        accelerator.backward(loss)
        recorder.clip(loss)
        optimizer.step()
        optimizer.zero_grad()
    recorder.finish()
    return {"windows": windows, "weights": _weights(module)}


def _transformers() -> Seen:
    model, windows = Hug(), []
    rows = [
        {"inputs": inputs, "labels": label}
        for batch in by_hand.make_batches()
        for inputs, label in zip(*batch, strict=True)
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, use_cpu=True, report_to=[], max_steps=by_hand.NUM_STEPS, logging_strategy="no",
            per_device_train_batch_size=by_hand.BATCH // NUM_RANKS, max_grad_norm=by_hand.MAX_NORM, save_strategy="no",
            disable_tqdm=True, train_sampling_strategy="sequential", dataloader_pin_memory=False,
        )  # fmt: skip
        optimizer = by_hand.make_optimizer(model)
        constant = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        trainer = Trainer(model, arguments, train_dataset=rows, optimizers=(optimizer, constant))
        record_clipping(trainer, sinks=windows.append, **SETTINGS)
        trainer.train()
    return {"windows": windows, "weights": _weights(model.net)}


def _weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.detach().clone() for name, one in module.named_parameters()}
