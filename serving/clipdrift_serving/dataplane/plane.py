"""The data plane: one place that answers an inference and accepts labels, whatever transport asked."""

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clipdrift_contract import metrics as names
from clipdrift_contract.clock import Clock
from clipdrift_contract.events import Role
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.receipts import ReceiptBook, ReceiptError
from clipdrift_serving.dataplane.redeemed import RedeemedReceipts
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.dataplane.tensors import Tensor, check_inputs
from clipdrift_serving.recording.recorder import Labelled, Predicted, Recorder

_EARLIEST_MS = 0
_LARGEST = sys.float_info.max  # a whole number in JSON may be larger than any float
_LATEST_MS = 4_102_444_800_000  # the year 2100: a later time is a mistake in units


class Answer(NamedTuple):
    """What an inference returns."""

    model: str
    version: str
    role: Role
    generation: int
    outputs: dict[str, Tensor]
    receipts: list[str]


class Feedback(NamedTuple):
    """What became of labels that came in."""

    num_accepted: int
    rejected: list[dict[str, Any]]  # index and reason of each that was not accepted


class DataPlane:
    """Answers and records. One thread (the event loop's) only."""

    def __init__(
        self,
        config: ServingConfig,
        repository: ModelRepository,
        receipts: ReceiptBook,
        recorder: Recorder,
        clock: Clock,
        metrics: MetricSet,
    ) -> None:
        self.repository = repository
        self._config = config
        self._receipts = receipts
        self._recorder = recorder
        self._clock = clock
        self._redeemed = RedeemedReceipts()
        self._sequence = itertools.count()
        self._rows = metrics.counter(names.SERVING_ROWS)
        self._labels = metrics.counter(names.SERVING_LABELS)
        self._correct = metrics.counter(names.SERVING_CORRECT)
        self.live: dict[str, dict[str, int]] = {}

    def infer(
        self,
        name: str,
        version: str | None,
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, Any],
        wanted_outputs: Sequence[str] = (),
    ) -> Answer:
        """Answer one request of N rows, and record it.

        Raises:
            RequestError: Unknown model, outputs that it does not have, or inputs that it does not accept; nothing was recorded.
        """
        serving, model, role = self.repository.route(name, version)
        for wanted in wanted_outputs:  # before anything is recorded: what is refused was not predicted
            if wanted not in model.outputs:
                raise RequestError("bad_input", f"unknown output {wanted[:100]!r}; the model has {sorted(model.outputs)}")
        checked, num_rows = check_inputs(model.inputs, inputs, self._config.max_rows)
        event_time_N = self._event_times(parameters, num_rows)
        outputs = model.infer(checked)
        predicted_N, scores_NK = model.predictions(outputs, num_rows)
        slice_N = model.slice_index(checked, num_rows)
        sequence_N = np.fromiter(itertools.islice(self._sequence, num_rows), np.uint64, num_rows)
        recorded = Predicted(
            name, model.version, role, serving.generation, sequence_N, event_time_N, slice_N, predicted_N, scores_NK, checked
        )
        self._recorder.add(recorded)
        if self._config.record_before_answer:
            self._recorder.flush()
        receipts = self._receipts.issue(
            name,
            model.version,
            role,
            serving.generation,
            sequence_N,
            event_time_N,
            slice_N,
            predicted_N,
            _probabilities(model.profile, scores_NK),
        )
        self._rows.labels(name, model.version, role).inc(num_rows)
        live = self._live(name)
        live["requests"] += 1
        live["rows"] += num_rows
        return Answer(name, model.version, role, serving.generation, outputs, receipts)

    def feedback(
        self, name: str, receipts: Sequence[Any], labels: Sequence[Any], label_times_ms: Sequence[Any] | None
    ) -> Feedback:
        """Accept labels by receipt. When this returns, the accepted ones survive a crash.

        Raises:
            RequestError: Unknown model, or lists of different lengths.
            SpoolFullError: Nothing was accepted, because nothing could be kept.
        """
        profile = self.repository.get(name).champion.profile
        if len(receipts) != len(labels) or (label_times_ms is not None and len(label_times_ms) != len(receipts)):
            raise RequestError("bad_input", "receipts, labels and label_times_ms must be equally long")
        now_ms = self._clock.now_ms()
        accepted: list[Labelled] = []
        rejected: list[dict[str, Any]] = []
        for index, (token, label) in enumerate(zip(receipts, labels, strict=True)):
            time_ms = now_ms if label_times_ms is None else label_times_ms[index]
            try:
                accepted.append(self._accept(name, profile, token, label, time_ms))
            except ReceiptError as error:
                rejected.append({"index": index, "reason": error.reason, "message": str(error)})
                self._labels.labels(name, error.reason).inc()
        self._recorder.add_labels(accepted)
        self._count(name, profile, accepted)
        return Feedback(len(accepted), rejected)

    def _accept(self, name: str, profile: ReferenceProfile | None, token: Any, label: Any, time_ms: Any) -> Labelled:
        if not isinstance(token, str):
            raise ReceiptError("forged", f"a receipt is a string, got {type(token).__name__}")
        receipt = self._receipts.verify(token)
        if receipt.model != name:
            raise ReceiptError("unknown_model", f"the receipt is of model {receipt.model!r}")
        if isinstance(time_ms, bool) or not isinstance(time_ms, int) or not _EARLIEST_MS <= time_ms <= _LATEST_MS:
            raise ReceiptError("bad_value", f"label time must be milliseconds since 1970, got {str(time_ms)[:50]}")
        if time_ms < receipt.event_time_ms:
            raise ReceiptError("bad_value", f"label time {time_ms} lies before the prediction ({receipt.event_time_ms})")
        if time_ms - receipt.event_time_ms > self._config.max_label_age_seconds * 1000:
            raise ReceiptError("expired", f"the prediction is older than {self._config.max_label_age_seconds} s")
        return Labelled(receipt, _label_value(profile, label, len(receipt.scores)), time_ms)

    def _count(self, name: str, profile: ReferenceProfile | None, accepted: Sequence[Labelled]) -> None:
        """A label that comes again (a client that tries again) is accepted and kept, and counted once, as the monitor does."""
        live = self._live(name)
        first = [one for one in accepted if self._redeemed.is_first(one.receipt.epoch, one.receipt.sequence)]
        live["labels"] += len(first)
        for outcome, number in (("accepted", len(first)), ("repeated", len(accepted) - len(first))):
            if number:
                self._labels.labels(name, outcome).inc(number)
        if profile is not None and profile.task == "regression":
            return
        for one in first:
            if one.label == one.receipt.predicted:
                live["correct"] += 1
                self._correct.labels(name, one.receipt.version).inc()

    def _live(self, name: str) -> dict[str, int]:
        return self.live.setdefault(name, {"requests": 0, "rows": 0, "labels": 0, "correct": 0})

    def _event_times(self, parameters: Mapping[str, Any], num_rows: int) -> npt.NDArray[np.int64]:
        given = parameters.get("event_time_ms")
        if self._config.event_time == "server" or given is None:
            return np.full(num_rows, self._clock.now_ms(), np.int64)
        values = given if isinstance(given, list) else [given] * num_rows
        is_fine = len(values) == num_rows and all(
            isinstance(value, int) and not isinstance(value, bool) and _EARLIEST_MS <= value <= _LATEST_MS for value in values
        )
        if not is_fine:
            raise RequestError(
                "bad_input", f"event_time_ms must be milliseconds since 1970: one number, or a list of {num_rows}"
            )
        return np.array(values, np.int64)


def _probabilities(profile: ReferenceProfile | None, scores_NK: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What goes into a receipt beside the prediction: nothing for a value, which the receipt holds exactly already."""
    is_value = scores_NK.shape[1] == 1 or (profile is not None and profile.task == "regression")
    return scores_NK[:, :0] if is_value else scores_NK


def _label_value(profile: ReferenceProfile | None, label: Any, num_classes: int) -> float:
    """A label as a class index or a value."""
    if isinstance(label, str):
        if profile is None or label not in profile.classes:
            known = list(profile.classes)[:20] if profile is not None else "none (the model names no classes)"
            raise ReceiptError("bad_value", f"unknown class {label[:50]!r}; known: {known}")
        return float(profile.classes.index(label))
    if isinstance(label, bool):
        label = int(label)
    if not isinstance(label, int | float) or not -_LARGEST <= label <= _LARGEST:
        raise ReceiptError("bad_value", f"a label is a class name, a class index or a finite number, got {str(label)[:50]}")
    if num_classes and (label != int(label) or not 0 <= label < num_classes):
        raise ReceiptError("bad_value", f"a class index is a whole number in 0..{num_classes - 1}, got {label!r}")
    return float(label)
