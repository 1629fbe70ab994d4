"""The false alarms of the whole monitor against the budget that it declares, and what it finds of planted harms.

Three models with 20 features and ten slices each on one engine (bus, store, windows, harm tests, drift, incidents), told day by
day: 90 days after a validation of 28 days that each replay draws anew. A page or ticket counts when its signal is opened.
Beside it, on the same rows: Evidently's default for a data set (Wasserstein distance over the deviation, or Jensen-Shannon
distance, at least 0.1 in half of the columns), any Kolmogorov-Smirnov test at p < 0.05, always firing, never firing. There, a
day that fires opens an incident unless the day before did.

Seeds from 900000 on are for trying out; those reported begin at 0. Arguments: replays a null (default 10), replays a harm
(default 4), first seed. The last line is one JSON object.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from budget_worlds import (
    HARMS,
    NULLS,
    NUM_CATEGORICAL,
    NUM_NUMERIC,
    NUM_ROWS,
    NUM_SLICES,
    SLICES,
    VALIDATED_DAYS,
    Day,
    Traffic,
    World,
    labels_of,
    predictions_of,
    run_of,
)
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from monitor_house import POLICY, House
from scipy import stats
from scipy.spatial.distance import jensenshannon

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Severity
from clipdrift_monitor.store.store import Store

MODELS = ("a", "b", "c")
LIVE_DAYS, SHIFT_AFTER, HARM_AFTER = 90, 20, 15
SEVERITIES: tuple[Severity, ...] = ("page", "ticket", "note")
_REFERENCE_ROWS = 2 * NUM_ROWS  # of the peers; twice a day's rows, so that the distance of sorted rows is exact
_SHARE = 0.5  # of columns, Evidently's default
_DISTANCE = 0.1


class Life(NamedTuple):
    """What one replay showed of one model, by day of its life in service."""

    opened: dict[str, list[int]]  # days on which a signal was opened, by "kind/severity"
    is_open: list[bool]  # whether a page or ticket was open after the day
    slices: dict[int, list[str]]  # slices named by what was opened on a day
    peers: dict[str, list[bool]]


class Peers:
    """Two rules of others on the rows of one model, with 4,000 rows of its validation as reference."""

    def __init__(self, validated: Sequence[Day], seed: int) -> None:
        x_NF, level_NC = (np.concatenate(part) for part in ([d.x_NF for d in validated], [d.level_NC for d in validated]))
        chosen = np.random.default_rng(seed).choice(len(x_NF), _REFERENCE_ROWS, replace=False)
        self.x_NF, self.level_NC = np.sort(x_NF[chosen], axis=0), level_NC[chosen]
        effective = round(_REFERENCE_ROWS * NUM_ROWS / (_REFERENCE_ROWS + NUM_ROWS))
        self._critical = float(stats.kstwo.isf(0.05, effective))

    def drifted_columns(self, day: Day) -> int:
        """By Evidently's default for references of more than 1,000 rows."""
        sorted_NF = np.repeat(np.sort(day.x_NF, axis=0), _REFERENCE_ROWS // NUM_ROWS, axis=0)
        wasserstein_F = np.abs(self.x_NF - sorted_NF).mean(axis=0) / np.maximum(self.x_NF.std(axis=0), 0.001)
        found = int((wasserstein_F >= _DISTANCE).sum())
        for c in range(NUM_CATEGORICAL):
            now, then = (
                np.bincount(level_N[:, c], minlength=NUM_SLICES) / len(level_N) for level_N in (day.level_NC, self.level_NC)
            )
            found += bool(jensenshannon(then, now) >= _DISTANCE)
        return found

    def any_ks(self, day: Day) -> bool:
        """Whether any numeric column's two-sample test has p < 0.05 (asymptotic distribution, as scipy's)."""
        step_N = np.arange(NUM_ROWS)
        for f in range(NUM_NUMERIC):
            share_N = np.searchsorted(self.x_NF[:, f], np.sort(day.x_NF[:, f]), side="right") / _REFERENCE_ROWS
            if max((share_N - step_N / NUM_ROWS).max(), ((step_N + 1) / NUM_ROWS - share_N).max()) > self._critical:
                return True
        return False

    def agree_with_the_libraries(self, day: Day) -> bool:
        """Whether Evidently and scipy themselves say the same of this day."""
        then, now = (_frame(x_NF, level_NC) for x_NF, level_NC in ((self.x_NF, self.level_NC), (day.x_NF, day.level_NC)))
        definition = DataDefinition(numerical_columns=list(then.columns[:NUM_NUMERIC]),
                                    categorical_columns=list(then.columns[NUM_NUMERIC:]))  # fmt: skip
        sets = [Dataset.from_pandas(one, data_definition=definition) for one in (now, then)]
        metrics = Report([DataDriftPreset()]).run(*sets).dict()["metrics"]
        count = next(one["value"]["count"] for one in metrics if one["metric_name"].startswith("DriftedColumnsCount"))
        p_values = [stats.ks_2samp(then.iloc[:, f], now.iloc[:, f], method="asymp").pvalue for f in range(NUM_NUMERIC)]
        return count == self.drifted_columns(day) and (min(p_values) < 0.05) == self.any_ks(day)


def _frame(x_NF: npt.NDArray[Any], level_NC: npt.NDArray[Any]) -> pd.DataFrame:
    columns = {f"x{f}": x_NF[:, f] for f in range(NUM_NUMERIC)}
    return pd.DataFrame(columns | {f"c{c}": level_NC[:, c].astype(str) for c in range(NUM_CATEGORICAL)})


def live(world: World, seed: int) -> list[Life]:
    """One replay: what the monitor and its peers said of each model."""
    since = VALIDATED_DAYS + (HARM_AFTER if world.points else SHIFT_AFTER)
    traffic = Traffic(world, len(MODELS), since, seed)
    validated = [traffic.day(number) for number in range(VALIDATED_DAYS)]
    by_model = [[day[m] for day in validated] for m in range(len(MODELS))]
    peers = [Peers(days, seed) for days in by_model]
    lives = [Life({}, [], {}, {"evidently": [], "any_ks": []}) for _ in MODELS]
    with tempfile.TemporaryDirectory() as folder, House(Path(folder)) as house:
        house.tell([run_of(model, days) for model, days in zip(MODELS, by_model, strict=True)])
        for number in range(VALIDATED_DAYS, VALIDATED_DAYS + LIVE_DAYS + 2):  # labels are due a day later
            day = traffic.day(number)
            house.tell([tell(model, one) for model, one in zip(MODELS, day, strict=True)
                        for tell in (predictions_of, labels_of)])  # fmt: skip
            for life, peer, one in zip(lives, peers, day, strict=True):
                life.peers["evidently"].append(peer.drifted_columns(one) >= _SHARE * (NUM_NUMERIC + NUM_CATEGORICAL))
                life.peers["any_ks"].append(peer.any_ks(one))
        for model, life in zip(MODELS, lives, strict=True):
            _read(house.store, model, life)
    return lives


def _read(store: Store, model: str, life: Life) -> None:
    """What was opened, from what the store kept: the judged blocks and the signals."""
    first_of: dict[str, int] = {}
    spans: list[tuple[int, int]] = []
    for signal in sorted(store.listed("signals", model, 100_000, 0), key=lambda one: one.window_end_ms):
        opened, told = (ms // MS_PER_DAY - VALIDATED_DAYS for ms in (signal.window_start_ms, signal.window_end_ms - 1))
        if signal.signal_id not in first_of:
            first_of[signal.signal_id] = opened
            life.opened.setdefault(f"{signal.kind}/{signal.severity}", []).append(opened)
            if signal.severity != "note":
                life.slices.setdefault(opened, []).append(signal.slice)
        if signal.severity != "note":
            spans.append((opened, told))
    life.is_open.extend(any(first <= day <= last for first, last in spans) for day in range(LIVE_DAYS))


# --- figures ---


def opened_days(life: Life, severity: Severity) -> list[int]:
    return sorted(day for name, days in life.opened.items() if name.endswith(f"/{severity}") for day in days if day < LIVE_DAYS)


def _counted_days(life: Life, severity: Severity) -> list[int]:
    """A page or ticket counts each; notes are promised by the day."""
    days = opened_days(life, severity)
    return sorted(set(days)) if severity == "note" else days


def poisson_interval(count: int) -> tuple[float, float]:
    """95 %, exact (Garwood 1936)."""
    low = float(stats.chi2.ppf(0.025, 2 * count) / 2) if count else 0.0
    return low, float(stats.chi2.ppf(0.975, 2 * count + 2) / 2)


def false_alarms(world: World, lives: Sequence[Sequence[Life]]) -> dict[str, dict[str, float]]:
    """By severity: how many were declared for these replays, how many there were, and their ratio with its interval. A note of
    features that did move is true, so where they move notes are counted before they do."""
    found = {}
    for severity in SEVERITIES:
        num_days = SHIFT_AFTER if world.shift and severity == "note" else LIVE_DAYS
        declared = len(lives) * num_days / POLICY.budget.days_per_false(severity)
        days = [day for life in lives for one in life for day in _counted_days(one, severity)]
        count = sum(day < num_days for day in days)
        low, high = poisson_interval(count)
        found[severity] = {
            "declared": declared, "realised": count, "ratio": count / declared, "ratio_low": low / declared,
            "ratio_high": high / declared,
        }  # fmt: skip
    return found


def delays(lives: Sequence[Sequence[Life]], harmed_slices: Sequence[str]) -> dict[str, float | None]:
    """Of model a: days from the harm's beginning to the first page or ticket after it; None: the median is not reached."""
    first, named = [], []
    for (harmed, *_), name in zip(lives, harmed_slices, strict=True):
        days = sorted(day for severity in ("page", "ticket") for day in opened_days(harmed, severity) if day >= HARM_AFTER)
        first.append(days[0] - HARM_AFTER + 1 if days else np.inf)
        named.append(bool(days) and name in harmed.slices.get(days[0], []))
    median = float(np.median(first))
    return {
        "delay_days": median if np.isfinite(median) else None, "missed": float(np.mean(np.isinf(first))),
        "slice_named": float(np.mean(named)),
    }  # fmt: skip


def incidents(life: Life, rule: str) -> list[int]:
    """Days on which an incident began."""
    if rule == "clipdrift":
        fires = life.is_open
    elif rule in life.peers:
        fires = life.peers[rule][:LIVE_DAYS]
    else:
        return list(range(LIVE_DAYS)) if rule == "always_fire" else []
    return [day for day in range(LIVE_DAYS) if fires[day] and not (day and fires[day - 1])]


RULES = ("clipdrift", "evidently", "any_ks", "always_fire", "never_fire")


def precision_and_recall(replays: Sequence[tuple[World, Sequence[Life]]]) -> dict[str, dict[str, float | None]]:
    """Incidents of all models in all replays: true where the model is harmed by then; recall of harmed models, and the share of
    healthy models with any incident in 90 days."""
    found: dict[str, dict[str, float | None]] = {}
    for rule in RULES:
        num_true = num_found = num_harmed = num_caught = num_healthy = num_accused = 0
        for world, lives in replays:
            for m, life in enumerate(lives):
                began = incidents(life, rule)
                if world.points and m == 0:
                    true = [day for day in began if day >= HARM_AFTER]
                    num_true, num_harmed, num_caught = num_true + len(true), num_harmed + 1, num_caught + bool(true)
                else:
                    num_healthy, num_accused = num_healthy + 1, num_accused + bool(began)
                num_found += len(began)
        found[rule] = {
            "precision": num_true / num_found if num_found else None, "recall": num_caught / num_harmed,
            "incidents": num_found, "healthy_accused": num_accused / num_healthy,
        }  # fmt: skip
    return found


def by_kind(lives: Sequence[Sequence[Life]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for life in lives:
        for one in life:
            for name, days in one.opened.items():
                counts[name] = counts.get(name, 0) + len([day for day in days if day < LIVE_DAYS])
    return dict(sorted(counts.items()))


def slice_of(world: World, seed: int) -> str:
    return SLICES[Traffic(world, len(MODELS), 0, seed).harmed_slice] if world.in_slice else ""


def peers_agree() -> bool:
    """The formulas above against the libraries, on a null day and a shifted one."""
    traffic = Traffic(World("check", shift=1.0), 1, VALIDATED_DAYS, 7)
    peer = Peers([traffic.day(number)[0] for number in range(VALIDATED_DAYS)], 7)
    return all(peer.agree_with_the_libraries(traffic.day(number)[0]) for number in (VALIDATED_DAYS, VALIDATED_DAYS + 30))


def rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: rounded(one) for name, one in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    num_null, num_harm, first_seed = (int(sys.argv[i]) if len(sys.argv) > i else one for i, one in ((1, 10), (2, 4), (3, 0)))
    started = time.perf_counter()
    results: dict[str, Any] = {"bench": "budget", "peers_agree_with_libraries": peers_agree()}
    worlds = [*((world, num_null) for world in NULLS), *((world, num_harm) for world in HARMS)]
    jobs = [(world, first_seed + 1_000 * w + i) for w, (world, number) in enumerate(worlds) for i in range(number)]
    with ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(live, *job) for job in jobs]
        for world in [*NULLS, *HARMS]:
            seeds = [seed for one, seed in jobs if one is world]
            lives = [future.result() for future, (one, _) in zip(futures, jobs, strict=True) if one is world]
            is_harm = world.points > 0
            found = delays(lives, [slice_of(world, seed) for seed in seeds]) if is_harm else false_alarms(world, lives)
            results[world.name] = rounded({**found, "opened": by_kind(lives)})
            print(f"{world.name:24}", json.dumps(results[world.name]), f"{time.perf_counter() - started:.0f} s", flush=True)
        replays = [(world, future.result()) for future, (world, _) in zip(futures, jobs, strict=True)]
    results["incidents"] = rounded(precision_and_recall(replays))
    for rule, figures in results["incidents"].items():
        print(f"{rule:24}", figures)
    pages = [results[world.name]["page"] for world in NULLS]
    results["realised_over_declared"] = max(one["ratio"] for one in pages)
    results["realised_over_declared_upper"] = max(one["ratio_high"] for one in pages)
    results["tickets_over_declared"] = max(results[world.name]["ticket"]["ratio"] for world in NULLS)
    results["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(results))
