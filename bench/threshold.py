"""How well the product chooses the bound of a retrain, and whether its gate lets a worse model pass.

Two kinds of clipping (batch, per sample) by three optimizers (SGD, SGD at four times the tuned learning rate, Adam) by two
bounds in service that are too tight (0.03 and 0.32 of the median norm), on four data sets. Arms, choice and gate are the
product's own functions; the many small models are trained in lock-step (threshold_worlds/). Regret is to the best of ten
bounds on late rows that nothing has seen, chosen by the mean over seeds: optimistic, so a little regret is left even to a
perfect choice. Beside it, "fair" takes the oracle's bound from the other half of the seeds.

    bench/threshold.py [--seeds 16] [--first-seed 0] [--sets synthetic,flights,elec,covtype] [--workers N] [--quick] [--fresh]

Cells that are done are kept in build/threshold/cells and not done again; --fresh forgets them. Seeds 100 to 299 were used while
tuning. About a quarter of an hour on two free cores. The last line is one JSON object.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
from threshold_worlds import cells, datasets, ensemble
from threshold_worlds.cells import OPTIMIZERS, Cell, Life, live
from threshold_worlds.figures import POLICIES, Promotions, RegretTable, promotions, regime_of, regimes, regret_table

from clipdrift_trainer.evaluation import calibration, paired
from clipdrift_trainer.retraining import candidates, contrast, gate, judging, selection, stability
from clipdrift_trainer.tasks import split

_SEEDS_A_CELL = 4
_FIRST_TUNING_SEED = 100
_KEPT = datasets.BUILD / "cells"
_SOURCES = (cells, datasets, ensemble, calibration, paired, split, candidates, contrast, gate, judging, selection, stability)


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    asked = _arguments(arguments)
    lacking = {name: why for name, why in datasets.available().items() if why and name in asked.sets}
    for name, why in lacking.items():
        print(f"without {name}, which cannot be had here ({why})")
    names = [name for name in asked.sets if name not in lacking]
    started = time.monotonic()
    lives = _live_all(
        _cells(names, range(asked.first_seed, asked.first_seed + asked.seeds)), asked.workers, is_fresh=asked.fresh
    )
    table = regret_table(lives)
    _print_regrets(table, lives, names)
    next_days, late_days = promotions(lives, lambda life: life.next_gain), promotions(lives, lambda life: life.late_gain)
    _print_promotions(lives, names)
    means = {regime: by_policy["chosen"][""] for regime, by_policy in table.items()}
    result: dict[str, object] = {
        "bench": "threshold",
        "sets": names,
        "seeds": [asked.first_seed, asked.first_seed + asked.seeds - 1],
        "worst_mean_regret_pp": round(max(one.mean for one in means.values()), 3),
        "worst_fair_regret_pp": round(max(one.fair for one in means.values()), 3),
        "mean_regret_pp": {" ".join(regime): round(one.mean, 3) for regime, one in means.items()},
        "worst_mean_regret_pp_beside": {
            policy: round(max(by_policy[policy][""].mean for by_policy in table.values()), 3) for policy in POLICIES[1:]
        },
        "gate_passes": next_days.passes,
        "gate_false_promotions": next_days.false,
        "gate_missed_promotions": next_days.missed,
        "gate_better_candidates": next_days.better,
        "gate_false_promotions_whole_late_period": late_days.false,
        "wall_seconds": round(time.monotonic() - started),
    }
    print(json.dumps(result))
    return result


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sets", type=lambda words: tuple(words.split(",")), default=datasets.NAMES)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="two seeds of the synthetic set")
    parser.add_argument("--fresh", action="store_true", help="forget cells that are done")
    asked = parser.parse_args(given)
    if asked.quick:
        asked.seeds, asked.sets = 2, ("synthetic",)
    unknown = set(asked.sets) - set(datasets.NAMES)
    if unknown:
        parser.error(f"there are no sets {sorted(unknown)}; known are {', '.join(datasets.NAMES)}")
    if asked.seeds < 2:
        parser.error(f"an interval needs at least 2 seeds, got {asked.seeds}")
    if asked.first_seed < _FIRST_TUNING_SEED < asked.first_seed + asked.seeds:
        print(f"beware: seeds from {_FIRST_TUNING_SEED} to 299 were used while tuning")
    return asked


def _cells(names: Iterable[str], seeds: range) -> list[Cell]:
    chunks = [tuple(seeds[start : start + _SEEDS_A_CELL]) for start in range(0, len(seeds), _SEEDS_A_CELL)]
    return [
        Cell(name, optimizer, per_sample, chunk)
        for chunk in chunks
        for name in names
        for optimizer in OPTIMIZERS
        for per_sample in (False, True)
    ]


def _live_all(todo: Sequence[Cell], num_workers: int, *, is_fresh: bool) -> list[Life]:
    _KEPT.mkdir(parents=True, exist_ok=True)
    paths = {cell: _path(cell) for cell in todo}  # once: the code may change while this runs
    missing = [(cell, paths[cell]) for cell in todo if is_fresh or not paths[cell].exists()]
    print(f"{len(todo)} cells, {len(todo) - len(missing)} of them done before", flush=True)
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(num_workers) as pool:
        for number, _ in enumerate(pool.imap_unordered(_live_and_keep, missing), 1):
            left = (time.monotonic() - started) / number * (len(missing) - number)
            print(f"\r{number}/{len(missing)} cells, {left / 60:.0f} min left ", end="", flush=True)
    print()
    return [life for cell in todo for life in msgspec.json.decode(paths[cell].read_bytes(), type=list[Life])]


def _live_and_keep(cell_and_path: tuple[Cell, Path]) -> None:
    cell, path = cell_and_path
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(msgspec.json.encode(live(cell)))
    partial.replace(path)


def _path(cell: Cell) -> Path:
    """Named by the cell and by the code that it comes from, so that what an older rule chose is never taken for today's."""
    code = b"".join(Path(str(source.__file__)).read_bytes() for source in _SOURCES)
    return _KEPT / f"{cell.dataset}-{hashlib.sha256(repr(cell).encode() + code).hexdigest()[:16]}.json"


