"""How well the head layer's gradient norms stand in for exact ones: rank correlation (Spearman) sample by sample and slice by
slice, at initialisation and in the course of training; and what the recording of it costs a step (B = 64). Prints a table; the
last line is one JSON object.

Tasks: the tests' toy task (a GRU, slices by hour of the day) and the flights of the demo with a perceptron and an LSTM (slices
by carrier). Each with SGD and Adam, seeds 0 to 2, on held-out rows that were not trained on.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_trainer.recording.per_sample_norms import per_sample_norms
from clipdrift_trainer.recording.slices import SliceMass, head_of
from clipdrift_trainer.tasks.task import BuildContext, Rows, Task, encode, load_as_of, vocabularies_of

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT / "tests" / "trainer"), str(ROOT / "deploy" / "clipdrift_deploy" / "demo" / "project")]
from flights import Flights  # noqa: E402
from toy_task import Toy  # noqa: E402

SEEDS = (0, 1, 2)
STEPS = (0, 200, 1_000)
BATCH = 128
NUM_MEASURED = 1_500
FEWEST_IN_SLICE = 20
NUM_ROUNDS, STEPS_A_ROUND = 60, 200
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.03, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
}
JANUARY_2013 = 1_356_998_400_000


class FlightsNet(nn.Module):
    """Scaled numbers, one-hot carriers, and the earlier departures either flat (a perceptron) or through an LSTM."""

    def __init__(self, rows: Rows, numbers: tuple[str, ...], num_carriers: int, *, is_recurrent: bool) -> None:
        super().__init__()
        self.numbers, self.num_carriers = numbers, num_carriers + 1
        columns_ND = np.stack([rows.features[name] for name in numbers], axis=1)
        self.register_buffer("mean_D", torch.from_numpy(np.nanmean(columns_ND, axis=0)))
        self.register_buffer("std_D", torch.from_numpy(np.nanstd(columns_ND, axis=0) + 1e-6))
        self.lstm = nn.LSTM(2, 16, batch_first=True) if is_recurrent else None
        num_inputs = len(numbers) + self.num_carriers + 16
        self.layers = nn.Sequential(nn.Linear(num_inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        numbers_ND = torch.stack([features[name] for name in self.numbers], dim=1)
        scaled_ND = torch.nan_to_num((numbers_ND - self.mean_D) / self.std_D).clamp(-6, 6)
        carrier = nn.functional.one_hot(features["carrier"], self.num_carriers).float()
        earlier = features["earlier_departures"]
        state = earlier.flatten(1) if self.lstm is None else self.lstm(earlier)[0][:, -1]
        output: torch.Tensor = self.layers(torch.cat([scaled_ND, carrier, state], dim=1))
        return output


def cases() -> dict[str, tuple[Task, Rows, Rows, Callable[[BuildContext], nn.Module], Callable[[Rows], npt.NDArray]]]:
    toy = Toy()
    toy_rows = load_as_of(toy, 0, 60 * MS_PER_DAY, 90 * MS_PER_DAY)
    cache = ROOT / "build" / "fidelity" / "flights.npz"
    cache.parent.mkdir(parents=True, exist_ok=True)
    flights = Flights(cache=str(cache))
    flight_rows = load_as_of(flights, JANUARY_2013, JANUARY_2013 + 59 * MS_PER_DAY, JANUARY_2013 + 90 * MS_PER_DAY)
    numbers = tuple(spec.name for spec in flights.features if spec.kind == "numeric")

    def net(is_recurrent: bool) -> Callable[[BuildContext], nn.Module]:
        return lambda context: FlightsNet(
            context.rows, numbers, len(context.vocabularies["carrier"]), is_recurrent=is_recurrent
        )

    def hours(rows: Rows) -> npt.NDArray:
        return rows.time_ms % MS_PER_DAY // (MS_PER_DAY // 12)

    def carriers(rows: Rows) -> npt.NDArray:
        return np.unique(rows.features["carrier"].astype(str), return_inverse=True)[1]

    return {
        "toy GRU": (toy, *parted(toy_rows), toy.build, hours),
        "flights MLP": (flights, *parted(flight_rows), net(is_recurrent=False), carriers),
        "flights LSTM": (flights, *parted(flight_rows), net(is_recurrent=True), carriers),
    }


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """The first two thirds in time, and rows chosen evenly from the rest."""
    cut = len(rows) * 2 // 3
    chosen = np.linspace(cut, len(rows) - 1, min(NUM_MEASURED, len(rows) - cut)).astype(int)
    return rows.select(np.arange(cut)), rows.select(chosen)


def head_norms(module: nn.Module, task: Task, tensors: dict[str, torch.Tensor], label: torch.Tensor) -> npt.NDArray:
    """The head's norm of each sample, through the recorder's own class: one slice a sample."""
    module.train()
    mass = SliceMass(head_of(module, 2), tuple(map(str, range(len(label)))))
    task.loss(module(tensors), label).backward()  # type: ignore[no-untyped-call]
    mass.add(torch.arange(len(label)), torch.tensor(1.0))
    norms = mass.sums[:, 1].numpy()
    mass.remove()
    module.zero_grad()
    return norms


def slice_means(values: npt.NDArray, slice_N: npt.NDArray) -> npt.NDArray:
    """Means of the slices that hold enough rows."""
    counts = np.bincount(slice_N)
    return (np.bincount(slice_N, values) / np.maximum(counts, 1))[counts >= FEWEST_IN_SLICE]


def microseconds_a_step() -> float:
    """CPU time of a step of a small perceptron with the slices' sums, less that without; median of interleaved rounds."""
    x, label = torch.randn(64, 16), torch.randint(0, 2, (64,))
    slice_B, coefficient = torch.randint(0, 8, (64,)), torch.tensor(0.5)

    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(16, 128), nn.Tanh(), nn.Linear(128, 2))

    plain, watched = net(), net()
    mass = SliceMass(head_of(watched), tuple("abcdefgh"))

    def seconds(module: nn.Module, is_watched: bool) -> float:
        started = time.process_time()
        for _ in range(STEPS_A_ROUND):
            nn.functional.cross_entropy(module(x), label).backward()  # type: ignore[no-untyped-call]
            if is_watched:
                mass.add(slice_B, coefficient)
        return time.process_time() - started

    differences = [seconds(watched, True) - seconds(plain, False) for _ in range(NUM_ROUNDS)]
    return statistics.median(differences) / STEPS_A_ROUND * 1e6


