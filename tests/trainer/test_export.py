"""The exported file says what torch says, about raw features, and nothing else is let through."""

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from toy_task import Toy

from clipdrift_contract.events import ClipSpec
from clipdrift_contract.profile import FeatureSpec
from clipdrift_trainer import export
from clipdrift_trainer.conversion import Question, trace
from clipdrift_trainer.export import build_onnx, parse_artifact, read_artifact, score_rows, write_artifact
from clipdrift_trainer.export_error import ExportError
from clipdrift_trainer.inference import open_session
from clipdrift_trainer.lineage import Lineage
from clipdrift_trainer.profiling import make_profile
from clipdrift_trainer.quantise import QUANTISED_KEY
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.task import BuildContext, Rows, encode, vocabularies_of

LINEAGE = Lineage(
    run_id="v", model="pump", version="v", data_start_ms=0, data_end_ms=1, as_of_ms=1, data_digest="sha256:0",
    code_revision="abc", seed=0, arm="", clip=ClipSpec(),
)  # fmt: skip


class Kit:
    """A built (not fitted) module with everything that an export asks for."""

    def __init__(self, task: Toy, folder: Path) -> None:
        self.task, self.path = task, folder / "model.onnx"
        self.rows = task.make(5)
        self.words = vocabularies_of(task, self.rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.module = task.build(BuildContext(self.rows, self.words)).eval()

    def scores(self, rows: Rows, temperature: float = 1.0) -> np.ndarray:
        return to_scores(predict_logits(self.module, encode(self.task, rows, self.words)), self.task.kind, temperature)

    def export(self, temperature: float = 1.0, module: nn.Module | None = None, path: Path | None = None) -> Any:
        content = build_onnx(
            self.task, module or self.module, self.rows, self.words,
            profile=make_profile(self.task, self.rows, self.scores(self.rows), self.words),
            lineage=LINEAGE, temperature=temperature,
        )  # fmt: skip
        return write_artifact(path or self.path, content)


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return Kit(Toy(), tmp_path)


@pytest.mark.parametrize("num_rows", [1, 2, 7, 128])
def test_onnx_and_torch_agree_on_raw_rows_of_any_batch(kit: Kit, num_rows: int) -> None:
    kit.export(temperature=1.7)
    some = kit.rows.select(np.arange(num_rows))

    answers = score_rows(kit.path.read_bytes(), kit.task.features, some)

    assert np.abs(answers - kit.scores(some, 1.7)).max() <= 1e-5
    assert np.allclose(answers.sum(axis=1), 1.0, atol=1e-6)


def test_a_category_never_seen_gets_the_code_behind_the_last_and_missing_numbers_pass_through(kit: Kit) -> None:
    kit.export()
    rows = kit.rows.select(np.arange(3))
    rows.features["site"][:] = ["", "Zürich ✈", "north"]
    rows.features["pressure"][:] = np.nan

    answers = score_rows(kit.path.read_bytes(), kit.task.features, rows)

    assert encode(kit.task, rows, kit.words)["site"].tolist()[:2] == [2, 2]
    assert np.abs(answers - kit.scores(rows)).max() <= 1e-5


def test_inputs_carry_the_users_names_and_only_the_batch_is_dynamic(kit: Kit) -> None:
    kit.export()
    session = onnxruntime.InferenceSession(kit.path.read_bytes(), providers=["CPUExecutionProvider"])

    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == {
        "site": ("tensor(string)", ["batch"]),
        "pressure": ("tensor(float)", ["batch"]),
        "trace": ("tensor(float)", ["batch", 4, 2]),
    }
    assert [(value.name, value.shape) for value in session.get_outputs()] == [("probabilities", ["batch", 2])]


def test_regression_gives_one_value_a_row(tmp_path: Path) -> None:
    class Level(Toy):
        kind = "regression"
        classes = ()

    kit = Kit(Level(), tmp_path)
    kit.export()

    answers = score_rows(kit.path.read_bytes(), kit.task.features, kit.rows)

    assert answers.shape == (len(kit.rows), 1)
    assert np.abs(answers - kit.scores(kit.rows)).max() <= 1e-5


def test_no_rows_give_no_answers(kit: Kit) -> None:
    # a recurrent network on an empty batch aborts ONNX Runtime's whole process
    kit.export()

    assert score_rows(kit.path.read_bytes(), kit.task.features, kit.rows.select(np.arange(0))).shape == (0, 2)


def test_what_was_written_can_be_read_back(kit: Kit) -> None:
    artifact = kit.export(temperature=1.25)

    assert read_artifact(kit.path) == artifact
    assert (artifact.temperature, artifact.lineage) == (1.25, LINEAGE)
    assert artifact.profile.num_rows == len(kit.rows)


def test_the_same_module_gives_the_same_bytes(kit: Kit, tmp_path: Path) -> None:
    first = kit.export()
    second = kit.export(path=tmp_path / "again" / "model.onnx")

    assert first.digest == second.digest


def test_another_process_gives_the_same_bytes_and_opts_out_of_telemetry_before_onnx_runtime_is_imported(
    kit: Kit, tmp_path: Path
) -> None:
    code = (
        "import os, sys, pathlib; sys.path[:0] = sys.argv[2:]; import clipdrift_trainer.export;"
        "import test_export, toy_task, torch; torch.set_num_threads(1);"
        "print(os.environ['ORT_DISABLE_TELEMETRY'], test_export.Kit(toy_task.Toy(), pathlib.Path(sys.argv[1])).export().digest)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    arguments = [sys.executable, "-c", code, str(tmp_path / "other"), str(Path(__file__).parent)]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)

    assert ran.stdout.split() == ["1", kit.export().digest]


def test_a_version_is_never_overwritten(kit: Kit) -> None:
    artifact = kit.export()
    kit.export()

    with pytest.raises(ExportError, match="exists with other content"):
        kit.export(temperature=2.0)
    assert read_artifact(kit.path).digest == artifact.digest


def test_a_file_that_differs_from_torch_is_refused(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    def slightly_off(question: Question) -> onnx.ModelProto:
        return trace(question._replace(temperature=question.temperature * 1.001))

    monkeypatch.setattr(export, "CONVERTERS", (slightly_off, slightly_off))
    with pytest.raises(ExportError, match="differs from torch by"):
        kit.export()
    assert not kit.path.exists()


def test_a_module_whose_answer_hangs_on_the_size_of_the_batch_is_refused(kit: Kit) -> None:
    class Scaled(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.inner(features) * float(len(features["pressure"]))

    with pytest.raises(ExportError, match="a row alone"):
        kit.export(module=Scaled(kit.module))


def test_a_module_that_answers_nan_is_refused(kit: Kit) -> None:
    with torch.no_grad():
        kit.module.layers[2].bias.fill_(float("nan"))

    with pytest.raises(ExportError, match="NaN or infinity for 64 of 64 rows"):
        kit.export()


def test_a_module_that_does_not_trace_is_refused_with_torchs_reason(kit: Kit) -> None:
    class Unexportable(nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
            raise RuntimeError("no such operator")

    with pytest.raises(ExportError, match="no such operator"):
        kit.export(module=Unexportable())


def test_a_feature_that_the_module_never_reads_is_named(tmp_path: Path) -> None:
    class Wider(Toy):
        features: ClassVar[tuple[FeatureSpec, ...]] = (*Toy.features, FeatureSpec(name="idle", kind="numeric"))

        def make(self, num_days: int) -> Rows:
            rows = super().make(num_days)
            rows.features["idle"] = np.ones(len(rows), np.float32)
            return rows

    with pytest.raises(ExportError, match="idle"):
        Kit(Wider(), tmp_path).export()


def test_too_few_rows_to_check_with_are_refused(kit: Kit) -> None:
    kit.rows = kit.rows.select(np.arange(1))

    with pytest.raises(ExportError, match="at least 2 rows"):
        kit.export()


def test_a_file_of_another_origin_is_refused(kit: Kit, tmp_path: Path) -> None:
    kit.export()
    model = onnx.load(kit.path)
    del model.metadata_props[:]

    with pytest.raises(ExportError, match="not a model that Clipdrift exported"):
        parse_artifact(kit.path, model.SerializeToString())
    with pytest.raises(ExportError, match="not a model that Clipdrift exported"):
        parse_artifact(kit.path, b"\x00garbage")
    with pytest.raises(ExportError, match="cannot be read"):
        read_artifact(tmp_path / "nowhere.onnx")


def test_what_torch_says_about_its_own_layers_does_not_reach_the_user(kit: Kit, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kit.export()

    assert capfd.readouterr() == ("", "")


def test_an_8_bit_file_is_asked_row_by_row(kit: Kit) -> None:
    kit.export()
    model = onnx.load(kit.path)
    model.metadata_props.add(key=QUANTISED_KEY, value="int8 of another")

    class Counting:
        """A session that keeps the sizes of its batches."""

        def __init__(self) -> None:
            self.session, self.sizes = open_session(model.SerializeToString()), []

        def __getattr__(self, name: str) -> Any:
            return getattr(self.session, name)

        def run(self, names: Any, given: dict[str, np.ndarray]) -> Any:
            self.sizes.append(len(given["pressure"]))
            return self.session.run(names, given)

    counting = Counting()
    export._answer(counting, kit.task.features, kit.rows.select(np.arange(5)))

    assert counting.sizes == [1] * 5
