"""8-bit LSTMs: smaller, as accurate on validation rows, or refused with the reason. No torch."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipdrift_trainer.quantise import QUANTISED_KEY, QuantiseError, QuantisePolicy, quantise, quantise_when_it_passes

STEPS, FEATURES = 8, 4


def recurrent(kind: str, *, output: str = "probabilities", hidden: int = 32, spread: float = 0.3) -> bytes:
    """One LSTM or GRU over x [N, 8, 4] and a last layer of 2 classes, or of 1 value; seeded weights."""
    rng = np.random.default_rng(7)
    gates = {"LSTM": 4, "GRU": 3}[kind]
    columns = 2 if output == "probabilities" else 1
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0, 2]),
        helper.make_node(kind, ["xt", "w", "r"], ["", "h"], hidden_size=hidden),
        helper.make_node("Squeeze", ["h", "zero"], ["last"]),
        helper.make_node("MatMul", ["last", "out"], ["logits"]),
        helper.make_node("Softmax" if columns == 2 else "Identity", ["logits"], [output]),
    ]
    constants = {
        "w": rng.normal(0, spread, (1, gates * hidden, FEATURES)).astype("f4"),
        "r": rng.normal(0, spread, (1, gates * hidden, hidden)).astype("f4"),
        "zero": np.array([0]),
        "out": rng.normal(0, 1, (hidden, columns)).astype("f4"),
    }
    return model(nodes, [STEPS, FEATURES], output, columns, constants)


def model(nodes: Sequence[onnx.NodeProto], row: list[int], output: str, columns: int, constants: dict) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *row])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", columns])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(made, {"clipdrift.profile": '{"task":"binary"}', "clipdrift.temperature": "1.5"})
    return made.SerializeToString()


def answers(content: bytes, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"x": x[row : row + 1]})[0] for row in range(len(x))])


@pytest.fixture(scope="module")
def original() -> bytes:
    return recurrent("LSTM")


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (2000, STEPS, FEATURES)).astype("f4")


@pytest.fixture(scope="module")
def labels(original: bytes, x: np.ndarray) -> np.ndarray:
    """Drawn from the model's own probabilities, so that it is the best there can be."""
    return (np.random.default_rng(2).random(len(x)) < answers(original, x)[:, 1]).astype(int)


def test_an_lstm_becomes_smaller_and_answers_as_well(original: bytes, x: np.ndarray, labels: np.ndarray) -> None:
    made = quantise(original, {"x": x}, labels)
    assert (made.num_bytes, made.num_bytes_before) == (len(made.content), len(original))
    assert made.num_bytes < 0.5 * made.num_bytes_before
    assert made.digest == f"sha256:{hashlib.sha256(made.content).hexdigest()}"
    assert {node.op_type for node in onnx.load_from_string(made.content).graph.node} >= {"DynamicQuantizeLSTM"}
    probabilities_NK = answers(made.content, x)
    assert 0 < np.abs(probabilities_NK - answers(original, x)).max() < 0.05
    # The figures, worked out here from the answers of the file itself.
    own_N = probabilities_NK[np.arange(len(x)), labels].astype(float)
    assert made.quality.accuracy == (probabilities_NK.argmax(axis=1) == labels).mean()
    assert made.quality.nll == pytest.approx(-np.log(own_N).mean(), rel=1e-6)
    assert made.quality_before.nll == pytest.approx(-np.log(answers(original, x)[np.arange(len(x)), labels]).mean(), rel=1e-5)
    assert abs(made.quality.nll - made.quality_before.nll) < 0.005
    assert min(made.seconds, made.seconds_before) > 0


def test_metadata_is_kept_and_the_original_named(original: bytes, x: np.ndarray, labels: np.ndarray) -> None:
    made = onnx.load_from_string(quantise(original, {"x": x}, labels).content)
    assert {entry.key: entry.value for entry in made.metadata_props} == {
        "clipdrift.profile": '{"task":"binary"}',
        "clipdrift.temperature": "1.5",
        QUANTISED_KEY: f"int8 of sha256:{hashlib.sha256(original).hexdigest()}",
    }


def test_the_same_model_gives_the_same_bytes(original: bytes, x: np.ndarray, labels: np.ndarray) -> None:
    assert quantise(original, {"x": x}, labels).digest == quantise(original, {"x": x}, labels).digest


def test_the_answers_kept_are_those_to_each_row_alone(original: bytes, x: np.ndarray, labels: np.ndarray) -> None:
    made = quantise(original, {"x": x}, labels)
    assert np.array_equal(made.answers.astype("f4"), answers(made.content, x))


