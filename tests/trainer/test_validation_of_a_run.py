"""What a run's record says of its model: intervals, slices, what a temperature would gain, the precision of its weights."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from test_training import run
from torch import nn
from toy_task import DAY, SITES, TooSure, Toy

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec, ScoreInterval
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.export import read_artifact, score_rows
from clipdrift_trainer.quantise import QUANTISED_KEY
from clipdrift_trainer.registry import NoRegistry
from clipdrift_trainer.tasks.task import BuildContext, Rows
from clipdrift_trainer.training import Finished, Order, TrainingConfig, train
from clipdrift_trainer.validation_file import VALIDATION_NAME, read_validation, write_validation


def trained(folder: Path, task: Any, num_days: int = 50, **options: Any) -> Finished:
    order = Order(model="pump", start_ms=0, end_ms=num_days * DAY, as_of_ms=num_days * DAY, clip=ClipSpec(), seed=1)
    config = options.pop("config", TrainingConfig())
    return train(
        task, config, order, artifacts=folder, registry=NoRegistry(), publisher=None, clock=ManualClock(), metrics=MetricSet(),
        **options,
    )  # fmt: skip


class OneSiteIsNoise(Toy):
    """Labels of the southern site hang on nothing."""

    def _day(self, day: int) -> Rows:
        rows = super()._day(day)
        is_south = rows.features["site"] == SITES[1]
        rows.label[is_south] = np.random.default_rng(900 + day).integers(0, 2, int(is_south.sum()))
        return rows


class LstmNet(nn.Module):
    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.trace = nn.LSTM(2, 32, batch_first=True)
        self.site = nn.Embedding(3, 2)
        self.head = nn.Linear(32 + 2 + 1, num_outputs)

    def forward(self, features: dict[str, torch.Tensor]) -> torch.Tensor:
        state = self.trace(features["trace"])[0][:, -1]
        pressure = torch.nan_to_num(features["pressure"])[:, None]
        return self.head(torch.cat([state, self.site(features["site"]), pressure], dim=1))


class WithLstm(Toy):
    def __init__(self) -> None:
        super().__init__(turn_day=99)

    def build(self, context: BuildContext) -> nn.Module:
        return LstmNet(1 if self.kind == "regression" else 2)


def test_every_figure_of_the_record_has_its_interval(tmp_path: Path) -> None:
    end = run(tmp_path).run_end

    (accuracy,) = [one for one in end.intervals if (one.slice, one.metric) == ("", "accuracy")]
    overall = end.validation[0]
    assert accuracy.value == overall.num_correct / overall.num_rows
    assert accuracy.low < accuracy.value < accuracy.high
    assert (accuracy.num_rows, accuracy.num_blocks) == (overall.num_rows, 4)
    assert {one.slice for one in end.intervals} == {"", *SITES}
    assert sum(one.num_rows for one in end.reliability if one.slice == "" and one.binning == "mass") == overall.num_rows


def test_a_slice_that_the_average_hides_is_in_the_record_and_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    end = trained(tmp_path, OneSiteIsNoise(turn_day=99)).run_end

    assert [(one.slice, one.against) for one in end.hidden_slices] == [("south", "all_rows")]
    assert end.hidden_slices[0].words in [record.message for record in caplog.records]


def test_the_margin_of_the_warning_is_a_setting(tmp_path: Path) -> None:
    config = TrainingConfig(hidden_slice_margin=0.5)

    assert trained(tmp_path, OneSiteIsNoise(turn_day=99), config=config).run_end.hidden_slices == ()


def test_a_slice_that_got_worse_than_in_service_is_told(tmp_path: Path) -> None:
    before = trained(tmp_path, Toy(turn_day=99)).run_end
    end = trained(tmp_path, OneSiteIsNoise(turn_day=99), in_service=before.intervals).run_end

    assert ("south", "in_service") in [(one.slice, one.against) for one in end.hidden_slices]
    assert "north" not in [one.slice for one in end.hidden_slices]


def test_what_a_temperature_would_gain_is_told_though_none_is_used(tmp_path: Path) -> None:
    plain = trained(tmp_path, TooSure(turn_day=99)).run_end
    calibrated = trained(tmp_path, TooSure(turn_day=99), config=TrainingConfig(calibrate=True)).run_end

    assert plain.temperature == 1.0
    assert plain.calibration is not None
    assert plain.calibration.temperature != 1.0
    assert plain.calibration.nll_before == pytest.approx(plain.validation[0].nll_sum / plain.validation[0].num_rows, rel=1e-6)
    assert calibrated.calibration is not None
    assert calibrated.calibration.temperature == calibrated.temperature != 1.0
    assert calibrated.calibration.nll_after == pytest.approx(
        calibrated.validation[0].nll_sum / calibrated.validation[0].num_rows, rel=1e-6
    )


def test_regression_has_errors_with_intervals_and_no_calibration(tmp_path: Path) -> None:
    class Level(Toy):
        kind = "regression"
        classes = ()

    end = run(tmp_path, task=Level()).run_end

    assert {one.metric for one in end.intervals} == {"rmse", "mae"}
    assert (end.calibration, end.reliability) == (None, ())


def test_8_bit_weights_are_off_unless_asked_for(tmp_path: Path) -> None:
    end = trained(tmp_path, WithLstm()).run_end

    assert (end.precision, end.precision_words) == ("float32", "")


def test_8_bit_weights_are_taken_where_they_pass_and_the_figures_are_those_of_the_file(tmp_path: Path) -> None:
    task = WithLstm()
    plain = trained(tmp_path, task)
    small = trained(tmp_path, task, config=TrainingConfig(int8="when_it_passes"))
    end, path = small.run_end, small.artifact.path

    assert end.precision == "int8"
    assert "8-bit weights of its LSTM layers" in end.precision_words
    assert path.stat().st_size < plain.artifact.path.stat().st_size
    assert end.version != plain.run_end.version
    artifact = read_artifact(path)
    assert (artifact.digest, artifact.profile, artifact.temperature) == (end.artifact_digest, end.profile, end.temperature)
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata[QUANTISED_KEY] == f"int8 of {digest_without_names(plain, metadata)}"
    rows = task.make(50)
    held_out = rows.select((rows.time_ms // DAY % 5 == 4) & (rows.label_time_ms <= 50 * DAY))
    answers = score_rows(path.read_bytes(), task.features, held_out)
    assert end.validation[0].num_correct == (answers.argmax(axis=1) == held_out.label).sum()
    assert end.validation[0].brier_sum == pytest.approx(((answers[:, 1] - held_out.label) ** 2).sum())


def digest_without_names(plain: Finished, metadata: dict[str, str]) -> str:
    """Digest of the float32 file that this run made: as the plain one, under the other version's lineage."""
    model = onnx.load(plain.artifact.path)
    kept = {name: metadata[name] for name in ("clipdrift.profile", "clipdrift.lineage", "clipdrift.temperature")}
    onnx.helper.set_model_props(model, kept)
    return f"sha256:{hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()}"


