"""The `clipdrift` command. Each subcommand translates words into one call and an error into one sentence; nothing is decided
here."""

# isort: off
# in the order of the help
from clipdrift_deploy.cli import training
from clipdrift_deploy.cli import running
from clipdrift_deploy.cli import operating
from clipdrift_deploy.cli import incidents
from clipdrift_deploy.cli import approvals
from clipdrift_deploy.cli import policy
from clipdrift_deploy.cli import comparing
from clipdrift_deploy.cli import showing
from clipdrift_deploy.cli import dashboards
from clipdrift_deploy.cli import registry
from clipdrift_deploy.cli import storing
from clipdrift_deploy.cli import watchdog
from clipdrift_deploy.cli.app import app, main
# isort: on

__all__ = [
    "app",
    "approvals",
    "comparing",
    "dashboards",
    "incidents",
    "main",
    "operating",
    "policy",
    "registry",
    "running",
    "showing",
    "storing",
    "training",
    "watchdog",
]
