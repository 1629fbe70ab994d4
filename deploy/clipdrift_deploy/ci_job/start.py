"""Puts a job of a CI together from a project's settings and the environment."""

import signal
from collections.abc import Mapping
from pathlib import Path

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.ci_job.claimant import claimant_of
from clipdrift_deploy.ci_job.client import JobClient
from clipdrift_deploy.ci_job.job import Ended, Place, carry_out_order
from clipdrift_deploy.project import Project
from clipdrift_deploy.wiring import retrain_command


def start_job(project: Project, model: str, key: str, attempt: int, report: Path, variables: Mapping[str, str]) -> Ended:
    """Carry out the retrain `key` of `model`, told to the monitor at `CLIPDRIFT_MONITOR_URL`.

    Raises:
        ConfigError: The monitor's address or the key to it is missing, or nothing says which run this is.
    """
    settings = project.environment
    if not settings.monitor_url.startswith(("http://", "https://")):
        raise ConfigError(f"CLIPDRIFT_MONITOR_URL must be the monitor's http(s) address, got {settings.monitor_url!r}")
    if not settings.api_token:
        raise ConfigError("CLIPDRIFT_API_TOKEN must be a key to the monitor: `clipdrift key ci --scope report`")
    try:
        claimant = claimant_of(variables, settings.run_name, settings.run_url)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as CIs cancel; the retrain's own process must end too
    place = Place(artifacts=project.artifacts, jobs=project.jobs, report=report)
    with JobClient(settings.monitor_url, settings.api_token, claimant.name) as client:
        return carry_out_order(
            client, claimant, place, retrain_command(project), model=model, key=key, attempt=attempt, environment=variables
        )
