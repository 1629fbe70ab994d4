"""Does the monitor's test of errors keep its promise however errors hang together, and how soon does it see a harm?

Streams of errors, 0.10 before and 0.15 after a change: independent, chains (lag 0.1 and 0.3), days that differ (sd 0.04).
Each has 5,000 validated labels, from which the monitor's test takes all that it knows, with one setting for all streams: at
most one false alarm in 400 days of 500 labels. Beside it ADWIN, Page-Hinkley, HDDM_A, HDDM_W and DDM of river, which have read
the same validated labels first: as they come; at the loosest number that kept P(false alarm in 10,000) <= 0.05 on tuning
streams of all nulls, as the monitor's must; and at the loosest that kept it on this null, which one can set who knows the null.

Real streams: the flights of the demo, electricity prices, forest covers: the three harm tests with the default budget, beside
ADWIN on errors and Evidently's default, on held-out days drawn again (every alarm is false) and in production (day of the first
alarm).

Behind each share stands its 95 % Clopper-Pearson interval, behind each median delay that of its order statistics. `peers_ahead`
lists every world and matched number at which a peer is faster, or misses fewer where both miss most.

    bench/detectors.py [--streams 400] [--peer-streams 100] [--controls 60] [--seed 0] [--calibrate] [--without-real]

Seeds 1001 to 5002 were used while tuning the monitor's test, 9000 for the peers' numbers (--calibrate finds them again, in half
an hour). A few minutes on two free cores. The last line is one JSON object.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from detector_worlds.detectors import PEERS, FindAlarm, monitor_alarm, peer_alarm, updates_per_second
from detector_worlds.streams import CHANGE_AT, FAINT, NULLS, World, streams_of
from scipy import stats

_CALIBRATION_SEED, _NUM_CALIBRATION, _ALLOWED = 9_000, 100, 0.05
_CONFIDENCE = 0.95
_NUM_BISECTIONS = 6
_MEASURED = ("false_alarm", "false_alarm_interval", "delay", "delay_interval", "missed", "missed_interval")
_SPEED_STREAMS = 20
# strictness by null, from --calibrate
_LOOSEST = {
    "ADWIN": {"independent": 1.655, "lag 0.1": 2.277, "lag 0.3": 3.209, "days differ": 14.403},
    "Page-Hinkley": {"independent": 1.716, "lag 0.1": 1.794, "lag 0.3": 1.833, "days differ": 2.263},
    "HDDM_A": {"independent": 2.781, "lag 0.1": 4.022, "lag 0.3": 5.883, "days differ": 8.984},
    "HDDM_W": {"independent": 2.161, "lag 0.1": 2.781, "lag 0.3": 4.642, "days differ": 3.402},
    "DDM": {"independent": 3.188, "lag 0.1": 3.188, "lag 0.3": 3.781, "days differ": 6.75},
}


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    asked = _arguments(arguments)
    started = time.monotonic()
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        if asked.calibrate:
            print(json.dumps({peer.name: dict(pool.map(_calibrate, NULLS, [peer.name] * len(NULLS))) for peer in PEERS}))
        jobs = [(world, "monitor", "", asked.streams, asked.seed) for world in (*NULLS, *FAINT)]
        jobs += [
            (world, peer.name, setting, asked.peer_streams, asked.seed)
            for world in NULLS
            for peer in PEERS
            for setting in ("default", "kept on all nulls", "kept on this null")
        ]
        real = [] if asked.without_real else [pool.submit(_real, name, asked.controls, asked.seed) for name in _real_names()]
        rows = [row for row in pool.map(_measure, jobs) if _print_row(row) is None]
        streams = dict(one.result() for one in real)
    for name, found in streams.items():
        print(name, json.dumps(found))
    speed = updates_per_second(streams_of(NULLS[0], _SPEED_STREAMS, asked.seed).null_RN.reshape(-1))
    result = _result(rows) | {
        "streams": asked.streams,
        "updates_per_second": {name: round(rate) for name, rate in speed.items()},
        "real": streams,
        "wall_seconds": round(time.monotonic() - started),
    }
    print(json.dumps(result))
    return result


def _measure(job: tuple[World, str, str, int, int]) -> dict[str, Any]:
    """False alarms, delay, misses of one detector on one kind of stream."""
    world, name, setting, number, seed = job
    streams = streams_of(world, number, seed)
    find, strictness = _finder(world, name, setting)
    false = [find(validated, null) >= 0 for validated, null in zip(streams.validated_RN, streams.null_RN, strict=True)]
    at = [find(validated, harmed) for validated, harmed in zip(streams.validated_RN, streams.harmed_RN, strict=True)]
    waits = [np.inf if index < 0 else index - CHANGE_AT + 1 for index in at if not 0 <= index < CHANGE_AT]
    delay = float(np.median(waits)) if waits else np.inf
    num_missed = int(np.isinf(waits).sum())
    return {
        "null": world.name, "detector": name, "setting": setting, "strictness": strictness,
        "false_alarm": round(float(np.mean(false)), 4), "false_alarm_interval": _interval_of_share(sum(false), len(false)),
        "delay": _finite(delay), "delay_interval": _interval_of_median(waits),
        "missed": round(num_missed / len(waits), 4) if waits else None,
        "missed_interval": _interval_of_share(num_missed, len(waits)) if waits else None,
        "false_before_change": round(1 - len(waits) / len(at), 4),
    }  # fmt: skip


def _interval_of_share(count: int, of: int) -> list[float]:
    """95 %, Clopper and Pearson (1934)."""
    return [round(float(end), 4) for end in stats.binomtest(count, of).proportion_ci(_CONFIDENCE)]


def _interval_of_median(waits: list[float]) -> list[float | None]:
    """At least 95 %, whatever the distribution: order statistics by the binomial; None: beyond the horizon."""
    last = int(stats.binom.ppf((1 - _CONFIDENCE) / 2, len(waits), 0.5))
    if last < 1:
        return [None, None]
    ordered = sorted(waits)
    return [_finite(ordered[last - 1]), _finite(ordered[-last])]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _finder(world: World, name: str, setting: str) -> tuple[FindAlarm, float | None]:
    if name == "monitor":
        return monitor_alarm, None
    peer = next(one for one in PEERS if one.name == name)
    loosest = _LOOSEST[name]
    strictness = {
        "default": peer.default, "kept on all nulls": max(loosest.values()), "kept on this null": loosest[world.name]
    }[setting]  # fmt: skip
    return peer_alarm(peer, strictness), round(strictness, 3)


def _calibrate(world: World, name: str) -> tuple[str, float]:
    """The loosest number of a peer that keeps the rate on the tuning streams of a null, by bisection."""
    peer = next(one for one in PEERS if one.name == name)
    streams = streams_of(world, _NUM_CALIBRATION, _CALIBRATION_SEED)
    loose, strict = peer.loosest, peer.strictest
    for _ in range(_NUM_BISECTIONS):
        middle, num_false = (loose + strict) / 2, 0
        for validated, null in zip(streams.validated_RN, streams.null_RN, strict=True):
            num_false += peer_alarm(peer, middle)(validated, null) >= 0
            if num_false > _ALLOWED * _NUM_CALIBRATION:
                break
        loose, strict = (middle, strict) if num_false > _ALLOWED * _NUM_CALIBRATION else (loose, middle)
    return world.name, round(strict, 3)


def _real_names() -> list[str]:
    from detector_worlds import real  # noqa: PLC0415 - evidently takes seconds to import, and may be left out

    lacking = {name: why for name, why in real.available().items() if why}
    for name, why in lacking.items():
        print(f"without {name}, which cannot be had here ({why})")
    return [name for name in real.NAMES if name not in lacking]


def _real(name: str, num_controls: int, seed: int) -> tuple[str, dict[str, Any]]:
    from detector_worlds import real  # noqa: PLC0415

    warnings.filterwarnings("ignore")
    stream = real.stream_of(real.table_of(name))
    accuracy = [1 - float(day.errors.mean()) for day in stream.production]
    size = max(1, len(accuracy) // 8)
    return name, {
        "held_out_days": len(stream.held_out),
        "validated_accuracy": round(1 - float(np.mean(np.concatenate([day.errors for day in stream.held_out]))), 3),
        "accuracy_by_eighth": [round(float(np.mean(accuracy[i : i + size])), 3) for i in range(0, size * 8, size)],
        "days": len(stream.production),
        "controls_with_false_alarm": {
            name: round(share, 3) for name, share in real.false_alarms(stream, num_controls, seed).items()
        },
        "day_of_alarm": real.first_alarms(stream.reference, stream.production),
    }


def _print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['null']:20} {row['detector']:13} {row['setting']:18} {row['strictness'] or '':>7} "
        f"P(false alarm in 10k) {row['false_alarm']:.3f} {row['false_alarm_interval']}   "
        f".10 -> .15 after {row['delay'] or '-':>6} {row['delay_interval']} "
        f"missed {row['missed'] if row['missed'] is not None else '-'} {row['missed_interval'] or ''}",
        flush=True,
    )


def _result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    ours = {row["null"]: row for row in rows if row["detector"] == "monitor"}
    nulls = [world.name for world in NULLS]
    peers: dict[str, Any] = {}
    for row in rows:
        if row["detector"] != "monitor":
            at = peers.setdefault(row["detector"], {}).setdefault(row["setting"], {})
            at[row["null"]] = {key: row[key] for key in ("strictness", *_MEASURED)}
    for by_setting in peers.values():
        for at in by_setting.values():
            at["worst_false_alarm"] = max(at[name]["false_alarm"] for name in nulls)
    return {
        "bench": "detectors",
        "worst_false_alarm": max(ours[name]["false_alarm"] for name in nulls),
        "worst_false_alarm_where_days_differ_faintly": max(ours[world.name]["false_alarm"] for world in FAINT),
        "delay_iid": ours["independent"]["delay"],
        "delay_clustered": ours["lag 0.3"]["delay"],
        "missed": max(ours["independent"]["missed"], ours["lag 0.3"]["missed"]),
        "peers_ahead": [row for row in map(_ahead_of, rows, [ours] * len(rows)) if row is not None],
        "monitor": {name: {key: row[key] for key in _MEASURED} for name, row in ours.items()},
        "peers": peers,
    }


def _ahead_of(row: dict[str, Any], ours: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """Where a peer at matched false alarms is faster than the monitor's test, or misses fewer where both miss most."""

    def slowness(one: dict[str, Any]) -> tuple[float, float]:
        return one["delay"] or np.inf, 1.0 if one["missed"] is None else one["missed"]

    own = ours[row["null"]]
    if not row["setting"].startswith("kept") or slowness(row) >= slowness(own):
        return None
    told = {key: row[key] for key in ("null", "detector", "setting", "false_alarm", "delay", "missed")}
    return told | {"monitor": {key: own[key] for key in ("false_alarm", "delay", "missed")}}


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=400)
    parser.add_argument("--peer-streams", type=int, default=100)
    parser.add_argument("--controls", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--without-real", action="store_true")
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
