"""The trial as the server starts it. Each test here starts one short process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from clipdrift_serving.dataplane.admission import AdmissionPolicy, ArtifactError, try_out
from clipdrift_serving.dataplane.measuring import Measured
from clipdrift_serving.dataplane.model import LoadedModel

sys.path.insert(0, str(Path(__file__).parent))
import models


def tried(model: onnx.ModelProto | bytes, **policy: object) -> Measured:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return try_out(content, "the file", AdmissionPolicy(**policy))


def refusal(model: onnx.ModelProto | bytes, **policy: object) -> str:
    with pytest.raises(ArtifactError) as raised:
        tried(model, **policy)
    return str(raised.value)


def test_a_good_model_is_admitted_and_measured(tmp_path: Path) -> None:
    model = LoadedModel("m", models.save(models.lstm(), tmp_path), AdmissionPolicy())
    assert model.measured.is_batchable
    assert model.measured.batch_rows == 32
    assert model.measured.fixed_rows == 0
    assert 0 < model.measured.seconds_per_run < model.measured.seconds_per_batch
    assert model.measured.peak_mib > 1
    assert model.infer({"x": np.zeros((2, 8, 4), "f4")})["probabilities"].shape == (2, 2)


def test_a_fixed_batch_is_remembered_over_the_trial() -> None:
    measured = tried(models.doubled(TensorProto.INT64, batch=4))
    assert (measured.is_batchable, measured.fixed_rows, measured.batch_rows) == (False, 4, 4)


def test_an_endless_loop_is_refused_by_the_list() -> None:
    assert "'Loop' is not allowed" in refusal(models.endless())


def test_an_endless_loop_is_killed_where_loops_are_allowed() -> None:
    assert "did not end within 0.6 s" in refusal(models.endless(), allowed_operators=("Loop",), trial_seconds=0.6)
    assert not _children(), "its process must be gone"


def test_memory_beyond_the_limit_is_refused() -> None:
    assert "bad_alloc" in refusal(models.vast())


def test_the_memory_limit_is_the_policys() -> None:
    assert tried(models.vast(log2_elements=26), trial_memory_mib=1024).seconds_per_run > 0  # 256 MiB for a row
    assert "bad_alloc" in refusal(models.vast(log2_elements=26), trial_memory_mib=128)


def test_a_model_that_kills_its_process_is_refused_and_the_server_lives() -> None:
    assert "was killed by SIG" in refusal(models.deadly())


def test_a_file_outside_is_refused_and_never_read(tmp_path: Path) -> None:
    pipe = tmp_path / "weights.bin"
    os.mkfifo(pipe)  # whoever opened it would wait for ever
    assert "outside the file" in refusal(models.outside(str(pipe)))


def test_a_file_that_the_runtime_refuses_is_refused() -> None:
    model = models.doubled()
    model.graph.node[0].op_type = "Not"  # of booleans only
    assert "refuse" in refusal(model)


def test_the_trial_sees_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # The trial's Python is started with a module of ours first on its path, which writes down what it sees.
    seen = tmp_path / "seen"
    (tmp_path / "sitecustomize.py").write_text(f"import os; open({str(seen)!r}, 'w').write(repr(dict(os.environ)))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CLIPDRIFT_SECRET", "do-not-tell")
    tried(models.doubled())
    assert "ORT_DISABLE_TELEMETRY" in seen.read_text()
    assert "do-not-tell" not in seen.read_text()


def test_the_serving_process_does_not_import_onnx(tmp_path: Path) -> None:
    served = models.save(models.doubled(), tmp_path)
    program = (
        "import sys\n"
        "from clipdrift_contract.events import ServedVersion\n"
        "from clipdrift_serving.dataplane.model import AdmissionPolicy, LoadedModel\n"
        f"served = ServedVersion(version='v1', uri={served.uri!r}, digest={served.digest!r})\n"
        "model = LoadedModel('m', served, AdmissionPolicy())\n"
        "assert model.measured.peak_mib > 0\n"
        "print('onnx' in sys.modules, 'onnxruntime' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["False", "True"], ended.stderr


def test_without_a_trial_only_size_and_digest_are_checked(tmp_path: Path) -> None:
    policy = AdmissionPolicy(is_trial_required=False)
    served = models.save(models.pooled(), tmp_path)
    assert LoadedModel("m", served, policy).measured.peak_mib == 0
    with pytest.raises(ArtifactError, match="max_model_bytes"):
        LoadedModel("m", served, AdmissionPolicy(is_trial_required=False, max_model_bytes=100))


@pytest.mark.parametrize("field", ["max_model_bytes", "trial_seconds", "trial_memory_mib"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_above_0(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"serving.admission.{field} must be > 0, got {value}"):
        AdmissionPolicy(**{field: value})


def _children() -> list[str]:
    """Command lines of this process's children that are trials."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # no process, or it has ended meanwhile
            continue
        if parent == str(os.getpid()) and "clipdrift_serving.dataplane.trial" in command:
            found.append(command)
    return found