def _print_regrets(table: RegretTable, lives: Sequence[Life], names: Sequence[str]) -> None:
    print(
        "\nRegret to the oracle bound, percentage points of accuracy on late rows, mean over data sets (fair) [95 % over seeds]"
    )
    print(f"{'regime':28}" + "".join(f"{policy:>24}" for policy in POLICIES))
    for regime, by_policy in table.items():
        cells_ = (by_policy[policy][""] for policy in POLICIES)
        print(f"{' '.join(regime):28}" + "".join(f"{one.mean:8.2f} ({one.fair:5.2f}) ±{one.half:5.2f}" for one in cells_))
    print("\nOf what the product chooses, by data set, and which arms won")
    print(f"{'regime':28}" + "".join(f"{name:>18}" for name in names))
    for regime, by_policy in table.items():
        won = Counter(life.winner for life in lives if regime_of(life) == regime)
        words = ", ".join(f"{name} {count}" for name, count in won.most_common())
        found = (by_policy["chosen"][name] for name in names)
        print(f"{' '.join(regime):28}" + "".join(f"{one.mean:11.2f} ±{one.half:5.2f}" for one in found) + f"   {words}")


def _print_promotions(lives: Sequence[Life], names: Sequence[str]) -> None:
    print("\nThe gate: candidates that passed / of them worse than the model in service; better ones / of them not passed")
    print(f"{'regime':28}{'next third of the late days':>34}{'all late days':>34}")
    for regime in regimes(lives):
        _print_row(" ".join(regime), [life for life in lives if regime_of(life) == regime])
    for name in names:
        _print_row(name, [life for life in lives if life.dataset == name])


def _print_row(title: str, lives: Sequence[Life]) -> None:
    words = [
        _words(promotions(lives, lambda life: life.next_gain)),
        _words(promotions(lives, lambda life: life.late_gain)),
    ]
    print(f"{title:28}{words[0]:>34}{words[1]:>34}")


def _words(one: Promotions) -> str:
    return f"{one.passes} / {one.false}; {one.better} / {one.missed}"


if __name__ == "__main__":
    main()
