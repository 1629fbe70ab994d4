from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from toy_task import DAY, Toy, ToyNet

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.export import read_artifact
from clipdrift_trainer.probing.champion import ProbeError, probe_champion
from clipdrift_trainer.probing.probe import ProbeConfig
from clipdrift_trainer.registry import NoRegistry
from clipdrift_trainer.training import Order, TrainingConfig, train
from clipdrift_trainer.weights import WEIGHTS_NAME, WeightsError

CLIP = ClipSpec(kind="global_norm", max_norm=0.1)
SMALL = ProbeConfig(num_batches=10, num_slice_batches=2)


class Scaled(Toy):
    """Keeps the scale of its pressure outside parameters and buffers, as a plain number of the rows it is built on."""

    def build(self, context):
        return ScaledNet(3, float(np.nanstd(context.rows.features["pressure"])) ** 3)


class ScaledNet(ToyNet):
    def __init__(self, num_sites, scale):
        super().__init__(num_sites, 2)
        self.scale = scale

    def forward(self, features):
        return super().forward({**features, "pressure": features["pressure"] * self.scale})


class Champion:
    """A trained version on disk."""

    def __init__(self, folder: Any, task: Toy) -> None:
        self.task = task
        order = Order(model="pump", start_ms=0, end_ms=20 * DAY, as_of_ms=20 * DAY, clip=CLIP)
        self.finished = train(
            task, TrainingConfig(), order, artifacts=folder, registry=NoRegistry(), publisher=None, clock=ManualClock(),
            metrics=MetricSet(),
        )  # fmt: skip
        self.path = self.finished.artifact.path

    def probe(self, task: Any = None, num_days: int = 30, clip: ClipSpec = CLIP, **changes: Any):
        artifact = msgspec.structs.replace(read_artifact(self.path), **changes)
        rows = (task or self.task).make(num_days)
        return probe_champion(
            task or self.task, artifact, self.path.read_bytes(), rows, clip, at_ms=7, config=SMALL
        )  # fmt: skip


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    return Champion(tmp_path_factory.mktemp("models"), Toy(turn_day=20))


def test_the_model_in_service_is_built_again_and_probed_on_rows_newer_than_its_own(champion):
    probe = champion.probe()
    assert (probe.version, probe.at_ms) == (champion.finished.run_end.version, 7)
    assert probe.recent[0].num_rows == 10 * 60
    assert probe.trained[0].num_rows == 16 * 60  # four of five days
    assert probe.recent[0].norm_p50 > 1.5 * probe.trained[0].norm_p50
    assert "have changed" not in probe.words


def test_a_model_without_weights_is_told(champion):
    lineage = msgspec.structs.replace(champion.finished.artifact.lineage, weights_digest="")
    with pytest.raises(ProbeError, match="before weights were kept"):
        champion.probe(lineage=lineage)


def test_a_rule_that_acts_on_samples_is_not_probed(champion):
    with pytest.raises(ProbeError, match="acts on samples"):
        champion.probe(clip=ClipSpec(kind="per_sample", max_norm=1.0))


def test_too_few_new_rows_are_told(champion):
    with pytest.raises(ProbeError, match="60 rows are newer"):
        champion.probe(num_days=21)


def test_weights_that_were_exchanged_are_refused(champion, tmp_path):
    path = champion.path.parent / WEIGHTS_NAME
    content = path.read_bytes()
    state = torch.load(path, weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, path)
    try:
        with pytest.raises(WeightsError, match="not those of the model"):
            champion.probe()
    finally:
        path.write_bytes(content)


def test_training_data_that_have_changed_since_are_said_to_have(champion):
    class Relabelled(Toy):
        def load(self, start_ms, end_ms, as_of_ms):
            rows = super().load(start_ms, end_ms, as_of_ms)
            rows.label[:5] = 1.0 - rows.label[:5]
            return rows

    assert champion.probe(task=Relabelled(turn_day=20)).words.endswith("its training data have changed since it was trained")


def test_training_data_that_are_gone_are_told(champion):
    class Forgetful(Toy):
        def load(self, start_ms, end_ms, as_of_ms):
            rows = super().load(start_ms, end_ms, as_of_ms)
            return rows.select(rows.time_ms >= 20 * DAY)

    with pytest.raises(ProbeError, match="none of the rows any more that version"):
        champion.probe(task=Forgetful(turn_day=20))


def test_a_module_that_answers_otherwise_than_the_model_is_not_probed(tmp_path):
    champion = Champion(tmp_path, Scaled(turn_day=20))
    champion.probe()

    class Rescaled(Scaled):
        def build(self, context):
            return ScaledNet(3, 4.0)

    with pytest.raises(ProbeError, match="answers otherwise"):
        champion.probe(task=Rescaled(turn_day=20))
