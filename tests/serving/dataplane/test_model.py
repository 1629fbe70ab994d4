"""A loaded version: what it refuses, what it measures of itself, which outputs it watches, what it scores."""

import math
import os
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from clipdrift_contract.events import ServedVersion
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile, SliceSpec
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.measuring import make_rows, measure
from clipdrift_serving.dataplane.model import AdmissionPolicy, ArtifactError, Graph, LoadedModel
from clipdrift_serving.dataplane.tensors import DTYPES, InputSpec

sys.path.insert(0, str(Path(__file__).parent))
import models
from models import BINARY, FLOAT, REGRESSION

X = np.array([[1.0, 3.0], [2.0, -1.0]], "f4")


def load(model: onnx.ModelProto | bytes, folder: Path) -> LoadedModel:
    return LoadedModel("m", models.save(model, folder))


def refusal(model: onnx.ModelProto | bytes, folder: Path) -> str:
    with pytest.raises(ArtifactError) as raised:
        load(model, folder)
    return str(raised.value)


# --- what is refused --------------------------------------------------------------------------------------------------------


def test_a_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    served = models.save(models.doubled(), tmp_path)
    (tmp_path / "v1.onnx").write_bytes(models.softmax(1).SerializeToString())
    with pytest.raises(ArtifactError, match="was changed"):
        LoadedModel("m", served)


@pytest.mark.parametrize(
    "uri", ["http://models/v1.onnx", "s3://models/v1.onnx", "v1.onnx", "file:///nowhere/v1.onnx", "file:///"]
)
def test_an_address_that_is_no_file_here_is_refused(uri: str) -> None:
    with pytest.raises(ArtifactError):
        LoadedModel("m", ServedVersion(version="v1", uri=uri, digest="sha256:0"))


@pytest.mark.parametrize("name", ["../etc", "a/b", "", "x" * 65, "a b"])
def test_a_name_that_cannot_stand_in_an_address_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="1 to 64"):
        LoadedModel(name, models.save(models.doubled(), tmp_path))


def test_a_pipe_or_a_device_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v1.onnx")  # whoever opened it would wait for ever
    for path in (tmp_path / "v1.onnx", Path("/dev/zero")):
        with pytest.raises(ArtifactError, match="not a regular file"):
            LoadedModel("m", ServedVersion(version="v1", uri=path.as_uri(), digest="sha256:0"))


def test_a_file_above_the_size_cap_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "v1.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole of a terabyte
    with pytest.raises(ArtifactError, match="larger than 1000 bytes"):
        LoadedModel(
            "m", ServedVersion(version="v1", uri=path.as_uri(), digest="sha256:0"), AdmissionPolicy(max_model_bytes=1000)
        )


def test_the_runtimes_own_format_is_refused_also_behind_the_face_of_an_onnx_file(tmp_path: Path) -> None:
    # Field 2 (the producer's name) first: valid protobuf whose bytes 4 to 8 are the other format's mark.
    content = b"\x12\x06xxORTM" + models.doubled().SerializeToString()
    assert onnx.ModelProto.FromString(content).graph.node[0].op_type == "Add"
    assert ".ort" in refusal(content, tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 64])
def test_a_file_that_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "cannot be loaded" in refusal(content, tmp_path)


def test_a_model_with_nothing_to_watch_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "x"], ["label"])
    shape = {"x": (TensorProto.INT64, ["batch"])}
    assert "no output of floats" in refusal(models.make([node], shape, {"label": (TensorProto.INT64, ["batch"])}), tmp_path)


def test_a_model_without_an_axis_for_the_rows_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x", "x"], ["value"])
    assert "no axis" in refusal(models.make([node], {"x": (FLOAT, [])}, {"value": (FLOAT, [])}), tmp_path)


def test_a_slice_by_what_is_no_input_is_refused(tmp_path: Path) -> None:
    profile = ReferenceProfile(task="regression", slices=SliceSpec(feature="ghost", categories=("a",)))
    node = helper.make_node("Add", ["x", "x"], ["value"])
    made = models.make([node], {"x": (FLOAT, ["b"])}, {"value": (FLOAT, ["b"])}, metadata={"clipdrift.profile": profile})
    assert "ghost" in refusal(made, tmp_path)


