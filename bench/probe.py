"""How well the gradient probe foretells: norms of the training that follows, and the loss of accuracy of the model in service.

Two kinds of data: the demo's flights month by month (a model that is never retrained, and one retrained every month), and rows
with planted drift of five kinds and five strengths. What was foretold on recent rows, or on all rows of the retrain, is
compared with four trainings: the first and the last steps of the retrain from new weights, and the first steps of one that goes
on from the weights in service, on recent rows or on all. Argument: number of seeds of the planted sets (default 2). The last
line is one JSON object.
"""

import copy
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import ClipSpec, GradWindow, ProbedSlice
from clipdrift_contract.profile import FeatureSpec, SliceSpec
from clipdrift_deploy.moments import parse_moment
from clipdrift_trainer.evaluation.scores import row_losses
from clipdrift_trainer.probing.probe import median_norm, probe_gradients
from clipdrift_trainer.tasks.fitting import Fit, fit, predict_logits, to_scores
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows, Task, encode, load_as_of
from clipdrift_trainer.training import Prepared, TrainingConfig, prepare

ROOT = Path(__file__).parents[1]
FLIGHTS = ROOT / "deploy/clipdrift_deploy/demo/project/flights.py"
MONTHS = [f"2013-{month:02d}-01" for month in range(3, 13)]  # the first training ends in March, retrains follow until December
CLIP_FLIGHTS = ClipSpec(kind="global_norm", max_norm=0.05)  # the demo's
FIRST_STEPS = 100
SET_DAYS = 30
ROWS_A_DAY = 200
DRIFTS = ("concept", "covariate", "noise", "mix", "scale")
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
QUANTITIES = ("median_norm", "would_clip", "removed_mass")
TRAININGS = ("retrain_first", "retrain_last", "warm_recent", "warm_all")


