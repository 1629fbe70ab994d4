"""Settings of the monitor."""

import math
from pathlib import Path
from typing import Literal

import msgspec

from clipdrift_contract.clock import MS_PER_DAY, MS_PER_HOUR
from clipdrift_monitor.actions.config import CiConfig, CiSecrets
from clipdrift_monitor.alerting.config import AlertingConfig
from clipdrift_monitor.api.series_budget import ExportConfig
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.incidents.config import IncidentConfig
from clipdrift_monitor.store.retention import Retention


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor]`: windows, the status page, how retrains are started."""

    host: str = "127.0.0.1"
    """Address of the status page and the HTTP interface."""
    port: int = 8090
    """Port of the status page and the HTTP interface."""
    api_keys_file: str = ""
    """TOML file of API keys: their digests, with scopes (read, respond, operate); empty: only the API token gives orders."""
    does_reading_need_key: bool = False
    """Whether pages and questions, too, need a key of the scope `read`; a browser gives it as the password."""
    window_ms: int = MS_PER_DAY
    """Width of a window of event time, which is also the block that harm is judged by: as long as errors hang together."""
    label_horizon_ms: int = MS_PER_DAY
    """A window is judged once event time has moved on so far beyond its end; labels that come later still count as accuracy."""
    max_label_horizon_ms: int = 7 * MS_PER_DAY
    """Where one label in twenty takes longer than the horizon, a window is judged that much later, at most so long: labels that
    come sooner for errors than for the rest would look like harm. The horizon itself or less: never later."""
    part_ms: int = 0
    """Sums are kept in parts of this width, an hour or more that divides `window_ms`, so that any span of them can be viewed.
    0: only whole windows are kept."""
    part_days: int = 14
    """Parts that are older are merged into their window."""
    view_windows: int = 14
    """Windows in the sliding view behind every live figure."""
    min_label_share: float = 0.5
    """A judged window with a smaller share of labels raises `labels_missing`."""
    max_job_attempts: int = 3
    """A retrain whose run ends without an outcome, or is lost, is begun so often; then the order ends as inconclusive."""
    evidence_for: Literal["alarms", "retrains", "nothing"] = "alarms"
    """What an Evidently report of the alarm's window is made for, in a process of its own (some 7 s and 0.4 GB each)."""
    incidents: IncidentConfig = IncidentConfig()
    """When signals are one incident, and when it is over: see `[monitor.incidents]`."""
    retention: Retention = Retention()
    """How long what is kept: see `[monitor.retention]`."""
    ci: CiConfig = CiConfig()
    """What carries out retrains: see `[monitor.ci]`."""
    alerting: AlertingConfig = AlertingConfig()
    """Alertmanagers that are told of incidents: see `[monitor.alerting]`."""
    export: ExportConfig = ExportConfig()
    """How many series Prometheus is told: see `[monitor.export]`."""
    bus_url: str = ""
    """Filled from `[project]`."""
    store_url: str = ""
    """Filled from `[project]`."""
    artifacts_dir: Path = Path("models")
    """Filled from `[project]`."""
    jobs_dir: Path = Path("jobs")
    """Filled from `[project]`."""
    evidence_dir: Path = Path("evidence")
    """Filled from `[project]`."""
    api_token: str = ""
    """Filled from the secrets."""
    ci_secrets: CiSecrets = CiSecrets()
    """Filled from the environment."""
    alertmanager_token: str = ""
    """Filled from the environment."""
    project_name: str = ""
    """Filled from `[project]`."""
    retrain_command: tuple[str, ...] = ()
    """Filled by the command line: starts a job; the job folder's path is appended."""
    policy: Policy = Policy()
    """Filled from `[policy]`."""

    def __post_init__(self) -> None:
        if self.window_ms < MS_PER_HOUR or MS_PER_DAY % self.window_ms:
            raise ValueError(f"monitor.window_ms must be at least an hour and divide a day, got {self.window_ms!r}")
        if self.label_horizon_ms < 0:
            raise ValueError(f"monitor.label_horizon_ms must be >= 0, got {self.label_horizon_ms!r}")
        if self.max_label_horizon_ms < 0:
            raise ValueError(f"monitor.max_label_horizon_ms must be >= 0, got {self.max_label_horizon_ms!r}")
        if self.part_ms and (self.part_ms < MS_PER_HOUR or self.window_ms % self.part_ms):
            raise ValueError(f"monitor.part_ms must be 0, or at least an hour and divide window_ms, got {self.part_ms!r}")
        if self.part_days < 0:
            raise ValueError(f"monitor.part_days must be >= 0, got {self.part_days!r}")
        if self.view_windows < 1:
            raise ValueError(f"monitor.view_windows must be >= 1, got {self.view_windows!r}")
        if not 0 <= self.min_label_share <= 1:
            raise ValueError(f"monitor.min_label_share must be in 0..1, got {self.min_label_share!r}")
        if self.max_job_attempts < 1:
            raise ValueError(f"monitor.max_job_attempts must be >= 1, got {self.max_job_attempts!r}")
        self.policy.approval.check_answerable(self.api_keys_file)
        needed_days = ((self.view_windows + 1) * self.window_ms + self.label_horizon_ms) / MS_PER_DAY
        if 0 < self.retention.window_days < 2 * needed_days:
            raise ValueError(
                f"monitor.retention.window_days must be 0 or at least {math.ceil(2 * needed_days)} with this view and label "
                f"horizon, got {self.retention.window_days!r}"
            )

    def __repr__(self) -> str:
        """Holds secrets, so it shows nothing."""
        return "MonitorConfig(...)"
