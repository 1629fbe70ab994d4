"""Shows the dashboards over the demo's year: a Prometheus on its metrics, and the dashboards in a browser or in your Grafana.

`python -m clipdrift_deploy.demo_dashboards build/demo/metrics.om` (`make demo-dashboards`). Needs Debian's `prometheus`.
"""

import argparse
import os
import shutil
import socket
import subprocess
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

_DAY_SECONDS = 86_400
_READY = "Server is ready to receive web requests"
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
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        raise ClipdriftError("prometheus and promtool must be on the path: Debian's package is called prometheus")
    span, data = span_of(metrics), folder / "data"
    make = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=8760h", "--quiet", "openmetrics"]
    made = subprocess.run([*make, str(metrics), str(data)], check=False, capture_output=True, text=True)
    if made.returncode:
        raise ClipdriftError(f"promtool refuses {metrics}: {made.stderr[-300:]}")
    config, port = folder / "prometheus.yml", _free_port()
    config.write_text(f"rule_files: ['{_RULES.resolve()}']\n" if _RULES.is_file() else "")
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}", f"--query.lookback-delta={span.scrape_seconds - 1 or 1}s",
    ]  # fmt: skip
    log = folder / "log"
    with log.open("w") as out, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            told: list[str] = []
            for line in process.stderr:
                out.write(line)
                told.append(line)
                if _READY in line:
                    break
            else:
                raise ClipdriftError(f"Prometheus ended before it was ready: {''.join(told[-3:])}")
            yield Past(url=f"http://127.0.0.1:{port}", span=span)
        finally:
            process.terminate()
            process.stderr.close()
            process.wait(20)


def publish(past: Past, grafana_url: str, token: str) -> str:
    """Bring dashboards and a data source into a Grafana; gives the address to open."""
    links = Links(grafana_url=grafana_url.rstrip("/"))
    content = wanted(links, source_uid="clipdrift-demo", prometheus_url=past.url)
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
