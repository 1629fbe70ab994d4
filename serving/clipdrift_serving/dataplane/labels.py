"""Labels that come back: each is scored from its receipt alone, and kept before it is acknowledged."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from clipdrift_contract import metrics as names
from clipdrift_contract.clock import Clock
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.errors import RequestError
from clipdrift_serving.dataplane.live import LiveFigures
from clipdrift_serving.dataplane.receipts import ReceiptBook, ReceiptError
from clipdrift_serving.dataplane.redeemed import RedeemedReceipts
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.recording.recorder import Labelled, Recorder

_EARLIEST_MS = 0
_LATEST_MS = 4_102_444_800_000  # the year 2100: a later time is a mistake in units
_LARGEST = sys.float_info.max  # a whole number in JSON may be larger than any float


class Feedback(NamedTuple):
    """What became of labels that came in."""

    num_accepted: int
    rejected: list[dict[str, Any]]  # index and reason of each that was not accepted


class LabelDesk:
    """Accepts labels by receipt. One thread (the event loop's) only."""

    def __init__(
        self,
        config: ServingConfig,
        repository: ModelRepository,
        receipts: ReceiptBook,
        recorder: Recorder,
        clock: Clock,
        metrics: MetricSet,
        live: LiveFigures,
    ) -> None:
        self._max_age_ms = config.max_label_age_seconds * 1000
        self._repository = repository
        self._receipts = receipts
        self._recorder = recorder
        self._clock = clock
        self._redeemed = RedeemedReceipts()
        self._labels = metrics.counter(names.SERVING_LABELS)
        self._correct = metrics.counter(names.SERVING_CORRECT)
        self._live = live

    def accept(
        self, name: str, receipts: Sequence[Any], labels: Sequence[Any], label_times_ms: Sequence[Any] | None
    ) -> Feedback:
        """Accept labels by receipt. When this returns, the accepted ones survive a crash.

        Raises:
            RequestError: Unknown model, or lists of different lengths.
            SpoolFullError: Nothing was accepted, because nothing could be kept.
        """
        profile = self._repository.get(name).champion.profile
        if len(receipts) != len(labels) or (label_times_ms is not None and len(label_times_ms) != len(receipts)):
            raise RequestError("bad_input", "receipts, labels and label_times_ms must be equally long")
        now_ms = self._clock.now_ms()
        accepted: list[Labelled] = []
        rejected: list[dict[str, Any]] = []
        for index, (token, label) in enumerate(zip(receipts, labels, strict=True)):
            time_ms = now_ms if label_times_ms is None else label_times_ms[index]
            try:
                accepted.append(self._scored(name, profile, token, label, time_ms))
            except ReceiptError as error:
                rejected.append({"index": index, "reason": error.reason, "message": str(error)})
                self._labels.labels(name, error.reason).inc()
        self._recorder.add_labels(accepted)
        self._count(name, profile, accepted)
        return Feedback(len(accepted), rejected)

    def _scored(self, name: str, profile: ReferenceProfile | None, token: Any, label: Any, time_ms: Any) -> Labelled:
        if not isinstance(token, str):
            raise ReceiptError("forged", f"a receipt is a string, got {type(token).__name__}")
        receipt = self._receipts.verify(token)
        if receipt.model != name:
            raise ReceiptError("unknown_model", f"the receipt is of model {receipt.model!r}")
        if isinstance(time_ms, bool) or not isinstance(time_ms, int) or not _EARLIEST_MS <= time_ms <= _LATEST_MS:
            raise ReceiptError("bad_value", f"label time must be milliseconds since 1970, got {str(time_ms)[:50]}")
        if time_ms < receipt.event_time_ms:
            raise ReceiptError("bad_value", f"label time {time_ms} lies before the prediction ({receipt.event_time_ms})")
        if time_ms - receipt.event_time_ms > self._max_age_ms:
            raise ReceiptError("expired", f"the prediction is older than {self._max_age_ms // 1000} s")
        return Labelled(receipt, label_value(profile, label, len(receipt.scores)), time_ms)

    def _count(self, name: str, profile: ReferenceProfile | None, accepted: Sequence[Labelled]) -> None:
        """A label that comes again (a client that tries again) is accepted and kept, and counted once, as the monitor does."""
        first = [one for one in accepted if self._redeemed.is_first(one.receipt.epoch, one.receipt.sequence)]
        for outcome, number in (("accepted", len(first)), ("repeated", len(accepted) - len(first))):
            if number:
                self._labels.labels(name, outcome).inc(number)
        live = self._live.of(name)
        live.num_labels += len(first)
        if profile is not None and profile.task == "regression":
            return
        for one in first:
            if one.label == one.receipt.predicted:
                live.num_correct += 1
                self._correct.labels(name, one.receipt.version).inc()


def label_value(profile: ReferenceProfile | None, label: Any, num_classes: int) -> float:
    """A label as a class index or a value.

    Raises:
        ReceiptError: It names no class of the model, or is no number that it could predict (reason "bad_value").
    """
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
