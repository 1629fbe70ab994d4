"""What is refused by what stands in a file, before any of it runs: in this process, since nothing is loaded."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from clipdrift_serving.dataplane.trial import ALLOWED_OPERATORS, RefusedError, check_graph

sys.path.insert(0, str(Path(__file__).parent))
import models
from models import FLOAT


def refusal(model: onnx.ModelProto | bytes, *operators: str) -> str:
    with pytest.raises(RefusedError) as raised:
        check_graph(model if isinstance(model, bytes) else model.SerializeToString(), operators)
    return str(raised.value)


@pytest.mark.parametrize(
    "model",
    [
        models.doubled(), models.doubled(TensorProto.INT64), models.doubled(TensorProto.FLOAT16), models.words(),
        models.embedded(5), models.pooled(), models.several({}), models.profiled(), models.lstm(), models.doubled(batch=4),
        models.vast(),
    ],
)  # fmt: skip
def test_a_plain_model_is_not_refused_by_what_stands_in_it(model: onnx.ModelProto) -> None:
    check_graph(model.SerializeToString())


def test_an_8_bit_lstm_is_not_refused(tmp_path: Path) -> None:
    check_graph(models.int8_lstm(tmp_path))


def test_damaged_files_are_refused_or_pass_and_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    num_refused = 0
    for whole in (models.lstm(hidden=2), models.endless(), models.words(), models.several({})):
        content = whole.SerializeToString()
        for _ in range(100):
            damaged = bytearray(content)
            for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
                damaged[place] = rng.integers(0, 256)
            try:
                check_graph(bytes(damaged), ["Loop"])
            except RefusedError:
                num_refused += 1
    assert 100 < num_refused < 400


@pytest.mark.parametrize(
    "content", [b"", b"not a model", b"\x00" * 100, b"\xff" * 4096, models.doubled().SerializeToString()[:-9]]
)
def test_bytes_that_are_no_whole_model_are_refused(content: bytes) -> None:
    assert refusal(content)


@pytest.mark.parametrize(
    ("location", "offset", "length"),
    [
        ("../secret.bin", None, None),
        ("inner/folder/../../../secret.bin", None, None),
        ("nested/weights.bin", None, None),
        ("/etc/passwd", None, None),
        ("weights.bin", None, None),  # whether a file, a symbolic link or a hard link lies there
        ("weights.bin", "-4096", "12"),
        ("weights.bin", "0", str(2**62)),
        ("*/_ORT_MEM_ADDR_/*", "94000000000000", "12"),  # the runtime's own mark for an address in memory
        ("", None, None),
    ],
)
def test_data_outside_the_file_is_refused_whatever_its_address(location: str, offset: str | None, length: str | None) -> None:
    assert "outside the file" in refusal(models.outside(location, offset=offset, length=length))


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_data_outside_is_refused_where_a_link_lies(link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(np.zeros(3, "f4").tobytes())
    getattr(tmp_path / "weights.bin", link)(tmp_path / "secret")
    monkeypatch.chdir(tmp_path)  # where the runtime would look
    assert "outside the file" in refusal(models.outside("weights.bin"))


def test_data_outside_is_refused_in_attributes_sparse_tensors_and_inner_graphs() -> None:
    in_attribute = models.make(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(3, "f4"))),
         helper.make_node("Add", ["x", "c"], ["value"])],
        {"x": (FLOAT, ["batch", 3])}, {"value": (FLOAT, ["batch", 3])},
    )  # fmt: skip
    models.point_outside(in_attribute.graph.node[0].attribute[0].t, "../secret.bin")
    assert "outside the file" in refusal(in_attribute)

    sparse = models.doubled()
    models.point_outside(sparse.graph.sparse_initializer.add().values, "../secret.bin")
    assert "outside the file" in refusal(sparse)

    within = models.endless()
    models.point_outside(within.graph.node[0].attribute[0].g.initializer.add(name="c", data_type=FLOAT, dims=[3]), "x")
    assert "outside the file" in refusal(within, "Loop")

    unmarked = models.outside("../secret.bin")
    unmarked.graph.initializer[0].data_location = TensorProto.DEFAULT
    assert "outside the file" in refusal(unmarked)


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "SequenceMap", "RandomNormal", "Optional", "ImageDecoder"])
def test_operators_that_loop_branch_or_draw_are_not_on_the_list(operator: str) -> None:
    assert operator not in ALLOWED_OPERATORS
    node = helper.make_node(operator, ["x"], ["value"])
    assert f"'{operator}' is not allowed" in refusal(models.make([node], {"x": (FLOAT, ["b"])}, {"value": (FLOAT, ["b"])}))


def test_each_operator_on_the_list_exists() -> None:
    known = {f"{one.domain}:{one.name}" if one.domain else one.name for one in onnx.defs.get_all_schemas()}
    assert ALLOWED_OPERATORS - known == {"com.microsoft:DynamicQuantizeLSTM"}


@pytest.mark.parametrize("domain", ["com.microsoft", "my.company", "pkg.onnxscript.torch_lib"])
def test_operators_of_other_domains_are_refused(domain: str) -> None:
    node = helper.make_node("Add", ["x", "x"], ["value"], domain=domain)
    made = models.make([node], {"x": (FLOAT, ["b"])}, {"value": (FLOAT, ["b"])}, domains=[domain])
    assert f"'{domain}:Add' is not allowed" in refusal(made)
    check_graph(made.SerializeToString(), [f"{domain}:Add"])


def test_the_endless_loop_is_refused_by_name_and_passes_the_list_where_loops_are_allowed() -> None:
    assert "'Loop' is not allowed" in refusal(models.endless())
    check_graph(models.endless().SerializeToString(), ["Loop"])


def test_what_a_loop_holds_is_held_to_the_list_too() -> None:
    model = models.endless()
    model.graph.node[0].attribute[0].g.node[1].op_type = "RandomNormalLike"
    assert "'RandomNormalLike' is not allowed" in refusal(model, "Loop")


def test_a_graph_in_the_attribute_of_a_plain_operator_is_refused() -> None:
    model = models.doubled()
    model.graph.node[0].attribute.append(models.endless().graph.node[0].attribute[0])
    assert "graph of its own" in refusal(model)


def test_functions_are_refused() -> None:
    model = models.doubled()
    model.functions.append(
        helper.make_function("own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], model.opset_import)
    )
    assert "Twice" in refusal(model)


def test_a_training_graph_is_refused() -> None:
    model = models.doubled()
    model.training_info.add()
    assert "training" in refusal(model)


@pytest.mark.parametrize("opset", [6, 999])
def test_operator_sets_out_of_bounds_are_refused(opset: int) -> None:
    model = models.doubled()
    model.opset_import[0].version = opset
    assert f"got {opset}" in refusal(model)


@pytest.mark.parametrize("version", [0, 2, 999])
def test_ir_versions_out_of_bounds_are_refused(version: int) -> None:
    model = models.doubled()
    model.ir_version = version
    assert f"got {version}" in refusal(model)


def test_an_operator_set_that_is_imported_twice_under_two_names_is_refused() -> None:
    model = models.doubled()
    model.opset_import.append(helper.make_opsetid("ai.onnx", 9))
    assert "twice" in refusal(model)


def test_a_size_that_comes_from_a_request_is_refused() -> None:
    assert "ConstantOfShape" in refusal(models.treacherous())


def test_inputs_that_are_no_tensors_too_many_or_too_large_are_refused() -> None:
    value = {"value": (FLOAT, ["b", 3])}
    no_tensor = models.doubled()
    no_tensor.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [3])))
    assert "no tensor" in refusal(no_tensor)
    nodes = [helper.make_node("Add", ["x", "x"], ["value"])]
    assert "1 to 8 axes" in refusal(models.make(nodes, {"x": (FLOAT, [])}, {"value": (FLOAT, [])}))
    assert "1 to 8 axes" in refusal(models.make(nodes, {"x": (FLOAT, ["b"] * 9)}, {"value": (FLOAT, ["b"] * 9)}))
    assert "at most" in refusal(models.make(nodes, {"x": (FLOAT, ["b", 2**20, 2**20])}, value))
    many = {f"x{i}": (FLOAT, ["b", 3]) for i in range(2049)}
    assert "2048 inputs" in refusal(models.make([helper.make_node("Add", ["x1", "x2"], ["value"])], many, value))
    assert "0" in refusal(
        models.make([helper.make_node("Constant", [], ["value"], value_float=1.0)], {}, {"value": (FLOAT, [])})
    )


@pytest.mark.parametrize("name", ["x\n", "\x00", "y" * 257])
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    node = helper.make_node("Add", [name, name], ["value"])
    assert "printable" in refusal(models.make([node], {name: (FLOAT, ["b"])}, {"value": (FLOAT, ["b"])}))


def test_the_checker_has_the_last_word() -> None:
    wrong_shape = models.doubled()
    wrong_shape.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 4
    assert "onnx.checker" in refusal(wrong_shape)
    unknown_input = models.doubled()
    unknown_input.graph.node[0].input[1] = "ghost"
    assert "onnx.checker" in refusal(unknown_input)


def test_under_its_limits_a_process_can_neither_write_a_file_nor_take_memory_or_time(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from clipdrift_serving.dataplane import trial\n"
        "trial._limit(3.0, 100)\n"
        "try:\n"
        "    with open(sys.argv[1], 'wb') as file:\n"
        "        file.write(b'x')\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
        "bytearray(50 * 2**20)\n"
        "try:\n"
        "    bytearray(150 * 2**20)\n"
        "except MemoryError:\n"
        "    print('no memory')\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU)[0] < 10, resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    path = tmp_path / "written"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == ["File too large", "no memory", "True (0, 0)"], ended.stderr
    assert path.stat().st_size == 0
