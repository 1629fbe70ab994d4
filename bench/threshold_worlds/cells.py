"""One cell of the bench: a data set, an optimizer and a kind of clipping, lived through by several seeds.

A model goes into service with a bound that is too tight, heavily or moderately. Months later it is to be retrained. What the
product would try, choose and let pass is asked of the product's own functions; only the many small trainings are done in
lock-step. The late rows, which nothing has seen, tell what each choice was worth.

Axes: M models, N rows, K classes, G bounds of the grid.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import SimpleNamespace
from typing import NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from clipdrift_contract.events import Arm, ClipKind, ClipSpec, GradWindow, NormQuantiles
from clipdrift_contract.profile import TaskKind
from clipdrift_trainer.evaluation.scores import Floats
from clipdrift_trainer.retraining.arms import FittedArm
from clipdrift_trainer.retraining.candidates import threshold_candidates
from clipdrift_trainer.retraining.contrast import contrast
from clipdrift_trainer.retraining.gate import GatePolicy
from clipdrift_trainer.retraining.judging import HeldOut, JudgingRows, choose_arm, judge_candidate
from clipdrift_trainer.tasks.fitting import Fit, to_scores
from clipdrift_trainer.tasks.task import Rows, Task
from clipdrift_trainer.training import TrainingConfig, fit_temperature_on, split_held_out
from threshold_worlds.datasets import Part, World, world_of
from threshold_worlds.ensemble import Model, Recipe, Stream, Trained, logits, train

# Of the unclipped model: the learning rate with the best accuracy on held-out days among 0.01, 0.03, 0.1, 0.3 (SGD) and 0.001,
# 0.003, 0.01 (Adam), mean of seeds 100 to 105.
_LEARNING_RATES = {
    "synthetic": {"sgd": 0.03, "adam": 0.003},
    "flights": {"sgd": 0.1, "adam": 0.01},
    "elec": {"sgd": 0.1, "adam": 0.003},
    "covtype": {"sgd": 0.1, "adam": 0.01},
}
_HOT = 4.0
OPTIMIZERS = ("SGD", "hot SGD", "Adam")
LEVELS = {"heavy": 10**-1.5, "moderate": 10**-0.5}
"""The bound in service, as a share of the median norm of an unclipped run."""
GRID = (*(10 ** (exponent / 2) for exponent in range(-6, 3)), float("inf"))
"""The oracle's bounds, in the same unit; both levels are among them."""
SEEDS = (0, 1)
"""Of a retrain: the product trains the arms with as many as its policy says, one by default; accuracies are means over both."""
_NUM_STEPS, _WINDOW_STEPS, _RETRAIN_SEED = 800, 50, 10_000


