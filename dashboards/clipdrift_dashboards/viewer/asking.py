"""Asks a Prometheus, and fills Grafana's variables as Grafana fills them."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_dashboards.linting import filled

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """The time that a dashboard shows, in seconds since 1970, and how far scrapes are apart."""

    start: float
    end: float
    scrape_seconds: int = 15

    @property
    def seconds(self) -> int:
        return max(1, round(self.end - self.start))


class Series(msgspec.Struct, frozen=True):
    """Labels, and samples as (time, value)."""

    labels: Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


class Prometheus:
    """A Prometheus by its address; blocks, one question at a time.

    Args:
        url: Such as `http://127.0.0.1:9090`.
        timeout_seconds: For one answer.
    """

    def __init__(self, url: str, timeout_seconds: float = 30.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds

    def range(self, expr: str, span: Span, step_seconds: int) -> list[Series]:
        """Series over the span.

        Raises:
            ClipdriftError: Prometheus cannot be reached, or refuses the query.
        """
        given = self._ask("query_range", query=expr, start=span.start, end=span.end, step=step_seconds)
        return [Series(one["metric"], _samples(one["values"])) for one in given["result"]]

    def instant(self, expr: str, span: Span) -> list[Series]:
        """Series at the span's end, with one sample each. Raises as `range` does."""
        given = self._ask("query", query=expr, time=span.end)
        return [Series(one["metric"], _samples([one["value"]])) for one in given["result"]]

    def label_values(self, metric: str, label: str, span: Span) -> list[str]:
        """The values of a label in the span, sorted. Raises as `range` does."""
        found = self._ask(f"label/{label}/values", **{"match[]": metric, "start": span.start, "end": span.end})
        return sorted(found)

    def _ask(self, what: str, **params: Any) -> Any:
        url = f"{self._url}/api/v1/{what}?{urllib.parse.urlencode(params)}"
        try:
            with urllib.request.urlopen(url, timeout=self._timeout_seconds) as answer:  # noqa: S310 - the caller's own address
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ClipdriftError(f"Prometheus refuses {params.get('query', what)}: {error.read().decode()[:300]}") from error
        except (OSError, ValueError) as error:
            raise ClipdriftError(f"no Prometheus answers at {self._url}: {error}") from error


def step_seconds(panel: Mapping[str, Any], span: Span, width_pixels: int) -> int:
    """Seconds between two points of a graph: a point a pixel at most, no finer than scrapes and the panel's own interval.

    >>> step_seconds({"interval": "1d"}, Span(start=0, end=30 * 86_400), 800)
    86400
    """
    interval = panel.get("interval", "1s")
    least = int(interval[:-1]) * _UNITS[interval[-1]]
    return max(_rounded(span.seconds / max(1, width_pixels)), span.scrape_seconds, least)


def filled_expr(expr: str, values: Mapping[str, str], span: Span, step: int) -> str:
    """A query as Grafana sends it; `values` are those of the dashboard's variables, by name."""
    scrape = span.scrape_seconds
    own = {
        "$__rate_interval": f"{max(step + scrape, 4 * scrape)}s",
        "$__interval": f"{step}s",
        "$__range": f"{span.seconds}s",
        "$__range_s": str(span.seconds),
    }
    return filled(expr, own | {f"${name}": value for name, value in values.items()})


def offered(board: Mapping[str, Any], prometheus: Prometheus, span: Span, chosen: Mapping[str, str]) -> dict[str, list[str]]:
    """What each variable of a dashboard offers, in the dashboard's order; those of later ones may rest on what is chosen of
    earlier ones (or, where nothing is, on the first that they offer)."""
    found: dict[str, list[str]] = {}
    for variable in board["templating"]["list"]:
        name, query = variable["name"], variable.get("query", "")
        if variable["type"] == "custom":
            found[name] = [option["value"] for option in variable["options"]]
        elif match := re.fullmatch(r"label_values\((\w+), (\w+)\)", str(query)):
            found[name] = prometheus.label_values(match[1], match[2], span)
        elif match := re.fullmatch(r"query_result\((.*)\)", str(query)):
            values = {one: chosen.get(one) or next(iter(of_it), "none") for one, of_it in found.items()}
            series = prometheus.instant(filled_expr(match[1], values, span, span.scrape_seconds), span)
            pattern = variable["regex"].strip("/")
            found[name] = [word for one in series for word in re.findall(pattern, _as_text(one.labels))]
    return found


def filling(board: Mapping[str, Any], choices: Mapping[str, Sequence[str]], chosen: Mapping[str, str]) -> dict[str, str]:
    """What stands for each variable in a query: what is chosen of what it offers, or the first; of a variable of several values
    all that it offers, as a regular expression."""
    is_several = {one["name"]: one.get("multi", False) for one in board["templating"]["list"]}
    found = {}
    for name, values in choices.items():
        wanted = chosen.get(name, "")
        one = wanted if wanted in values else next(iter(values), "none")
        found[name] = ("|".join(_escaped(value) for value in values) or "none") if is_several[name] else one
    return found


def _escaped(value: str) -> str:
    """For a regular expression inside a string of PromQL."""
    return value if value.isalnum() else re.escape(value).replace("\\", "\\\\")


def _rounded(seconds: float) -> int:
    """Up to a round step."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200)
    return next((step for step in steps if step >= seconds), 86_400 * max(1, round(seconds / 86_400)))


def _samples(values: list[Any]) -> tuple[tuple[float, float], ...]:
    return tuple((float(time), float(value)) for time, value in values)


def _as_text(labels: Mapping[str, str]) -> str:
    """As Grafana's query_result shows a series."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
