"""Which request stands for a bucket of the latency histogram: one a second and bucket, so slow ones are never crowded out."""

import re
from bisect import bisect_left
from collections.abc import Sequence

from clipdrift_serving.operations.logs import valid_traceparent

_SECONDS = 1.0
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.~:-]+")  # stands in an address as it is
_LONGEST = 128 - len("request" + "/" + "trace_id") - 32  # of a model's name and an id, a trace's id beside them
_TRACE_ID = slice(3, 35)


class Exemplars:
    """Names a request by `request` (model/id, which `GET /v1/requests/` on the admin listener takes) and by `trace_id`.

    Source: OpenMetrics 1.0, section "Exemplars": names and values have at most 128 characters together.

    Args:
        bounds: Upper bounds of the buckets, s, in ascending order.
        are_ids_kept: Whether an answer can be looked up by the caller's own id; off: only the trace is named.

    Example:
        >>> exemplars = Exemplars((0.1, 1.0))
        >>> exemplars.of("pump", 0.02, 100.0, "req-7", b"")
        {'request': 'pump/req-7'}
        >>> exemplars.of("pump", 0.03, 100.5, "req-8", b"")  # the same bucket, within the same second
        >>> exemplars.of("pump", 3.0, 100.5, "req-9", b"")
        {'request': 'pump/req-9'}
    """

    def __init__(self, bounds: Sequence[float], *, are_ids_kept: bool = True) -> None:
        self._bounds = tuple(bounds)
        self._are_ids_kept = are_ids_kept
        self._due: dict[str, list[float]] = {}

    def of(self, model: str, seconds: float, now: float, request_id: str, traceparent: bytes) -> dict[str, str] | None:
        """Labels of an exemplar; None where its bucket has a fresh one, or the request has no name.

        Args:
            model: Of the series.
            seconds: What is observed.
            now: Monotonic time, s.
            request_id: The caller's own; one that would not stand in an address as it is, or is long, is left out.
            traceparent: The header, as it came (W3C Trace Context).
        """
        if not request_id and not traceparent:
            return None
        due = self._due.get(model)
        if due is None:
            due = self._due[model] = [0.0] * (len(self._bounds) + 1)
        bucket = bisect_left(self._bounds, seconds)
        if now < due[bucket]:
            return None
        labels = _labels(model, request_id if self._are_ids_kept else "", traceparent)
        if labels:
            due[bucket] = now + _SECONDS
        return labels or None


def _labels(model: str, request_id: str, traceparent: bytes) -> dict[str, str]:
    labels = {}
    if _PLAIN_ID.fullmatch(request_id) and len(model) + len(request_id) <= _LONGEST:
        labels["request"] = f"{model}/{request_id}"
    trace_id = valid_traceparent(traceparent.decode("latin-1"))[_TRACE_ID] if traceparent else ""
    if trace_id:
        labels["trace_id"] = trace_id
    return labels
