"""Settings of what tells Alertmanager of incidents."""

import re

import msgspec

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OWN = ("alertname", "model", "severity")


class AlertingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.alerting]`: Alertmanagers that the monitor tells of incidents itself, beside Prometheus."""

    urls: tuple[str, ...] = ()
    """Addresses, such as `["http://localhost:9093"]`; all of a cluster. Empty: only Prometheus's rules tell of incidents."""
    user: str = ""
    """Who asks, with `CLIPDRIFT_ALERTMANAGER_TOKEN` as the password; empty: that is a bearer token."""
    token_file: str = ""
    """A file that holds the token or password, read before each round, in place of the environment; relative to the project."""
    labels: dict[str, str] = {}
    """The `external_labels` of your Prometheus, so that both tell of one alert; relabelled ones as they arrive."""
    repeat_seconds: float = 60.0
    """How often open incidents are told again; Alertmanager takes an alert for over when five of them did not come."""
    resolve_after_seconds: float = 60.0
    """How long after an incident its alert is told to be over: longer than Prometheus takes to see it (scrape and evaluation),
    or the two contradict each other for a moment."""
    timeout_seconds: float = 5.0
    """The longest that one call may take."""
    does_silence: bool = True
    """Whether an acknowledged or silenced incident is silenced in Alertmanager for as long."""
    monitor_url: str = "http://localhost:8090"
    """As people's browsers reach the monitor: the link to the incident."""
    grafana_url: str = "http://localhost:3000"
    """As people's browsers reach Grafana: the link to the model's dashboard, where `incidents.dashboard_url` is empty."""
    runbooks_url: str = "docs/runbooks"
    """The folder of runbooks, as your team reads it, where `incidents.runbook_url` is empty."""

    def __post_init__(self) -> None:
        for url in (*self.urls, self.monitor_url, self.grafana_url):
            if not url.startswith(("http://", "https://")) or url.endswith("/"):
                raise ValueError(f"alerting: an address begins with http:// or https:// and ends without a slash, got {url!r}")
        if len(set(self.urls)) != len(self.urls):
            raise ValueError(f"alerting.urls names an Alertmanager twice: {', '.join(self.urls)}")
        if not 1 <= self.repeat_seconds <= 300:  # it takes an alert that is over for sent within five minutes
            raise ValueError(f"alerting.repeat_seconds must be in 1..300, got {self.repeat_seconds!r}")
        if not 0 <= self.resolve_after_seconds <= 3_600:
            raise ValueError(f"alerting.resolve_after_seconds must be in 0..3600, got {self.resolve_after_seconds!r}")
        if not 0 < self.timeout_seconds <= 60:
            raise ValueError(f"alerting.timeout_seconds must be above 0 and at most 60, got {self.timeout_seconds!r}")
        bad = [name for name in self.labels if not _LABEL.fullmatch(name) or name in _OWN]
        if bad:
            raise ValueError(
                f"alerting.labels cannot hold {', '.join(bad)}: letters, digits and _, and none of {', '.join(_OWN)}"
            )
