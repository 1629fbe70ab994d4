"""What each clipping rule costs a step beside torch's own clip_grad_norm_, in microseconds on one CPU thread.

The two sets of gradients are those of the LSTM (10 tensors) and of the transformer (78) of the telemetry bench. Rules are
measured in turns, so that a busy machine troubles all alike; the last line is one JSON object of medians.
"""

import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.rules import RULES, make_clipper

NUM_ROUNDS = 21
SECONDS_A_TURN = 0.02


def with_gradients(module: nn.Module) -> list[nn.Parameter]:
    parameters = list(module.parameters())
    generator = torch.Generator().manual_seed(0)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return parameters


def lstm() -> list[nn.Parameter]:
    return with_gradients(nn.ModuleList([nn.LSTM(16, 128, num_layers=2), nn.Linear(128, 2)]))


def transformer() -> list[nn.Parameter]:
    layer = nn.TransformerEncoderLayer(256, 4, 1_024, batch_first=True)
    return with_gradients(
        nn.ModuleList([nn.Linear(16, 256), nn.TransformerEncoder(layer, 6), nn.LayerNorm(256), nn.Linear(256, 2)])
    )


def microseconds(clip: Callable[[], object]) -> float:
    """CPU time of one call, over as many calls as fit into a turn."""
    num_calls, started = 0, time.process_time()
    while time.process_time() - started < SECONDS_A_TURN:
        clip()
        num_calls += 1
    return (time.process_time() - started) / num_calls * 1e6


def measure(parameters: list[nn.Parameter], bound: float) -> dict[str, float]:
    """Median microseconds by name. Before each call the gradients are put back, which is measured too and taken off."""
    gradients = [parameter.grad for parameter in parameters]
    unclipped = [gradient.clone() for gradient in gradients]
    clips: dict[str, Callable[[], object]] = {
        "nothing": lambda: None,
        "torch": lambda: nn.utils.clip_grad_norm_(parameters, bound),
        "unclipped": partial(make_clipper(ClipSpec(kind="global_norm", max_norm=1e9)), parameters),
    }
    for kind in RULES:
        clipper = make_clipper(ClipSpec(kind=kind, max_norm=bound if RULES[kind].takes_max_norm else None))
        clips[kind] = partial(clipper, parameters)
    found: dict[str, list[float]] = {name: [] for name in clips}
    order = random.Random(0)
    for _ in range(NUM_ROUNDS):
        for name in order.sample(sorted(clips), len(clips)):
            found[name].append(microseconds(lambda name=name: (torch._foreach_copy_(gradients, unclipped), clips[name]())))
    medians = {name: statistics.median(times) for name, times in found.items()}
    nothing = medians.pop("nothing")
    return {name: round(time_us - nothing, 1) for name, time_us in medians.items()}


def main() -> None:
    torch.set_num_threads(1)
    result = {}
    for name, parameters in (("lstm", lstm()), ("transformer", transformer())):
        times = measure(parameters, bound=1.0)
        width = max(map(len, times))
        print(f"{name}: {len(parameters)} tensors, {sum(p.numel() for p in parameters):,} numbers; microseconds a step")
        for rule, time_us in times.items():
            print(f"  {rule:{width}} {time_us:8.1f}  {time_us / times['torch']:.2f} of torch's")
        result[name] = times
    print(
        json.dumps(
            {"microseconds": result, **{f"{n}_ratio": round(t["global_norm"] / t["torch"], 3) for n, t in result.items()}}
        )
    )


if __name__ == "__main__":
    main()
