"""The bench's lock-step training is the product's training, and its figures are what they are called."""

from typing import Any

import msgspec
import numpy as np
import pytest
import threshold
import torch
from threshold_worlds.cells import GRID, Life
from threshold_worlds.datasets import Part, Table, world_of
from threshold_worlds.ensemble import Model, Recipe, Stream, first_weights, schedule, train
from threshold_worlds.figures import promotions, regret
from torch import nn

from clipdrift_contract.events import ClipSpec
from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer.tasks.fitting import fit
from clipdrift_trainer.tasks.task import BaseTask, BuildContext, Rows

SEED, NUM_STEPS, NUM_INPUTS = 3, 80, 6
GENERATOR = np.random.default_rng(1)
X = GENERATOR.standard_t(2.0, size=(500, NUM_INPUTS)).astype(np.float32)
LABEL = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(np.int64)
PART = Part(X, LABEL, np.zeros(500, np.int16), np.arange(500, dtype=np.int64))
ROWS = Rows({"x": X}, LABEL.astype(float), PART.time_ms, PART.time_ms)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weights = first_weights(NUM_INPUTS, 2, SEED)
        self.layers = nn.Sequential()
        for number, weight in enumerate(weights):
            layer = nn.Linear(*weight.shape)
            layer.weight.data, layer.bias.data = weight.T.contiguous(), torch.zeros(weight.shape[1])
            self.layers.append(layer)
            if number < len(weights) - 1:
                self.layers.append(nn.ReLU())

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.layers(features["x"])
        return found


