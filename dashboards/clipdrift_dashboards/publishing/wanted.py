"""What is to stand in a Grafana."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from clipdrift_contract.errors import ConfigError
from clipdrift_dashboards.build import boards_of
from clipdrift_dashboards.links import Links
from clipdrift_dashboards.publishing.alert_rules import rule_group

FOLDER_UID = "clipdrift"
FOLDER_TITLE = "Clipdrift"
EXEMPLAR_LABEL = "request"
"""By which serving's exemplars name a request, as model/id."""


class ContactPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of a file of contact points."""

    name: str
    type: str
    """As Grafana names it: slack, pagerduty, email, webhook, ..."""
    settings: dict[str, Any]


class Annotation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `key` names it for ever: the same key is written once."""

    key: str
    time_ms: int
    text: str
    tags: tuple[str, ...] = ()
    end_ms: int = 0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """All that a publication writes, in the order in which it is written."""

    folder_uid: str = FOLDER_UID
    folder_title: str = FOLDER_TITLE
    source: dict[str, Any] | None = None
    """A Prometheus data source; None: whichever the reader of a dashboard chooses."""
    dashboards: dict[str, dict[str, Any]] = {}
    """By uid."""
    groups: tuple[dict[str, Any], ...] = ()
    contacts: tuple[dict[str, Any], ...] = ()
    annotations: tuple[Annotation, ...] = ()


def wanted(
    links: Links,
    *,
    folder_uid: str = FOLDER_UID,
    source_uid: str = "",
    prometheus_url: str = "",
    scrape_interval: str = "15s",
    with_alerts: bool = False,
    contacts: Sequence[ContactPoint] = (),
    annotations: Sequence[Annotation] = (),
) -> Wanted:
    """What a publication writes.

    Args:
        links: Addresses that panels and alerts point to.
        folder_uid: Where dashboards and rules go.
        source_uid: Of the data source that alert rules ask, and that `prometheus_url` is given to.
        prometheus_url: As Grafana reaches it; empty: the data source is there already.
        scrape_interval: Of that Prometheus: Grafana makes $__rate_interval of it. The default is that of our prometheus.yml.
        with_alerts: Also the alerts, as rules that Grafana evaluates. The recording rules stay with Prometheus.
        contacts: Where alerts go.
        annotations: What happened.

    Raises:
        ConfigError: Alert rules or an address without the data source's uid.

    Example:
        >>> list(wanted(Links()).dashboards)[:2]
        ['clipdrift-fleet', 'clipdrift-model']
    """
    if (with_alerts or prometheus_url) and not source_uid:
        raise ConfigError("alert rules and a data source need the data source's uid: give --datasource, as prometheus")
    way = {"name": EXEMPLAR_LABEL, "url": links.request("${__value.raw}"), "urlDisplayLabel": "What it was answered"}
    source = {
        "uid": source_uid,
        "name": source_uid,
        "type": "prometheus",
        "access": "proxy",
        "url": prometheus_url,
        "jsonData": {"timeInterval": scrape_interval, "httpMethod": "POST", "exemplarTraceIdDestinations": [way]},
    }
    return Wanted(
        folder_uid=folder_uid,
        source=source if prometheus_url else None,
        dashboards=boards_of(links),
        groups=(rule_group(links, folder_uid, source_uid),) if with_alerts else (),
        contacts=tuple({"uid": uid_of(one.name), **msgspec.structs.asdict(one)} for one in contacts),
        annotations=tuple(annotations),
    )


def read_contacts(path: Path) -> tuple[ContactPoint, ...]:
    """The contact points of a YAML file: a list of name, type and settings.

    Raises:
        ConfigError: There is no such file, or it is no such list.
    """
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), tuple[ContactPoint, ...])
    except OSError as error:
        raise ConfigError(f"the contact points cannot be read at {path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"{path} is no list of contact points, each with name, type and settings: {error}") from error


def uid_of(name: str) -> str:
    """A uid that Grafana takes: at most 40 letters, digits and dashes.

    Example:
        >>> uid_of("On call (EU)")
        'clipdrift-on-call--eu-'
    """
    return ("clipdrift-" + "".join(sign if sign.isalnum() and sign.isascii() else "-" for sign in name.lower()))[:40]
