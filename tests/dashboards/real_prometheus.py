"""A real Prometheus over an OpenMetrics file: blocks made by promtool, the rules loaded, the past answered at once."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec

from clipdrift_dashboards.viewer.asking import Span
from clipdrift_deploy.past_prometheus import make_blocks, prometheus_of


class PastPrometheus(msgspec.Struct, frozen=True, kw_only=True):
    """Answers queries about the time that a file covers."""

    url: str
    start: float
    end: float
    scrape_seconds: int

    @property
    def span(self) -> Span:
        """All of the time that the file covers."""
        return Span(start=self.start, end=self.end, scrape_seconds=self.scrape_seconds)

    def range(self, expr: str, step_seconds: int) -> list[dict[str, Any]]:
        """Series over the whole time; each has `metric` and `values`."""
        return self._ask("query_range", query=expr, start=self.start, end=self.end, step=step_seconds)

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Series at the end of the time, with one value each."""
        answer = self._ask("query", query=expr, time=self.end)
        return [{"metric": one["metric"], "values": [one["value"]]} for one in answer]

    def label_values(self, metric: str, label: str) -> list[str]:
        answer = httpx.get(
            f"{self.url}/api/v1/label/{label}/values", params={"match[]": metric, "start": self.start, "end": self.end}
        )
        return list(answer.json()["data"])

    def rules(self) -> list[dict[str, Any]]:
        """Every loaded rule, with its health."""
        groups = httpx.get(f"{self.url}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def _ask(self, what: str, **params: Any) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.url}/api/v1/{what}", data=params, timeout=30).json()
        if answer["status"] != "success":
            raise ValueError(f"Prometheus refuses {params['query']}: {answer['error']}")
        return list(answer["data"]["result"])


@contextmanager
def past_prometheus(metrics: Path, rules: Path, folder: Path) -> Iterator[PastPrometheus]:
    """Start Prometheus on the samples of `metrics` with `rules`; ends it afterwards.

    Args:
        metrics: An OpenMetrics file with timestamps.
        rules: A rules file.
        folder: To work in; must be empty.
    """
    times = sorted({float(time) for time in re.findall(r"^[^#].* (\S+)$", metrics.read_text(), re.MULTILINE)})
    scrape_seconds = round(median(b - a for a, b in pairwise(times))) if len(times) > 1 else 86_400
    with prometheus_of(make_blocks(metrics, folder / "data"), rules, folder, scrape_seconds=scrape_seconds) as url:
        yield PastPrometheus(url=url, start=times[0], end=times[-1], scrape_seconds=scrape_seconds)