class Cell(NamedTuple):
    """What one process works on at a time."""

    dataset: str
    optimizer: str  # of OPTIMIZERS
    per_sample: bool
    seeds: tuple[int, ...]


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one model in service. Accuracies are of the late rows."""

    dataset: str
    optimizer: str
    clipping: str
    level: str
    seed: int
    winner: str
    verdict: str
    notes: tuple[str, ...]
    accuracy: dict[str, float]
    """Mean over the training seeds, of what the product chooses ("chosen"), of each bound of the grid ("grid 0" ...), of fixed
    policies."""
    stale: float
    """Of the model in service."""
    next_gain: tuple[float, float, float]
    """Accuracy of the candidate minus that of the model in service, with its 95 % interval over days, on the next third of the
    late days."""
    late_gain: tuple[float, float, float]
    """The same on all late days."""


def live(cell: Cell) -> list[Life]:
    """Both levels of a cell, for each of its seeds."""
    torch.set_num_threads(1)
    worlds = [_world(cell.dataset, seed) for seed in cell.seeds]
    rates = _LEARNING_RATES[cell.dataset]
    family = "adam" if cell.optimizer == "Adam" else "sgd"
    recipe = Recipe(family, rates[family], cell.per_sample, _NUM_STEPS)
    first = [Stream(world.first, seed) for world, seed in zip(worlds, cell.seeds, strict=True)]
    unclipped = train(first, [Model(i) for i in range(len(worlds))], recipe, worlds[0].num_classes)
    typical = unclipped.norm_TM[_WINDOW_STEPS:].median(0).values.tolist()
    if cell.optimizer == "hot SGD":
        recipe = recipe._replace(learning_rate=_HOT * recipe.learning_rate)
    bounds = [typical[i] * level for i in range(len(worlds)) for level in LEVELS.values()]
    in_service = train(first, [Model(i // 2, bound) for i, bound in enumerate(bounds)], recipe, worlds[0].num_classes)
    found = []
    for i, (world, seed) in enumerate(zip(worlds, cell.seeds, strict=True)):
        found += _Retrain(cell, world, seed, recipe, typical[i], in_service.of([2 * i, 2 * i + 1])).lives()
    return found


@lru_cache(maxsize=8)
def _world(dataset: str, seed: int) -> World:
    return world_of(dataset, seed)


class _Retrain:
    """The retrain of the two models in service of one seed."""

    def __init__(self, cell: Cell, world: World, seed: int, recipe: Recipe, typical: float, in_service: Trained) -> None:
        self._cell, self._world, self._seed, self._recipe, self._in_service = cell, world, seed, recipe, in_service
        self._kind: TaskKind = "binary" if world.num_classes == 2 else "multiclass"
        clip_kind: ClipKind = "per_sample" if cell.per_sample else "global_norm"
        self._grid = [ClipSpec(kind=clip_kind, max_norm=typical * bound) for bound in GRID[:-1]] + [ClipSpec()]
        name = "Adam" if cell.optimizer == "Adam" else "SGD"
        self._fixed: list[dict[str, ClipSpec]] = []  # by level, policies beside the product's choice
        self._arms: list[tuple[Arm, ...]] = []
        for number, level in enumerate(LEVELS.values()):
            same, norms = self._grid[GRID.index(level)], _quantiles(in_service, number)
            self._arms.append(threshold_candidates(same, norms, name))
            q90 = msgspec.structs.replace(same, max_norm=norms.p90)
            self._fixed.append({"same": same, "q90": q90, "autoclip_p10": ClipSpec(kind="autoclip"), "off": self._grid[-1]})

    def lives(self) -> list[Life]:
        world = self._world
        tried = _unique(arm.clip for arms in self._arms if len(arms) > 1 for arm in arms)
        shadows = self._fit(world.older, tried) if tried else None
        policies = _unique([*self._grid, *(arm.clip for arms in self._arms for arm in arms)])
        policies = _unique([*policies, *(clip for fixed in self._fixed for clip in fixed.values())])
        fitted = self._fit(world.again, policies)
        right_MN = logits(fitted, world.late.x).argmax(2) == world.late.label
        stale_MN = logits(self._in_service, world.late.x).argmax(2) == world.late.label
        means = right_MN.reshape(len(SEEDS), len(policies), -1).mean((0, 2))
        found = []
        for number, level in enumerate(LEVELS):
            choices = {num: self._choose(number, num, tried, shadows) for num in (1, len(SEEDS))}
            named = self._fixed[number] | {f"grid {g}": clip for g, clip in enumerate(self._grid)}
            for num, (arm, _) in choices.items():
                named["chosen" if num == 1 else f"chosen by {num} seeds"] = arm.clip
            arm, notes = choices[1]
            winner = policies.index(arm.clip)
            candidate = self._as_product(arm, fitted, winner, world.held_out)
            _, verdict = judge_candidate(candidate, self._held_out(number), GatePolicy())
            gain_N = right_MN[winner].astype(float) - stale_MN[number]
            found.append(
                Life(
                    dataset=self._cell.dataset, optimizer=self._cell.optimizer, level=level, seed=self._seed,
                    clipping="per sample" if self._cell.per_sample else "batch", winner=arm.name,
                    verdict=verdict.verdict, notes=(*verdict.reasons, *notes),
                    accuracy={name: float(means[policies.index(clip)]) for name, clip in named.items()},
                    next_gain=_interval(gain_N, world.late.time_ms, share=1 / 3),
                    late_gain=_interval(gain_N, world.late.time_ms), stale=float(stale_MN[number].mean()),
                )
            )  # fmt: skip
        return found

    def _fit(self, part: Part, clips: Sequence[ClipSpec]) -> Trained:
        """Models of all `clips` for each seed of a retrain, seed by seed."""
        streams = [Stream(part, self._seed + _RETRAIN_SEED * (1 + seed)) for seed in SEEDS]
        models = [_model(clip, seed) for seed in SEEDS for clip in clips]
        return train(streams, models, self._recipe, self._world.num_classes)

    def _choose(
        self, number: int, num_seeds: int, tried: list[ClipSpec], shadows: Trained | None
    ) -> tuple[Arm, tuple[str, ...]]:
        """The arm that the product chooses with so many seeds, and what it has to say of the others."""
        world, arms = self._world, self._arms[number]
        if len(arms) == 1 or shadows is None:
            return arms[0], ()
        runs = [
            self._as_product(arm, shadows, seed * len(tried) + tried.index(arm.clip), world.newest)
            for seed in SEEDS[:num_seeds]
            for arm in arms
        ]
        choice = choose_arm(runs, self._rows(world.newest), GatePolicy())
        return next(arm for arm in arms if arm.name == choice.winner), choice.notes

    def _as_product(self, arm: Arm, trained: Trained, model: int, part: Part) -> FittedArm:
        """A model of the ensemble as the product's own fit would hand it over."""
        fitting, judging = self._split(part)
        logits_NK = logits(trained, part.x, [model])[0]
        temperature = fit_temperature_on(logits_NK, _as_rows(part), fitting)
        windows = _windows(trained, model)
        total = msgspec.structs.replace(windows[0], norm_sum=1.0, norm_removed_sum=float(trained.removed_M[model]))
        fit = Fit(nn.Identity(), self._cell.optimizer, self._recipe.learning_rate, 0, None, total)
        scores = to_scores(logits_NK, self._kind, temperature)[judging]
        return FittedArm(arm=arm, seed=0, fit=fit, windows=windows, scores=scores)

    def _held_out(self, number: int) -> HeldOut:
        world = self._world
        fitting, _ = self._split(world.first_held_out)
        first_NK = logits(self._in_service, world.first_held_out.x, [number])[0]
        temperature = fit_temperature_on(first_NK, _as_rows(world.first_held_out), fitting)
        judged = world.held_out.take(self._split(world.held_out)[1])
        is_fresh = judged.time_ms >= world.fresh_from_ms
        said = to_scores(logits(self._in_service, judged.x, [number])[0], self._kind, temperature)
        rows = msgspec.structs.asdict(self._rows(world.held_out))
        return HeldOut(**rows, is_fresh=is_fresh, champion_scores=said[is_fresh])

    def _rows(self, part: Part) -> JudgingRows:
        judged = part.take(self._split(part)[1])
        return JudgingRows(
            kind=self._kind, label=judged.label.astype(float), time_ms=judged.time_ms, slice_index=judged.slice,
            slice_names=self._world.slice_names,
        )  # fmt: skip

    def _split(self, part: Part) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        config = TrainingConfig().for_clip(self._grid[0])
        return split_held_out(cast(Task, SimpleNamespace(kind=self._kind)), config, _as_rows(part))


