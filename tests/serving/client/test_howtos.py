"""What the how-tos say to type is typed here, on the real server, and does what they say."""

import contextlib
import hashlib
import io
import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from serving_process import Process, wait_until

from clipdrift_contract.events import ServedVersion
from clipdrift_contract.profile import FeatureProfile, FeatureSpec, ReferenceProfile

pytestmark = pytest.mark.system
DOCS = Path(__file__).parents[3] / "docs" / "howto"
NUMBERS = ("pressure", "vibration", "temperature")
PROFILE = ReferenceProfile(
    task="multiclass",
    classes=("fine", "worn", "failing"),
    features=(
        FeatureProfile(spec=FeatureSpec(name="site", kind="categorical"), categories=("north",), counts=(1, 0)),
        *(
            FeatureProfile(
                spec=FeatureSpec(name=name, kind="numeric", nullable=name == "vibration"), edges=(0.0,), counts=(1, 1)
            )
            for name in NUMBERS
        ),
    ),
)


def write_pump(folder: Path) -> ServedVersion:
    """A model with the inputs and classes of the tutorial's; P = softmax of (pressure, vibration or 0, temperature / 61)."""
    inputs = [helper.make_tensor_value_info("site", TensorProto.STRING, ["batch"])]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in NUMBERS]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 3])
    constants = [
        numpy_helper.from_array(np.array(value, dtype), name)
        for name, value, dtype in (("zero", 0.0, "f4"), ("scale", 61.0, "f4"), ("axis", [1], "i8"))
    ]
    nodes = [
        helper.make_node("LabelEncoder", ["site"], ["code"], domain="ai.onnx.ml", keys_strings=["north"], values_floats=[0.0]),
        helper.make_node("Mul", ["code", "zero"], ["nothing"]),
        helper.make_node("Add", ["pressure", "nothing"], ["first"]),
        helper.make_node("IsNaN", ["vibration"], ["is_missing"]),
        helper.make_node("Where", ["is_missing", "zero", "vibration"], ["second"]),
        helper.make_node("Div", ["temperature", "scale"], ["third"]),
        *(helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_2d"]) for name in ("first", "second", "third")),
        helper.make_node("Concat", ["first_2d", "second_2d", "third_2d"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(nodes, "pump", inputs, [output], constants)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {"clipdrift.profile": msgspec.json.encode(PROFILE).decode()})
    content = model.SerializeToString()
    path = folder / "pump.onnx"
    path.write_bytes(content)
    return ServedVersion(version="v1", uri=path.as_uri(), digest=f"sha256:{hashlib.sha256(content).hexdigest()}")


class Reader:
    """Somebody who types what a page says, in order, beside a server that runs."""

    def __init__(self, server: Process) -> None:
        self.server = server
        self.receipt = "AQAA..."

    def types(self, page: str) -> list:
        """What each block of a page gave: JSON of a shell's lines, the printed words of Python's."""
        blocks = re.findall(r"```(sh|python)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
        return [self._shell(code) if kind == "sh" else self._python(code) for kind, code in blocks]

    def _here(self, code: str) -> str:
        later = datetime.now(UTC) + timedelta(hours=1)  # a label comes after its prediction, whenever this runs
        code = re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", later.strftime("%Y-%m-%dT%H:%M:%SZ"), code)
        return code.replace("localhost:8080", f"127.0.0.1:{self.server.port}").replace("AQAA...", self.receipt)

    def _shell(self, code: str) -> list[dict]:
        run = subprocess.run(["bash", "-ec", self._here(code)], capture_output=True, text=True, timeout=20, check=True)
        decoder, answers, text = json.JSONDecoder(), [], run.stdout.strip()
        while text:
            answer, end = decoder.raw_decode(text)
            answers.append(answer)
            text = text[end:].strip()
        for answer in answers:
            receipts = answer.get("receipts") or answer.get("parameters", {}).get("receipts") or [self.receipt]
            self.receipt = receipts[0]
        return answers

    def _python(self, code: str) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(self._here(code), "howto", "exec"), {"__name__": "howto"})
        return printed.getvalue()


@pytest.fixture
def reader(tmp_path):
    server = Process(tmp_path)
    server.start()
    server.deploy(write_pump(tmp_path), 1, model="pump")
    wait_until(server.is_ready)
    yield Reader(server)
    server.close()


def test_predictions_are_asked_for_as_the_page_says(reader):
    (asked,), (labelled,), by_triton, by_client = reader.types("ask-for-predictions.md")

    scores = np.exp([4.1, 1.2, 1.0])
    np.testing.assert_allclose(asked["outputs"][0]["data"], scores / scores.sum(), rtol=1e-5)
    assert len(asked["parameters"]["receipts"]) == 1
    assert labelled == {"accepted": 1, "rejected": []}
    np.testing.assert_allclose(_numbers(by_triton)[:3], scores / scores.sum(), rtol=1e-5)
    assert "probabilities" not in by_triton
    assert by_client.startswith("v1 ")
    np.testing.assert_allclose(_numbers(by_client.partition("[[")[2])[:3], scores / scores.sum(), rtol=1e-5)


def test_labels_are_sent_back_as_the_page_says(reader):
    body = (DOCS / "ask-for-predictions.md").read_text().partition("infer -d '")[2].partition("'\n")[0]
    reader._shell(f"""curl -s localhost:8080/v2/models/pump/infer -d '{body[:-1]}, "id": "order-4711"}}'""")

    by_receipt, by_id, as_file, by_client = reader.types("send-labels-back.md")

    assert by_receipt == by_id == [{"accepted": 1, "rejected": []}]
    assert as_file == [{"accepted": 1, "rejected": [], "num_rejected": 0}]
    assert by_client == "1 ()\n"
    assert json.loads(reader.server.admin("/v1/models")[1])["pump"]["labels"] == 2  # of five: those of one row count once


def test_a_model_that_is_served_elsewhere_is_watched_as_the_page_says(reader):
    ((asked, answered),) = reader.types("watch-a-model-served-elsewhere.md")

    assert asked == {"accepted": 1, "predictions": 0, "receipts": []}
    assert (answered["accepted"], answered["predictions"], len(answered["receipts"])) == (1, 1, 1)
    body = json.dumps({"receipts": answered["receipts"], "labels": ["worn"]}).encode()
    assert json.loads(reader.server.get("/v2/models/pump/feedback", "POST", body)[1])["accepted"] == 1
    assert json.loads(reader.server.admin("/v1/models")[1])["pump"]["live_accuracy"] == 1.0  # 0.7 was worn


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d\.\d+(?:e[+-]\d+)?", text)]
