"""A row of everything that a store holds, and all that can be read back of it."""

import sqlite3
from pathlib import Path

import msgspec
import numpy as np
import psycopg

from clipdrift_contract.bus.log import TopicPartition
from clipdrift_contract.events import (
    Arm,
    ClipSpec,
    Decision,
    Deployment,
    Incident,
    RetrainOutcome,
    RetrainRequest,
    RunEnd,
    ServedVersion,
    Signal,
)
from clipdrift_monitor.actions.run import Run
from clipdrift_monitor.store.store import AuditEntry, Changes, OutboxEntry
from clipdrift_monitor.windows.window import WindowKey

GOLDEN = Path(__file__).parent / "golden"
KEY = WindowKey("v1", 3, 86_400_000)
PLACE = TopicPartition("clipdrift.labels", 0)


def deployment(generation, version="v2"):
    served = ServedVersion(version=version, uri="file:///x", digest="d")
    return Deployment(model="m", generation=generation, champion=served, decided_at_ms=generation * 10)


def run(version="v1", ended_at_ms=5, run_id="r"):
    return RunEnd(
        run_id=run_id, model="m", version=version, started_at_ms=0, ended_at_ms=ended_at_ms, data_start_ms=0, data_end_ms=1,
        as_of_ms=1, data_digest="", code_revision="", seed=0, optimizer="SGD", learning_rate=0.1, clip=ClipSpec(), num_steps=9,
    )  # fmt: skip


def request(key="k", at_ms=7):
    return RetrainRequest(
        key=key, model="m", cause="drift", decision_id="d", requested_at_ms=at_ms, as_of_ms=7, data_start_ms=0,
        champion_version="v1", champion_uri="", champion_digest="", champion_clip=ClipSpec(), generation=1,
        arms=(Arm(name="same", clip=ClipSpec()),),
    )  # fmt: skip


def outcome(key="k"):
    return RetrainOutcome(key=key, model="m", finished_at_ms=9, verdict="pass", reasons=("better",))


def signal_of(number):
    return Signal(
        signal_id=f"s{number}", model="m", version="v1", kind="repairable", severity="ticket", detector="repairable",
        window_start_ms=number, window_end_ms=number + 1, statistic=1.0, threshold=2.0,
    )  # fmt: skip


def decision(number):
    return Decision(
        decision_id=f"d{number}", model="m", version="v1", at_ms=number, action="none", reasons=("No test raised an alarm.",),
        policy_version="p", evidence_digest="e",
    )  # fmt: skip


def incident(number, **changed):
    known = Incident(
        incident_id=f"i{number}", model="m", version="v1", root="harm", severity="page", is_open=True, change="opened",
        revision=1, is_news=True, at_ms=number, opened_at_ms=0, first_window_ms=0, last_window_ms=1,
    )  # fmt: skip
    return msgspec.structs.replace(known, **changed)


def everything():
    """A batch of events that changes something of every kind."""
    return Changes(
        offsets={PLACE: 41},
        seen_ids={"a": 10, "b": 20},
        seen_labels={("m", "epoch", 0): (b"\x01", 15)},
        windows={("m", KEY): np.array([1.0, 0.1 + 0.2, 1e300])},
        blocks={("m", "v1", 0): b"block"},
        models={"m": b"state"},
        harm={"m": b"memory"},
        runs=[run()],
        unplaced=[("e1", "m", "v9", b"headers", b"value")],
        signals=[signal_of(1)],
        decisions=[decision(1)],
        incidents=[incident(1)],
        requests=[request()],
        ci_runs={"k": Run(key="k", model="m", ordered_at_ms=7, state="running", url="https://ci.example/1")},
        deployments=[deployment(1)],
        outbox=[OutboxEntry(event_id="o1", kind="Decision", body=b"x")],
        audit=[AuditEntry(at_ms=1, actor="monitor", action="decide", subject="m", body={"b": 1, "a": [None]})],
    )


def seen_of(store):
    """All that can be read back."""
    return {
        "offsets": store.offsets(), "seen": store.has_seen(["a", "b", "c"]), "labels": store.seen_labels("m", "epoch", 0),
        "windows": [(key, sums.tolist()) for key, sums in store.windows("m", 0, 10**12)], "blocks": store.blocks("m"),
        "models": store.models(), "harm": store.harm("m"), "run": store.run("m", "v1"), "unplaced": store.unplaced("m", "v9"),
        "signals": store.listed("signals", "m", 9, 0), "decisions": store.listed("decisions", "m", 9, 0),
        "incidents": store.incidents(limit=9),
        "runs": store.listed("runs", "m", 9, 0), "deployments": store.listed("deployments", "m", 9, 0),
        "retrains": store.retrains(), "open runs": store.open_runs(), "outbox": store.outbox(), "audit": list(store.audit()),
    }  # fmt: skip


def run_script(url, statements):
    """Statements of a script, on the database itself."""
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.executescript(statements)
        connection.close()
    else:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statements)