class MadeOfRows(BaseTask):
    """The bench's network and schedule as a user's task."""

    features = (FeatureSpec(name="x", kind="sequence", shape=(NUM_INPUTS,)),)
    num_steps = NUM_STEPS
    batch_size = 64

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def build(self, context: BuildContext) -> nn.Module:
        return Net()

    def optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        rate = self.recipe.learning_rate
        made: torch.optim.Optimizer
        if self.recipe.optimizer == "sgd":
            made = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)
        else:
            made = torch.optim.Adam(module.parameters(), lr=rate)
        steps = iter(range(NUM_STEPS))

        def pace(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            optimizer.param_groups[0]["lr"] = rate * schedule(next(steps), NUM_STEPS)

        made.register_step_pre_hook(pace)
        return made


@pytest.mark.parametrize(
    ("clip", "optimizer"),
    [
        (ClipSpec(kind="global_norm", max_norm=0.3), "sgd"),
        (ClipSpec(kind="global_norm", max_norm=0.3), "adam"),
        (ClipSpec(kind="autoclip", percentile=10.0), "sgd"),
        (ClipSpec(), "sgd"),
        (ClipSpec(kind="per_sample", max_norm=0.3), "sgd"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_a_model_of_the_ensemble_is_the_model_that_the_product_fits(clip: ClipSpec, optimizer: str) -> None:
    is_per_sample = clip.kind == "per_sample"
    if is_per_sample:
        pytest.importorskip("opacus")
    recipe = Recipe(optimizer, 0.05 if optimizer == "sgd" else 0.003, is_per_sample, NUM_STEPS)
    percentile = clip.percentile if clip.kind == "autoclip" else None
    other = Model(0, 1.0)  # beside it in the same batch of products

    ours = train([Stream(PART, SEED)], [other, Model(0, clip.max_norm or float("inf"), percentile)], recipe, 2)
    real = fit(MadeOfRows(recipe), ROWS, {}, clip, SEED)

    layers = [layer for layer in real.module.layers if isinstance(layer, nn.Linear)]  # type: ignore[union-attr]
    for layer, weight_MIO, bias_M1O in zip(layers, ours.weights, ours.biases, strict=True):
        torch.testing.assert_close(layer.weight.T, weight_MIO[1], atol=2e-4, rtol=1e-3)
        torch.testing.assert_close(layer.bias, bias_M1O[1, 0], atol=2e-4, rtol=1e-3)
    assert real.norm_quantiles is not None
    half = NUM_STEPS // 2
    norms = ours.norm_TM[half:, 1] if ours.sample_norm_TMB is None else ours.sample_norm_TMB[:, 1]
    if not is_per_sample:  # which tells its quantiles of whole windows, and here there are two
        assert real.norm_quantiles.p90 == pytest.approx(float(np.percentile(norms.numpy(), 90)), rel=1e-2)
        assert real.removed_mass_ratio == pytest.approx(float(ours.removed_M[1]), abs=1e-3)


def test_arms_are_trained_on_older_days_than_they_are_judged_on_and_late_rows_come_after_all() -> None:
    world = world_of("synthetic", 200)

    assert world.older.time_ms.max() < world.newest.time_ms.min()
    assert max(world.newest.time_ms.max(), world.again.time_ms.max(), world.held_out.time_ms.max()) < world.late.time_ms.min()
    assert not set(world.again.time_ms) & set(world.held_out.time_ms)
    assert not (set(world.older.time_ms) | set(world.newest.time_ms)) & set(world.held_out.time_ms), "the gate's own days"
    assert world.first.time_ms.max() < world.fresh_from_ms
    assert (world.held_out.time_ms >= world.fresh_from_ms).any()


def test_a_flag_that_the_first_model_never_saw_does_not_explode(monkeypatch: pytest.MonkeyPatch) -> None:
    day = np.repeat(np.arange(50), 20)
    x = np.stack([GENERATOR.normal(size=1_000), (day >= 20).astype(float)], axis=1).astype(np.float32)
    rows = Part(x, np.zeros(1_000, np.int64), np.zeros(1_000, np.int16), day * 86_400_000)
    monkeypatch.setitem(threshold.datasets.READERS, "elec", lambda: Table(rows, 400, 700, 2, ("all",)))

    world = world_of("elec", 0)

    assert world.first.x[:, 1].max() == 0.0
    assert world.late.x[:, 1].max() == 1.0


def life(seed: int, grid: dict[int, float], *, verdict: str = "pass", gain: tuple[float, float, float] = (0, -1, 1)) -> Life:
    accuracy = {f"grid {number}": grid.get(number, 0.5) for number in range(len(GRID))} | {"chosen": 0.7}
    return Life(
        dataset="synthetic", optimizer="SGD", clipping="batch", level="heavy", seed=seed, winner="q90", verdict=verdict,
        notes=(), accuracy=accuracy, stale=0.6, next_gain=gain, late_gain=gain,
    )  # fmt: skip


def test_regret_is_to_the_bound_that_is_best_on_the_mean_and_fair_regret_to_one_picked_on_other_seeds() -> None:
    found = regret([life(0, {3: 0.80, 4: 0.70}), life(1, {3: 0.70, 4: 0.76})], "chosen")

    assert found.mean == pytest.approx(100 * (0.75 - 0.70))  # grid 3: (0.80 + 0.70) / 2
    assert found.fair == pytest.approx(100 * ((0.70 + 0.70) / 2 - 0.70))  # seed 1 picks grid 4 for seed 0, and so on


def test_a_pass_is_false_and_a_stop_is_missed_only_with_the_whole_interval() -> None:
    worse, better, open_ = (-0.02, -0.03, -0.01), (0.02, 0.01, 0.03), (0.0, -0.01, 0.01)
    lives = [life(0, {}, verdict=verdict, gain=gain) for verdict in ("pass", "fail") for gain in (worse, better, open_)]

    assert promotions(lives, lambda one: one.next_gain) == (3, 1, 2, 1)


@pytest.mark.slow
def test_the_bench_runs_resumes_and_says_what_it_found(tmp_path: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(threshold, "_KEPT", tmp_path)
    monkeypatch.setattr(
        threshold.datasets, "available", lambda: {"synthetic": "", "flights": "no way", "elec": "", "covtype": ""}
    )

    found = threshold.main(["--quick", "--workers", "2"])
    again = threshold.main(["--quick", "--workers", "2"])

    said = capsys.readouterr().out
    assert "6 cells, 6 of them done before" in said
    assert msgspec.json.decode(said.splitlines()[-1]) == again
    assert found["worst_mean_regret_pp"] == again["worst_mean_regret_pp"]
    assert len(found["mean_regret_pp"]) == 12  # type: ignore[arg-type]
    assert found["worst_mean_regret_pp"] < found["worst_mean_regret_pp_beside"]["same"]  # type: ignore[index]
