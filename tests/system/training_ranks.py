"""A small training on one process or on several (gloo), by DDP and by FSDP2, recorded; what each rank saw comes back."""

import logging.handlers
import os
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel

from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_trainer import watch
from clipdrift_trainer.integrations.ranks import MergedRanks
from clipdrift_trainer.recording.slices import SliceMass

sys.path.insert(0, str(Path(__file__).parents[1] / "trainer" / "integrations"))
import by_hand

NUM_RANKS = 2
SLICES = ("a", "b", "c")
Seen = dict[str, Any]


def run_ranks(work: Callable[[int], Seen], folder: Path) -> list[Seen]:
    """`work(rank)` in each of two new processes; what it returned, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_begin, (work, port, folder), NUM_RANKS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(NUM_RANKS)]


def _begin(rank: int, work: Callable[[int], Seen], port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(NUM_RANKS), "LOCAL_WORLD_SIZE": str(NUM_RANKS), "ACCELERATE_USE_CPU": "true",
    }  # fmt: skip
    dist.init_process_group("gloo")
    try:
        torch.save(work(rank), folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def halves(rank: int) -> list[tuple[torch.Tensor, ...]]:
    """This rank's half of each batch."""
    half = by_hand.BATCH // NUM_RANKS
    return [tuple(part[rank * half : (rank + 1) * half] for part in batch) for batch in by_hand.make_batches()]


