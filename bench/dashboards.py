"""How long the dashboards' queries take over 30 days with 200 models, on a real Prometheus, and how large a scrape is.

The month is made (tests/dashboards/crowd.py): 200 models, each with 50 inputs and 20 slices, written as blocks by promtool.
Each query of each panel, collapsed rows and repeated panels included, is asked as Grafana asks it over 30 days at 1,000 points,
one after another; a panel takes as long as its queries in sum, and the median of three rounds counts. Then each dashboard is
loaded as a browser loads it: its variables first, then marks and all panels that are open, six at a time.

A month of scrapes at 15 s is too much to make here: what is told of a model comes every 30 minutes, what is told of one slice
or input every three hours. The last line, one JSON object, says so. Then the slowest panels, and the rankings that choose which
models a graph shows, are asked again over what they read, at one scrape a minute (`slowest_panel_seconds_at_60_s`,
`slowest_ranking_seconds_at_60_s`).

The scrape: the monitor's exporter with 200 models × 50 inputs × 20 slices, called in this process.
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "dashboards"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "monitor" / "api"))
import crowd
import synthetic_month
from check_demo_metrics import chosen
from crowd_reader import CrowdReader
from dashboard_queries import BOARDS, RULES, PanelQuery, filled, queries_of, variables_of
from real_prometheus import PastPrometheus

from clipdrift_contract.metrics import MetricSet
from clipdrift_dashboards.viewer.asking import filled_expr
from clipdrift_deploy.past_prometheus import make_blocks, prometheus_of
from clipdrift_monitor.api.exporter import Exporter
from clipdrift_monitor.config import MonitorConfig

NUM_MODELS, NUM_FEATURES, NUM_SLICES = 200, 50, 20
DAYS, NUM_POINTS, NUM_ROUNDS, NUM_AT_ONCE = 30, 1_000, 3, 6
SCRAPE_SECONDS, PARTS_SECONDS, FINE_SECONDS = 1_800, 10_800, 60
NUM_FINE_PANELS = 6
MODEL = crowd.model_name(0)
"""One of the harmed: it has something of everything."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One query, ready to be sent."""

    panel: str
    expr: str
    is_instant: bool
    is_open: bool
    is_mark: bool


def asked_of(name: str, prometheus: PastPrometheus) -> list[Asked]:
    """What Grafana would send for a dashboard."""
    board = BOARDS[name]
    values = chosen(prometheus, board, MODEL)
    marks = board.get("annotations", {}).get("list", [])
    shown = {panel["title"] for panel in board["panels"]} | {mark["name"] for mark in marks if mark["enable"]}
    return [
        Asked(panel=f"{name}: {query.title}", expr=filled(query, values, prometheus.span, step_of(query)),
              is_instant=query.is_instant, is_open=query.title in shown, is_mark=query.is_annotation)
        for query in queries_of(name, board)
    ]  # fmt: skip


def rankings_of(name: str, prometheus: PastPrometheus) -> list[Asked]:
    """The variables of a dashboard that choose the few models or slices which its graphs show."""
    values = chosen(prometheus, BOARDS[name], MODEL)
    return [
        Asked(panel=f"{name}: ${variable}", expr=filled_expr(one["query"][len("query_result("):-1], values, prometheus.span,
                                                             prometheus.scrape_seconds),
              is_instant=True, is_open=True, is_mark=False)
        for variable, one in variables_of(BOARDS[name]).items() if one["query"].startswith("query_result(")
    ]  # fmt: skip


