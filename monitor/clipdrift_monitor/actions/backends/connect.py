"""The backend that the settings name."""

from collections.abc import Callable
from pathlib import Path

import httpx

from clipdrift_contract.clock import Clock
from clipdrift_contract.errors import ConfigError
from clipdrift_monitor.actions.backends.backend import AwayError, Backend
from clipdrift_monitor.actions.backends.buildbot import Buildbot
from clipdrift_monitor.actions.backends.github import Github
from clipdrift_monitor.actions.backends.gitlab import Gitlab
from clipdrift_monitor.actions.backends.kubernetes import Kubernetes
from clipdrift_monitor.actions.backends.local_process import LocalProcesses
from clipdrift_monitor.actions.backends.webhook import Webhook
from clipdrift_monitor.actions.config import CiConfig, CiSecrets, GithubConfig, KubernetesConfig

_TOKEN = "CLIPDRIFT_CI_TOKEN"  # noqa: S105  its name


def connect_backend(
    config: CiConfig,
    secrets: CiSecrets,
    clock: Clock,
    *,
    jobs_dir: Path,
    command: tuple[str, ...],
    transport: httpx.BaseTransport | None = None,
) -> Backend:
    """The backend that `config.backend` names. Nothing is asked of it yet.

    Args:
        config: Which, and where it is.
        secrets: Who asks.
        clock: For rate limits.
        jobs_dir: Folder of local jobs.
        command: What a local process runs.
        transport: In place of the network, for tests.

    Raises:
        ConfigError: A secret that it needs is missing or cannot be read.
    """
    if config.backend == "local":
        return LocalProcesses(jobs_dir, command, config.local)
    if config.backend == "github":
        return Github(config.github, _github_token(config.github, secrets, clock, transport), clock, transport)
    if config.backend == "kubernetes":
        run_seconds = round(config.max_run_hours * 3_600)
        return Kubernetes(config.kubernetes, _kubernetes_token(config.kubernetes, secrets), run_seconds, clock, transport)
    if config.backend == "webhook":  # its secret may be missing: the receiver decides whether it takes what is not signed
        return Webhook(config.webhook, secrets.token, clock, transport)
    password = _needed(secrets.token, _TOKEN, config.backend)
    if config.backend == "buildbot":
        return Buildbot(config.buildbot, password, clock, transport)
    if config.gitlab.start == "trigger":
        _needed(secrets.trigger_token, "CLIPDRIFT_CI_TRIGGER_TOKEN", 'gitlab with start = "trigger"')
    return Gitlab(config.gitlab, password, secrets.trigger_token, clock, transport)


def _github_token(
    config: GithubConfig, secrets: CiSecrets, clock: Clock, transport: httpx.BaseTransport | None
) -> Callable[[], str]:
    if not config.app_id:
        token = _needed(secrets.token, _TOKEN, "github without an app_id")
        return lambda: token
    if not config.installation_id or not config.app_key_file:
        raise ConfigError("[monitor.ci.github] app_id needs installation_id and app_key_file, too")
    try:
        from clipdrift_monitor.actions.backends.github_app import AppTokens  # noqa: PLC0415  needs cryptography
    except ImportError as error:
        raise ConfigError("a GitHub App's key needs the extra `github`: pip install 'clipdrift[github]'") from error
    return AppTokens(config, secrets.folder / config.app_key_file, clock, transport)


def _kubernetes_token(config: KubernetesConfig, secrets: CiSecrets) -> Callable[[], str]:
    if secrets.token:
        return lambda: secrets.token
    path = Path(config.token_file)
    if not path.exists():
        raise ConfigError(f"backend kubernetes needs {_TOKEN} in the environment, or its token_file; there is none at {path}")

    def read() -> str:
        try:
            return path.read_text().strip()
        except OSError as error:
            raise AwayError(f"the token cannot be read at {path}: {error.strerror}") from error

    return read


def _needed(secret: str, name: str, backend: str) -> str:
    if not secret:
        raise ConfigError(f"backend {backend} needs {name} in the environment")
    return secret
