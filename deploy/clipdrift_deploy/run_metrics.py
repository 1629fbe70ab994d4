"""A run's windows as the metrics that scrapes of the training would have shown, each at its own time."""

from pathlib import Path

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.metrics import MetricSet
from clipdrift_deploy.clip_report.gathering import RunRecord
from clipdrift_deploy.scrape_log import ScrapeLog
from clipdrift_trainer.recording.sinks.counts import WindowCounts


def write_run_metrics(record: RunRecord, to: Path) -> int:
    """Write an OpenMetrics file for `promtool tsdb create-blocks-from openmetrics`.

    Args:
        record: The run. Its windows are scraped at the moments at which they ended; of several in one millisecond, after the
            last.
        to: The file; its folder is made when it is not there.

    Returns:
        The number of scrapes.

    Raises:
        ConfigError: No window of the run was recorded.
        ClipdriftError: The file cannot be written.
    """
    if not record.windows:
        raise ConfigError(f"no windows of run {record.run_id} were recorded: only its end is known")
    last = record.windows[-1]
    metrics = MetricSet()
    counts = WindowCounts(metrics, record.end.num_steps if record.end is not None else last.step_first + last.num_steps)
    log = ScrapeLog(to)
    num_scrapes = 0
    for window, following in zip(record.windows, (*record.windows[1:], None), strict=True):
        counts.add(window)
        if following is None or following.ended_at_ms > window.ended_at_ms:
            log.add(metrics.exposition().decode(), window.ended_at_ms)
            num_scrapes += 1
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        log.close()
    except OSError as error:
        raise ClipdriftError(f"{to} cannot be written: {error.strerror}") from error
    return num_scrapes
