"""CPU µs for a receipt, a recorded request and a scored label, on one core. The last line is one JSON object.

`recording_us`: a 1-row request of five features recorded, from the reference kept to the record on a SQLite bus: joined,
packed, written to the spool, read back and published, all threads counted. `recorded_us`: the same with its receipt issued.
Requests come as they do under load: 16 in one turn of the event loop (`..._single_us`: one in a turn). `label_us`: a label
verified, checked, counted and written to the spool, 256 in one call (`label_single_us`: one).
"""

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "serving_peers"))
from ours import served_version, write_mlp

from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.envelope import decode
from clipdrift_contract.events import LABELS, PREDICTIONS, Deployment, LabelBatch, PredictionBatch
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.labels import GivenLabels, LabelDesk
from clipdrift_serving.dataplane.live import LiveFigures
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.repository import ModelRepository
from clipdrift_serving.recording.recorder import BATCH_ROWS, Predicted, Recorder
from clipdrift_serving.recording.requests import RequestBook, RequestBookConfig
from clipdrift_serving.recording.spool import Spool

_ROUNDS = 9
_EPOCH = "0123456789abcdef"
_NUM_REQUESTS = 65_536
_NUM_LABELS = 8_192
_CARRIERS = np.array(["UA", "AA", "DL", "B6", "EV"], object)


