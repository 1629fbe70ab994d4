"""FGSM and PGD find what can be found: on a linear model the worst point of the ball is known in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer.evaluation.attacks import Ball, attack, badness, balls_of
from clipdrift_trainer.tasks.task import Rows

SPREAD = np.array([0.5, 3.0])
EPSILON = 0.2


class Pumps:
    features = (
        FeatureSpec(name="site", kind="categorical"),
        FeatureSpec(name="pressure", kind="numeric", nullable=True),
        FeatureSpec(name="trace", kind="sequence", shape=(3, 2)),
        FeatureSpec(name="constant", kind="numeric"),
    )


def pumps(num_rows: int = 200, seed: int = 0) -> Rows:
    generator = np.random.default_rng(seed)
    pressure = generator.normal(5.0, 2.0, num_rows)
    pressure[::7] = np.nan
    features = {
        "site": np.array(["a"] * num_rows, object),
        "pressure": pressure,
        "trace": generator.normal(size=(num_rows, 3, 2)) * np.arange(1, 7).reshape(3, 2),
        "constant": np.ones(num_rows),
    }
    zeros = np.zeros(num_rows, np.int64)
    return Rows(features, generator.integers(0, 2, num_rows).astype(float), zeros, zeros)


class Linear(nn.Module):
    """Logits of K classes, linear in two numbers."""

    def __init__(self, weight_DK: np.ndarray, bias_K: np.ndarray) -> None:
        super().__init__()
        self.weight_DK = torch.from_numpy(weight_DK.astype(np.float32))
        self.bias_K = torch.from_numpy(bias_K.astype(np.float32))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.stack([inputs["x"], inputs["y"]], dim=1) @ self.weight_DK + self.bias_K


def free_balls(radius: np.ndarray) -> dict[str, Ball]:
    far = torch.tensor(1e6)
    return {name: Ball(torch.tensor(float(r), dtype=torch.float32), -far, far) for name, r in zip("xy", radius, strict=True)}


def linear_case(num_classes: int = 2, scale: float = 1.0) -> tuple[Linear, np.ndarray, np.ndarray, dict[str, torch.Tensor]]:
    generator = np.random.default_rng(1)
    weight_DK, bias_K = generator.normal(size=(2, num_classes)) * scale, generator.normal(size=num_classes)
    x_ND = generator.normal(size=(300, 2))
    inputs = {name: torch.from_numpy(x_ND[:, at].astype(np.float32)) for at, name in enumerate("xy")}
    return Linear(weight_DK, bias_K), weight_DK, x_ND, inputs


@pytest.mark.parametrize("scale", [1.0, 1e4], ids=["unsure", "so sure that the log loss has no slope in float32"])
def test_both_attacks_find_the_exact_worst_margin_of_a_linear_model(scale: float) -> None:
    module, weight_DK, x_ND, inputs = linear_case(scale=scale)
    label_N = np.random.default_rng(2).integers(0, 2, 300).astype(float)
    sign_N = np.where(label_N == 1, -1.0, 1.0)  # of logit 1 minus logit 0
    slope_D = weight_DK[:, 1] - weight_DK[:, 0]
    bias = float(module.bias_K[1] - module.bias_K[0])
    clean_N = sign_N * (x_ND @ slope_D + bias)

    found = attack(module, inputs, label_N, "binary", free_balls(EPSILON * SPREAD), num_steps=10)

    worst_N = clean_N + EPSILON * (np.abs(slope_D) * SPREAD).sum()
    np.testing.assert_allclose(found.clean_N, clean_N, atol=1e-5 * scale)
    np.testing.assert_allclose(found.fgsm_N, worst_N, atol=1e-5 * scale)
    np.testing.assert_allclose(found.pgd_N, worst_N, atol=1e-5 * scale)


def test_the_worst_value_of_a_linear_regression_is_exact() -> None:
    module, weight_DK, x_ND, inputs = linear_case(num_classes=1)
    label_N = np.random.default_rng(2).normal(size=300)
    miss_N = x_ND @ weight_DK[:, 0] + float(module.bias_K[0]) - label_N

    found = attack(module, inputs, label_N, "regression", free_balls(EPSILON * SPREAD), num_steps=4)

    worst_N = (np.abs(miss_N) + EPSILON * (np.abs(weight_DK[:, 0]) * SPREAD).sum()) ** 2
    np.testing.assert_allclose(found.pgd_N, worst_N, rtol=1e-4)


def test_on_a_crooked_model_pgd_finds_nearly_all_that_a_search_of_the_whole_ball_finds() -> None:
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))

    class Crooked(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return layers(4 * torch.stack([inputs["x"], inputs["y"]], dim=1))

    x_ND = np.random.default_rng(4).normal(size=(60, 2)).astype(np.float32)
    label_N = np.random.default_rng(5).integers(0, 3, 60).astype(float)
    radius = np.array([0.3, 0.3])

    found = attack(
        Crooked(), {"x": torch.from_numpy(x_ND[:, 0]), "y": torch.from_numpy(x_ND[:, 1])}, label_N, "multiclass",
        free_balls(radius), num_steps=20,
    )  # fmt: skip

    shares = []
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41)), -1).reshape(-1, 2) * radius
    for row in range(60):
        near = torch.from_numpy((x_ND[row] + grid).astype(np.float32))
        with torch.no_grad():
            bad = badness(Crooked()({"x": near[:, 0], "y": near[:, 1]}), torch.full((len(grid),), label_N[row]), "multiclass")
        assert found.clean_N[row] <= found.fgsm_N[row] <= found.pgd_N[row]
        assert found.pgd_N[row] <= float(bad.max()) + 0.05, "never more than there is"
        shares.append((found.pgd_N[row] - found.clean_N[row]) / (float(bad.max()) - found.clean_N[row]))
    assert np.mean(shares) > 0.9, "of the rise that there is; some rows end on a lower hill"


def test_a_ball_is_epsilon_standard_deviations_of_what_is_there_channel_by_channel() -> None:
    rows = pumps()

    balls = balls_of(Pumps, rows, EPSILON)

    assert set(balls) == {"pressure", "trace"}, "no categories, nothing that never varies"
    there = rows.features["pressure"][~np.isnan(rows.features["pressure"])]
    assert balls["pressure"].radius.item() == pytest.approx(EPSILON * there.std())
    assert (balls["pressure"].low.item(), balls["pressure"].high.item()) == pytest.approx((there.min(), there.max()))
    np.testing.assert_allclose(balls["trace"].radius, EPSILON * rows.features["trace"].std(axis=0), rtol=1e-5)


def test_missing_values_stay_missing_and_values_stay_in_the_range_of_training() -> None:
    seen: list[torch.Tensor] = []

    class Recording(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            seen.append(inputs["x"].detach())
            return torch.stack([torch.zeros_like(inputs["x"]), torch.nan_to_num(inputs["x"])], dim=1)

    value = torch.tensor([np.nan, 0.95, 3.0, 0.0])
    ball = Ball(torch.tensor(0.2), torch.tensor(-1.0), torch.tensor(1.0))

    attack(Recording(), {"x": value}, np.zeros(4), "binary", {"x": ball}, num_steps=5)

    for moved in seen:
        assert torch.isnan(moved[0])
    highest = torch.stack(seen).amax(dim=0)
    assert highest[1:].tolist() == pytest.approx([1.0, 3.0, 0.2]), "to the edge; not further out; by the radius"


def test_an_answer_that_is_not_a_number_is_as_bad_as_can_be() -> None:
    class Breaking(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.stack([torch.sqrt(inputs["x"]), torch.zeros_like(inputs["x"])], dim=1)

    ball = Ball(torch.tensor(0.2), torch.tensor(-9.0), torch.tensor(9.0))

    found = attack(Breaking(), {"x": torch.tensor([0.1, 4.0])}, np.zeros(2), "binary", {"x": ball}, num_steps=5)

    assert found.clean_N.tolist() == pytest.approx([-(0.1**0.5), -2.0])
    assert np.isinf(found.pgd_N[0])
    assert found.pgd_N[1] < 0


def test_with_nothing_to_move_an_attack_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to attack"):
        attack(nn.Identity(), {}, np.zeros(1), "binary", {}, num_steps=1)
