"""False alarms and delay of the three harm tests in simulated worlds (bench/worlds.py), beside always and never firing.

Every stream has a reference of its own from 15 validated days, as a real model has. Arguments: streams per null (default 100)
and per harm (default 30). The last line is one JSON object.
"""

import json
import sys
import time

import numpy as np
from worlds import HARMS, NULLS, World, block_of, days_of, run_of

from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import TEST_NAMES, HarmConfig, start, step
from clipdrift_monitor.risk.reference import reference_of

_NUM_ROWS, _VALIDATED_DAYS = 400, 15
_NULL_DAYS, _BEFORE, _AFTER = 250, 30, 120


def alarms_of(world: World, num_days: int, since: int, seed: int) -> dict[str, list[int]]:
    """Days on which each test raised an alarm; the harm tests run as the monitor runs them."""
    random = np.random.default_rng(seed)
    validated = days_of(world, _VALIDATED_DAYS, _NUM_ROWS, _VALIDATED_DAYS, random)
    state = start(reference_of(run_of(validated)), Allotment())
    found: dict[str, list[int]] = {name: [] for name in TEST_NAMES}
    for number, day in enumerate(days_of(world, num_days, _NUM_ROWS, since, random)):
        for one in step(state, block_of(day, number), HarmConfig()):
            if one.is_alarm:
                found[one.test].append(number)
    return found


def false_alarms(world: World, num_streams: int) -> dict[str, float]:
    """Alarms per block, by test and in all."""
    per_stream = [alarms_of(world, _NULL_DAYS, _NULL_DAYS, seed) for seed in range(num_streams)]
    rates = {name: sum(len(one[name]) for one in per_stream) / (num_streams * _NULL_DAYS) for name in TEST_NAMES}
    return {**rates, "all": sum(rates.values()), "always_fire": 1.0, "never_fire": 0.0}


def delays(world: World, num_streams: int) -> dict[str, dict[str, float | None]]:
    """Median days from the harm's beginning to the first alarm, and the share of streams without one in the horizon."""
    per_stream = [alarms_of(world, _BEFORE + _AFTER, _BEFORE, 1000 + seed) for seed in range(num_streams)]
    found: dict[str, dict[str, float | None]] = {}
    for name in TEST_NAMES:
        first = [next((day - _BEFORE + 1 for day in one[name] if day >= _BEFORE), None) for one in per_stream]
        seen = [day for day in first if day is not None]
        found[name] = {"delay_days": float(np.median(seen)) if seen else None, "missed": 1 - len(seen) / num_streams}
    return {**found, "always_fire": {"delay_days": 1.0, "missed": 0.0}, "never_fire": {"delay_days": None, "missed": 1.0}}


if __name__ == "__main__":
    num_null, num_harm = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 100), (2, 30)))
    started = time.perf_counter()
    results: dict[str, object] = {"bench": "harm", "budget_per_block": 1 / 90 + 1 / 30}
    for null in NULLS:
        results[null.name] = rates = false_alarms(null, num_null)
        print(f"{null.name:18}", {name: round(rate, 5) for name, rate in rates.items()}, flush=True)
    for harm in HARMS:
        results[harm.name] = seen = delays(harm, num_harm)
        print(f"{harm.name:18}", {name: seen[name] for name in TEST_NAMES}, flush=True)
    results["seconds"] = round(time.perf_counter() - started, 1)
    print(json.dumps(results))