def test_when_it_passes_the_8_bit_model_is_chosen_and_else_the_original_with_the_reason(
    original: bytes, x: np.ndarray, labels: np.ndarray
) -> None:
    chosen = quantise_when_it_passes(original, {"x": x}, labels)
    assert (chosen.precision, chosen.content) == ("int8", quantise(original, {"x": x}, labels).content)
    assert "kB" in chosen.words
    assert "accuracy" in chosen.words
    for kept, words in (
        (quantise_when_it_passes(original, {"x": x}, labels, QuantisePolicy(min_rows=10**6)), "at least 1000000 rows"),
        (quantise_when_it_passes(recurrent("GRU"), {"x": x}, labels), "a GRU cannot be quantised"),
    ):
        assert (kept.precision, kept.answers) == ("float32", None)
        assert words in kept.words
    assert kept.content == recurrent("GRU")


def test_a_value_is_judged_by_its_root_mean_squared_error(x: np.ndarray) -> None:
    content = recurrent("LSTM", output="value")
    truth_N = answers(content, x)[:, 0] + np.random.default_rng(3).normal(0, 1, len(x))
    made = quantise(content, {"x": x}, truth_N)
    assert made.quality.rmse == pytest.approx(np.sqrt(np.mean((answers(made.content, x)[:, 0] - truth_N) ** 2)), rel=1e-6)
    exact_N = answers(content, x)[:, 0].astype(float)  # the original makes no error, so any error is more than 1 % worse
    with pytest.raises(QuantiseError, match="rmse"):
        quantise(content, {"x": x}, exact_N)


def test_a_model_that_8_bits_make_worse_is_refused(x: np.ndarray) -> None:
    chaotic = recurrent("LSTM", spread=4.0)  # weights so large that each step multiplies what rounding did
    labels = answers(chaotic, x).argmax(axis=1)
    with pytest.raises(QuantiseError, match=r"worse: accuracy 1 -> 0\.\d+"):
        quantise(chaotic, {"x": x}, labels)


def test_a_likelihood_that_falls_is_refused_though_accuracy_stays(original: bytes, x: np.ndarray, labels: np.ndarray) -> None:
    plain = quantise(original, {"x": x}, labels)
    assert plain.quality.nll != plain.quality_before.nll
    worse_N = answers(plain.content, x)[:, 1] < answers(original, x)[:, 1]  # label each row by what 8 bits made less likely
    with pytest.raises(QuantiseError, match="negative log-likelihood"):
        quantise(original, {"x": x}, worse_N.astype(int), QuantisePolicy(max_accuracy_loss=0.99, max_nll_increase=0.0))


def test_a_perceptron_and_a_gru_are_refused_with_the_reason(x: np.ndarray) -> None:
    labels = np.zeros(len(x))
    weight = {"w": np.ones((FEATURES, 2), "f4")}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["probabilities"])]
    with pytest.raises(QuantiseError, match="only for LSTM layers, and this model has none; keep"):
        quantise(model(nodes, [FEATURES], "probabilities", 2, weight), {"x": x[:, 0]}, labels)
    with pytest.raises(QuantiseError, match="a GRU cannot be quantised"):
        quantise(recurrent("GRU"), {"x": x}, labels)


def test_a_model_that_does_not_become_smaller_is_refused(x: np.ndarray) -> None:
    with pytest.raises(QuantiseError, match="do not make it smaller"):
        quantise(recurrent("LSTM", hidden=1), {"x": x}, np.zeros(len(x)))


def test_rows_and_labels_that_do_not_fit_are_bad_arguments(original: bytes, x: np.ndarray, labels: np.ndarray) -> None:
    for rows, given, reason in (
        ({"x": x[:-1]}, labels, "equally many"),
        ({"x": x[:10]}, labels[:10], "at least 500 rows"),
        ({"x": x}, np.where(labels, np.nan, 0), "finite; row"),
        ({"x": x}, labels + 1, "class indices 0 to 1"),
        ({"x": x}, labels + 0.5, "class indices 0 to 1"),
        ({}, labels, "equally many"),
    ):
        with pytest.raises(ValueError, match=reason):
            quantise(original, rows, given)


@pytest.mark.parametrize("field", ["max_accuracy_loss", "max_nll_increase", "max_error_increase_ratio"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_tolerances_are_shares(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        QuantisePolicy(**{field: value})


def test_it_runs_without_torch() -> None:
    program = "import sys; sys.modules['torch'] = None; import clipdrift_trainer.quantise"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
