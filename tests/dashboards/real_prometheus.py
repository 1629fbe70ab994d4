"""A real Prometheus over an OpenMetrics file: blocks made by promtool, the rules loaded, the past answered at once."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import msgspec

_READY = "Server is ready to receive web requests"


class PastPrometheus(msgspec.Struct, frozen=True, kw_only=True):
    """Answers queries about the time that a file covers."""

    url: str
    start: float
    end: float
    scrape_seconds: int

    @property
    def range_seconds(self) -> int:
        return max(1, round(self.end - self.start))

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


def make_blocks(metrics: Path, data: Path) -> Path:
    """Turn an OpenMetrics file into the storage folder `data`; returns it."""
    make = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=8760h", "--quiet", "openmetrics"]
    subprocess.run([*make, str(metrics), str(data)], check=True, capture_output=True)
    return data


@contextmanager
def prometheus_of(data: Path, rules: Path, folder: Path, *, scrape_seconds: int) -> Iterator[str]:
    """Start Prometheus on the storage folder `data`; gives its address, and ends it afterwards.

    Args:
        data: Holds blocks.
        rules: A rules file.
        folder: For its configuration and its log.
        scrape_seconds: Time between two samples of a series, where it is longest.
    """
    config = folder / "prometheus.yml"
    config.write_text(f"rule_files: ['{rules.resolve()}']\n")
    port = _free_port()
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y",
        f"--web.listen-address=127.0.0.1:{port}",
        # one scrape stands until the next, and no longer
        f"--query.lookback-delta={max(1, scrape_seconds - 1)}s",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, (folder / "log").open("w") as log:
        try:
            _await_ready(process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            assert process.stderr is not None
            process.stderr.close()
            process.wait(20)


def _await_ready(process: "subprocess.Popen[str]", log: Any) -> None:
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        log.write(line)
        told.append(line)
        if _READY in line:
            return
    raise RuntimeError("Prometheus ended before it was ready: " + "".join(told[-5:]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
