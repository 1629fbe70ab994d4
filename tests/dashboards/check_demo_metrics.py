"""Asks a real Prometheus every query of every dashboard over a file of metrics, and names the panels that would be empty.

`python tests/dashboards/check_demo_metrics.py build/demo/metrics.om` prints one line a panel. Exit status 1: a panel of what
monitor and serving export is due and empty for every model (trainings of the demo take seconds, and nobody scrapes them).
"""

import math
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parent))
from dashboard_queries import BOARDS, RULES, PanelQuery, filled, label_values, queries_of, variables_of
from real_prometheus import PastPrometheus, past_prometheus

from clipdrift_dashboards.viewer.asking import Prometheus, filling, offered

MAX_POINTS = 300
NOT_DUE = {
    "False alarms in 90 days: promised, realised": "healthy days are replayed while the monitor has nothing else to do",
    "Answers not recorded per hour, by reason": "everything that was answered was recorded",
    "Exactly what is blind": "nothing is, and its window of a quarter of an hour holds one scrape a day at most",
    "Incidents that were right": "nobody says of the demo's incidents whether they were right",
}
"""Panels that a year in a few minutes leaves empty, each with why."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What Prometheus says to one query of a dashboard, for one model ("": a dashboard of all)."""

    query: PanelQuery
    model: str
    series: list[dict[str, Any]]

    @property
    def num_samples(self) -> int:
        """Finite ones: a graph shows nothing else."""
        return sum(math.isfinite(float(value)) for one in self.series for _, value in one["values"])


def answers(prometheus: PastPrometheus, name: str, board: dict[str, Any] | None = None) -> Iterator[Answer]:
    """Every query of a dashboard, asked for every model that its variable offers."""
    board = board or BOARDS[name]
    variables = variables_of(board)
    models = prometheus.label_values(*label_values(variables["model"])) if "model" in variables else [""]
    if not models:
        raise ValueError("the variable `model` offers nothing")
    for model in models:
        values = chosen(prometheus, board, model)
        for query in queries_of(name, board):
            yield Answer(query=query, model=model, series=asked(prometheus, query, values))


def chosen(prometheus: PastPrometheus, board: dict[str, Any], model: str) -> dict[str, str]:
    """What Grafana would fill in for each variable, this model being chosen."""
    wanted = {"model": model}
    return filling(board, offered(board, Prometheus(prometheus.url), prometheus.span, wanted), wanted)


def asked(prometheus: PastPrometheus, query: PanelQuery, values: dict[str, str]) -> list[dict[str, Any]]:
    """The answer to one query, at about as many points as a screen has."""
    span = prometheus.span
    step = max(prometheus.scrape_seconds, query.min_interval_seconds, span.seconds // MAX_POINTS)
    expr = filled(query, values, span, step)
    return prometheus.instant(expr) if query.is_instant else prometheus.range(expr, step)


def empty_panels(given: list[Answer]) -> set[str]:
    """Panels none of whose queries has a sample for any model, as "board: title"."""
    by_panel: dict[str, int] = {}
    for one in given:
        name = f"{one.query.board}: {one.query.title}"
        by_panel[name] = by_panel.get(name, 0) + one.num_samples
    return {name for name, count in by_panel.items() if not count}


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: check_demo_metrics.py METRICS.om", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, past_prometheus(Path(sys.argv[1]), RULES, Path(folder)) as prometheus:
        given = [one for name in BOARDS for one in answers(prometheus, name)]
    others = {f"{one.query.board}: {one.query.title}" for one in given
              if re.search(r"clipdrift_(trainer|bus)_", one.query.expr)}  # fmt: skip
    empty = empty_panels(given)
    for name in sorted({f"{one.query.board}: {one.query.title}" for one in given}):
        print(f"{'ok   ' if name not in empty else 'other' if name in others else 'EMPTY'} {name}")
    missing = sorted(one for one in empty - others if one.partition(": ")[2] not in NOT_DUE)
    print(f"{len(given)} queries, {len(missing)} panels empty" + "".join(f"\n  empty: {one}" for one in missing))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