# --- types ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT32", "INT64", "UINT8", "INT8", "UINT64"])
def test_each_number_type_runs_and_is_measured(datatype: str, tmp_path: Path) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(DTYPES[datatype]))
    model = load(models.doubled(kind), tmp_path)
    assert model.inputs["x"].datatype == datatype
    assert model.measured.is_batchable
    x_NK = np.array([[1, 2, 3], [4, 5, 6]], DTYPES[datatype])
    predicted_N, scores_NK = model.predictions(model.infer({"x": x_NK}), 2)
    assert predicted_N.tolist() == [2.0, 8.0]
    assert (scores_NK.dtype, scores_NK.tolist()) == (np.float32, [[2, 4, 6], [8, 10, 12]])


def test_a_value_of_64_bits_keeps_them(tmp_path: Path) -> None:
    model = load(models.doubled(TensorProto.DOUBLE), tmp_path)
    for num_rows in (1, 2):
        predicted_N, _ = model.predictions(model.infer({"x": np.full((num_rows, 3), 0.1)}), num_rows)
        assert predicted_N.tolist() == [0.2] * num_rows


def test_words_run_and_are_measured(tmp_path: Path) -> None:
    model = load(models.words(), tmp_path)
    assert (model.inputs["word"].datatype, model.measured.is_batchable) == ("BYTES", True)
    outputs = model.infer({"word": np.array(["b", "never seen", "a"], object)})
    assert model.predictions(outputs, 3)[0].tolist() == [1.0, 2.0, 0.0]


def test_an_index_beyond_the_table_is_the_callers_mistake(tmp_path: Path) -> None:
    model = load(models.embedded(5), tmp_path)
    assert model.measured.is_batchable
    with pytest.raises(RequestError) as raised:
        model.infer({"index": np.array([5])})
    assert raised.value.fault == "bad_input"


# --- what is measured -------------------------------------------------------------------------------------------------------


def test_rows_that_change_each_others_answers_are_not_batched(tmp_path: Path) -> None:
    assert load(models.softmax(1), tmp_path).measured.is_batchable
    assert not load(models.softmax(0), tmp_path).measured.is_batchable


def test_an_8_bit_lstm_whose_rows_share_a_scale_is_not_batched(tmp_path: Path) -> None:
    model = load(models.int8_lstm(tmp_path), tmp_path)
    assert not model.measured.is_batchable
    assert load(models.lstm(), tmp_path).measured.is_batchable


def test_a_row_that_fails_by_itself_is_not_batched() -> None:
    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(inputs["x"]) == 1 and inputs["x"][0] != first:
            raise RuntimeError("not alone")
        return {"value": inputs["x"]}

    specs = {"x": InputSpec("x", "FP32", ["b"], is_nullable=False)}
    first = make_rows(specs, 32, None)["x"][0]
    measured = measure(run, specs, fixed_rows=0, profile=None, budget_seconds=0.0)
    assert (measured.is_batchable, measured.batch_rows) == (False, 0)


def test_an_output_of_the_whole_batch_is_not_batched(tmp_path: Path) -> None:
    assert not load(models.pooled(), tmp_path).measured.is_batchable


def test_a_fixed_batch_is_not_batched_and_remembered(tmp_path: Path) -> None:
    model = load(models.doubled(batch=4), tmp_path)
    assert (model.measured.is_batchable, model.measured.fixed_rows) == (False, 4)
    assert len(model.infer({"x": np.ones((4, 3), "f4")})["value"]) == 4
    with pytest.raises(RequestError):
        model.infer({"x": np.ones((5, 3), "f4")})


def test_a_model_that_runs_only_on_zeros_is_not_batched(tmp_path: Path) -> None:
    assert load(models.embedded(2), tmp_path).measured.is_batchable
    assert not load(models.embedded(1), tmp_path).measured.is_batchable  # an index of 1 is beyond its table


