"""What drift detectors promise, measured: false alarms at every size of window, with independent rows and with days that
differ; power; and the cost of a block.

`make bench-drift`; `--write` writes the tables of docs/reference/detectors anew. Nothing was tuned on the seeds used here (7
and up). The peer is what Evidently 0.7.23 does by default with more than 1,000 reference rows: normed Wasserstein distance of
rows at least 0.1, by its own formula.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from clipdrift_contract.profile import BlockSpread, FeatureProfile, FeatureSpec, ReferenceProfile, block_spread
from clipdrift_monitor.detectors.catalogue import BUILT_IN
from clipdrift_monitor.detectors.detector import Bins
from clipdrift_monitor.detectors.window_drift import DriftConfig, drift_of
from clipdrift_monitor.windows.window import Layout

PAGES = Path(__file__).parents[1] / "docs" / "reference" / "detectors"
NUM_BINS = 16
NUM_REFERENCE = 20_000
EDGES = tuple(stats.norm.ppf(np.linspace(0, 1, NUM_BINS + 1))[1:-1].tolist())
SIZES = (50, 100, 200, 500, 1_000, 5_000, 20_000, 100_000)
SHIFTS = (0.08, 0.15)
NUM_DAYS = 20
Counts = np.ndarray


def shares_of(shift: float) -> Counts:
    return np.diff(stats.norm.cdf([-np.inf, *EDGES, np.inf], loc=shift))


def rates(
    now_of: Callable[[np.random.Generator], Counts], num_worlds: int, seed: int, references: int
) -> dict[str, tuple[float, float]]:
    """By detector: share of worlds with p < .05, and with p < .001 and an effect worth mentioning."""
    random = np.random.default_rng(seed)
    before = random.multinomial(NUM_REFERENCE, shares_of(0.0), references).astype(float)
    worlds = [Bins(before[i % references], now_of(random).astype(float), "ordered", EDGES) for i in range(num_worlds)]
    found = {}
    for detector in BUILT_IN:
        drifts = [detector.compare(bins) for bins in worlds]
        named = [one.p_value < 0.001 and one.score >= detector.min_effect for one in drifts]
        found[detector.name] = float(np.mean([one.p_value < 0.05 for one in drifts])), float(np.mean(named))
    return found


def evidently_default(num_rows: int, shift: float, num_worlds: int, seed: int) -> float:
    random = np.random.default_rng(seed)
    fired = 0
    for _ in range(num_worlds):
        before, now = random.normal(size=NUM_REFERENCE), random.normal(shift, 1.0, num_rows)
        fired += stats.wasserstein_distance(before, now) / max(before.std(), 0.001) >= 0.1
    return float(fired / num_worlds)


def among_days(num_rows: int, num_worlds: int, seed: int) -> dict[str, tuple[float, float]]:
    """The mean of a day strays by .1: share of days with p < .05, with the spread known, and as if rows were independent."""
    random = np.random.default_rng(seed)

    def days(num_days: int) -> Counts:
        return np.stack([random.multinomial(num_rows, shares_of(shift)) for shift in random.normal(0, 0.1, num_days)])

    known = {one.name: 0 for one in BUILT_IN}
    naive = dict(known)
    for _ in range(num_worlds):
        before, now = days(NUM_DAYS), days(1)[0].astype(float)
        bins = Bins(before.sum(axis=0).astype(float), now, "ordered", EDGES)
        spread = block_spread(before)
        for detector in BUILT_IN:
            known[detector.name] += detector.compare(bins._replace(spread=spread)).p_value < 0.05
            naive[detector.name] += detector.compare(bins).p_value < 0.05
    return {name: (known[name] / num_worlds, naive[name] / num_worlds) for name in known}


def block_cost() -> dict[str, float]:
    """Median milliseconds of the drift of a block: 16 numeric and 4 categorical features, 10 slices."""
    random = np.random.default_rng(3)
    spread = BlockSpread(num_blocks=15, total=0.01, square=0.0001)
    features = [
        FeatureProfile(spec=FeatureSpec(name=f"n{i}", kind="numeric"), edges=EDGES, counts=(1_250,) * NUM_BINS, spread=spread)
        for i in range(16)
    ] + [
        FeatureProfile(
            spec=FeatureSpec(name=f"c{i}", kind="categorical"),
            categories=tuple("abcdefghijk"),
            counts=(1_600,) * 12,
            spread=spread,
        )
        for i in range(4)
    ]
    profile = ReferenceProfile(
        task="binary", features=tuple(features), slice_counts=(2_000,) * 10, num_rows=NUM_REFERENCE,
        score_edges=tuple(i / 20 for i in range(1, 20)), score_counts=(1_000,) * 20,
    )  # fmt: skip
    layout = Layout(profile)
    costs = {}
    for words, config in {
        "jensen_shannon": DriftConfig(),
        "all": DriftConfig(detectors=tuple(one.name for one in BUILT_IN)),
    }.items():
        for num_rows in (1_000, 50_000):
            seconds = []
            for _ in range(15):
                sums = layout.zeros()
                sums[layout.head["num_predictions"]] = num_rows
                for feature in features:
                    part = layout.features[feature.spec.name]
                    sums[part] = [*random.multinomial(num_rows, np.full(feature.num_bins, 1 / feature.num_bins)), 0]
                sums[layout.score_reference] = random.multinomial(num_rows, np.full(20, 0.05))
                mix = random.multinomial(num_rows, np.full(10, 0.1)).astype(float)
                began = time.perf_counter()
                drift_of(layout, sums, mix, 0, config)
                seconds.append(time.perf_counter() - began)
            costs[f"{words}, {num_rows:,} rows"] = 1_000 * float(np.median(seconds))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/reference/detectors")
    parser.add_argument("--worlds", type=int, default=2_000)
    arguments = parser.parse_args()
    num_worlds = arguments.worlds
    rows: dict[str, list[str]] = {one.name: [] for one in BUILT_IN}
    worst_low, worst_high = 1.0, 0.0
    print("worlds: null p < .05 | shift .08 and .15: p < .05, p < .001 and large | Evidently's default: null, .08, .15")
    for num_rows in SIZES:
        # a reference of its own for each world where it matters; the bridge of a reference costs 3 ms
        references = 20 if num_rows <= 1_000 else num_worlds // 4
        null = rates(lambda random, n=num_rows: random.multinomial(n, shares_of(0.0)), num_worlds, 7, references)
        moved = {
            shift: rates(lambda random, n=num_rows, s=shift: random.multinomial(n, shares_of(s)), 300, 8, 20)
            for shift in SHIFTS
        }
        peer = [evidently_default(num_rows, shift, 60, 9) for shift in (0.0, *SHIFTS)]
        for name in rows:
            at = null[name][0]
            worst_low, worst_high = min(worst_low, at), max(worst_high, at)
            power = " | ".join(f"{moved[shift][name][0]:.2f} | {moved[shift][name][1]:.2f}" for shift in SHIFTS)
            rows[name].append(f"| {num_rows:,} | {at:.3f} | {power} |")
            print(f"{num_rows:>7,} {name:15} {at:.3f} | {power} | {peer}", flush=True)
    clustered = {n: among_days(n, 300, 10) for n in (400, 2_000)}
    for n, by_name in clustered.items():
        for name, (known, naive) in by_name.items():
            print(f"days whose mean strays by .1, {n:,} rows: {name:15} p < .05 in {known:.3f}, as if independent {naive:.3f}")
    costs = block_cost()
    for words, milliseconds in costs.items():
        print(f"drift of a block of 20 features and 10 slices, {words}: {milliseconds:.1f} ms")
    if arguments.write:
        for name in rows:
            write_table(name, rows[name], {n: by_name[name] for n, by_name in clustered.items()})
    print(
        json.dumps(
            {
                "null_p05_lowest": worst_low,
                "null_p05_highest": worst_high,
                "clustered_p05_highest": max(one[0] for by_name in clustered.values() for one in by_name.values()),
                "clustered_as_if_independent_highest": max(
                    one[1] for by_name in clustered.values() for one in by_name.values()
                ),
                "block_ms": {words: round(value, 2) for words, value in costs.items()},
            }
        )
    )


def write_table(name: str, rows: list[str], clustered: dict[int, tuple[float, float]]) -> None:
    path = PAGES / f"{name}.md"
    days = "; ".join(
        f"{known:.3f} of days of {n:,} rows (as if rows were independent: {naive:.2f})"
        for n, (known, naive) in clustered.items()
    )
    text = "\n".join(
        [
            f"`make bench-drift`: a normal feature in {NUM_BINS} bins, {NUM_REFERENCE:,} reference rows, its mean moved by so",
            "many standard deviations. Named: p < .001 and an effect of at least `min_effect`.",
            "",
            "| rows | null: p < .05 | .08: p < .05 | .08: named | .15: p < .05 | .15: named |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"Days whose mean strays by .1, the spread known from {NUM_DAYS} days: p < .05 in {days}.",
        ]
    )
    page = path.read_text()
    path.write_text(
        re.sub(rf"(<!-- measured: {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{text}\n{m[2]}", page, flags=re.DOTALL)
    )


if __name__ == "__main__":
    main()
