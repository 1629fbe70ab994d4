"""Microseconds per receipt (issue, verify) and per recorded request, on one core. The last line is one JSON object."""

import json
import time
from collections.abc import Callable

import numpy as np

from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.recording.recorder import Predicted, Recorder

_ROUNDS = 5


class _Nowhere:
    """A spool that forgets: the packing is measured, not the disk."""

    def append(self, event: object) -> None:
        pass


def best_seconds(work: Callable[[], object]) -> float:
    """The quickest of a few rounds: what the machine can do when nothing disturbs."""
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure(num_rows: int, num_requests: int) -> dict[str, float]:
    """Per-row and per-request costs for requests of `num_rows` rows, two classes, five features."""
    book = ReceiptBook(["11" * 32], "0123456789abcdef")
    rows, zeros = np.arange(num_rows), np.zeros(num_rows)
    scores = np.full((num_rows, 2), 0.5, "f4")
    features = {f"f{n}": zeros.astype("f4") for n in range(4)} | {"carrier": np.array(["UA"] * num_rows, object)}
    predicted = Predicted("m", "v1", "champion", 1, rows.astype("u8"), rows, zeros.astype("i2"), zeros, scores, features)

    def issue() -> list[str]:
        return book.issue("m", "v1", "champion", 1, predicted.sequence, rows, predicted.slice_index, zeros, scores)

    tokens = issue()
    recorder = Recorder(_Nowhere(), "0123456789abcdef", MetricSet(), 10**9)

    def record() -> None:
        for _ in range(num_requests):
            recorder.add(predicted)
        recorder.flush()

    return {
        "issue_us_per_receipt": 1e6 * best_seconds(lambda: [issue() for _ in range(num_requests)]) / (num_requests * num_rows),
        "verify_us_per_receipt": 1e6
        * best_seconds(lambda: [book.verify(t) for t in tokens * num_requests])
        / (num_requests * num_rows),
        "record_us_per_request": 1e6 * best_seconds(record) / num_requests,
    }


if __name__ == "__main__":
    results = {f"rows_{n}": {k: round(v, 2) for k, v in measure(n, 20_000 // n).items()} for n in (1, 32, 256)}
    print(json.dumps({"bench": "recording", **results}))
