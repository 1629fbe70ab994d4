"""Shows the dashboards over the demo's year: a Prometheus on its metrics, and the dashboards in a browser or in your Grafana.

`python -m clipdrift_deploy.demo_dashboards build/demo/metrics.om` (`make demo-dashboards`). Needs Debian's `prometheus`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import msgspec

from clipdrift_contract.errors import ClipdriftError
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.publishing.connection import connect
from clipdrift_dashboards.publishing.publisher import Publisher
from clipdrift_dashboards.publishing.wanted import wanted
from clipdrift_dashboards.viewer.asking import Prometheus, Span
from clipdrift_dashboards.viewer.server import OF_FLEET, viewer
from clipdrift_deploy.past_prometheus import make_blocks, prometheus_of

_RULES = Path("dashboards/generated/clipdrift-rules.yml")


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """A Prometheus that holds the past, and the time that it holds."""

    url: str
    span: Span


def span_of(metrics: Path) -> Span:
    """The time that an OpenMetrics file covers, beginning one scrape before its first.

    Raises:
        ClipdriftError: There is no such file, or it has no samples at two times.
    """
    if not metrics.is_file():
        raise ClipdriftError(f"{metrics} is not there: `make demo` writes it")
    times: set[float] = set()
    with metrics.open(encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                times.add(float(line.rpartition(" ")[2]))
    ordered = sorted(times)
    if len(ordered) < 2:
        raise ClipdriftError(f"{metrics} must hold samples of two times or more, got {len(ordered)}")
    gaps = sorted(later - earlier for earlier, later in pairwise(ordered))
    scrape_seconds = max(1, round(gaps[len(gaps) // 2]))
    return Span(start=ordered[0] - scrape_seconds, end=ordered[-1], scrape_seconds=scrape_seconds)


@contextmanager
def prometheus_with(metrics: Path, folder: Path) -> Iterator[Past]:
    """Start a Prometheus on an OpenMetrics file; it ends with the block.

    Args:
        metrics: Samples with times, such as the demo keeps.
        folder: For its blocks; must be empty.

    Raises:
        ClipdriftError: Prometheus is not installed, or the file is not readable for it.
    """
    span = span_of(metrics)
    rules = _RULES if _RULES.is_file() else None
    with prometheus_of(make_blocks(metrics, folder / "data"), rules, folder, scrape_seconds=span.scrape_seconds) as url:
        yield Past(url=url, span=span)


def publish(past: Past, grafana_url: str, token: str) -> str:
    """Bring dashboards and a data source into a Grafana; gives the address to open."""
    links = Links(grafana_url=grafana_url.rstrip("/"))
    content = wanted(links, source_uid="clipdrift-demo", prometheus_url=past.url, scrape_interval="1d")
    Publisher(connect(grafana_url, token), content).publish(force=False)
    time = f"from={past.span.start * 1000:.0f}&to={past.span.end * 1000:.0f}"
    return f"{links.grafana_url}{OF_FLEET}?{time}&var-datasource=clipdrift-demo"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics", type=Path, help="an OpenMetrics file with times, such as build/demo/metrics.om")
    parser.add_argument("--port", type=int, default=3001, help="of the page; 0 for any that is free (default 3001)")
    options = parser.parse_args(words)
    try:
        with tempfile.TemporaryDirectory() as name, prometheus_with(options.metrics, Path(name)) as past:
            _say(f"Prometheus with the demo's year: {past.url}")
            if grafana := os.environ.get("GRAFANA_URL", ""):
                _say(f"In your Grafana: {publish(past, grafana, os.environ.get('GRAFANA_TOKEN', ''))}")
                _say("Its data source needs the scrape interval 1d. Ctrl-C ends Prometheus.")
            server = viewer(Prometheus(past.url), past.span, port=options.port)
            _say(f"Open http://127.0.0.1:{server.server_port}{OF_FLEET} (Ctrl-C ends it)")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                _say("")
            finally:
                server.server_close()
    except (ClipdriftError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
