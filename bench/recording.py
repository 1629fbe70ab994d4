"""CPU µs for a receipt, a recorded request and a scored label, on one core. The last line is one JSON object.

`recording_us`: a 1-row request of five features recorded, from the reference kept to the record on a SQLite bus: joined,
packed, written to the spool, read back and published, all threads counted. `recorded_us`: the same with its receipt issued.
Requests come as they do under load: 16 in one turn of the event loop (`..._single_us`: one in a turn). `label_us`: a label
verified, checked, counted and written to the spool, 256 in one call (`label_single_us`: one).
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.envelope import decode
from clipdrift_contract.events import LABELS, PREDICTIONS, LabelBatch, PredictionBatch
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_serving.config import ServingConfig
from clipdrift_serving.dataplane.labels import GivenLabels, LabelDesk
from clipdrift_serving.dataplane.live import LiveFigures
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.recording.recorder import BATCH_ROWS, Predicted, Recorder
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
        profile = ReferenceProfile(task="binary", classes=("no", "yes"))
        champion = SimpleNamespace(heads=[SimpleNamespace(name="delay", profile=profile)])
        served: Any = SimpleNamespace(has=lambda name: True, get=lambda name: SimpleNamespace(champion=champion))
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


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Bench(Path(folder)))
    print(json.dumps({"bench": "recording", **found}))