def test_where_8_bits_do_not_pass_the_record_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    end = trained(tmp_path, Toy(), config=TrainingConfig(int8="when_it_passes")).run_end

    assert end.precision == "float32"
    assert "a GRU cannot be quantised" in end.precision_words
    assert any("stored as float32" in record.message for record in caplog.records)


def test_settings_that_came_later_do_not_rename_the_versions_that_are_there() -> None:
    assert TrainingConfig().identity == "TrainingConfig(hold_out_every=5, hold_out_offset=4, calibrate=False)"
    changed = TrainingConfig(int8="when_it_passes", hold_out_offset=3).identity
    assert changed == "TrainingConfig(hold_out_every=5, hold_out_offset=3, calibrate=False, int8='when_it_passes')"


@pytest.mark.parametrize("margin", [-0.1, 1.0, float("nan")])
def test_a_margin_is_a_share(margin: float) -> None:
    with pytest.raises(ValueError, match="hidden_slice_margin"):
        TrainingConfig(hidden_slice_margin=margin)


def test_the_validation_lies_beside_the_model_and_can_be_read_back(tmp_path: Path) -> None:
    done = run(tmp_path)

    assert read_validation(done.artifact.path.parent) == done.run_end.intervals


def test_a_validation_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    one = ScoreInterval(slice="", metric="brier", value=0.1, low=0.0, high=0.2, num_rows=9, num_blocks=3)
    assert read_validation(tmp_path) == ()
    write_validation(tmp_path / "v1", [one])
    assert read_validation(tmp_path / "v1") == (one,)
    (tmp_path / "v1" / VALIDATION_NAME).write_text("[{")
    assert read_validation(tmp_path / "v1") == ()
