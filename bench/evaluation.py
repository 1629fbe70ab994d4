"""Whether intervals and warnings of the evaluation keep their promise, and what it costs. The last line is one JSON object.

`..._coverage` is the share of 2,000 made-up validations whose 95 % interval holds the true figure; errors come in days.
`false_alarms` is the share of runs without harm in which a slice is called hidden, at the default margin and at none.
`flights_cpu_seconds` is the whole evaluation of a run on the flights of 2013: 65,000 held-out rows, 4 slices.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "trainer" / "evaluation"))
sys.path.insert(0, str(Path(__file__).parents[1] / "deploy" / "clipdrift_deploy" / "demo" / "project"))
import clustered_worlds as worlds
import numpy as np
import torch
from flights import Flights
from test_hidden import NAMES, mixed
from test_intervals import SETTINGS, figures

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.evaluation.calibration import cross_fitted_gain
from clipdrift_trainer.evaluation.hidden import HiddenSlicePolicy, hidden_slices
from clipdrift_trainer.evaluation.scores import expected_calibration_error
from clipdrift_trainer.evaluation.validation import validate
from clipdrift_trainer.profiling import slice_index, slice_names
from clipdrift_trainer.tasks.fitting import fit, predict_logits, to_scores
from clipdrift_trainer.tasks.split import hold_out_blocks
from clipdrift_trainer.tasks.task import encode, load_as_of, vocabularies_of

NUM_WORLDS, NUM_RUNS = 2_000, 1_000
YEAR_END_MS = 1_388_534_400_000


def coverage(name: str) -> dict[str, float]:
    make, kind, num_rows, num_days = SETTINGS[name]
    truth = {one.metric: one.value for one in figures(make(np.random.default_rng(100), 400_000, 20_000), kind)}
    generator, hits = np.random.default_rng(101), dict.fromkeys(truth, 0)
    for _ in range(NUM_WORLDS):
        for one in figures(make(generator, num_rows, num_days), kind):
            hits[one.metric] += one.low <= truth[one.metric] <= one.high
    return {metric: round(count / NUM_WORLDS, 3) for metric, count in hits.items()}


def false_alarms(margin: float) -> float:
    generator, alarms = np.random.default_rng(102), 0
    for _ in range(NUM_RUNS):
        world, slice_N = mixed(generator)
        alarms += bool(hidden_slices(*world, slice_N, NAMES, "binary", policy=HiddenSlicePolicy(margin=margin)))
    return alarms / NUM_RUNS


def bias(num_rows: int, num_days: int) -> dict[str, float]:
    """Mean of the plain and of the corrected calibration error of an honest model; the true one is 0."""
    generator, values = np.random.default_rng(103), []
    for _ in range(300):
        found = figures(worlds.binary(generator, num_rows, num_days, day_spread=0.0), "binary")
        values.append(next(one.value for one in found if one.metric == "ece"))
    generator, plain = np.random.default_rng(103), []
    for _ in range(300):
        scores, label, _ = worlds.binary(generator, num_rows, num_days, day_spread=0.0)
        plain.append(expected_calibration_error(scores, label))
    return {"plain": round(float(np.mean(plain)), 4), "corrected": round(float(np.mean(values)), 4)}


def flights_seconds() -> tuple[float, int]:
    task = Flights(num_steps=200, cache=str(Path(__file__).parents[1] / "build" / "bench-flights.npz"))
    rows = load_as_of(task, 0, YEAR_END_MS, YEAR_END_MS)
    train, held_out = hold_out_blocks(rows.time_ms)
    words = vocabularies_of(task, rows.select(train))
    fitted = fit(task, rows.select(train), words, ClipSpec(kind="global_norm", max_norm=1.0), 0)
    judged = rows.select(held_out)
    logits = predict_logits(fitted.module, encode(task, judged, words))
    started = time.process_time()
    names = slice_names(task)
    found = validate(
        to_scores(logits, task.kind), judged.label, judged.time_ms, slice_index(task, judged), names, task.kind,
        num_train=[0] * len(names), policy=HiddenSlicePolicy(), label_span=1.0,
        calibration=cross_fitted_gain(logits.astype(np.float64), judged.label, judged.time_ms),
    )  # fmt: skip
    taken = time.process_time() - started
    for one in found.intervals:
        if not one.slice:
            print(f"flights {one.metric}: {one.value:.4f} [{one.low:.4f}, {one.high:.4f}]")
    print(f"flights: {found.calibration}, hidden: {[one.words for one in found.hidden_slices]}")
    return round(taken, 2), len(judged)


def main() -> dict[str, object]:
    torch.set_num_threads(1)
    covered = {}
    for name in SETTINGS:
        covered[name] = coverage(name)
        print(f"coverage, {name}: {covered[name]}", flush=True)
    shares = [share for found in covered.values() for share in found.values()]
    seconds, num_rows = flights_seconds()
    return {
        "bench": "evaluation",
        "lowest_coverage": min(shares),
        "highest_coverage": max(shares),
        "false_alarms": false_alarms(0.02),
        "false_alarms_without_margin": false_alarms(0.0),
        "honest_model_1000_rows": bias(1_000, 12),
        "flights_cpu_seconds": seconds,
        "flights_rows": num_rows,
        "coverage": covered,
    }


if __name__ == "__main__":
    print(json.dumps(main()))
