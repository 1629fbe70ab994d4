"""Where a one-row request's time goes, layer by layer, in one process without a socket: microseconds each."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ours import NUM_FEATURES, served_version, write_mlp

from clipdrift_contract.clock import SystemClock
from clipdrift_contract.metrics import MetricSet
from clipdrift_serving.dataplane.asked import Answer
from clipdrift_serving.dataplane.ledger import Ledger
from clipdrift_serving.dataplane.model import LoadedModel
from clipdrift_serving.dataplane.receipts import ReceiptBook
from clipdrift_serving.dataplane.tensors import check_inputs, check_values
from clipdrift_serving.recording.recorder import Recorder
from clipdrift_serving.rest.codec import decode_infer, encode_answer

_TURN = 16  # requests that arrive in one turn of the loop at 64 connections


class _Nowhere:
    def append(self, event: object) -> None:
        pass


def _us(work: Callable[[], object], per: int = 1) -> float:
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(2_000):
            work()
        best = min(best, time.perf_counter() - started)
    return round(best / 2_000 / per * 1e6, 2)


def split() -> dict[str, float]:
    """Microseconds a request: each alone, and the layers that are shared in a turn of 16 requests divided by them."""
    folder = Path(tempfile.mkdtemp())
    path = folder / "mlp.onnx"
    write_mlp(path)
    model = LoadedModel("mlp", served_version(path))
    rows = np.random.default_rng(1).normal(size=(1, NUM_FEATURES)).astype("f4").round(4)
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, NUM_FEATURES], "datatype": "FP32", "data": rows[0].tolist()}]})
    request, tensors = decode_infer(body.encode(), None)
    inputs, _ = check_inputs(model.inputs, tensors, 10)
    together = {"x": np.concatenate([inputs["x"]] * _TURN)}
    outputs = model.infer(inputs)
    outputs_of_turn = model.infer(together)
    recorder = Recorder(_Nowhere(), "0123456789abcdef", MetricSet(), 10**9)
    ledger = Ledger(ReceiptBook(["11" * 32], "0123456789abcdef"), recorder, SystemClock(), must_write=False)
    scored = [(head, *head.scores(outputs_of_turn, _TURN)) for head in model.heads]
    times = [(1, None)] * _TURN

    def record() -> list[list[str]]:
        receipts = ledger.enter(model, "champion", 1, together, scored, times).receipts
        if recorder.num_pending_rows >= 512:
            recorder.flush()
        return receipts

    answer = Answer("mlp", "v1", "champion", 1, outputs, record()[0][:1])
    return {
        "decode": _us(lambda: decode_infer(body.encode(), None)),
        "check": _us(lambda: check_inputs(model.inputs, tensors, 10)),
        "check_values_of_turn": _us(lambda: check_values(model.inputs, together), _TURN),
        "run_alone": _us(lambda: model.infer(inputs)),
        "run_of_turn": _us(lambda: model.infer(together), _TURN),
        "score_of_turn": _us(lambda: [head.scores(outputs_of_turn, _TURN) for head in model.heads], _TURN),
        "record_and_receipts_of_turn": _us(record, _TURN),
        "encode": _us(lambda: encode_answer(request, answer)),
    }
