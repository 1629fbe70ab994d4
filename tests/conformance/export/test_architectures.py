"""Every architecture, one suite: the file answers as torch does, is the same each time, and may serve."""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from architectures import ARCHITECTURES, Kit

from clipdrift_serving.dataplane.trial import check_graph
from clipdrift_trainer import export
from clipdrift_trainer.conversion import capture, trace
from clipdrift_trainer.export import score_rows

OTHER_KINDS = [(name, kind) for name in ("perceptron", "lstm", "heads") for kind in ("multiclass", "regression")]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=[*((name, "binary") for name in ARCHITECTURES), *OTHER_KINDS], ids=" ".join, scope="module")
def made(request, _one_thread):
    """A kit, its file, the file made once more, and the weights from before both; by the quick exporter alone."""
    name, kind = request.param
    kit = Kit(ARCHITECTURES[name], kind, 5 if kind == "multiclass" else 2)
    before = {name: tensor.clone() for name, tensor in kit.module.state_dict().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "CONVERTERS", (trace, _unneeded))
        return kit, kit.content(), kit.content(), before


def _unneeded(question):
    raise AssertionError("the quick exporter does not suffice")


@pytest.mark.parametrize("num_rows", [1, 2, 7, 128])
def test_it_answers_as_torch_does_also_what_is_missing_or_unknown(made, num_rows):
    kit, content, *_ = made
    rows = kit.task.make(num_rows, seed=9)  # rows that the export has not seen
    rows.features["pressure"][:1] = np.nan
    rows.features["trace"][-1:] = np.nan
    rows.features["site"][:1] = "nowhere"

    answers = score_rows(content, kit.task.features, rows)

    assert np.abs(answers - kit.scores(rows)).max() <= 1e-5


def test_the_last_step_and_the_temperature_are_inside(made):
    kit, content, *_ = made
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    width = 1 if kit.task.kind == "regression" else len(kit.task.classes)
    assert (output.type, output.shape) == ("tensor(float)", ["batch", width])
    if kit.task.kind != "regression":
        assert np.abs(score_rows(content, kit.task.features, kit.rows).sum(axis=1) - 1).max() < 1e-6


def test_it_takes_raw_features_by_name(made):
    content = made[1]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert {value.name: (value.type, value.shape) for value in session.get_inputs()} == {
        "site": ("tensor(string)", ["batch"]),
        "pressure": ("tensor(float)", ["batch"]),
        "trace": ("tensor(float)", ["batch", 8, 3]),
    }


def test_the_same_module_gives_the_same_bytes(made):
    _, content, again, _ = made
    assert again == content


def test_the_module_is_left_as_it_was(made):
    kit, _, _, before = made
    assert not any(part.training for part in kit.module.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in kit.module.state_dict().items())


def test_serving_admits_it(made):
    check_graph(made[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torchs_newer_exporter_would_do_as_well(name, monkeypatch):
    monkeypatch.setattr(export, "CONVERTERS", (capture,))
    kit = Kit(ARCHITECTURES[name])
    content = kit.content()
    assert np.abs(score_rows(content, kit.task.features, kit.rows) - kit.scores(kit.rows)).max() <= 1e-5
    assert kit.content() == content
    assert str(Path(__file__).parent).encode() not in content  # where the code lies is nobody's business
    check_graph(content)
