"""What an export costs and what the file then does, for each architecture of tests/conformance/export and an LSTM of 64 units.

Seconds to export by the quick exporter (median of three) and by torch's newer one (once), kilobytes, the largest difference
from torch over 2,000 rows that the export has not seen (missing numbers and unknown categories among them), and the time of one
row in torch, in ONNX Runtime and with 8-bit weights where there are any; one thread, interleaved, medians of 300. The last line
is one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance" / "export"))
import numpy as np
import torch
from architectures import ARCHITECTURES, Joined, Kit, Recurrent
from torch import nn

from clipdrift_trainer import export
from clipdrift_trainer.conversion import capture
from clipdrift_trainer.export import raw_columns, score_rows
from clipdrift_trainer.inference import open_session
from clipdrift_trainer.quantise import quantise_when_it_passes
from clipdrift_trainer.tasks.fitting import predict_logits, to_scores
from clipdrift_trainer.tasks.task import encode

NUM_ROWS, NUM_TIMED = 2_000, 300
BUILDS = ARCHITECTURES | {"lstm of 64": lambda sites, outputs: Joined(sites, outputs, Recurrent(nn.LSTM, width=64), width=64)}


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def unseen(kit: Kit) -> tuple:
    rows = kit.task.make(NUM_ROWS, seed=5)
    rows.features["site"][::97] = "nowhere"
    return rows, kit.scores(rows)


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Microseconds of each, in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(NUM_TIMED):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: round(median(times) * 1e6, 1) for name, times in taken.items()}


def measure(name: str) -> dict[str, object]:
    kit = Kit(BUILDS[name])
    kit.content()
    export_seconds = median(seconds(kit.content) for _ in range(3))
    content = kit.content()
    quick, export.CONVERTERS = export.CONVERTERS, (capture,)
    try:
        capture_seconds = seconds(kit.content)
    finally:
        export.CONVERTERS = quick
    rows, expected = unseen(kit)
    difference = float(np.abs(score_rows(content, kit.task.features, rows) - expected).max())
    one = rows.select(np.array([1]))
    tensors, raw, session = encode(kit.task, one, kit.words), raw_columns(kit.task.features, one), open_session(content)
    # labels drawn from the model's own answers: it is then as good as can be, and what 8 bits lose shows
    label = (np.random.default_rng(0).random(NUM_ROWS) < expected[:, 1]).astype(float)
    small = quantise_when_it_passes(content, raw_columns(kit.task.features, rows), label)
    calls: dict[str, Callable[[], object]] = {
        "torch_us": lambda: to_scores(predict_logits(kit.module, tensors), kit.task.kind, kit.temperature),
        "onnx_us": lambda: session.run(None, raw),
    }
    found: dict[str, object] = {
        "export_seconds": round(export_seconds, 3),
        "capture_seconds": round(capture_seconds, 2),
        "kb": round(len(content) / 1000, 1),
        "max_difference": difference,
    }
    if small.precision == "int8":
        eight = open_session(small.content)
        calls["int8_us"] = lambda: eight.run(None, raw)
        found["int8_kb"] = round(len(small.content) / 1000, 1)
    return found | interleaved(calls)


def main() -> dict[str, object]:
    torch.set_num_threads(1)
    found = {}
    for name in BUILDS:
        found[name] = measure(name)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
    rows = list(found.values())
    return {
        "bench": "export",
        "num_architectures": len(rows),
        "worst_difference": max(row["max_difference"] for row in rows),
        "slowest_export_seconds": max(row["export_seconds"] for row in rows),
        "slowest_capture_seconds": max(row["capture_seconds"] for row in rows),
        "architectures": found,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
