"""Asks a real Prometheus every query of the model overview over a file of metrics, and names what would be empty.

`python tests/dashboards/check_demo_metrics.py build/demo/metrics.om` prints one line a query; exit status 1: a panel is empty
for some model, or an annotation for all.
"""

import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent))
from dashboard_queries import RULES, PanelQuery, dashboard, filled, queries_of, variable_query
from real_prometheus import PastPrometheus, past_prometheus


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What Prometheus says to one query of the dashboard, for one model."""

    query: PanelQuery
    model: str
    series: list[dict[str, Any]]

    @property
    def num_samples(self) -> int:
        """Finite ones: a graph shows nothing else."""
        return sum(math.isfinite(float(value)) for one in self.series for _, value in one["values"])


def answers(prometheus: PastPrometheus, board: dict[str, Any]) -> Iterator[Answer]:
    """Every query of `board`, asked for every model that its variable offers."""
    models = prometheus.label_values(*variable_query(board, "model"))
    if not models:
        raise ValueError("the variable `model` offers nothing")
    for model in models:
        for query in queries_of(board):
            step = max(prometheus.scrape_seconds, query.min_interval_seconds)
            expr = filled(query, model, prometheus.range_seconds, step, prometheus.scrape_seconds)
            series = prometheus.instant(expr) if query.is_instant else prometheus.range(expr, step)
            yield Answer(query=query, model=model, series=series)


def empty(given: list[Answer]) -> list[str]:
    """What would be empty: a panel's query for any model, an annotation for all of them."""
    found = [f"{one.query.title} ({one.query.ref}) of {one.model}" for one in given
             if not one.query.is_annotation and not one.num_samples]  # fmt: skip
    for title in dict.fromkeys(one.query.title for one in given if one.query.is_annotation):
        if not any(one.num_samples for one in given if one.query.is_annotation and one.query.title == title):
            found.append(f"annotation {title}")
    return found


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: check_demo_metrics.py METRICS.om", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, past_prometheus(Path(sys.argv[1]), RULES, Path(folder)) as prometheus:
        given = list(answers(prometheus, dashboard()))
    for one in given:
        state = "ok   " if one.num_samples else "none " if one.query.is_annotation else "EMPTY"
        print(f"{state} {one.model}: {one.query.title} ({one.query.ref}), {len(one.series)} series, {one.num_samples} samples")
    missing = empty(given)
    print(f"{len(given)} queries, {len(missing)} empty" + "".join(f"\n  empty: {one}" for one in missing))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