def test_a_slow_model_is_measured_as_slow() -> None:
    turns = 0

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal turns
        turns += 1
        return {"value": np.array([sum(range(200_000))] * len(inputs["x"]), "f4")}  # milliseconds of work

    specs = {"x": InputSpec("x", "FP32", ["b"], is_nullable=False)}
    measured = measure(run, specs, fixed_rows=0, profile=None, budget_seconds=0.0)
    assert measured.seconds_per_run > 1e-4
    assert turns < 20, "what is slow is not run often"


def test_what_runs_on_no_row_says_what_the_runtime_said() -> None:
    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise RuntimeError("no such row")

    specs = {"x": InputSpec("x", "FP32", ["b"], is_nullable=False)}
    with pytest.raises(ValueError, match="no such row"):
        measure(run, specs, fixed_rows=0, profile=None, budget_seconds=0.0)


def test_made_up_rows_follow_the_profile() -> None:
    features = (
        FeatureProfile(
            spec=FeatureSpec(name="x", kind="numeric", nullable=True), edges=(900.0, 1000.0, 1100.0), counts=(0, 5, 5, 0)
        ),
        FeatureProfile(spec=FeatureSpec(name="word", kind="categorical"), categories=("a", "b"), counts=(1, 1, 0)),
        FeatureProfile(spec=FeatureSpec(name="hour", kind="numeric"), edges=(5.0, 6.0), counts=(0, 1, 0)),
    )
    specs = {
        "x": InputSpec("x", "FP32", ["n"], is_nullable=True),
        "word": InputSpec("word", "BYTES", ["n"], is_nullable=False),
        "hour": InputSpec("hour", "INT64", ["n"], is_nullable=False),
        "other": InputSpec("other", "FP32", ["n", 2, 3], is_nullable=False),
    }
    rows = make_rows(specs, 64, ReferenceProfile(task="regression", features=features))
    x_N = rows["x"]
    assert np.isnan(x_N).sum() == 16
    assert ((np.nan_to_num(x_N, nan=950) >= 900) & (np.nan_to_num(x_N, nan=950) <= 1100)).all()
    assert set(rows["word"]) == {"a", "b", ""}
    assert set(rows["hour"]) <= {5, 6}
    assert rows["other"].shape == (64, 2, 3)
    again = make_rows(specs, 64, ReferenceProfile(task="regression", features=features))
    assert all(np.array_equal(again[name], rows[name], equal_nan=name == "x") for name in rows)


def test_rows_that_are_nan_in_both_ways_are_the_same_rows(tmp_path: Path) -> None:
    assert load(models.profiled(), tmp_path).measured.is_batchable  # a missing value gives NaN


# --- heads ------------------------------------------------------------------------------------------------------------------


def test_one_output_is_one_head_named_after_the_model(tmp_path: Path) -> None:
    (head,) = load(models.doubled(), tmp_path).heads
    assert (head.name, head.output, head.column, head.is_value) == ("m", "value", None, True)
    assert head.profile == REGRESSION


def test_each_further_profile_is_a_head_behind_the_main_one(tmp_path: Path) -> None:
    model = load(
        models.several(
            {
                "clipdrift.profile": BINARY,
                "clipdrift.profile.arrival.0": REGRESSION,
                "clipdrift.profile.arrival.1": REGRESSION,
                "clipdrift.profile.delay": REGRESSION,
            }
        ),
        tmp_path,
    )
    named = [(head.name, head.output, head.column, head.is_value) for head in model.heads]
    assert named == [
        ("m", "probabilities", None, False),
        ("m.arrival.0", "arrival", 0, True),
        ("m.arrival.1", "arrival", 1, True),
        ("m.delay", "delay", None, True),
    ]
    for num_rows in (1, 2):
        outputs = model.infer({"x": X[:num_rows]})
        scored = {head.name: head.scores(outputs, num_rows) for head in model.heads}
        assert scored["m"][0].tolist() == [1.0, 0.0][:num_rows]
        assert scored["m.arrival.0"][0].tolist() == [10.0, 20.0][:num_rows]
        assert scored["m.arrival.1"][1].tolist() == [[30.0], [-10.0]][:num_rows]
        assert scored["m.delay"][0].tolist() == [2.0, 3.0][:num_rows]