def slices_of(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    inputs, _ = batch
    return (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()


def train(model: nn.Module, batches: list[Any], *, accumulate: int = 1, with_slices: bool = False, **settings: Any) -> Seen:
    """A plain loop with `watch`; norms, weights, windows, and the collectives that recording asked for."""
    module = model.module if isinstance(model, DistributedDataParallel) else model
    windows: list[Any] = []
    norms = []
    optimizer = by_hand.make_optimizer(model)
    recorder = watch(
        model, optimizer, sinks=windows.append, window_steps=10, check_every=0,
        slices=SliceMass(module[2], SLICES) if with_slices else None, **settings,
    )  # fmt: skip
    counted, all_reduce = [], dist.all_reduce
    dist.all_reduce = lambda *a, **k: (counted.append(k), all_reduce(*a, **k))[1]
    for first in range(0, len(batches), accumulate):
        optimizer.zero_grad()
        part = batches[first : first + accumulate]
        for position, batch in enumerate(part):
            is_last = position == len(part) - 1
            is_waiting = isinstance(model, DistributedDataParallel) and not is_last
            with model.no_sync() if is_waiting else nullcontext():
                loss = by_hand.loss_of(model, batch) / len(part)
                loss.backward()
            recorder.note(loss, slice_index=slices_of(batch) if with_slices else None)
        norms.append(float(recorder.clip()))
        optimizer.step()
    recorder.finish()
    dist.all_reduce = all_reduce
    weights = {name: _whole(one).detach().clone() for name, one in module.named_parameters()}
    return {"norms": norms, "weights": weights, "windows": windows, "num_collectives": len(counted)}


def data_parallel(rank: int) -> Seen:
    """DDP on halves of the batches."""
    bounded = {"max_norm": by_hand.MAX_NORM}
    return {
        "plain": train(DistributedDataParallel(by_hand.make_module()), halves(rank), with_slices=True, **bounded),
        "accumulated": train(DistributedDataParallel(by_hand.make_module()), halves(rank), accumulate=3, **bounded),
        "at_step": _train_at_step(DistributedDataParallel(by_hand.make_module()), halves(rank)),
        "lost_slices": _lost_slices(rank),
        "out_of_step": _out_of_step(rank),
    }


def _lost_slices(rank: int) -> Seen:
    """The second rank says the slices of too few samples once, and is not followed by slice any more."""
    model, windows = DistributedDataParallel(by_hand.make_module()), []
    optimizer = by_hand.make_optimizer(model)
    recorder = watch(model, optimizer, 1.0, sinks=windows.append, window_steps=10, slices=SliceMass(model.module[2], SLICES))
    for step, batch in enumerate(halves(rank)):
        optimizer.zero_grad()
        by_hand.loss_of(model, batch).backward()
        index = slices_of(batch)
        recorder.clip(slice_index=index[:1] if (rank, step) == (1, 12) else index)
        optimizer.step()
    recorder.finish()
    return {"windows": windows}


def _out_of_step(rank: int) -> Seen:
    """The second rank is ten steps ahead."""
    said, windows = logging.handlers.BufferingHandler(10), []
    logging.getLogger("clipdrift_trainer.integrations.ranks").addHandler(said)
    window = GradWindow(
        run_id="r",
        model="m",
        started_at_ms=0,
        ended_at_ms=0,
        step_first=10 * rank,
        num_steps=10,
        num_clipped=0,
        loss_sum=1.0 + rank,
    )
    MergedRanks(windows.append, dist.group.WORLD, torch.device("cpu"))(window)
    return {"windows": windows, "said": [record.getMessage() for record in said.buffer]}


def _train_at_step(model: nn.Module, batches: list[Any]) -> Seen:
    windows: list[Any] = []
    optimizer = by_hand.make_optimizer(model)
    recorder = watch(model, optimizer, by_hand.MAX_NORM, sinks=windows.append, window_steps=10, check_every=1, at_step=True)
    for batch in batches:
        optimizer.zero_grad()
        by_hand.loss_of(model, batch).backward()
        optimizer.step()
    recorder.finish()
    return {"windows": windows}


RULES = {
    "global_norm": ClipSpec(kind="global_norm", max_norm=by_hand.MAX_NORM),
    "largest_entry": ClipSpec(kind="global_norm", max_norm=0.1, norm_type=float("inf")),
    "sum": ClipSpec(kind="global_norm", max_norm=1.0, norm_type=1.0),
    "value": ClipSpec(kind="value", max_norm=0.05),
    "per_tensor": ClipSpec(kind="per_tensor", max_norm=0.2),
    "agc": ClipSpec(kind="agc"),
    "autoclip": ClipSpec(kind="autoclip", percentile=30.0),
    "zclip": ClipSpec(kind="zclip", max_norm=1.0),
    "adagc": ClipSpec(kind="adagc", max_norm=0.5),
    "quantile": ClipSpec(kind="quantile", max_norm=0.5),
    "off": ClipSpec(),
}


def sharded(rank: int) -> Seen:
    """FSDP2 on halves of the batches, by every rule; and on a mesh that replicates too."""
    seen = {name: train(_shard(by_hand.make_module(), (NUM_RANKS,)), halves(rank), clip=clip) for name, clip in RULES.items()}
    for name, shape in (("replicated", (NUM_RANKS, 1)), ("sharded_in_two_axes", (1, NUM_RANKS))):
        seen[name] = train(_shard(by_hand.make_module(), shape), halves(rank), max_norm=by_hand.MAX_NORM)
    seen["checked"] = _train_at_step(_shard(by_hand.make_module(), (NUM_RANKS,)), halves(rank))
    seen["collectives_of_a_clip"] = {
        name: _collectives_of_a_clip(_shard(by_hand.make_module(), (NUM_RANKS,)), halves(rank)[0], clip)
        for name, clip in RULES.items()
    }
    seen["misplaced"] = _clipped_before_backward(_shard(by_hand.make_module(), (NUM_RANKS,)), halves(rank))
    seen["poisoned"] = _poisoned(rank)
    return seen


def _shard(module: nn.Sequential, shape: tuple[int, ...]) -> nn.Sequential:
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
    for layer in (module[0], module[2]):
        fully_shard(layer, mesh=mesh)
    return fully_shard(module, mesh=mesh)


def _collectives_of_a_clip(model: nn.Module, batch: Any, clip: ClipSpec) -> int:
    recorder = watch(model, by_hand.make_optimizer(model), clip=clip)
    by_hand.loss_of(model, batch).backward()
    with CommDebugMode() as counter:
        recorder.clip()
    recorder.abandon()
    return counter.get_total_counts()


def _clipped_before_backward(model: nn.Module, batches: list[Any]) -> Seen:
    windows: list[Any] = []
    optimizer = by_hand.make_optimizer(model)
    recorder = watch(model, optimizer, by_hand.MAX_NORM, sinks=windows.append, check_every=1)
    for batch in batches:
        optimizer.zero_grad()
        recorder.clip()
        by_hand.loss_of(model, batch).backward()
        optimizer.step()
    recorder.finish()
    return {"windows": windows}


def _poisoned(rank: int) -> Seen:
    """One NaN, in the shard of the second rank alone."""
    model = _shard(by_hand.make_module(), (NUM_RANKS,))
    recorder = watch(model, by_hand.make_optimizer(model), by_hand.MAX_NORM)
    by_hand.loss_of(model, halves(rank)[0]).backward()
    if rank == 1:
        model[0].weight.grad.to_local()[0, 0] = float("nan")
    norm = float(recorder.clip())
    recorder.abandon()
    return {"norm": norm, "is_zeroed": all(not one.grad.to_local().any() for one in model.parameters())}


def _whole(tensor: Any) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
