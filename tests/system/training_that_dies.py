"""A training that keeps a checkpoint and waits for leave now and then, so that it can be killed and started again.

    python training_that_dies.py FOLDER

Prints `at STEP` before each stretch of 10 steps and goes on when a line comes in; ends with `done`.
"""

import os
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_trainer import watch
from clipdrift_trainer.recording.slices import SliceMass

NUM_STEPS = 100
STRETCH = 10
CHECKPOINT_EVERY = 7  # neither a stretch nor a window
WINDOW_STEPS = 12
CLIP = ClipSpec(kind="autoclip", percentile=60.0)


def make_module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.3), nn.Linear(16, 2))


def train(folder: Path, wait: Any = None) -> nn.Module:
    """Goes on from the checkpoint in `folder`, if there is one."""
    module = make_module()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    lines = (folder / "windows.jsonl").open("ab", buffering=0)

    def write(window: GradWindow) -> None:
        lines.write(msgspec.json.encode(window) + b"\n")

    recorder = watch(
        module, optimizer, clip=CLIP, run_id="run", sinks=write, window_steps=WINDOW_STEPS, check_every=5,
        slices=SliceMass(module[3], ("a", "b")),
    )  # fmt: skip
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        first = state["step"]
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        recorder.load_state_dict(state["recorder"])
        torch.set_rng_state(state["random"])
    for step in range(first, NUM_STEPS):
        if wait is not None and step % STRETCH == 0:
            wait(step)
        inputs = torch.randn(16, 4)
        loss = nn.functional.cross_entropy(module(inputs), (inputs.sum(1) > 0).long())
        optimizer.zero_grad()
        loss.backward()
        recorder.clip(loss, slice_index=(inputs[:, 0] > 0).long(), batch_id=f"batch-{step}")
        optimizer.step()
        if (step + 1) % CHECKPOINT_EVERY == 0:
            beside = checkpoint.with_suffix(".new")
            state = {
                "step": step + 1, "module": module.state_dict(), "optimizer": optimizer.state_dict(),
                "recorder": recorder.state_dict(), "random": torch.get_rng_state(),
            }  # fmt: skip
            torch.save(state, beside)
            beside.replace(checkpoint)
    recorder.finish()
    torch.save(module.state_dict(), folder / "weights.pt")
    return module


def _wait(step: int) -> None:
    print("at", step, os.getpid(), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    torch.set_num_threads(1)
    train(Path(sys.argv[1]), _wait)
    print("done", flush=True)
