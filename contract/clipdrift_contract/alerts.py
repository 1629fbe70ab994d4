"""Which alert tells of an incident. Prometheus's rules and the monitor both tell Alertmanager of it, under the same labels, so
that Alertmanager takes the two for one."""

from collections.abc import Mapping
from typing import Final

from clipdrift_contract.events import IncidentRoot, Severity

ALERT_OF_ROOT: Final[Mapping[IncidentRoot, str]] = {
    "harm": "ClipdriftModelHarmed",
    "data": "ClipdriftDataBroken",
    "training": "ClipdriftDataBroken",
    "labels": "ClipdriftLabelsMissing",
}
"""By the root of the incident. Drift alone is no alert."""
ALERT_SEVERITIES: Final[tuple[Severity, ...]] = ("page", "ticket")
"""Severities of incidents that alerts tell of; notes are not told."""


def roots_of(alert: str) -> tuple[IncidentRoot, ...]:
    """The roots that an alert tells of.

    Example:
        >>> roots_of("ClipdriftDataBroken")
        ('data', 'training')
    """
    return tuple(root for root, name in ALERT_OF_ROOT.items() if name == alert)
