"""Who a job is: the name it claims a retrain with, and where people see it. Each CI says it by variables of its own."""

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_CHARACTERS = 128
_STRANGE = re.compile(r"[^A-Za-z0-9_.:/@-]+")


class Claimant(NamedTuple):
    """One run of a CI. A run that is started again by hand is another."""

    name: str
    url: str  # empty: nobody can look at it


def claimant_of(variables: Mapping[str, str], name: str = "", url: str = "") -> Claimant:
    """The run that this process belongs to.

    Args:
        variables: The environment.
        name: Given by the pipeline, for a CI that is not known here; wins.
        url: The same.

    Raises:
        ValueError: Nothing says which run this is: two of them would take each other's place.

    Example:
        >>> claimant_of({"GITHUB_RUN_ID": "77", "GITHUB_RUN_ATTEMPT": "2", "GITHUB_REPOSITORY": "a/b",
        ...              "GITHUB_SERVER_URL": "https://github.com"})
        Claimant(name='github-77-2', url='https://github.com/a/b/actions/runs/77/attempts/2')
        >>> claimant_of({"CI_JOB_ID": "5", "CI_JOB_URL": "https://gitlab.com/a/b/-/jobs/5"})
        Claimant(name='gitlab-5', url='https://gitlab.com/a/b/-/jobs/5')
    """
    found = _of_github(variables) or _of_gitlab(variables) or _of_pod(variables)
    if found is None and not name:
        raise ValueError(
            "nothing says which run this is: no GITHUB_RUN_ID, CI_JOB_ID or KUBERNETES_SERVICE_HOST; set CLIPDRIFT_RUN_NAME to "
            "something that no other run has, such as the build's number"
        )
    known = found or Claimant("", "")
    return Claimant(_STRANGE.sub("-", name or known.name)[:MAX_CHARACTERS], url or known.url)


def _of_github(variables: Mapping[str, str]) -> Claimant | None:
    run = variables.get("GITHUB_RUN_ID")
    if not run:
        return None
    attempt = variables.get("GITHUB_RUN_ATTEMPT", "1")
    server, repository = variables.get("GITHUB_SERVER_URL"), variables.get("GITHUB_REPOSITORY")
    url = f"{server}/{repository}/actions/runs/{run}/attempts/{attempt}" if server and repository else ""
    return Claimant(f"github-{run}-{attempt}", url)


def _of_gitlab(variables: Mapping[str, str]) -> Claimant | None:
    job = variables.get("CI_JOB_ID")
    return Claimant(f"gitlab-{job}", variables.get("CI_JOB_URL", "")) if job else None


def _of_pod(variables: Mapping[str, str]) -> Claimant | None:
    pod = variables.get("HOSTNAME")  # the pod's name
    return Claimant(f"kubernetes-{pod}", "") if pod and variables.get("KUBERNETES_SERVICE_HOST") else None