def step_of(query: PanelQuery | None = None) -> int:
    """Seconds between two points of a graph."""
    return max(DAYS * 86_400 // NUM_POINTS, query.min_interval_seconds if query else 1)


def seconds_of(client: httpx.Client, prometheus: PastPrometheus, one: Asked) -> float:
    """From asking to the last byte of the answer."""
    params = {"query": one.expr, "time": prometheus.end} if one.is_instant else {
        "query": one.expr, "start": prometheus.end - DAYS * 86_400, "end": prometheus.end, "step": step_of()}  # fmt: skip
    begun = time.perf_counter()
    answer = client.post(f"/api/v1/{'query' if one.is_instant else 'query_range'}", data=params)
    took = time.perf_counter() - begun
    if answer.status_code != 200:
        raise SystemExit(f"{one.panel}: Prometheus answers {answer.status_code}: {answer.text[:300]}")
    return took


def connected(prometheus: PastPrometheus) -> httpx.Client:
    return httpx.Client(base_url=prometheus.url, timeout=120, trust_env=False)


def panel_seconds(prometheus: PastPrometheus, boards: dict[str, list[Asked]]) -> dict[str, float]:
    """The median time of each panel, its queries in sum."""
    rounds: dict[str, list[float]] = {}
    with connected(prometheus) as client:
        for _ in range(NUM_ROUNDS):
            took: dict[str, float] = {}
            for one in (one for asked in boards.values() for one in asked):
                took[one.panel] = took.get(one.panel, 0.0) + seconds_of(client, prometheus, one)
            for panel, seconds in took.items():
                rounds.setdefault(panel, []).append(seconds)
    return {panel: statistics.median(found) for panel, found in rounds.items()}


def dashboard_seconds(prometheus: PastPrometheus, name: str) -> float:
    """The median time of a whole dashboard: variables, then what is open, six queries at a time."""
    found = []
    for _ in range(NUM_ROUNDS):
        begun = time.perf_counter()
        asked = [one for one in asked_of(name, prometheus) if one.is_open]
        with connected(prometheus) as client, ThreadPoolExecutor(NUM_AT_ONCE) as pool:
            list(pool.map(partial(seconds_of, client, prometheus), asked))
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def scrape() -> dict[str, float | int]:
    """Bytes, series and the median seconds of one GET /metrics of such a monitor."""
    exporter = Exporter(CrowdReader(NUM_MODELS, NUM_FEATURES, NUM_SLICES), MetricSet(), MonitorConfig())  # type: ignore[arg-type]
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        text = exporter.exposition()
        took.append(time.perf_counter() - begun)
    num_series = sum(not line.startswith(b"#") for line in text.splitlines())
    return {"scrape_bytes": len(text), "scrape_series": num_series, "scrape_seconds": round(statistics.median(took), 3)}


def at_fine_scrapes(folder: Path, boards: dict[str, list[Asked]]) -> dict[str, float]:
    """What `boards` ask, over blocks that hold only what they read, with a sample a minute."""
    wanted = {name for asked in boards.values() for one in asked for name in re.findall(r"clipdrift_\w+", one.expr)}
    metrics, data = folder / "fine.om", folder / "fine"
    crowd.write(metrics, num_models=NUM_MODELS, num_features=1, num_slices=0, scrape_seconds=FINE_SECONDS,
                parts_seconds=FINE_SECONDS, only=wanted)  # fmt: skip
    make_blocks(metrics, data)
    metrics.unlink()
    with prometheus_of(data, RULES, folder, scrape_seconds=PARTS_SECONDS) as url:
        return panel_seconds(past(url), boards)


def past(url: str) -> PastPrometheus:
    start = synthetic_month.START_MS / 1000
    return PastPrometheus(url=url, start=start, end=start + DAYS * 86_400, scrape_seconds=SCRAPE_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", type=int, default=12, help="how many of the slowest panels to name")
    options = parser.parse_args()
    figures: dict[str, float | int | str] = {**scrape()}
    print(f"a scrape of the monitor: {figures}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.monotonic()
        num_series, num_samples = crowd.write(
            folder / "crowd.om", num_models=NUM_MODELS, num_features=NUM_FEATURES, num_slices=NUM_SLICES,
            scrape_seconds=SCRAPE_SECONDS, parts_seconds=PARTS_SECONDS,
        )  # fmt: skip
        make_blocks(folder / "crowd.om", folder / "data")
        (folder / "crowd.om").unlink()
        print(f"{num_series} series with {num_samples} samples made in {time.monotonic() - begun:.0f} s", flush=True)
        with prometheus_of(folder / "data", RULES, folder, scrape_seconds=PARTS_SECONDS) as url:
            prometheus = past(url)
            boards = {name: asked_of(name, prometheus) for name in BOARDS}
            rankings = {name: rankings_of(name, prometheus) for name in BOARDS}
            panels = panel_seconds(prometheus, boards)
            whole = {name: dashboard_seconds(prometheus, name) for name in BOARDS}
        marks = {one.panel for asked in boards.values() for one in asked if one.is_mark}
        slowest = sorted(set(panels) - marks, key=lambda one: -panels[one])
        for panel in slowest[: options.show]:
            print(f"{panels[panel]:7.3f} s  {panel}")
        for board, seconds in whole.items():
            print(f"{seconds:7.3f} s  the whole of {board}", flush=True)
        slow = {name: [one for one in asked if one.panel in slowest[:NUM_FINE_PANELS]] for name, asked in boards.items()}
        fine = at_fine_scrapes(folder, {name: slow[name] + rankings[name] for name in BOARDS})
        for panel, seconds in fine.items():
            print(f"{seconds:7.3f} s  {panel}, at a scrape a minute")
    figures |= {
        "slowest_panel_seconds": round(panels[slowest[0]], 3), "slowest_panel": slowest[0],
        "slowest_dashboard_seconds": round(max(whole.values()), 3), "slowest_dashboard": max(whole, key=lambda one: whole[one]),
        "slowest_mark_seconds": round(max(panels[one] for one in marks), 3),
        "slowest_panel_seconds_at_60_s": round(max(fine[one] for one in fine if one in panels), 3),
        "slowest_ranking_seconds_at_60_s": round(max(fine[one] for one in fine if one not in panels), 3),
        "num_models": NUM_MODELS, "num_days": DAYS,
        "num_series": num_series, "num_samples": num_samples, "scrape_interval_seconds": SCRAPE_SECONDS,
        "scrape_interval_seconds_of_slices_and_inputs": PARTS_SECONDS,
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
