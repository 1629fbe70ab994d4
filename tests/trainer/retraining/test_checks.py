"""Each check of the gate on made-up models whose faults are known."""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from clipdrift_contract.events import DataCheck, GateCheck
from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer.retraining.checks.calibration import CalibrationPolicy, check_calibration
from clipdrift_trainer.retraining.checks.case import Case, Side, spread_over
from clipdrift_trainer.retraining.checks.data import DataPolicy, check_data
from clipdrift_trainer.retraining.checks.hop_skip_jump import HopSkipJumpPolicy, check_hop_skip_jump
from clipdrift_trainer.retraining.checks.latency import LatencyPolicy, check_latency, latency_check
from clipdrift_trainer.retraining.checks.membership import MembershipPolicy, check_membership
from clipdrift_trainer.retraining.checks.robustness import RobustnessPolicy, check_robustness
from clipdrift_trainer.retraining.checks.size import SizePolicy, check_size
from clipdrift_trainer.retraining.gate import GatePolicy
from clipdrift_trainer.retraining.measuring import measure_checks
from clipdrift_trainer.tasks.task import Rows

DAY = 86_400_000
NUM_DAYS, ROWS_A_DAY = 20, 100
SLOPE = 2.0  # of the true log-odds


class Valve:
    kind: ClassVar[Any] = "binary"
    classes = ("fine", "stuck")
    features = (FeatureSpec(name="x", kind="numeric"), FeatureSpec(name="noise", kind="numeric"))


class Value(Valve):
    kind = "regression"


class Logistic(nn.Module):
    """Log-odds linear in both numbers."""

    def __init__(self, slope: float = SLOPE, of_noise: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([slope, of_noise]))

    def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        odds_N = self.weight[0] * inputs["x"] + self.weight[1] * inputs["noise"]
        return torch.stack([torch.zeros_like(odds_N), odds_N], dim=1)


def make_rows(seed: int, num_days: int = NUM_DAYS) -> Rows:
    generator = np.random.default_rng(seed)
    num = num_days * ROWS_A_DAY
    x = generator.normal(size=num).astype(np.float32)
    time_ms = np.repeat(np.arange(num_days) * DAY, ROWS_A_DAY)
    label = (generator.random(num) < 1 / (1 + np.exp(-SLOPE * x))).astype(float)
    return Rows({"x": x, "noise": (0.01 * generator.normal(size=num)).astype(np.float32)}, label, time_ms, time_ms)


ROWS, TRAINED = make_rows(0), make_rows(1)


def scores_of(module: nn.Module, rows: Rows = ROWS) -> np.ndarray:
    with torch.no_grad():
        inputs = {name: torch.from_numpy(column.astype(np.float32)) for name, column in rows.features.items()}
        return torch.softmax(module(inputs).double(), dim=1).numpy()


