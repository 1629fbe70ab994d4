"""What clipping with full recording costs, paired against torch's own clip_grad_norm_, on a small LSTM and one CPU thread.

Rounds of both are interleaved in random order and compared by process CPU time; the last line is one JSON object.
"""

import json
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.events import ClipSpec, GradWindow
from clipdrift_trainer.clipping.rules import make_clipper
from clipdrift_trainer.recording.recorder import Recorder

NUM_ROUNDS = 40
STEPS_A_ROUND = 50
MAX_NORM = 1.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 64, batch_first=True)
        self.head = nn.Linear(64, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.head(self.lstm(x)[0][:, -1])
        return output


def steps(clip: Callable[[torch.Tensor], object], net: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """CPU microseconds a step."""
    started = time.process_time()
    for _ in range(STEPS_A_ROUND):
        loss = nn.functional.cross_entropy(net(X), Y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip(loss)
        optimizer.step()
    return (time.process_time() - started) / STEPS_A_ROUND * 1e6


def main() -> None:
    torch.set_num_threads(1)
    plain, watched = Net(), Net()
    plain_optimizer, watched_optimizer = torch.optim.Adam(plain.parameters()), torch.optim.Adam(watched.parameters())
    windows: list[GradWindow] = []
    recorder = Recorder(
        make_clipper(ClipSpec(kind="global_norm", max_norm=MAX_NORM)),
        watched.named_parameters(),
        watched_optimizer,
        run_id="bench",
        model="bench",
        on_window=windows.append,
        clock=SystemClock(),
    )
    parameters = list(plain.parameters())
    arms: dict[str, Callable[[], float]] = {
        "torch": lambda: steps(lambda _: nn.utils.clip_grad_norm_(parameters, MAX_NORM), plain, plain_optimizer),
        "recorder": lambda: steps(recorder.clip, watched, watched_optimizer),
    }
    taken: dict[str, list[float]] = {name: [] for name in arms}
    order = random.Random(0)
    for _ in range(NUM_ROUNDS + 2):
        for name in order.sample(list(arms), len(arms)):
            taken[name].append(arms[name]())
    paired = [ours / theirs for ours, theirs in zip(taken["recorder"][2:], taken["torch"][2:], strict=True)]
    print(
        json.dumps(
            {
                "bench": "telemetry",
                "num_rounds": NUM_ROUNDS,
                "torch_us_per_step": round(statistics.median(taken["torch"][2:]), 1),
                "recorder_us_per_step": round(statistics.median(taken["recorder"][2:]), 1),
                "ratio_median": round(statistics.median(paired), 4),
                "ratio_quartiles": [round(q, 4) for q in statistics.quantiles(paired, n=4)[::2]],
                "num_windows": len(windows),
            }
        )
    )


X = torch.randn(64, 20, 16, generator=torch.Generator().manual_seed(0))
Y = torch.randint(0, 2, (64,), generator=torch.Generator().manual_seed(1))

if __name__ == "__main__":
    main()
