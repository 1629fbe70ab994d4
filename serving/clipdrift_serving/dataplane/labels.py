"""Labels that come back: each is scored from its receipt alone, and kept before it is acknowledged."""

import itertools
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from clipdrift_contract import metrics as names
from clipdrift_contract.clock import LATEST_MS, Clock
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
_LARGEST = sys.float_info.max  # a whole number in JSON may be larger than any float


class GivenLabels(NamedTuple):
    """Labels in lists of one length; what they hold is checked one by one."""

    labels: Sequence[Any]
    receipts: Sequence[Any] | None = None
    request_ids: Sequence[Any] | None = None  # of the caller; "" where a receipt is given
    rows: Sequence[Any] | None = None  # within the request; 0 where not given
    label_times_ms: Sequence[Any] | None = None  # None: now


class Rejected(msgspec.Struct, frozen=True):
    """A label that was not accepted; `reason` is one word."""

    index: int
    reason: str
    message: str


class Feedback(NamedTuple):
    """What became of labels that came in."""

    num_accepted: int
    rejected: list[Rejected]


FindReceipts = Callable[[str, Sequence[tuple[str, int]]], Sequence[str | ReceiptError]]
"""Tokens of receipts by model and (request id, row), or why there is none."""


def no_request_ids(model: str, asked: Sequence[tuple[str, int]]) -> Sequence[str | ReceiptError]:
    """A `FindReceipts` where no request ids are kept."""
    return [ReceiptError("unknown_request", "this server keeps no request ids; send the label with its receipt")] * len(asked)


class LabelDesk:
    """Accepts labels by receipt or by the caller's request id. One thread (the event loop's) only."""

    def __init__(
        self,
        config: ServingConfig,
        repository: ModelRepository,
        receipts: ReceiptBook,
        recorder: Recorder,
        clock: Clock,
        metrics: MetricSet,
        live: LiveFigures,
        find: FindReceipts = no_request_ids,
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
        self._find = find

    def accept(self, name: str, given: GivenLabels) -> Feedback:
        """Score labels and keep them. When this returns, the accepted ones survive a crash.

        Raises:
            RequestError: Unknown model, or lists of different lengths.
            SpoolFullError: Nothing was accepted, because nothing could be kept.
        """
        profile = self._repository.head(name).profile
        tokens, times_ms = self._tokens(name, given), given.label_times_ms
        now_ms = self._clock.now_ms()
        accepted: list[Labelled] = []
        rejected: list[Rejected] = []
        class_of = {} if profile is None else {name: float(index) for index, name in enumerate(profile.classes)}
        for index, (token, label) in enumerate(zip(tokens, given.labels, strict=True)):
            time_ms = None if times_ms is None else times_ms[index]
            try:
                if isinstance(token, ReceiptError):
                    raise token
                accepted.append(self._scored(name, class_of, token, label, now_ms if time_ms is None else time_ms))
            except ReceiptError as error:
                rejected.append(Rejected(index, error.reason, str(error)))
                self._labels.labels(name, error.reason).inc()
        self._recorder.add_labels(accepted)
        self._count(name, profile, accepted)
        return Feedback(len(accepted), rejected)

    def _tokens(self, name: str, given: GivenLabels) -> Sequence[Any]:
        """A token for each label, or why there is none."""
        num_labels = len(given.labels)
        lists = (given.receipts, given.request_ids, given.rows, given.label_times_ms)
        if any(one is not None and len(one) != num_labels for one in lists):
            raise RequestError("bad_input", "receipts, request_ids, rows, labels and label_times_ms must be equally long")
        if given.request_ids is None:
            if given.receipts is None:
                raise RequestError("bad_input", "labels come with receipts or with request_ids")
            return given.receipts
        rows = given.rows or [0] * num_labels
        receipts = given.receipts or [""] * num_labels
        places = [at for at, token in enumerate(receipts) if token in ("", None)]
        asked = [(given.request_ids[at], rows[at]) for at in places]
        if any(not isinstance(one, str) or isinstance(row, bool) or not isinstance(row, int) for one, row in asked):
            raise RequestError("bad_input", "request_ids are strings and rows are whole numbers")
        found = list(receipts)
        for at, token in zip(places, self._find(name, asked), strict=True):
            found[at] = token
        return found

    def _scored(self, name: str, class_of: Mapping[str, float], token: Any, label: Any, time_ms: Any) -> Labelled:
        receipt = self._receipts.verify(token)
        if receipt.origin.model != name:
            raise ReceiptError("unknown_model", f"the receipt is of model {receipt.model!r}")
        if isinstance(time_ms, bool) or not isinstance(time_ms, int) or not _EARLIEST_MS <= time_ms <= LATEST_MS:
            raise ReceiptError("bad_value", f"label time must be milliseconds since 1970, got {str(time_ms)[:50]}")
        if time_ms < receipt.event_time_ms:
            raise ReceiptError("bad_value", f"label time {time_ms} lies before the prediction ({receipt.event_time_ms})")
        if time_ms - receipt.event_time_ms > self._max_age_ms:
            raise ReceiptError("expired", f"the prediction is older than {self._max_age_ms // 1000} s")
        value = class_of.get(label) if isinstance(label, str) else None
        return Labelled(receipt, label_value(class_of, label, receipt.num_classes) if value is None else value, time_ms)

    def _count(self, name: str, profile: ReferenceProfile | None, accepted: Sequence[Labelled]) -> None:
        """A label that comes again (a client that tries again) is accepted and kept, and counted once, as the monitor does."""
        is_first = self._redeemed.first_of([(one.receipt.origin.epoch, one.receipt.sequence) for one in accepted])
        first = list(itertools.compress(accepted, is_first))
        for outcome, number in (("accepted", len(first)), ("repeated", len(accepted) - len(first))):
            if number:
                self._labels.labels(name, outcome).inc(number)
        live = self._live.of(name)
        live.num_labels += len(first)
        if profile is not None and profile.task == "regression":
            return
        right = Counter([one.receipt.version for one in first if one.label == one.receipt.predicted])
        for version, number in right.items():
            live.num_correct += number
            self._correct.labels(name, version).inc(number)


def label_value(class_of: Mapping[str, float], label: Any, num_classes: int) -> float:
    """A label as a class index or a value.

    Raises:
        ReceiptError: It names no class of the model, or is no number that it could predict (reason "bad_value").
    """
    if isinstance(label, str):
        if label not in class_of:
            known = list(class_of)[:20] if class_of else "none (the model names no classes)"
            raise ReceiptError("bad_value", f"unknown class {label[:50]!r}; known: {known}")
        return class_of[label]
    if isinstance(label, bool):
        label = int(label)
    if not isinstance(label, int | float) or not -_LARGEST <= label <= _LARGEST:
        raise ReceiptError("bad_value", f"a label is a class name, a class index or a finite number, got {str(label)[:50]}")
    if num_classes and (label != int(label) or not 0 <= label < num_classes):
        raise ReceiptError("bad_value", f"a class index is a whole number in 0..{num_classes - 1}, got {label!r}")
    return float(label)