def file_of(module: Logistic, padding: int = 0) -> bytes:
    """The same model as ONNX, with `padding` numbers that nobody reads."""
    weights = [float(x) for x in module.weight.detach()]
    numbers = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in ("x", "noise")]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])
    named = {"w0": weights[:1], "w1": weights[1:], "pad": [0.0] * padding}
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [len(x)], x) for name, x in named.items()]
    constants.append(helper.make_tensor("axes", TensorProto.INT64, [1], [1]))
    nodes = [
        helper.make_node("Mul", ["x", "w0"], ["a"]), helper.make_node("Mul", ["noise", "w1"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["odds"]), helper.make_node("Neg", ["odds"], ["minus"]),
        helper.make_node("Sigmoid", ["odds"], ["one"]), helper.make_node("Sigmoid", ["minus"], ["zero"]),
        helper.make_node("Unsqueeze", ["one", "axes"], ["one2"]), helper.make_node("Unsqueeze", ["zero", "axes"], ["zero2"]),
        helper.make_node("Concat", ["zero2", "one2"], ["probabilities"], axis=1),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "valve", numbers, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def side(of: Logistic, rows: Rows = ROWS, **changes: Any) -> Side:
    made = {"content": file_of(of), "features": Valve.features, "scores_NK": scores_of(of, rows), "module": of.eval}
    return Side(**(made | {"vocabularies": {}} | changes))


def case(candidate: Logistic | Side, champion: Logistic | Side | None = None, rows: Rows = ROWS, **changes: Any) -> Case:
    sides = [one if isinstance(one, Side) else side(one, rows) for one in (candidate, champion or Logistic())]
    made = {"task": Valve, "judged": rows, "trained": TRAINED, "held_out": rows, "temperature": 1.0}
    return Case(candidate=sides[0], champion=sides[1], **(made | changes))


def calibration(one: Case, **settings: Any) -> GateCheck:
    (found,) = check_calibration(one, CalibrationPolicy(**settings), min_rows=500, min_blocks=5, proof="harm")
    return found


def test_a_model_that_is_three_times_too_sure_fails_at_calibration_and_an_honest_one_passes() -> None:
    too_sure = calibration(case(Logistic(3 * SLOPE)))

    assert too_sure.outcome == "fail"
    assert too_sure.low is not None
    assert too_sure.low > 0.02
    assert calibration(case(Logistic(1.05 * SLOPE))).outcome == "pass"
    assert calibration(case(Logistic(3 * SLOPE), Logistic(3 * SLOPE))).outcome == "pass", "no worse than what is in service"


def test_too_few_labels_leave_calibration_open_and_figures_that_are_no_numbers_are_no_measurement() -> None:
    few = make_rows(2, num_days=4)

    assert calibration(case(Logistic(3 * SLOPE), rows=few)).outcome == "inconclusive"
    assert calibration(case(Logistic(), rows=few.select(np.zeros(0, int)))).outcome == "inconclusive"
    with pytest.raises(ValueError, match="NaN"):
        calibration(case(side(Logistic(), scores_NK=np.full((len(ROWS), 2), np.nan))))


def test_values_promise_no_probabilities_so_nothing_is_checked() -> None:
    assert check_calibration(case(Logistic(), task=Value), CalibrationPolicy(), min_rows=1, min_blocks=2, proof="harm") == ()


def seconds(of_candidate: float, num_rounds: int = 25) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(0).lognormal(0, 0.1, (2, num_rounds, 32))
    return of_candidate * noise[0], 1e-4 * noise[1]


def test_a_file_fails_that_is_surely_slower_than_the_bound_and_leaves_it_open_where_the_bound_is_within_the_interval() -> None:
    def check(bound: float) -> GateCheck:
        return latency_check("latency", *seconds(3e-4), share=0.5, bound=bound, role="decisive")

    found = check(2.0)

    assert found.value == pytest.approx(3.0, rel=0.02)
    assert found.outcome == "fail"
    assert check((found.low + found.value) / 2).outcome == "inconclusive"
    assert check((found.value + found.high) / 2).outcome == "pass"


def test_with_few_rounds_nothing_is_known_of_latency() -> None:
    found = latency_check("latency", *seconds(9e-4, num_rounds=4), share=0.5, bound=2.0, role="decisive")

    assert (found.outcome, found.value) == ("inconclusive", None)


def test_two_equal_files_are_as_fast_on_this_machine_by_the_median() -> None:
    median, p99 = check_latency(case(Logistic()), LatencyPolicy())

    assert (median.name, median.outcome, median.is_decisive) == ("latency", "pass", True)
    assert (p99.name, p99.is_decisive) == ("latency_p99", False)
    assert check_latency(case(Logistic(), rows=ROWS.select(np.zeros(0, int))), LatencyPolicy())[0].outcome == "inconclusive"


def test_a_file_beyond_its_share_or_its_megabytes_fails_and_an_empty_one_is_no_measurement() -> None:
    huge = side(Logistic(), content=file_of(Logistic(), padding=100_000))

    assert check_size(case(huge), SizePolicy())[0].outcome == "fail"
    assert check_size(case(huge, huge), SizePolicy())[0].outcome == "pass"
    assert check_size(case(huge, huge), SizePolicy(max_megabytes=0.1))[0].outcome == "fail"
    assert check_size(case(side(Logistic(), content=b"")), SizePolicy())[0].outcome == "inconclusive"


def robustness(one: Case, **settings: Any) -> GateCheck:
    (found,) = check_robustness(one, RobustnessPolicy(**settings), min_blocks=5, proof="harm")
    return found


def test_a_model_that_leans_on_a_number_without_meaning_is_turned_more_often() -> None:
    fragile = Logistic(of_noise=100.0)  # the noise is so small that clean answers hardly suffer

    found = robustness(case(fragile), num_rows=2_000)

    clean_harm = (scores_of(fragile).argmax(1) != ROWS.label).mean() - (scores_of(Logistic()).argmax(1) != ROWS.label).mean()
    assert found.outcome in ("inconclusive", "fail")
    assert found.value is not None
    assert found.value > clean_harm
    assert robustness(case(Logistic())).outcome == "pass"


def test_the_share_of_turned_rows_is_the_closed_form_of_a_linear_model() -> None:
    epsilon, fragile = 0.3, Logistic(of_noise=20.0)
    found = robustness(case(fragile), num_rows=len(ROWS), epsilon=epsilon)

    def turned(module: Logistic) -> np.ndarray:
        weight_D = module.weight.detach().double().numpy()
        numbers_ND = np.column_stack([ROWS.features[name] for name in ("x", "noise")]).astype(float)
        spread_D = np.array([TRAINED.features[name].astype(float).std() for name in ("x", "noise")])
        low_D, high_D = (np.array([f(TRAINED.features[name]) for name in ("x", "noise")]) for f in (np.min, np.max))
        against_N1 = np.where(ROWS.label == 1, -1.0, 1.0)[:, None] * np.sign(weight_D)
        down_ND = np.maximum(-epsilon * spread_D, np.minimum(low_D - numbers_ND, 0))
        up_ND = np.minimum(epsilon * spread_D, np.maximum(high_D - numbers_ND, 0))
        odds_N = (numbers_ND + np.where(against_N1 > 0, up_ND, down_ND)) @ weight_D
        return np.where(ROWS.label == 1, odds_N <= 0, odds_N >= 0)

    assert found.value == pytest.approx(turned(fragile).mean() - turned(Logistic()).mean(), abs=2e-3)


def test_an_attack_on_the_files_turns_about_as_many_rows_as_can_be_turned() -> None:
    pytest.importorskip("art")
    epsilon, leaning = 0.6, Logistic(of_noise=400.0)
    policy = HopSkipJumpPolicy(role="shown", num_rows=25, max_iter=8, max_eval=120, epsilon=epsilon)

    (found,) = check_hop_skip_jump(case(leaning), policy, min_blocks=5, proof="harm")

    rows = spread_over(ROWS, 25)

    def turned_within(module: Logistic, distance: float) -> float:
        """The share of rows that are wrong, or whose exact distance from another answer is not above `distance`."""
        weight_D = module.weight.detach().double().numpy()
        odds_N = np.column_stack([rows.features["x"], rows.features["noise"]]).astype(float) @ weight_D
        reach = sum(
            abs(w) * TRAINED.features[name].astype(float).std() for w, name in zip(weight_D, ("x", "noise"), strict=True)
        )
        return float((((odds_N > 0) != (rows.label == 1)) | (np.abs(odds_N) / reach <= distance)).mean())

    low = turned_within(leaning, 0.7 * epsilon) - turned_within(Logistic(), epsilon)
    high = turned_within(leaning, epsilon) - turned_within(Logistic(), 0.7 * epsilon)
    assert (found.num_rows, found.num_blocks) == (25, 20)
    assert 0 < low <= found.value <= high


def learnt_by_heart(num_known: int) -> Callable[[], nn.Module]:
    """A module that is nearly sure of the label of rows that it has seen, and undecided elsewhere."""
    known = {
        round(float(x), 6): label for x, label in zip(TRAINED.features["x"][:num_known], TRAINED.label[:num_known], strict=True)
    }

    class ByHeart(nn.Module):
        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            lean = torch.tensor(
                [4.0 * (2 * known[key] - 1) if (key := round(float(x), 6)) in known else 0.0 for x in inputs["x"]]
            )
            return torch.stack([-lean, lean], dim=1)

    return ByHeart


def test_a_model_that_knows_its_rows_by_heart_gives_them_away() -> None:
    by_heart = side(Logistic(), module=learnt_by_heart(len(TRAINED)))

    (caught,) = check_membership(case(by_heart), MembershipPolicy(), min_rows=500, min_blocks=5)
    (honest,) = check_membership(case(Logistic()), MembershipPolicy(), min_rows=500, min_blocks=5)
    (few,) = check_membership(case(by_heart, rows=make_rows(2, 4)), MembershipPolicy(), min_rows=500, min_blocks=5)

    assert (caught.outcome, honest.outcome, few.outcome) == ("fail", "pass", "inconclusive")
    assert caught.value == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("outcomes", "expected", "is_decisive"),
    [
        (("pass", "warn"), "pass", True),
        (("pass", "stop"), "fail", True),
        (("skipped",), "inconclusive", False),
        ((), "inconclusive", False),
    ],
)
def test_a_stop_of_the_data_checks_fails_and_rows_that_nobody_checked_prove_nothing(
    outcomes, expected: str, is_decisive: bool
) -> None:
    (found,) = check_data([DataCheck(name=f"c{at}", outcome=one, words="w") for at, one in enumerate(outcomes)], DataPolicy())

    assert (found.outcome, found.is_decisive) == (expected, is_decisive)


DATA_CHECKS = (DataCheck(name="schema", outcome="pass", words=""),)


def test_a_check_that_breaks_is_unreachable_with_its_words_and_stops_no_other() -> None:
    def away() -> nn.Module:
        raise RuntimeError("the weights are on another machine")

    found = {
        one.name: one
        for one in measure_checks(case(Logistic(), side(Logistic(), module=away), data_checks=DATA_CHECKS), GatePolicy())
    }

    assert found["robustness"].outcome == "unreachable"
    assert "RuntimeError: the weights are on another machine" in found["robustness"].words
    assert {name: one.outcome for name, one in found.items() if name not in ("robustness", "latency_p99")} == dict.fromkeys(
        ("data", "size", "calibration", "latency", "membership"), "pass"
    )


def test_a_check_that_no_time_is_left_for_says_so() -> None:
    clock = iter(np.arange(0, 1e6, 3.0))
    policy = GatePolicy(budget_seconds=10.0, latency=LatencyPolicy(role="off", p99_role="off"))

    found = measure_checks(case(Logistic()), policy, timer=lambda: float(next(clock)))

    assert found[0].outcome != "unreachable"
    assert found[-1].outcome == "unreachable"
    assert "budget_seconds" in found[-1].words


def test_a_check_that_is_off_is_not_made_and_roles_tell_which_decide() -> None:
    policy = GatePolicy(size=SizePolicy(role="off"), robustness=RobustnessPolicy(role="decisive"))

    found = {one.name: one.is_decisive for one in measure_checks(case(Logistic()), policy)}

    assert "size" not in found
    assert "hop_skip_jump" not in found
    assert (found["robustness"], found["membership"]) == (True, False)


@pytest.mark.parametrize(
    ("owner", "wrong"),
    [
        (CalibrationPolicy, {"margin": -0.1}),
        (LatencyPolicy, {"max_ratio": 0.5}),
        (LatencyPolicy, {"num_rounds": 4}),
        (SizePolicy, {"max_ratio": float("nan")}),
        (SizePolicy, {"max_megabytes": 0.0}),
        (RobustnessPolicy, {"epsilon": -1.0}),
        (RobustnessPolicy, {"num_steps": 0}),
        (MembershipPolicy, {"max_auc": 1.5}),
        (HopSkipJumpPolicy, {"num_rows": 0}),
        (GatePolicy, {"slice_margins": {"JFK": -1.0}}),
        (GatePolicy, {"budget_seconds": -1.0}),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(owner: Callable[..., Any], wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        owner(**wrong)


def test_every_check_survives_the_wire() -> None:
    for one in measure_checks(case(Logistic(3 * SLOPE), data_checks=DATA_CHECKS), GatePolicy()):
        assert msgspec.json.decode(msgspec.json.encode(one), type=GateCheck) == one
