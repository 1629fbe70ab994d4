"""Where a click leads. Files are built for one place; the defaults are those of a machine on which all runs."""

from typing import Literal

import msgspec

BoardName = Literal["fleet", "model", "slices", "training", "retraining", "pipeline"]


def uid(board: BoardName) -> str:
    """The name that Grafana and all links know a dashboard by; it never changes.

    >>> uid("fleet")
    'clipdrift-fleet'
    """
    return f"clipdrift-{board}"


def file_of(uid: str) -> str:
    """The file that a dashboard stands in.

    >>> file_of("clipdrift-fleet")
    'fleet.json'
    """
    return f"{uid.removeprefix('clipdrift-')}.json"


def within(board: BoardName, model: str = "") -> str:
    """A link from one dashboard to another that keeps the time range and the data source; `model` may be a template."""
    chosen = f"&var-model={model}" if model else ""
    return f"/d/{uid(board)}?${{datasource:queryparam}}&${{__url_time_range}}{chosen}"


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses that alerts and panels point to, without a slash at the end."""

    grafana_url: str = "http://localhost:3000"
    """As people's browsers reach Grafana."""
    monitor_url: str = "http://localhost:8090"
    """As people's browsers reach the monitor's status page."""
    serving_url: str = "http://localhost:8081"
    """As people's browsers reach serving's admin listener: there a data source's exemplars lead."""
    runbooks_url: str = "docs/runbooks"
    """The folder of runbooks, as your team reads it (your copy of this repository, or a wiki)."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name).endswith("/"):
                raise ValueError(f"{name} must not end with a slash, got {getattr(self, name)!r}")

    def runbook(self, alert: str) -> str:
        """The page of an alert."""
        return f"{self.runbooks_url}/{alert}.md"

    def board(self, board: BoardName, model: str = "") -> str:
        """A dashboard, from outside Grafana; `model` may be a template that the reader of the link fills."""
        return f"{self.grafana_url}/d/{uid(board)}" + (f"?var-model={model}" if model else "")

    def request(self, request: str) -> str:
        """What one request was answered; `request` is model/id, or a template of it."""
        return f"{self.serving_url}/v1/requests/{request}"

    def status_page(self, model: str) -> str:
        """The monitor's own page of a model, with every decision and its reasons."""
        return f"{self.monitor_url}/models/{model}"