def test_missing_values_are_allowed_where_any_head_allows_them(tmp_path: Path) -> None:
    spec = FeatureSpec(name="x", kind="sequence", nullable=True, shape=(2,))
    further = ReferenceProfile(task="regression", features=(FeatureProfile(spec=spec),))
    assert load(models.several({"clipdrift.profile.delay": further}), tmp_path).inputs["x"].is_nullable


@pytest.mark.parametrize("key", ["ghost", "arrival.2", "arrival.-1", "arrival.x", "ghost.0", "arrival.", "arrival.99999999"])
def test_a_profile_of_an_output_that_is_not_there_is_refused(key: str, tmp_path: Path) -> None:
    made = models.several({f"clipdrift.profile.{key}": REGRESSION})
    assert f"clipdrift.profile.{key}" in refusal(made, tmp_path)


def test_a_profile_with_other_classes_than_columns_is_refused(tmp_path: Path) -> None:
    three = ReferenceProfile(task="multiclass", classes=("a", "b", "c"))
    assert "2 columns" in refusal(models.several({"clipdrift.profile": three}), tmp_path)
    assert "one column" in refusal(models.several({"clipdrift.profile.delay": BINARY}), tmp_path)


def test_columns_that_the_file_leaves_open_are_counted_in_an_answer(tmp_path: Path) -> None:
    made = models.several({"clipdrift.profile.arrival.1": REGRESSION}, num_columns="open")
    assert load(made, tmp_path).heads[1].name == "m.arrival.1"
    assert "2 columns" in refusal(models.several({"clipdrift.profile.arrival.2": REGRESSION}, num_columns="open"), tmp_path)


def test_a_profile_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    model = models.doubled()
    model.metadata_props[0].value = '{"task": "astrology"}'
    assert "cannot be loaded" in refusal(model, tmp_path)


# --- scores -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_columns", [1, 2, 5, 40])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_one_row_is_scored_as_many_are(num_columns: int, dtype: str, tmp_path: Path) -> None:
    """The quick way for one row against numpy over all rows, ties and zeros included."""
    classes = tuple(f"c{i}" for i in range(num_columns))
    profile = {"clipdrift.profile": ReferenceProfile(task="multiclass", classes=classes)} if num_columns > 1 else {}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    node = helper.make_node("Identity", ["x"], ["probabilities"])
    shape = ["batch", num_columns]
    model = load(models.make([node], {"x": (kind, shape)}, {"probabilities": (kind, shape)}, metadata=profile), tmp_path)
    x_NK = np.random.default_rng(0).integers(-2, 3, (200, num_columns)).astype(dtype)
    predicted_N, scores_NK = model.predictions(model.infer({"x": x_NK}), 200)
    assert (predicted_N == (x_NK[:, 0] if num_columns == 1 else x_NK.argmax(axis=1))).all()
    assert (scores_NK == x_NK).all()
    assert (predicted_N.dtype, scores_NK.dtype) == (np.float64, np.float32)
    for row in range(200):
        one, scores_1K = model.predictions(model.infer({"x": x_NK[row : row + 1]}), 1)
        assert (one.dtype, scores_1K.dtype) == (np.float64, np.float32)
        assert one.tolist() == predicted_N[row : row + 1].tolist()
        assert scores_1K.tolist() == scores_NK[row : row + 1].tolist()


@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf, 1e39, -1e39])
@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("column", [0, 2])
def test_an_answer_that_is_not_finite_in_32_bits_is_none(worst: float, num_rows: int, column: int, tmp_path: Path) -> None:
    model = load(models.doubled(TensorProto.DOUBLE), tmp_path)
    x_NK = np.ones((num_rows, 3))
    x_NK[-1, column] = worst
    with pytest.raises(RequestError, match=f"row {num_rows - 1}") as raised:
        model.predictions(model.infer({"x": x_NK}), num_rows)
    assert raised.value.fault == "no_answer"


