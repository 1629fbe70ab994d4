"""Labels that come over the bus: read by one consumer group of all serving processes, scored like those that come over HTTP.

An offset is committed once its labels are in the spool, so a crash brings labels again and loses none; one that comes again
counts once, by its receipt. What can never be scored as a batch (no such model, lists of different lengths) is parked on the
poison topic with its reason; a single label that is refused is counted by its reason, as over HTTP.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for

from clipdrift_contract.bus.log import Bus, Consumer, Publisher, Record
from clipdrift_contract.bus.reading import EventReader
from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ClipdriftError, RetryableError
from clipdrift_contract.events import FEEDBACK, POISON, FeedbackBatch
from clipdrift_contract.metrics import BUS_POISON, MetricSet
from clipdrift_serving.dataplane.labels import Feedback, GivenLabels

GROUP = "serving-feedback"
PIECE = 512  # labels that the event loop scores at a time: about a millisecond
_POLL_SECONDS = 0.25
_RETRY_SECONDS = 0.5
_FLUSH_SECONDS = 5.0
_MAX_RECORDS = 100
_log = logging.getLogger(__name__)

Accept = Callable[[str, GivenLabels], Feedback]
Schedule = Callable[[Callable[[], None]], object]


class FeedbackInbox:
    """One thread; ends by `stop`.

    Args:
        bus: Where labels come from.
        accept: Scores labels of a model and keeps them; called on the loop's thread. After a RetryableError (the spool is full)
            it is tried again; any other error parks the batch.
        schedule: Calls a function in the loop's thread, from any thread: `loop.call_soon_threadsafe`.
        is_ready: Whether the models are in service, so that their labels can be told from those of unknown ones; nothing is
            read before.
        metrics: For what is parked.
        clock: Dates what is parked.
    """

    def __init__(
        self,
        bus: Bus,
        accept: Accept,
        schedule: Schedule,
        is_ready: Callable[[], bool],
        metrics: MetricSet,
        clock: Clock,
    ) -> None:
        self._bus = bus
        self._accept = accept
        self._schedule = schedule
        self._is_ready = is_ready
        self._metrics = metrics
        self._clock = clock
        self._is_stopping = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name="feedback", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, within a second; what it has not committed is read again. From any thread, the loop's too."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join(10.0)

    def _read_all(self) -> None:
        consumer = self._join()
        if consumer is None:
            return
        publisher = self._bus.publisher()
        reader = EventReader(consumer, publisher=publisher, metrics=self._metrics, clock=self._clock)
        while not self._is_stopping.is_set():
            reads = reader.poll(_MAX_RECORDS, _POLL_SECONDS)
            if not all(self._take(publisher, record, event) for record, _, event in reads):
                break  # stopped within a batch
            try:
                publisher.flush(_FLUSH_SECONDS)  # what was parked is on the bus before its place is passed
                consumer.commit()
            except RetryableError as error:
                _log.warning("labels were kept and their place was not: they will be read again (%s)", error)
        consumer.close()
        publisher.close(1.0)

    def _join(self) -> Consumer | None:
        """A consumer, once the models are in service and the bus is there; None when it is stopped before."""
        while not self._is_stopping.is_set():
            try:
                if self._is_ready():
                    self._bus.ensure_topics([FEEDBACK])
                    return self._bus.consumer(GROUP, [FEEDBACK])
            except RetryableError as error:
                _log.warning("the bus is away: %s", error)
            self._is_stopping.wait(_RETRY_SECONDS)
        return None

    def _take(self, publisher: Publisher, record: Record, event: object) -> bool:
        """Keep the labels of one record, or park it; False when it is neither, because this is the end."""
        if not isinstance(event, FeedbackBatch):
            self._park(publisher, record, f"{FEEDBACK} carries FeedbackBatch, got {type(event).__name__}")
            return True
        rejected: Counter[str] = Counter()
        try:
            for piece in pieces(event):
                feedback = self._keep(event.model, piece)
                if feedback is None:
                    return False
                rejected.update(one.reason for one in feedback.rejected)
        except ClipdriftError as error:
            self._park(publisher, record, str(error))
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the thread that brings the next labels
            _log.exception("labels of %s could not be scored", event.model)
            self._park(publisher, record, f"{type(error).__name__}: {error}")
        if rejected:
            _log.warning("of %d labels of %s over the bus were refused: %s", len(event.labels), event.model, dict(rejected))
        return True

    def _keep(self, model: str, piece: GivenLabels) -> Feedback | None:
        """Have the loop score a piece, again while it cannot be kept; None when this is the end."""
        while not self._is_stopping.is_set():
            future: Future[Feedback] = Future()
            try:
                self._schedule(lambda future=future: self._score(future, model, piece))  # type: ignore[misc]
            except RuntimeError as error:  # the loop has ended before this thread
                _log.info("labels of %s are left to the next life: %s", model, error)
                return None
            while not future.done() and not self._is_stopping.is_set():
                wait_for([future], _POLL_SECONDS)
            if not future.done():
                return None
            try:
                return future.result()
            except RetryableError as error:
                _log.warning("labels of %s wait: %s", model, error)
                self._is_stopping.wait(_RETRY_SECONDS)
        return None

    def _score(self, future: "Future[Feedback]", model: str, piece: GivenLabels) -> None:
        try:
            future.set_result(self._accept(model, piece))
        except Exception as error:  # noqa: BLE001  it is raised again in the thread that asked
            future.set_exception(error)

    def _park(self, publisher: Publisher, record: Record, reason: str) -> None:
        origin = f"{record.topic}/{record.partition}/{record.offset}"
        _log.error("feedback at %s is parked on %s: %s", origin, POISON, reason)
        self._metrics.counter(BUS_POISON).labels(record.topic).inc()
        headers: Mapping[str, bytes] = {
            **record.headers,
            "poison_reason": reason.encode(),
            "poison_origin": origin.encode(),
        }
        try:
            publisher.publish(POISON, record.key, headers, record.value, timestamp_ms=self._clock.now_ms())
        except RetryableError as error:  # the record itself stays in its topic; only the copy is missing
            _log.error("feedback at %s could not be parked: %s", origin, error)


def pieces(batch: FeedbackBatch) -> Iterator[GivenLabels]:
    """The batch in parts of at most 512 labels, in order.

    Raises:
        ClipdriftError: A list is neither empty nor as long as the labels, or there are neither receipts nor request ids.

    Example:
        >>> [part.rows for part in pieces(FeedbackBatch(model="m", labels=("no", 1), request_ids=("a", "a"), rows=(0, 1)))]
        [(0, 1)]
    """
    num_labels = len(batch.labels)
    lists = {name: getattr(batch, name) for name in ("receipts", "request_ids", "rows", "label_times_ms")}
    for name, values in lists.items():
        if values and len(values) != num_labels:
            raise ClipdriftError(f"{name} must be as many as labels, or none: got {len(values)} for {num_labels}")
    if num_labels and not batch.receipts and not batch.request_ids:
        raise ClipdriftError("labels come with receipts or with request_ids, got neither")

    def part(values: Sequence[object], start: int) -> Sequence[object] | None:
        return values[start : start + PIECE] if values else None

    for start in range(0, num_labels, PIECE):
        yield GivenLabels(
            labels=batch.labels[start : start + PIECE], **{name: part(values, start) for name, values in lists.items()}
        )
