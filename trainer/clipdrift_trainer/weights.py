"""A model's weights beside its ONNX file, so that the module can be built again: for the gradient probe, or to train on."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import torch
from torch import nn

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.files import write_whole
from clipdrift_trainer.lineage import weights_digest

WEIGHTS_NAME = "weights.pt"


class WeightsError(ClipdriftError):
    """The weights beside a model file are not there, are not those of the model, or do not fit the task's module."""


def save_weights(module: nn.Module, path: Path) -> None:
    """Write every parameter and buffer of `module` to `path`, whole or not at all, also after a crash.

    A version's folder is named by its weights, among other things, so a file that is there holds the same, or is damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = BytesIO()
    torch.save(module.state_dict(), content)
    write_whole(path, content.getvalue())


def load_weights(module: nn.Module, path: Path, digest: str) -> None:
    """Put the weights in `path` into `module`. Nothing but tensors is read: a file cannot bring code.

    Args:
        module: Built by the same task.
        path: Written by `save_weights`.
        digest: What `weights_digest` gave for the module when it was trained.

    Raises:
        WeightsError: The file is missing or unreadable, does not fit, or its digest is another.
    """
    try:
        state: Mapping[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, each meaning that there are no weights to be had
        raise WeightsError(f"weights cannot be read from {path}: {type(error).__name__}: {error}") from error
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise WeightsError(f"the weights in {path} do not fit the module that the task builds now: {error}") from error
    if (found := weights_digest(module)) != digest:
        raise WeightsError(f"the weights in {path} are not those of the model: their digest is {found}, not {digest}")
