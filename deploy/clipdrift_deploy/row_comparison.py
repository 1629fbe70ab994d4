"""Which rows of a project are compared on demand."""

from pathlib import Path

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.project import Project
from clipdrift_deploy.wiring import monitor_config
from clipdrift_monitor.detectors.joint import row_detector_names
from clipdrift_monitor.evidence.comparison import RowOrder
from clipdrift_monitor.evidence.order import EvidenceOrder
from clipdrift_monitor.state import ModelState
from clipdrift_monitor.store.store import Store

_SQLITE = "sqlite:///"
_REFERENCE_DAYS = 14  # every weekday twice, before the model has aged
_CURRENT_WINDOWS = 7


def order_of(
    project: Project, model: str, detectors: tuple[str, ...], *, start_ms: int | None = None, end_ms: int | None = None
) -> RowOrder:
    """The order for a version in service: its rows from `start_ms` to `end_ms`, against its first 14 days, or as many as
    lie before.

    Raises:
        ConfigError: No monitor has run here, it knows no such model, a detector is unknown, or nothing lies before the rows.
    """
    config = monitor_config(project)
    names = detectors or config.policy.drift.rows
    row_detector_names(names)
    url = config.store_url
    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists():
        raise ConfigError(f"there are no rows yet: no monitor has written {url.removeprefix(_SQLITE)}")
    store = Store(url)
    try:
        states = store.models()
    finally:
        store.close()
    if model not in states:
        raise ConfigError(f"the monitor knows no model {model!r}; there are: {', '.join(sorted(states)) or 'none'}")
    state = msgspec.msgpack.decode(states[model], type=ModelState)
    if state.in_service is None:
        raise ConfigError(f"no version of {model!r} is in service yet")
    end = state.watermark_ms + 1 if end_ms is None else end_ms
    start = end - _CURRENT_WINDOWS * config.window_ms if start_ms is None else start_ms
    since = state.in_service_since_ms
    if start <= since:
        raise ConfigError(f"nothing lies before the rows asked for: version {state.in_service.version} came into service later")
    return RowOrder(
        rows=EvidenceOrder(
            signal_id=f"{model}-rows", model=model, version=state.in_service.version, bus_url=config.bus_url,
            reference_start_ms=since, reference_end_ms=min(since + _REFERENCE_DAYS * MS_PER_DAY, start),
            current_start_ms=start, current_end_ms=end,
        ),
        detectors=names,
    )  # fmt: skip
