"""Holds the demo's result.json against the bars the project sets itself; prints one line a bar, exits 1 when one is missed.

The time it took is told and never fails: it says as much about what else the machine did.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WALL_SECONDS = 240
RECOVERED_SHARE = 0.6
LIVE_ACCURACY_ERROR = 1e-9
STAGES = ("shadow", "canary 0.1", "canary 0.5")
CLIPPING = {"flights-sgd": "implicated", "flights-adam": "not_implicated"}


def bars(result: dict[str, Any]) -> Iterator[tuple[str, object, bool]]:
    """Each bar as (what, figure reached, whether it holds)."""
    yield "serving_errors", result["serving_errors"], result["serving_errors"] == 0
    error = result["live_accuracy_error"]
    yield "live_accuracy_error", error, error <= LIVE_ACCURACY_ERROR
    for name, expected in CLIPPING.items():
        model = result["models"][name]
        for metric in ("auc", "nll"):
            share = model["recovered_share"][metric]
            yield f"{name} recovered_share {metric}", share, share is not None and share >= RECOVERED_SHARE
        for count in ("num_alarms", "num_retrains"):
            yield f"{name} control {count}", model["control"][count], model["control"][count] == 0
        through = [one for one in model["rollouts"] if one["end"] == "promoted"]
        stages = {tuple(step["stage"] for step in one["steps"]) for one in through}
        yield f"{name} stages before promotion", sorted(stages), stages == {STAGES}
        promoted = sum(one["promoted"] for one in model["retrains"])
        yield f"{name} promoted by a rollout", f"{len(through)} of {promoted}", len(through) == promoted
        yield f"{name} diagnosis", model["diagnosis"], (model["diagnosis"] == "implicated") == (expected == "implicated")


def main() -> int:
    result = json.loads(Path(sys.argv[1]).read_text())
    missed = 0
    seconds = result["wall_seconds"]
    word = "ok    " if seconds <= WALL_SECONDS else "slow  "
    print(f"{word} wall_seconds: {seconds:.0f} (aim: {WALL_SECONDS} on two quiet cores)")
    for what, figure, holds in bars(result):
        print(f"{'ok    ' if holds else 'MISSED'} {what}: {figure}")
        missed += not holds
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
