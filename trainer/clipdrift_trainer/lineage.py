"""Where a model comes from: data, code, policy, seed. The same origin gives the same version name."""

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.tasks.task import Rows


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Written into the model file. Nothing in it is chance: the same origin gives the same bytes."""

    run_id: str  # equal to the version: which of several equal runs wrote the file does not matter
    model: str
    version: str
    data_start_ms: int
    data_end_ms: int
    as_of_ms: int
    data_digest: str
    code_revision: str
    seed: int
    arm: str
    clip: ClipSpec
    optimizer: str = ""
    num_train_rows: int = 0
    hold_out_every: int = 5
    hold_out_offset: int = 4
    weights_digest: str = ""  # of the file of weights beside the model; empty: trained before they were kept


def data_digest(rows: Rows) -> str:
    """SHA-256 over every value of `rows`, in order, with names and types: "sha256:<hex>"."""
    digest = hashlib.sha256()
    columns = {**rows.features, "\0label": rows.label, "\0time_ms": rows.time_ms, "\0label_time_ms": rows.label_time_ms}
    for name in sorted(columns):
        column = columns[name]
        digest.update(f"{name}\0{column.dtype}\0{column.shape}\0".encode())
        if column.dtype == object:
            words, codes = np.unique(column.astype(str), return_inverse=True)
            digest.update("\0".join(words.tolist()).encode())
            digest.update(np.ascontiguousarray(codes, "<i4").tobytes())
        else:
            digest.update(np.ascontiguousarray(column).tobytes())
    return f"sha256:{digest.hexdigest()}"


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over every parameter and buffer of `module`: "sha256:<hex>"."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return f"sha256:{digest.hexdigest()}"


def version_name(as_of_ms: int, *parts: str) -> str:
    """The day of `as_of` and six digits of what determines the run.

    Example:
        >>> version_name(1362096000000, "data", "clip")
        '20130301-39485b'
    """
    day = datetime.fromtimestamp(as_of_ms / 1000, UTC).strftime("%Y%m%d")
    return f"{day}-{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:6]}"


def code_revision(folder: Path) -> str:
    """The git revision of `folder`, with "+changed" when files differ from it; "unknown" outside a repository."""
    try:
        revision = _git(folder, "rev-parse", "--short=12", "HEAD")
        return revision + ("+changed" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True).stdout.strip()
