"""A life of one model, event by event, and what is left when it is over: so that two lives can be compared.

Left out is what a wall clock says: when audit rows were written, when a retrain was started.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from dialogue import DAY, Dialogue, day_of, outcome, run_end

from clipdrift_contract.events import Deployment, Event, Incident, RetrainRequest, RunEnd, Signal

HARMED_FROM, LAST_DAY = 6, 15


def days() -> Iterator[list[tuple[str, Event]]]:
    """What is told of each day, with the ids of the events: healthy first, then harmed until a retrain is ordered."""
    yield [("run-v1", run_end())]
    for day in range(2, LAST_DAY + 1):
        said, learned = day_of(day, accuracy=0.8 if day < HARMED_FROM else 0.1, num_rows=120)
        yield [(f"said-{day}", said), (f"learned-{day}", learned)]


def answer(request: RetrainRequest) -> list[tuple[str, Event]]:
    """What a finished job tells: its candidate, which passes."""
    candidate: RunEnd = run_end("v2", retrain_key=request.key, day=LAST_DAY)
    return [("run-v2", candidate), ("outcome", outcome(request))]


def after() -> list[tuple[str, Event]]:
    """Days of the new version."""
    return [
        (f"{name}-{day}", event)
        for day in range(LAST_DAY + 1, LAST_DAY + 4)
        for name, event in zip(("said", "learned"), day_of(day, version="v2", num_rows=120, epoch="f"), strict=True)
    ]


def final_state(dialogue: Dialogue) -> dict[str, Any]:
    """Everything that a monitor has come to, as plain values; sums are rounded, for they may be added in another order."""
    store = dialogue.store
    state = msgspec.to_builtins(dialogue.state)
    kept = {
        "sums": {str(key): sums for key, sums in dialogue.sums().items()},
        "state": state,
        "harm": msgspec.msgpack.decode(store.harm("pump") or b"\xc0"),
        "blocks": [msgspec.msgpack.decode(body) for body in store.blocks("pump")],
        "retrains": [(one.key, one.state, one.attempts > 0, one.outcome) for one in store.retrains("pump")],
        "deployments": store.listed("deployments", "pump", 99, 0),
        "decisions": sorted(store.listed("decisions", "pump", 999, 0), key=lambda one: one.decision_id),
        "signals": sorted(store.listed("signals", "pump", 999, 0), key=lambda one: one.signal_id),
        "incidents": store.incidents("pump", limit=99),
        "audit": dialogue.audit_words(),
        "outbox": store.num_outbox(),
        "told": {kind.__name__: sorted(dialogue.published(kind)) for kind in (Signal, Incident, Deployment, RetrainRequest)},
    }
    return _rounded(msgspec.to_builtins(kept))


def differences(found: Any, expected: Any, where: str = "") -> list[str]:
    """Where two states differ, in words: a failed comparison of the whole is too long to read."""
    if isinstance(found, dict) and isinstance(expected, dict):
        names = sorted(set(found) | set(expected))
        return [line for name in names for line in differences(found.get(name), expected.get(name), f"{where}/{name}")]
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        pairs = enumerate(zip(found, expected, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{where}/{i}")]
    return [] if found == expected else [f"{where}: {str(found)[:200]} where undisturbed {str(expected)[:200]}"]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}") if abs(value) > 1e-9 else 0.0
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


__all__ = ["DAY", "after", "answer", "days", "differences", "final_state"]
