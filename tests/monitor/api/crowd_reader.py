"""Many models with many inputs and slices, for the exporter."""

from clipdrift_contract.events import ClipSpec, RetrainOutcome, RunEnd, SliceScore
from clipdrift_monitor.api.reader import LiveFigures
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.engine.snapshot import Snapshot
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.windows.view import View


class CrowdReader:
    """Answers the exporter as a monitor's reader does, with every figure that a model can have of its slices and inputs.

    Of two slices or inputs the one with the greater number has lost or moved more.
    """

    def __init__(self, num_models: int, num_features: int, num_slices: int) -> None:
        figures = View(
            num_predictions=1_000, num_labels=970, num_correct=850, accuracy=0.876, accuracy_low=0.85, accuracy_high=0.9,
            nll=0.35, brier=0.1, ece=0.02, maturity=0.97, label_delay_seconds=9_000.0,
        )  # fmt: skip
        names = [f"slice {index}" for index in range(num_slices)]
        drift = DriftReport(features={f"input {index}": 0.01 * index for index in range(num_features)})
        self._live = LiveFigures(figures, dict.fromkeys(names, figures), is_mature=True)
        scores = (
            SliceScore(slice=name, num_rows=1_000, num_correct=870 + index, nll_sum=350.0, brier_sum=100.0, ece=0.02)
            for index, name in enumerate(("", *names))
        )
        self._run = RunEnd(
            model="m", run_id="r", version="v", started_at_ms=0, ended_at_ms=1, data_start_ms=0, data_end_ms=1, as_of_ms=1,
            data_digest="", code_revision="", seed=0, optimizer="sgd", learning_rate=0.1, clip=ClipSpec(), num_steps=1,
            validation=tuple(scores),
        )  # fmt: skip
        models = (f"model-{index:03d}" for index in range(num_models))
        levels = {"sudden_break": 0.1, "worse_than_validated": 0.2, "repairable": 0.0}
        self.snapshot = Snapshot(
            models={model: ModelState(model=model, drift=drift, levels=levels, last_view=figures) for model in models}
        )

    def run(self, state: ModelState) -> RunEnd:
        return self._run

    def newest_outcome(self, state: ModelState) -> RetrainOutcome | None:
        return None

    def judged(self, state: ModelState) -> LiveFigures:
        return self._live