class Planted(BaseTask):
    """Two classes by a bent plane; a rare site has a rule of its own. What drifts does so from the second half on."""

    kind = "binary"
    classes = ("no", "yes")
    features = (
        FeatureSpec(name="site", kind="categorical"),
        FeatureSpec(name="readings", kind="sequence", shape=(8, 1)),
    )
    slices = SliceSpec(feature="site", categories=("common", "rare"))
    num_steps = 600
    batch_size = 64

    def __init__(self, optimizer: str, drift: str = "concept", strength: float = 0.0, seed: int = 0) -> None:
        self._optimizer, self._drift, self._strength, self._seed = optimizer, drift, strength, seed

    def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
        days = [self._day(day) for day in range(start_ms // MS_PER_DAY, end_ms // MS_PER_DAY)]
        names = {name: np.concatenate([day.features[name] for day in days]) for name in days[0].features}
        return Rows(
            names, *(np.concatenate([getattr(day, name) for day in days]) for name in ("label", "time_ms", "label_time_ms"))
        )

    def _day(self, day: int) -> Rows:
        random = np.random.default_rng([self._seed, day])
        strength = {name: self._strength if day >= SET_DAYS and name == self._drift else 0.0 for name in DRIFTS}
        x = random.normal(size=(ROWS_A_DAY, 8)) + 1.5 * strength["covariate"] * np.eye(8)[0]
        is_rare = random.random(ROWS_A_DAY) < 0.05 + 0.55 * strength["mix"]
        angle = strength["concept"] * np.pi / 2
        plane = np.cos(angle) * x[:, 0] + np.sin(angle) * x[:, 3] + 0.7 * np.abs(x[:, 1]) - 0.5
        score = 3.0 * np.where(is_rare, x[:, 2] - x[:, 0], plane)
        label = random.random(ROWS_A_DAY) < 1 / (1 + np.exp(-score))
        is_flipped = random.random(ROWS_A_DAY) < 0.4 * strength["noise"]
        time_ms = day * MS_PER_DAY + np.arange(ROWS_A_DAY, dtype=np.int64)
        readings = (x * (1 + 2 * strength["scale"])).astype(np.float32)[:, :, None]
        site = np.where(is_rare, "rare", "common").astype(object)
        return Rows({"site": site, "readings": readings}, (label ^ is_flipped).astype(np.float64), time_ms, time_ms)

    def build(self, context: BuildContext) -> nn.Module:
        return PlantedNet(len(context.vocabularies["site"]) + 1)

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        if self._optimizer == "sgd":
            return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
        return torch.optim.Adam(module.parameters(), lr=0.003)


class PlantedNet(nn.Module):
    def __init__(self, num_sites: int) -> None:
        super().__init__()
        self.site = nn.Embedding(num_sites, 4)
        self.layers = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        output: torch.Tensor = self.layers(torch.cat([self.site(features["site"]), features["readings"][:, :, 0]], dim=1))
        return output


class GoingOn:
    """A task whose training begins with the weights of a fitted module."""

    def __init__(self, task: Task, module: nn.Module) -> None:
        self._task, self._module, self.num_steps = task, module, FIRST_STEPS

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build(self, _: BuildContext) -> nn.Module:
        return copy.deepcopy(self._module)


@dataclass(frozen=True)
class Trained:
    """A model and what it was trained on; `windows` of the training."""

    prepared: Prepared
    fitted: Fit
    windows: list[GradWindow]

    @property
    def rows(self) -> Rows:
        return self.prepared.rows.select(self.prepared.train)


def trained(task: Task, start_ms: int, end_ms: int, clip: ClipSpec, seed: int) -> Trained:
    prepared = prepare(task, TrainingConfig(), start_ms, end_ms, end_ms)
    windows: list[GradWindow] = []
    rows = prepared.rows.select(prepared.train)
    return Trained(prepared, fit(task, rows, prepared.vocabularies, clip, seed, on_window=windows.append), windows)


def seen_in(windows: list[GradWindow]) -> dict[str, float]:
    num_finite = sum(window.num_steps - window.num_nonfinite for window in windows)
    return {
        "median_norm": median_norm(windows),
        "would_clip": sum(window.num_clipped for window in windows) / num_finite,
        "removed_mass": sum(window.norm_removed_sum for window in windows) / sum(window.norm_sum for window in windows),
    }


def foretold_by(probed: ProbedSlice) -> dict[str, float]:
    return {"median_norm": probed.norm_p50, "would_clip": probed.would_clip_ratio, "removed_mass": probed.removed_mass_ratio}


def losses(task: Task, model: Trained, rows: Rows) -> tuple[float, float]:
    """Accuracy and mean log loss."""
    logits = predict_logits(model.fitted.module, encode(task, rows, model.prepared.vocabularies))
    is_right, nll, _ = row_losses(to_scores(logits, task.kind), rows.label)
    return float(is_right.mean()), float(nll.mean())


def compared(task: Task, champion: Trained, retrain: Trained, recent: Rows, clip: ClipSpec, seed: int) -> dict[str, Any]:
    """One case: what the probe of `champion` foretold, what the four trainings showed, and how much accuracy was lost."""
    vocabularies, module = champion.prepared.vocabularies, champion.fitted.module
    probed = {
        name: probe_gradients(task, module, recent=rows, trained=champion.rows, vocabularies=vocabularies, clip=clip, seed=seed)
        for name, rows in (("recent", recent), ("all", retrain.rows))
    }
    going_on: Any = GoingOn(task, module)
    warm: dict[str, list[GradWindow]] = {"recent": [], "all": []}
    for name, rows in (("recent", recent), ("all", retrain.rows)):
        fit(going_on, rows, vocabularies, clip, seed + 1, on_window=warm[name].append)
    held_out = champion.prepared.rows.select(champion.prepared.held_out)
    accuracy, nll = losses(task, champion, held_out)
    accuracy_now, nll_now = losses(task, champion, recent)
    return {
        "recent": foretold_by(probed["recent"].recent[0]),
        "all": foretold_by(probed["all"].recent[0]),
        "own": foretold_by(probed["recent"].trained[0]),
        "retrain_first": seen_in([window for window in retrain.windows if window.step_first < FIRST_STEPS]),
        "retrain_last": seen_in(retrain.windows[len(retrain.windows) // 2 :]),
        "warm_recent": seen_in(warm["recent"]),
        "warm_all": seen_in(warm["all"]),
        "accuracy_lost": accuracy - accuracy_now,
        "nll_gained": nll_now - nll,
    }


def flights_task(optimizer: str) -> Task:
    spec = importlib.util.spec_from_file_location("flights", FLIGHTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    task: Task = module.Flights(optimizer=optimizer, cache=str(ROOT / "build" / "probe-flights.npz"))
    return task


def flights_cases(optimizer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A case a month for the model that is never retrained, and one for the model of the month before."""
    task = flights_task(optimizer)
    starts = [parse_moment(month) for month in MONTHS]
    data_start = parse_moment("2013-01-01")
    first = last = trained(task, data_start, starts[0], CLIP_FLIGHTS, seed=0)
    for since, now in pairwise(starts):
        recent = load_as_of(task, since, now, now)
        retrain = trained(task, data_start, now, CLIP_FLIGHTS, seed=0)
        for name, champion in (("never", first), ("monthly", last)):
            yield f"flights-{optimizer}-{name}", compared(task, champion, retrain, recent, CLIP_FLIGHTS, seed=0)
        last = retrain


def planted_cases(optimizer: str, seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Five drifts, five strengths. The bound is the median norm of a training without one, so half the steps are clipped."""
    half, end = SET_DAYS * MS_PER_DAY, 2 * SET_DAYS * MS_PER_DAY
    still = Planted(optimizer, seed=seed)
    quantiles = trained(still, 0, half, ClipSpec(kind="off"), seed).fitted.norm_quantiles
    assert quantiles is not None
    clip = ClipSpec(kind="global_norm", max_norm=quantiles.p50)
    champion = trained(still, 0, half, clip, seed)
    for drift in DRIFTS:
        for strength in STRENGTHS:
            task = Planted(optimizer, drift, strength, seed)
            retrain = trained(task, 0, end, clip, seed)
            recent = load_as_of(task, half, end, end)
            yield f"planted-{optimizer}", compared(task, champion, retrain, recent, clip, seed)


def rank(a: list[float], b: list[float]) -> float | None:
    """Spearman's rank correlation; None where one side never changes."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return round(float(spearmanr(a, b).statistic), 2)


def error(foretold: list[float], seen: list[float]) -> float | None:
    """Median of |foretold - seen| / seen, over cases in which something was seen."""
    errors = [abs(f - s) / s for f, s in zip(foretold, seen, strict=True) if s > 0]
    return round(float(np.median(errors)), 3) if errors else None


def summary(cases: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"num_cases": len(cases)}
    for source in ("recent", "all", "own"):
        for training in TRAININGS:
            found[f"{source}->{training}"] = {
                quantity: {"rank": rank(*sides), "error": error(*sides)}
                for quantity in QUANTITIES
                for sides in [tuple([case[side][quantity] for case in cases] for side in (source, training))]
            }
    growth = [case["recent"]["median_norm"] / case["own"]["median_norm"] for case in cases]
    clipped_more = [case["recent"]["would_clip"] - case["own"]["would_clip"] for case in cases]
    lost, gained = [case["accuracy_lost"] for case in cases], [case["nll_gained"] for case in cases]
    found["harm"] = {
        "norm_growth->accuracy_lost": rank(growth, lost), "would_clip_growth->accuracy_lost": rank(clipped_more, lost),
        "log_loss->accuracy_lost": rank(gained, lost), "norm_growth->log_loss": rank(growth, gained),
    }  # fmt: skip
    return found


def mean_ranks(results: dict[str, dict[str, Any]], pair: str) -> dict[str, float]:
    """By quantity, over the sets in which it changes at all."""
    found = {}
    for quantity in QUANTITIES:
        ranks = [one[pair][quantity]["rank"] for one in results.values()]
        found[quantity] = round(float(np.mean([value for value in ranks if value is not None])), 2)
    return found


def show(name: str, one: dict[str, Any]) -> None:
    print(f"\n{name}: {one['num_cases']} cases; rank correlation / median relative error")
    print(f"  {'foretold on -> seen in':26}" + "".join(f"{quantity:>18}" for quantity in QUANTITIES))
    for pair, quantities in one.items():
        if "->" in pair:
            cells = (f"{cell['rank']} / {cell['error']}" for cell in quantities.values())
            print(f"  {pair:26}" + "".join(f"{cell:>18}" for cell in cells))
    print("  harm:", one["harm"], flush=True)


def main() -> None:
    torch.set_num_threads(1)
    started = time.perf_counter()
    num_seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    cases: dict[str, list[dict[str, Any]]] = {}
    for optimizer in ("sgd", "adam"):
        for seed in range(num_seeds):
            for name, case in planted_cases(optimizer, seed):
                cases.setdefault(name, []).append(case)
        for name, case in flights_cases(optimizer):
            cases.setdefault(name, []).append(case)
        print(f"{optimizer}: {sum(map(len, cases.values()))} cases after {time.perf_counter() - started:.0f} s", flush=True)
    results = {name: summary(some) for name, some in cases.items()}
    for name, one in results.items():
        show(name, one)
    pairs = ("recent->retrain_first", "all->retrain_last", "recent->warm_recent", "all->warm_all")
    means = {pair: mean_ranks(results, pair) for pair in pairs}
    print("\nmean rank correlation over the sets:")
    for pair, ranks in means.items():
        print(f"  {pair:26}", ranks)
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"bench": "probe", "seconds": seconds, "mean_ranks": means, **results}))


if __name__ == "__main__":
    main()
