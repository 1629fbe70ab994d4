import os
import pickle
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from clipdrift_trainer.lineage import weights_digest
from clipdrift_trainer.weights import WeightsError, load_weights, save_weights


@contextmanager
def files_end_at(num_bytes):
    """A disk that fills."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def net(seed: int, width: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
    module(torch.randn(8, 2))  # so that its running figures are not those of a new one
    return module


def test_weights_and_buffers_come_back_as_they_were(tmp_path):
    saved, other = net(1), net(2)
    save_weights(saved, tmp_path / "v1" / "weights.pt")
    load_weights(other, tmp_path / "v1" / "weights.pt", weights_digest(saved))
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), other.state_dict().values(), strict=True))


def test_weights_that_cannot_be_written_leave_no_file(tmp_path):
    with files_end_at(1_000), pytest.raises(OSError, match="File too large"):
        save_weights(net(1, width=500), tmp_path / "weights.pt")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    done = []
    synced, renamed = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda file: done.append("fsync") or synced(file))
    monkeypatch.setattr(Path, "replace", lambda self, target: done.append("rename") or renamed(self, target))
    save_weights(net(1), tmp_path / "weights.pt")
    assert done == ["fsync", "rename"]


def test_weights_of_another_model_are_refused(tmp_path):
    save_weights(net(1), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="not those of the model"):
        load_weights(net(3), tmp_path / "weights.pt", weights_digest(net(2)))


def test_a_module_that_has_changed_is_told(tmp_path):
    save_weights(net(1), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="do not fit the module"):
        load_weights(net(1, width=4), tmp_path / "weights.pt", "")


def test_a_missing_or_damaged_file_is_told(tmp_path):
    path = tmp_path / "weights.pt"
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(net(1), path, "")
    save_weights(net(1), path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be read"):
        load_weights(net(1), path, "")


def test_a_file_cannot_bring_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsError):
        load_weights(net(1), tmp_path / "weights.pt", "")
    assert not (tmp_path / "sprung").exists()


def test_saving_again_repairs_a_damaged_file(tmp_path):
    module = net(1)
    (tmp_path / "weights.pt").write_bytes(b"half")
    save_weights(module, tmp_path / "weights.pt")
    load_weights(net(2), tmp_path / "weights.pt", weights_digest(module))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]