@pytest.mark.parametrize("opposite", [[math.inf, -math.inf, 0], [3e38, 3e38, 3e38], [-3e38, 3e38, 3e38]])
def test_sums_do_not_hide_or_invent_infinity(opposite: list[float], tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["value"])
    model = load(models.make([node], {"x": (FLOAT, ["n", 3])}, {"value": (FLOAT, ["n", 3])}), tmp_path)
    outputs = model.infer({"x": np.array([opposite], "f4")})
    if math.inf in opposite:
        with pytest.raises(RequestError):
            model.predictions(outputs, 1)
    else:
        assert model.predictions(outputs, 1)[0].tolist() == [float(np.argmax(opposite))]


@pytest.mark.parametrize("answered", [0, 2, 5])
def test_an_answer_of_another_number_of_rows_is_none(answered: int, tmp_path: Path) -> None:
    model = load(models.softmax(1), tmp_path)
    with pytest.raises(RequestError, match=f"{answered} rows to 1"):
        model.predictions({"probabilities": np.zeros((answered, 2), "f4")}, 1)


def test_an_output_of_more_axes_is_scored_flat(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["x"], ["value"])
    shape = (FLOAT, ["n", 2, 2])
    model = load(models.make([node], {"x": shape}, {"value": shape}), tmp_path)
    predicted_N, scores_NK = model.predictions(model.infer({"x": np.array([[[1, 2], [9, 4]]], "f4")}), 1)
    assert (predicted_N.tolist(), scores_NK.tolist()) == ([2.0], [[1, 2, 9, 4]])


# --- slices -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slices", "values"),
    [
        (SliceSpec(feature="x", edges=(6.0, 18.0)), [5.0, 6.0, 17.9, 18.0, math.nan, -0.0, 1e38]),
        (SliceSpec(feature="x", edges=(0.1,)), [0.1, np.nextafter(np.float32(0.1), np.float32(0)), 0.0, math.nan]),
    ],
)
def test_slices_by_ranges_are_those_of_the_contract(slices: SliceSpec, values: list[float], tmp_path: Path) -> None:
    profile = ReferenceProfile(task="regression", slices=slices)
    node = helper.make_node("Add", ["x", "x"], ["value"])
    made = models.make([node], {"x": (FLOAT, ["b"])}, {"value": (FLOAT, ["b"])}, metadata={"clipdrift.profile": profile})
    model = load(made, tmp_path)
    x_N = np.array(values, "f4")
    expected_N = slices.index(x_N)
    assert model.slice_index({"x": x_N}, len(x_N)).tolist() == expected_N.tolist()
    for row, expected in enumerate(expected_N):
        found = model.slice_index({"x": x_N[row : row + 1]}, 1)
        assert (found.dtype, found.tolist()) == (np.int16, [expected])


def test_slices_by_category_are_those_of_the_contract(tmp_path: Path) -> None:
    slices = SliceSpec(feature="word", categories=("b", "a"))
    model = models.words()
    profile = ReferenceProfile(task="regression", slices=slices)
    helper.set_model_props(model, {"clipdrift.profile": msgspec.json.encode(profile).decode()})
    loaded = load(model, tmp_path)
    words_N = np.array(["a", "b", "c", "", "A"], object)
    for given_N in (words_N, words_N[:1], words_N.astype(str)):
        found_N = loaded.slice_index({"word": given_N}, len(given_N))
        assert (found_N.dtype, found_N.tolist()) == (np.int16, slices.index(given_N).tolist())


def test_without_slices_each_row_is_in_slice_0(tmp_path: Path) -> None:
    found_N = load(models.doubled(), tmp_path).slice_index({"x": X}, 3)
    assert (found_N.dtype, found_N.tolist()) == (np.int16, [0, 0, 0])


def test_a_graph_knows_its_fixed_batch_and_its_profiles() -> None:
    graph = Graph(models.several({"clipdrift.profile": BINARY, "clipdrift.profile.delay": REGRESSION}).SerializeToString())
    assert (graph.fixed_rows, graph.profile, graph.profiles["delay"]) == (0, BINARY, REGRESSION)
    assert Graph(models.doubled(batch=4).SerializeToString()).fixed_rows == 4
