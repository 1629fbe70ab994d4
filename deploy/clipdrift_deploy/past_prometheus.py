"""A Prometheus of this machine over samples of the past, for as long as somebody looks. Needs Debian's `prometheus`."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from clipdrift_contract.errors import ClipdriftError
from clipdrift_deploy.ports import free_port

_HOST = "127.0.0.1"
_READY = "Server is ready to receive web requests"


def make_blocks(metrics: Path, data: Path) -> Path:
    """Turn an OpenMetrics file into the storage folder `data`; returns it.

    Raises:
        ClipdriftError: Prometheus is not installed, or the file is not readable for it.
    """
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        raise ClipdriftError("prometheus and promtool must be on the path: Debian's package is called prometheus")
    make = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=8760h", "--quiet", "openmetrics"]
    made = subprocess.run([*make, str(metrics), str(data)], check=False, capture_output=True, text=True)
    if made.returncode:
        raise ClipdriftError(f"promtool refuses {metrics}: {made.stderr[-300:]}")
    return data


@contextmanager
def prometheus_of(data: Path, rules: Path | None, folder: Path, *, scrape_seconds: int) -> Iterator[str]:
    """Start Prometheus on the storage folder `data`; gives its address, and ends it afterwards.

    Args:
        data: Holds blocks.
        rules: A rules file.
        folder: For its configuration and its log.
        scrape_seconds: Time between two samples of a series, where it is longest: one stands until the next, and no longer.

    Raises:
        ClipdriftError: It did not come up.
    """
    config, port = folder / "prometheus.yml", free_port(_HOST)
    config.write_text(f"rule_files: ['{rules.resolve()}']\n" if rules is not None else "")
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", "--storage.tsdb.retention.time=100y",
        f"--web.listen-address={_HOST}:{port}", f"--query.lookback-delta={max(1, scrape_seconds - 1)}s",
    ]  # fmt: skip
    with (folder / "log").open("w") as log, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            _await_ready(process.stderr, log)
            yield f"http://{_HOST}:{port}"
        finally:
            process.terminate()
            process.stderr.close()
            process.wait(20)


def _await_ready(said: IO[str], log: IO[str]) -> None:
    told = []
    for line in said:
        log.write(line)
        told.append(line)
        if _READY in line:
            return
    raise ClipdriftError(f"Prometheus ended before it was ready: {''.join(told[-5:])}")
