"""How long the status pages take with 200 models, over real HTTP from a monitor process.

Two models with 20 features and ten slices, one of which is harmed in one slice after 40 days, live through 90 days on a real
engine; what the store holds of them is copied under 200 names (a third of them the harmed one's), with signals, incidents,
decisions, windows and blocks. Then a monitor process starts on that store, as the command starts it, and the first page and
model pages are asked for in turn over one connection, each model page of another model. Each answer is read whole and checked.

Arguments: number of loads of each page (default 100). The last line is one JSON object.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from budget_worlds import VALIDATED_DAYS, Traffic, World, labels_of, predictions_of, run_of
from monitor_house import House

from clipdrift_monitor.state import JudgedBlock, ModelState
from clipdrift_monitor.store.store import Changes, Store

NUM_MODELS, LIVE_DAYS, HARM_AFTER, SEED = 200, 90, 40, 0
ORIGINALS = ("harmed", "healthy")
WORLD = World("harm in one slice", lag=0.1, day_share=0.02, points=10.0, in_slice=True)
AT_MOST_MS = 200.0
FOR_EVER_MS = 2**62
SERVER = """
import sys, logging, msgspec
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.server import run
logging.basicConfig(level="WARNING")
run(msgspec.json.decode(sys.argv[1], type=MonitorConfig, dec_hook=lambda kind, value: kind(value)))
"""


def live_through(house: House) -> None:
    """Two models and their days, judged by a real engine."""
    traffic = Traffic(WORLD, len(ORIGINALS), VALIDATED_DAYS + HARM_AFTER, SEED)
    validated = [traffic.day(number) for number in range(VALIDATED_DAYS)]
    house.tell([run_of(model, [day[m] for day in validated]) for m, model in enumerate(ORIGINALS)])
    for number in range(VALIDATED_DAYS, VALIDATED_DAYS + LIVE_DAYS + 2):
        day = traffic.day(number)
        house.tell(
            [told(model, one) for model, one in zip(ORIGINALS, day, strict=True) for told in (predictions_of, labels_of)]
        )


def renamed(value: Any, model: str, **changed: Any) -> Any:
    return msgspec.structs.replace(value, model=model, **changed)


def copied(store: Store, original: str, model: str) -> Changes:
    """All that the store holds of a model, under another name."""

    def named(value: Any, field: str) -> Any:
        return renamed(value, model, **{field: f"{model}-{getattr(value, field)}"})

    def listed(kind: str) -> list[Any]:
        return store.listed(kind, original, 1_000_000, 0)

    state = msgspec.msgpack.decode(store.models()[original], type=ModelState)
    state = renamed(state, model, incidents=[named(one, "incident_id") for one in state.incidents])
    harm = store.harm(original)
    assert harm is not None
    blocks = [(msgspec.msgpack.decode(body, type=JudgedBlock), body) for body in store.blocks(original)]
    return Changes(
        windows={(model, key): sums for key, sums in store.windows(original, 0, FOR_EVER_MS)},
        blocks={(model, block.version, block.start_ms): body for block, body in blocks},
        models={model: msgspec.msgpack.encode(state)},
        harm={model: harm},
        runs=[named(one, "run_id") for one in listed("runs")],
        signals=[named(one, "signal_id") for one in listed("signals")],
        decisions=[named(one, "decision_id") for one in listed("decisions")],
        deployments=[renamed(one, model) for one in listed("deployments")],
        incidents=[named(one, "incident_id") for one in store.incidents(original, limit=1_000)],
    )


def fill(folder: Path) -> None:
    """A store with 200 models."""
    store = Store(f"sqlite:///{folder}/store.db")
    with tempfile.TemporaryDirectory(dir=folder) as first, House(Path(first)) as house:
        live_through(house)
        for number in range(NUM_MODELS):
            original = ORIGINALS[0] if number % 3 == 0 else ORIGINALS[1]
            store.commit(copied(house.store, original, f"model-{number:03d}"))
    store.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the monitor did not become ready")


def loaded_ms(client: httpx.Client, path: str, words: Sequence[str]) -> float:
    """From asking to the last byte, in milliseconds."""
    begun = time.perf_counter()
    answer = client.get(path)
    took = 1_000 * (time.perf_counter() - begun)
    if answer.status_code != 200 or any(word not in answer.text for word in words):
        raise SystemExit(f"{path} was answered with {answer.status_code}: {answer.text[:300]}")
    return took


def main() -> None:
    num_loads = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    if num_loads < 50:
        raise SystemExit(f"at least 50 loads are needed for a p95, got {num_loads}")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        begun = time.monotonic()
        fill(folder)
        print(f"{NUM_MODELS} models with {LIVE_DAYS} days each, made in {time.monotonic() - begun:.0f} s")
        config = {"port": port, "bus_url": f"sqlite:///{folder}/bus.db", "store_url": f"sqlite:///{folder}/store.db",
                  "jobs_dir": f"{folder}/jobs", "evidence_dir": f"{folder}/evidence", "evidence_for": "nothing"}  # fmt: skip
        server = subprocess.Popen([sys.executable, "-c", SERVER, json.dumps(config)], env=os.environ)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
                wait_until_ready(client, server)
                names = [f"model-{7 * number % NUM_MODELS:03d}" for number in range(num_loads)]
                index, model, sizes = [], [], {}
                for one in names:
                    index.append(loaded_ms(client, "/", [f">{name}<" for name in ("model-000", f"model-{NUM_MODELS - 1:03d}")]))
                    model.append(loaded_ms(client, f"/models/{one}", [f"<h1>{one}</h1>", "Evidence of harm", "<svg", "s9"]))
                sizes = {path: len(client.get(path).content) / 1024 for path in ("/", "/models/model-000", "/models/model-001")}
        finally:
            server.terminate()
            server.wait(30)
    for what, found in (("/", index), ("/models/{model}", model)):
        p50, p95 = np.percentile(found, [50, 95])
        print(f"{what:16} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   slowest {max(found):6.1f} ms   of {len(found)} loads")
    print("   ".join(f"{path}: {size:.0f} KiB" for path, size in sizes.items()))
    figures = {"index_p95_ms": np.percentile(index, 95), "model_p95_ms": np.percentile(model, 95), "num_models": NUM_MODELS}
    figures |= {"index_p50_ms": np.percentile(index, 50), "model_p50_ms": np.percentile(model, 50)}
    print(json.dumps({name: round(float(value), 1) for name, value in figures.items()} | {"num_models": NUM_MODELS}))


if __name__ == "__main__":
    main()
