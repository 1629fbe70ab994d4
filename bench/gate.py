"""What the gate says to candidates whose worth is known: worse by 2, 5, 10 points overall or in one slice, equal, better.

Both models answer the same rows of 20 days. A day is good or bad as a whole (sd 3 points of error for both, 1 point that the
candidate has alone, overall and again by slice), and most of what is hard is hard for both (correlation 0.75): the candidate's
errors come in clusters that no pairing takes out. The code is the gate's own, with its default policy; nothing in it was chosen
on these worlds. Argument: candidates a case (default 1000). The last line is one JSON object.
"""

import json
import sys
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_trainer.quality.intervals import wilson
from clipdrift_trainer.retraining.contrast import pick
from clipdrift_trainer.retraining.gate import GatePolicy, judge
from clipdrift_trainer.retraining.judging import HeldOut, against_champion

_SHARES = (0.4, 0.3, 0.2, 0.1)  # of the slices
_BASE_ERROR, _DAY_SD, _OWN_DAY_SD, _COMMON = 0.2, 0.03, 0.01, 0.75
_NUM_DAYS = 20
_POLICY = GatePolicy()
VERDICTS = ("pass", "fail", "inconclusive", "by_mean")


class Case(NamedTuple):
    """Candidates of one kind. `excess`: errors a row beyond those of the model in service; negative: fewer."""

    name: str
    excess: float
    slice_index: int | None = None  # None: in all of them
    rows_a_day: int = 500


CASES = (
    *(Case(f"worse_{points}_overall", points / 100) for points in (2, 5, 10)),
    *(Case(f"worse_{points}_in_a_slice", points / 100, 2) for points in (2, 5, 10)),
    Case("equal", 0.0),
    Case("equal_few_rows", 0.0, rows_a_day=40),
    *(Case(f"better_{points}_overall", -points / 100) for points in (1, 2, 5)),
    Case("better_5_few_rows", -0.05, rows_a_day=40),
    Case("better_2_and_10_worse_in_a_small_slice", 0.10, 3),
)
_GAIN_BESIDE = {"better_2_and_10_worse_in_a_small_slice": 0.02}


def rows_of(case: Case, random: np.random.Generator) -> tuple[HeldOut, np.ndarray]:
    """Held-out rows with the answers of the model in service, and the candidate's answers, shape [N, 2]."""
    num_rows, num_slices = _NUM_DAYS * case.rows_a_day, len(_SHARES)
    day_N = np.repeat(np.arange(_NUM_DAYS), case.rows_a_day)
    slice_N = random.choice(num_slices, num_rows, p=_SHARES)
    excess_S = np.full(num_slices, -_GAIN_BESIDE.get(case.name, 0.0))
    if case.slice_index is None:
        excess_S += case.excess
    else:
        excess_S[case.slice_index] = case.excess
    shared_D = random.normal(0, _DAY_SD, _NUM_DAYS)
    own_DS = random.normal(0, _OWN_DAY_SD, (_NUM_DAYS, 1)) + random.normal(0, _OWN_DAY_SD, (_NUM_DAYS, num_slices))
    champion_N = np.clip(_BASE_ERROR + shared_D[day_N], 0.01, 0.9)
    candidate_N = np.clip(champion_N + excess_S[slice_N] + own_DS[day_N, slice_N], 0.001, 0.95)
    hard_3N = random.standard_normal((3, num_rows))
    label_N = random.integers(0, 2, num_rows)
    answers = [
        _answers(np.sqrt(_COMMON) * hard_3N[0] + np.sqrt(1 - _COMMON) * own_N, rate_N, label_N)
        for own_N, rate_N in ((hard_3N[1], champion_N), (hard_3N[2], candidate_N))
    ]
    held_out = HeldOut(
        kind="binary", label=label_N.astype(float), time_ms=day_N.astype(np.int64) * MS_PER_DAY,
        slice_index=slice_N.astype(np.int16), slice_names=("a", "b", "c", "d"), is_fresh=np.ones(num_rows, bool),
        champion_scores=answers[0],
    )  # fmt: skip
    return held_out, answers[1]


def _answers(latent_N: np.ndarray, rate_N: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Wrong where a row is too hard for the model's rate of errors; less sure the harder it is."""
    is_wrong_N = latent_N > -ndtri(rate_N)
    sure_N = np.clip(1 - rate_N - 0.08 * latent_N, 0.5, 0.99)
    of_label_N = np.where(is_wrong_N, 1 - sure_N, sure_N)
    scores_N2 = np.empty((len(label_N), 2))
    scores_N2[np.arange(len(label_N)), label_N] = of_label_N
    scores_N2[np.arange(len(label_N)), 1 - label_N] = 1 - of_label_N
    return scores_N2


def verdicts(case: Case, num: int) -> dict[str, dict[str, float]]:
    """Shares of the verdicts, with Wilson's 95 % intervals; "by_mean": what passes where the mean loss alone decides."""
    counts: Counter[str] = Counter()
    for seed in range(num):
        held_out, candidate = rows_of(case, np.random.default_rng((seed, hash_of(case.name))))
        found = against_champion(candidate, held_out)
        counts[judge(found, _POLICY).verdict] += 1
        counts["by_mean"] += pick(found, _POLICY.metric).difference < 0
    shares = {}
    for verdict in VERDICTS:
        low, high = wilson(counts[verdict], num)
        shares[verdict] = {"share": counts[verdict] / num, "low": round(low, 4), "high": round(high, 4)}
    return shares


def hash_of(name: str) -> int:
    """The same number in every process."""
    return int.from_bytes(name.encode()[-8:], "big")


if __name__ == "__main__":
    num = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    started = time.perf_counter()
    results = {}
    print(f"{num} candidates a case; 20 days, 500 rows a day (few: 40); share of verdicts")
    print("by mean: what would pass if the mean loss alone decided\n")
    print(f"{'candidate':42}{'pass':>8}{'fail':>8}{'open':>8}{'by mean':>10}")
    for case in CASES:
        results[case.name] = found = verdicts(case, num)
        print(f"{case.name:42}" + "".join(f"{found[one]['share']:8.3f}" for one in VERDICTS), flush=True)
    harmful = [name for name in results if name.startswith(("worse_5", "worse_10"))]
    worst = max(harmful, key=lambda name: results[name]["pass"]["share"])
    print(
        json.dumps(
            {
                "bench": "gate", "candidates_per_case": num, "cases": results,
                "wrong_passes": results[worst]["pass"]["share"], "wrong_passes_high": results[worst]["pass"]["high"],
                "equal_passes": results["equal"]["pass"]["share"],
                "equal_passes_by_mean": results["equal"]["by_mean"]["share"],
                "better_2_passes": results["better_2_overall"]["pass"]["share"],
                "better_5_passes": results["better_5_overall"]["pass"]["share"],
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )  # fmt: skip