class Bench:
    """A recorder with its spool on disk and a SQLite bus behind it."""

    def __init__(self, folder: Path) -> None:
        self.bus = SqliteBus(folder / "bus.db")
        self.clock, metrics = SystemClock(), MetricSet()
        self.spool = Spool(
            folder / "spool", self.bus.publisher(), source="bench", epoch=_EPOCH, clock=self.clock, metrics=metrics,
            max_bytes=2**30,
        )  # fmt: skip
        self.recorder = Recorder(self.spool, _EPOCH, metrics, 10**6)
        self.receipts = ReceiptBook(["11" * 32], _EPOCH)
        write_mlp(folder / "mlp.onnx")  # a model of two classes, "no" and "yes"
        served = ModelRepository(metrics)
        served.apply(Deployment(model="delay", generation=1, champion=served_version(folder / "mlp.onnx"), decided_at_ms=0))
        config = ServingConfig(receipt_keys=("11" * 32,))
        self.labels = LabelDesk(config, served, self.receipts, self.recorder, self.clock, metrics, LiveFigures())
        self.next_sequence = 0
        self.next_label = 0
        self.turns: dict[int, tuple[Any, ...]] = {}

    def inputs(self, num_rows: int) -> tuple[Any, ...]:
        """What a model's run leaves behind for `num_rows` requests of one row: slices, predictions, scores, features."""
        if num_rows not in self.turns:
            rng = np.random.default_rng(num_rows)
            yes = rng.random(num_rows, np.float32)
            scores = np.stack([1 - yes, yes], axis=1)
            features = {f"f{n}": rng.normal(size=num_rows).astype("f4") for n in range(4)}
            features["carrier"] = _CARRIERS[rng.integers(0, len(_CARRIERS), num_rows)]
            self.turns[num_rows] = rng.integers(0, 3, num_rows).astype("i2"), scores.argmax(1).astype("f8"), scores, features
        return self.turns[num_rows]

    def answer(self, num_requests: int, per_turn: int, *, with_receipts: bool, with_record: bool = True) -> list[str]:
        """What follows the model's run in each turn; flushed as the server does it."""
        slice_N, predicted_N, scores_NK, features = self.inputs(per_turn)
        recorder, issue, tokens = self.recorder, self.receipts.issue, []
        for _ in range(num_requests // per_turn):
            sequence_N = np.arange(self.next_sequence, self.next_sequence + per_turn, dtype=np.uint64)
            self.next_sequence += per_turn
            named = (
                "delay", "v1", "champion", 3, sequence_N, np.full(per_turn, self.clock.now_ms(), np.int64), slice_N,
                predicted_N,
            )  # fmt: skip
            if with_receipts:
                tokens += issue(*named, scores_NK)
            if with_record:
                recorder.add(Predicted(*named, scores_NK, features))
                if recorder.num_pending_rows >= BATCH_ROWS:
                    recorder.flush()
        recorder.flush()
        self.spool.drain(60)
        return tokens

    def label(self, tokens: list[str], per_call: int) -> None:
        """Labels come back, `per_call` in one request."""
        labels = ["yes", "no"] * (per_call // 2) or ["no"]
        for start in range(0, len(tokens), per_call):
            told = self.labels.accept("delay", GivenLabels(labels, tokens[start : start + per_call]))
            assert told.num_accepted == per_call, told
        self.spool.drain(60)

    def label_next(self, given: list[list[str]], per_call: int) -> None:
        self.label(given.pop(), per_call)

    def check(self, tokens: list[str]) -> None:
        """Every receipt holds, and the events on the bus say what was predicted and what came back, each once."""
        slice_N, predicted_N, scores_NK, features = self.inputs(16)
        first = self.receipts.verify(tokens[0]).sequence
        for number, token in enumerate(tokens):
            receipt = self.receipts.verify(token)
            assert (receipt.sequence, receipt.predicted) == (first + number, predicted_N[number % 16])
            assert abs(receipt.scores[1] - scores_NK[number % 16, 1]) < 1e-4
        seen = {PREDICTIONS: np.zeros(self.next_sequence, int), LABELS: np.zeros(self.next_sequence, int)}
        consumer = self.bus.consumer(None, [PREDICTIONS, LABELS])
        while consumer.lag():
            for record in consumer.poll(500, 1.0):
                event = decode(record.headers, record.value)[1]
                assert isinstance(event, PredictionBatch | LabelBatch)
                sequence_N = event.sequence.array().astype(int)
                seen[record.topic][sequence_N] += 1
                if isinstance(event, PredictionBatch) and first <= sequence_N[0] < first + len(tokens):
                    place_N = (sequence_N - first) % 16
                    assert (event.scores.array() == scores_NK[place_N]).all()
                    assert (event.slice_index.array() == slice_N[place_N]).all()
                    for column in event.features:
                        assert (column.values.array() == features[column.name][place_N]).all()
        consumer.close()
        assert (seen[PREDICTIONS] <= 1).all()
        assert seen[PREDICTIONS][first : first + len(tokens)].all()
        assert seen[LABELS][first : first + len(tokens)].tolist() == [1] * len(tokens)


def median_us(work: Callable[[], object], number: int) -> float:
    """CPU µs of the whole process for each of `number` things that `work` does: median of a few rounds, after a warm one."""
    work()
    rounds = []
    for _ in range(_ROUNDS):
        gc.collect()
        started = time.process_time()
        work()
        rounds.append(1e6 * (time.process_time() - started) / number)
    return statistics.median(rounds)


def measure(bench: Bench) -> dict[str, float]:
    """Costs in µs by name."""
    tokens = bench.answer(_NUM_LABELS, 16, with_receipts=True)
    bench.label(tokens, 256)
    bench.check(tokens)
    results: dict[str, float] = {}
    for name, per_turn, number in (("", 16, _NUM_REQUESTS), ("_single", 1, _NUM_REQUESTS // 4), ("_256", 256, _NUM_REQUESTS)):
        answer = partial(bench.answer, number, per_turn)
        # sequence numbers and times belong to both, so that each alone is shown without them
        identity = median_us(partial(answer, with_receipts=False, with_record=False), number)
        recording = median_us(partial(answer, with_receipts=False), number)
        receipts = median_us(partial(answer, with_receipts=True, with_record=False), number)
        results[f"recording{name}_us"] = recording - identity
        results[f"receipts{name}_us"] = receipts - identity
        results[f"recorded{name}_us"] = median_us(partial(answer, with_receipts=True), number)
    for name, per_call in (("", 256), ("_single", 1)):
        given = [
            bench.answer(_NUM_LABELS, 16, with_receipts=True, with_record=False) for _ in range(_ROUNDS + 1)
        ]  # each label is new
        results[f"label{name}_us"] = median_us(partial(bench.label_next, given, per_call), _NUM_LABELS)
    verify = bench.receipts.verify
    results["verify_us"] = median_us(lambda: [verify(token) for token in tokens], len(tokens))
    return {name: round(value, 2) for name, value in results.items()}


def label_table(folder: Path, num_requests: int = 1_000_000) -> dict[str, float]:
    """Memory and disk of `num_requests` open predictions whose labels come back under request ids, and what one costs.

    The table is on disk, so memory should not grow with their number.

    Returns:
        label_table_rss_growth_mib between the first tenth and the end; label_table_bytes_per_request on disk; CPU µs of keeping
        a request and of looking one up (500 ids a call, over the whole table).
    """
    receipts, clock = ReceiptBook(["11" * 32], _EPOCH), SystemClock()
    book = RequestBook(folder, receipts, clock, RequestBookConfig(max_requests=num_requests + 512))
    scores, zeros, classes = np.full((512, 2), 0.5, "f4"), np.zeros(512, "i2"), np.zeros(512)
    rss_mib = 0.0
    started = time.process_time()
    for first in range(0, num_requests, 512):
        number_N = np.arange(first, first + 512, dtype=np.uint64)
        ids = [(f"request-{number}", 1) for number in number_N.tolist()]
        book.remember(Predicted("delay", "v1", "champion", 3, number_N, number_N, zeros, classes, scores, {}, ids))
        book.flush()
        if first % 51_200 == 0:
            assert book.drain(60)
        if first <= num_requests // 10:
            rss_mib = resident_mib()
    assert book.drain(60)
    keep_us = 1e6 * (time.process_time() - started) / num_requests
    growth_mib, figures = resident_mib() - rss_mib, book.figures()
    numbers = np.random.default_rng(0).integers(0, num_requests, 20_000).tolist()
    started = time.process_time()
    tokens = []
    for start in range(0, len(numbers), 500):
        tokens += book.find("delay", [(f"request-{number}", 0) for number in numbers[start : start + 500]])
    find_us = 1e6 * (time.process_time() - started) / len(numbers)
    book.close()
    for token, number in zip(tokens, numbers, strict=True):
        assert isinstance(token, str), token
        assert receipts.verify(token).sequence == number
    return {
        "label_table_rss_growth_mib": round(growth_mib, 1),
        "label_table_bytes_per_request": round(figures.num_bytes / figures.num_open, 1),
        "label_table_keep_us": round(keep_us, 2),
        "label_table_find_us": round(find_us, 2),
    }


def resident_mib() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Bench(Path(folder)))
    print(json.dumps({"bench": "recording", **found}))