def _unique(clips: Iterable[ClipSpec]) -> list[ClipSpec]:
    found: list[ClipSpec] = []
    for clip in clips:
        if clip not in found:  # a ClipSpec holds a dict and has no hash
            found.append(clip)
    return found


def _model(clip: ClipSpec, stream: int) -> Model:
    if clip.kind == "autoclip":
        return Model(stream, percentile=clip.percentile)
    return Model(stream, float("inf") if clip.max_norm is None else clip.max_norm)


def _as_rows(part: Part) -> Rows:
    return Rows({}, part.label.astype(float), part.time_ms, part.time_ms)


def _quantiles(trained: Trained, model: int) -> NormQuantiles:
    """Of what is bounded, in the last half of the run: the batch's norms, or the samples'."""
    norms = trained.norm_TM[len(trained.norm_TM) // 2 :, model]
    if trained.sample_norm_TMB is not None:
        norms = trained.sample_norm_TMB[:, model]
    finite = norms.numpy().ravel()
    p10, p50, p90, p99 = (float(q) for q in np.percentile(finite[np.isfinite(finite)], (10, 50, 90, 99)))
    return NormQuantiles(p10=p10, p50=p50, p90=p90, p99=p99)


def _windows(trained: Trained, model: int) -> list[GradWindow]:
    loss_T, norm_T = trained.loss_TM[:, model].double().numpy(), trained.norm_TM[:, model].double().numpy()
    found = []
    for start in range(0, len(loss_T), _WINDOW_STEPS):
        loss, norm = loss_T[start : start + _WINDOW_STEPS], norm_T[start : start + _WINDOW_STEPS]
        is_finite = np.isfinite(norm)
        found.append(
            GradWindow(
                run_id="", model="", started_at_ms=0, ended_at_ms=0, step_first=start, num_steps=len(norm), num_clipped=0,
                num_nonfinite=int((~is_finite).sum()), norm_sum=float(norm[is_finite].sum()),
                loss_sum=float(loss[np.isfinite(loss)].sum()),
            )
        )  # fmt: skip
    return found


def _interval(gain_N: Floats, time_ms: npt.NDArray[np.int64], share: float = 1.0) -> tuple[float, float, float]:
    """Mean gain with its 95 % interval over days, on the first `share` of the days."""
    days = np.unique(time_ms)
    early = time_ms <= days[max(1, round(share * len(days))) - 1]
    found = contrast("", "error", -gain_N[None, early], time_ms[early])
    return -found.difference, -found.high, -found.low