def main() -> None:
    torch.set_num_threads(1)
    found: list[dict[str, float | str]] = []
    for name, (task, train, measured, build, slices_of) in cases().items():
        vocabularies = vocabularies_of(task, train)
        tensors, label = encode(task, train, vocabularies), torch.from_numpy(train.label).long()
        seen, seen_label = encode(task, measured, vocabularies), torch.from_numpy(measured.label).long()
        slice_N = slices_of(measured)
        for optimizer_name, make in OPTIMIZERS.items():
            for seed in SEEDS:
                torch.manual_seed(seed)
                module = build(BuildContext(train, vocabularies))
                optimizer = make(module.parameters())
                generator = np.random.default_rng(seed)
                for step in range(max(STEPS) + 1):
                    if step in STEPS:
                        head = head_norms(module, task, seen, seen_label)
                        exact = per_sample_norms(module, task.loss, seen, seen_label)
                        norm_N = exact.norm_B.numpy()
                        found.append({
                            "case": name, "optimizer": optimizer_name, "step": step, "method": exact.method,
                            "sample": float(spearmanr(head, norm_N)[0]),
                            "slice": float(spearmanr(slice_means(head, slice_N), slice_means(norm_N, slice_N))[0]),
                            "share": float((head.astype(float) ** 2).sum() / (norm_N.astype(float) ** 2).sum()),
                        })  # fmt: skip
                    batch = torch.from_numpy(generator.integers(0, len(train), BATCH))
                    loss = task.loss(module({key: tensor[batch] for key, tensor in tensors.items()}), label[batch])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
    tell(found)


def tell(found: list[dict[str, float | str]]) -> None:
    print(f"{'case':14}{'optimizer':10}{'step':>6}{'method':>8}{'samples':>9}{'slices':>8}{'head holds':>12}")
    for key in dict.fromkeys((one["case"], one["optimizer"], one["step"], one["method"]) for one in found):
        same = [one for one in found if (one["case"], one["optimizer"], one["step"], one["method"]) == key]
        mean = {name: statistics.fmean(float(one[name]) for one in same) for name in ("sample", "slice", "share")}
        print(f"{key[0]:14}{key[1]:10}{key[2]:>6}{key[3]:>8}{mean['sample']:9.3f}{mean['slice']:8.3f}{mean['share']:12.2f}")
    summary: dict[str, object] = {"bench": "fidelity", "num_seeds": len(SEEDS), "num_samples": NUM_MEASURED}
    for words, chosen in (
        ("initial", [one for one in found if one["step"] == 0]),
        ("trained", [one for one in found if one["step"] != 0]),
    ):
        for name in ("sample", "slice"):
            values = sorted(float(one[name]) for one in chosen)
            summary[f"{words}_{name}_rank_correlation"] = {
                "median": round(statistics.median(values), 3), "worst": round(values[0], 3)
            }  # fmt: skip
    shares = [float(one["share"]) for one in found]
    summary["head_share_of_squared_norm"] = [round(min(shares), 3), round(max(shares), 3)]
    summary["recording_us_a_step"] = round(microseconds_a_step(), 1)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
