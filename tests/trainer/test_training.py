"""One run: what it leaves on disk, what it tells, and what it never does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_task import DAY, ROWS_A_DAY, TooSure, Toy

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.envelope import decode
from clipdrift_contract.events import ClipSpec, GradWindow, RunEnd
from clipdrift_contract.metrics import MetricSet
from clipdrift_trainer.export import read_artifact
from clipdrift_trainer.registry import NoRegistry
from clipdrift_trainer.tasks.task import LeakError, Rows
from clipdrift_trainer.training import Finished, Order, TrainingConfig, split_held_out, train

ORDER = Order(
    model="pump", start_ms=0, end_ms=20 * DAY, as_of_ms=20 * DAY, clip=ClipSpec(kind="global_norm", max_norm=0.5), seed=1
)


class Kept:
    """A publisher that keeps records in a list."""

    def __init__(self) -> None:
        self.records: list[tuple[dict[str, bytes], bytes]] = []

    def publish(self, topic: str, key: bytes, headers: Any, value: bytes, *, timestamp_ms: int) -> None:
        self.records.append((dict(headers), value))

    def flush(self, timeout_seconds: float) -> None: ...

    def num_queued(self) -> int:
        return 0

    def close(self, timeout_seconds: float = 10.0) -> None: ...

    def events(self) -> list[Any]:
        return [decode(headers, value)[1] for headers, value in self.records]


class Registering(NoRegistry):
    def __init__(self) -> None:
        self.seen: list[RunEnd] = []

    def register(self, run: RunEnd) -> str:
        self.seen.append(run)
        return "models:/pump/1"


def run(folder: Path, task: Any = None, config: Any = None, kept: Kept | None = None, registry: Any = None) -> Finished:
    publisher = EventPublisher(kept, source="t", clock=ManualClock()) if kept is not None else None
    return train(
        task or Toy(), config or TrainingConfig(), ORDER, artifacts=folder, registry=registry or NoRegistry(),
        publisher=publisher, clock=ManualClock(), metrics=MetricSet(),
    )  # fmt: skip


def test_windows_are_told_before_the_run_end_and_carry_its_run_id(tmp_path: Path) -> None:
    kept, registry = Kept(), Registering()

    finished = run(tmp_path, kept=kept, registry=registry)

    *windows, end = kept.events()
    assert isinstance(end, RunEnd)
    assert all(isinstance(window, GradWindow) and window.run_id == end.run_id for window in windows)
    assert sum(window.num_steps for window in windows) == end.num_steps == Toy.num_steps
    assert end == finished.run_end
    assert (end.registry_uri, registry.seen[0].run_id) == ("models:/pump/1", end.run_id)


def test_the_file_and_the_run_end_say_the_same(tmp_path: Path) -> None:
    end = run(tmp_path).run_end

    artifact = read_artifact(Path(end.artifact_uri.removeprefix("file://")))
    assert (artifact.digest, artifact.profile) == (end.artifact_digest, end.profile)
    assert (artifact.lineage.version, artifact.lineage.data_digest) == (end.version, end.data_digest)
    assert artifact.path == tmp_path / "pump" / end.version / "model.onnx"


def test_figures_come_from_held_out_days_alone(tmp_path: Path) -> None:
    end = run(tmp_path).run_end

    overall, *slices = end.validation
    num_unknown = 2  # labels of the last day's last rows that were not known yet
    assert overall.num_rows == 4 * ROWS_A_DAY - num_unknown == sum(one.num_rows for one in slices)
    assert overall.num_train == 16 * ROWS_A_DAY
    assert [day.start_ms // DAY for day in end.clustering[0].days] == [4, 9, 14, 19]


def test_the_same_training_twice_gives_the_same_version_and_file(tmp_path: Path) -> None:
    first, second = run(tmp_path).run_end, run(tmp_path).run_end

    assert (first.version, first.artifact_digest) == (second.version, second.artifact_digest)
    assert first.run_id != second.run_id


def test_another_option_of_the_task_gives_another_version(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path, task=Toy(learning_rate=0.01))

    assert first.run_end.version != second.run_end.version


def test_a_run_that_sees_the_future_is_refused(tmp_path: Path) -> None:
    class Leaky(Toy):
        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            return self.make(end_ms // DAY)

    with pytest.raises(LeakError, match="known only after"):
        run(tmp_path, task=Leaky())
    assert not list(tmp_path.iterdir())


def test_too_few_days_are_refused_with_the_number_needed(tmp_path: Path) -> None:
    class Short(Toy):
        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            return super().load(start_ms, 3 * DAY, as_of_ms)

    with pytest.raises(ValueError, match="at least 5 days"):
        run(tmp_path, task=Short())


def test_what_the_temperature_was_fitted_on_never_judges(tmp_path: Path) -> None:
    config = TrainingConfig(calibrate=True)
    held_out = Toy().make(10)

    fitting, judging = split_held_out(Toy(), config, held_out)
    end = run(tmp_path, TooSure(), config).run_end

    assert not set(fitting) & set(judging)
    assert sorted([*fitting, *judging]) == list(range(len(held_out)))
    assert not set(held_out.time_ms[fitting] // DAY) & set(held_out.time_ms[judging] // DAY)
    assert end.temperature != 1.0
    assert [day.start_ms // DAY for day in end.clustering[0].days] == [9, 19]


def test_a_temperature_that_three_rows_ask_for_is_not_exported(tmp_path: Path) -> None:
    class FewAndSure(TooSure):
        """Three rows are held out for the temperature, all answered rightly."""

        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            rows = super().load(start_ms, end_ms, as_of_ms)
            is_clear_N = np.abs(np.nan_to_num(rows.features["pressure"])) > 1
            is_fitting_N = np.isin(rows.time_ms // DAY, (4, 14)) & (rows.label == (rows.features["pressure"] > 0)) & is_clear_N
            is_judging_N = np.isin(rows.time_ms // DAY, (9, 19))
            chosen = [*np.flatnonzero(is_fitting_N)[[0, 1, -1]], *np.flatnonzero(is_judging_N)]
            return rows.select(np.sort([*chosen, *np.flatnonzero(rows.time_ms // DAY % 5 != 4)]))

    end = run(tmp_path, FewAndSure(), TrainingConfig(calibrate=True)).run_end

    assert end.temperature == 1.0
    assert end.calibration is not None
    assert end.calibration.nll_after == end.calibration.nll_before


def test_without_calibration_or_with_one_day_all_held_out_rows_judge() -> None:
    one_day = Toy().make(1)

    for config in (TrainingConfig(), TrainingConfig(calibrate=True)):
        fitting, judging = split_held_out(Toy(), config, one_day)
        assert (len(fitting), len(judging)) == (0, ROWS_A_DAY)


def test_a_temperature_that_one_held_out_day_does_not_allow_is_said_to_be_missing(tmp_path: Path, caplog: Any) -> None:
    class Short(TooSure):
        def load(self, start_ms: int, end_ms: int, as_of_ms: int) -> Rows:
            return super().load(start_ms, 5 * DAY, as_of_ms)

    assert run(tmp_path, Short(), TrainingConfig(calibrate=True)).run_end.temperature == 1.0
    assert "no temperature is fitted" in caplog.text


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    class Watching(Toy):
        seen_days: set[int] = set()  # noqa: RUF012

        def build(self, context: Any) -> Any:
            Watching.seen_days = set((context.rows.time_ms // DAY).tolist())
            return super().build(context)

    run(tmp_path, task=Watching())

    assert Watching.seen_days == {day for day in range(20) if day % 5 != 4}
    assert np.isin([4, 9, 14, 19], list(Watching.seen_days)).sum() == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"hold_out_every": 1}, "hold_out_every must be >= 2"), ({"hold_out_offset": 5}, r"hold_out_offset must be in 0\.\.4")],
)
def test_settings_that_hold_out_nothing_or_everything_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**wrong)
