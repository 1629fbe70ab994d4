"""Puts the components that run for ever together: the project's settings, addresses and secrets become one config each.

Components are imported inside the functions, so that serving needs none of the monitor's packages and the other way round.
"""

import sys
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from clipdrift_deploy.alias_keeper import AliasKeeper
from clipdrift_deploy.ports import require_port
from clipdrift_deploy.project import FILE_NAME, Project
from clipdrift_deploy.settings import read_section

if TYPE_CHECKING:
    from clipdrift_monitor.config import MonitorConfig
    from clipdrift_serving.config import ServingConfig

SERVING_FILLED = ("bus_url", "spool_dir", "admin_token", "receipt_keys")
_FILES = ("api_keys_file", "tls_certificate_file", "tls_key_file", "tls_client_ca_file")  # from the project's folder
MONITOR_FILLED = (
    "bus_url", "store_url", "artifacts_dir", "jobs_dir", "evidence_dir", "api_token", "ci_secrets", "alertmanager_token",
    "project_name",
    "retrain_command", "policy",
)  # fmt: skip


class Listener(NamedTuple):
    host: str
    port: int


def listeners(project: Project) -> dict[str, Listener]:
    """Where the settings say that each part listens: "serving", "admin" and "monitor".

    Raises:
        ConfigError: A setting is wrong.
    """
    serving, watching = serving_config(project), monitor_config(project)
    return {
        "serving": Listener(serving.host, serving.port),
        "admin": Listener(serving.admin_host, serving.admin_port),
        "monitor": Listener(watching.host, watching.port),
    }


def serving_config(project: Project) -> "ServingConfig":
    """The checked `[serving]` with what Clipdrift fills: bus, spool, secrets.

    Raises:
        ConfigError: A setting is wrong or unknown.
    """
    from clipdrift_serving.config import ServingConfig  # noqa: PLC0415

    secrets = project.secrets()
    filled = {
        "bus_url": project.bus_url,
        "spool_dir": project.state / "spool",
        "admin_token": secrets.admin_token,
        "receipt_keys": tuple(key.strip() for key in secrets.receipt_key.split(",")),
    }
    config = read_section(project.folder / FILE_NAME, "serving", project.file.serving, ServingConfig, filled)
    keys = tuple(str(project.folder / name) for name in config.admission.public_key_files)
    return msgspec.structs.replace(config, admission=msgspec.structs.replace(config.admission, public_key_files=keys))


def monitor_config(project: Project) -> "MonitorConfig":
    """The checked `[monitor]` and `[policy]` with what Clipdrift fills: bus, store, folders, token, how a retrain is started.

    Raises:
        ConfigError: A setting is wrong or unknown.
    """
    from clipdrift_monitor.actions.config import CiSecrets  # noqa: PLC0415
    from clipdrift_monitor.config import MonitorConfig  # noqa: PLC0415
    from clipdrift_monitor.decisions.policy import Policy  # noqa: PLC0415

    file, environment = project.folder / FILE_NAME, project.environment
    filled = {
        "bus_url": project.bus_url,
        "store_url": project.store_url,
        "artifacts_dir": project.artifacts,
        "jobs_dir": project.jobs,
        "evidence_dir": project.state / "evidence",
        "api_token": project.secrets().api_token,
        "ci_secrets": CiSecrets(
            token=environment.ci_token,
            trigger_token=environment.ci_trigger_token,
            hook_secret=environment.ci_hook_secret,
            folder=project.folder,
        ),
        "alertmanager_token": environment.alertmanager_token,
        "project_name": project.name,
        "retrain_command": retrain_command(project),
        "policy": read_section(file, "policy", project.file.policy, Policy),
    }
    return read_section(file, "monitor", project.file.monitor, MonitorConfig, filled)


def retrain_command(project: Project) -> tuple[str, ...]:
    """The command that carries out an order; the path of the job's folder is appended to it."""
    return (sys.executable, "-m", "clipdrift_deploy", "retrain", "--project", str(project.folder), "--job")


def serve(
    project: Project,
    *,
    host: str | None = None,
    port: int | None = None,
    admin_host: str | None = None,
    admin_port: int | None = None,
) -> None:
    """Serve until told to end; what is given here wins over the file.

    Raises:
        ConfigError: A setting is wrong, or a port is taken.
    """
    from clipdrift_serving.server import run  # noqa: PLC0415

    given = _given(host=host, port=port, admin_host=admin_host, admin_port=admin_port)
    config = msgspec.structs.replace(serving_config(project), **given)
    named = {name: getattr(config, name) for name in _FILES if getattr(config, name)}
    config = msgspec.structs.replace(config, **{name: str(project.folder / path) for name, path in named.items()})
    require_port(config.host, config.port, "--port or [serving] port")
    require_port(config.admin_host, config.admin_port, "--admin-port or [serving] admin_port")
    run(config)


def monitor(project: Project, *, host: str | None = None, port: int | None = None) -> None:
    """Watch until told to end; what is given here wins over the file.

    Raises:
        ConfigError: A setting is wrong, or the port is taken.
    """
    from clipdrift_monitor.server import run  # noqa: PLC0415

    config = msgspec.structs.replace(monitor_config(project), **_given(host=host, port=port))
    if config.api_keys_file:
        config = msgspec.structs.replace(config, api_keys_file=str(project.folder / config.api_keys_file))
    require_port(config.host, config.port, "--port or [monitor] port")
    with AliasKeeper(project):
        run(config)


def _given(**options: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in options.items() if value is not None}
