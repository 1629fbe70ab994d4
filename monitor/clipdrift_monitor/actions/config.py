"""Settings of the CI that carries out retrains."""

import re
from pathlib import Path
from typing import Literal

import msgspec

from clipdrift_contract.clock import MS_PER_HOUR, MS_PER_SECOND
from clipdrift_monitor.actions.course import Limits

BackendName = Literal["local", "github", "gitlab", "buildbot", "kubernetes", "webhook"]
_LOCAL_POLL_MS = 250
_LOCAL_VISIBLE_MS = 5_000  # until a process that was started holds its lock
_MIN_BEATS = 3  # that may be missed


class LocalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci.local]`: a process of this machine for each retrain, and what it may take. Limits need Linux."""

    memory_mb: int = 0
    """Address space of each process of a retrain, in MiB; torch alone maps several thousand. 0: no limit."""
    cpu_hours: float = 0.0
    """CPU time of each process of a retrain; the kernel ends it then. 0: no limit."""
    nice: int = 10
    """How much it yields to serving on the same machine, 0 (not at all) to 19."""

    def __post_init__(self) -> None:
        if self.memory_mb < 0 or self.cpu_hours < 0:
            raise ValueError(f"local limits must be >= 0, got memory_mb={self.memory_mb!r}, cpu_hours={self.cpu_hours!r}")
        if not 0 <= self.nice <= 19:
            raise ValueError(f"local.nice must be in 0..19, got {self.nice!r}")


class GithubConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci.github]`: GitHub Actions, by a token (`CLIPDRIFT_CI_TOKEN`) or as a GitHub App."""

    repository: str = ""
    """`OWNER/NAME`."""
    workflow: str = "clipdrift-retrain.yml"
    """File name of the workflow; it must be on the default branch."""
    ref: str = "main"
    """Branch or tag that it runs on."""
    api_url: str = "https://api.github.com"
    """Of GitHub Enterprise Server: `https://HOST/api/v3`."""
    app_id: str = ""
    """Id or client id of a GitHub App; empty: the token is used."""
    installation_id: str = ""
    """Of the App in the repository's organisation."""
    app_key_file: str = ""
    """The App's private key (PEM), relative to the project."""


class GitlabConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci.gitlab]`: GitLab pipelines. `CLIPDRIFT_CI_TOKEN` reads and cancels them (scope `api`)."""

    url: str = "https://gitlab.com"
    """Of the instance."""
    project: str = ""
    """`GROUP/NAME`, or the project's number."""
    ref: str = "main"
    """Branch or tag that the pipeline runs on."""
    start: Literal["create", "trigger"] = "create"
    """How a pipeline is begun: as the token's owner, or by a trigger token (`CLIPDRIFT_CI_TRIGGER_TOKEN`)."""


class BuildbotConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci.buildbot]`: a Buildbot master, as a user of it whose password is `CLIPDRIFT_CI_TOKEN`."""

    url: str = ""
    """Of its web server."""
    scheduler: str = "clipdrift-retrain"
    """A ForceScheduler of one builder, with the parameters model, key and attempt."""
    user: str = "clipdrift"
    """Who logs in; needs the roles for force and cancel."""


class KubernetesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci.kubernetes]`: a Job for each attempt."""

    api_url: str = "https://kubernetes.default.svc"
    """Of the API server."""
    ca_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    """Its certificate authority; empty: those of the system."""
    token_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105  where it lies, and not what it is
    """Read anew before each request, as it changes; used where `CLIPDRIFT_CI_TOKEN` is unset."""
    namespace: str = "clipdrift"
    """Where Jobs are made."""
    image: str = ""
    """Holds the project and `clipdrift`; its entry point is the `clipdrift` command."""
    service_account: str = "clipdrift-retrain"
    """Of the Job's pod; its token is not mounted."""
    secret: str = "clipdrift-retrain"  # noqa: S105  its name
    """A Secret whose entries become the pod's environment: the monitor's address and a key of the scope `report`."""
    cpu: str = "2"
    """Asked for, and the limit."""
    memory: str = "4Gi"
    """Asked for, and the limit."""


class WebhookConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci.webhook]`: anything that takes a POST, signed with `CLIPDRIFT_CI_TOKEN`."""

    url: str = ""
    """Takes the order."""
    status_url: str = ""
    """Answers `?model=&key=&attempt=` with `{"id", "url", "state"}`, or 404; DELETE there cancels. Empty: only what the job
    says of itself is known."""


class CiConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.ci]`: what carries out retrains, and how patient the monitor is with it."""

    backend: BackendName = "local"
    """`local` starts a process of this machine; the others start a run of the team's CI."""
    poll_seconds: float = 10.0
    """Between two looks at a run, at first; half as much again each time that nothing has changed. Webhooks bring a look at
    once. Local processes are looked at every quarter of a second."""
    max_poll_seconds: float = 60.0
    """Between two looks at last."""
    visible_within_seconds: float = 90.0
    """The CI shows a run so soon after it took the order. An order without an answer is looked for then, and is given again
    only where there is no run."""
    unseen_minutes: float = 15.0
    """A run that the CI does not show and that does not beat is lost after it; a claim is free again."""
    beat_seconds: int = 60
    """Jobs say so often that they live."""
    outcome_minutes: float = 5.0
    """A run that has ended is followed by its outcome within it, or has failed. Local processes: a quarter of a second."""
    max_run_hours: float = 24.0
    """A run is cancelled after it."""
    max_dispatch_hours: float = 24.0
    """A retrain that the CI did not take by then has failed."""
    local: LocalConfig = LocalConfig()
    """See `[monitor.ci.local]`."""
    github: GithubConfig = GithubConfig()
    """See `[monitor.ci.github]`."""
    gitlab: GitlabConfig = GitlabConfig()
    """See `[monitor.ci.gitlab]`."""
    buildbot: BuildbotConfig = BuildbotConfig()
    """See `[monitor.ci.buildbot]`."""
    kubernetes: KubernetesConfig = KubernetesConfig()
    """See `[monitor.ci.kubernetes]`."""
    webhook: WebhookConfig = WebhookConfig()
    """See `[monitor.ci.webhook]`."""

    def __post_init__(self) -> None:
        for name in ("poll_seconds", "visible_within_seconds", "unseen_minutes", "max_run_hours", "max_dispatch_hours"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ci.{name} must be > 0, got {getattr(self, name)!r}")
        if self.max_poll_seconds < self.poll_seconds:
            raise ValueError(f"ci.max_poll_seconds must be >= poll_seconds, got {self.max_poll_seconds!r}")
        if not self.outcome_minutes >= 0:
            raise ValueError(f"ci.outcome_minutes must be >= 0, got {self.outcome_minutes!r}")
        most = self.unseen_minutes * 60 / _MIN_BEATS
        if not 1 <= self.beat_seconds <= most:
            raise ValueError(
                f"ci.beat_seconds must be in 1..{most:g}, a third of unseen_minutes, so that a missed beat loses no run; "
                f"got {self.beat_seconds!r}"
            )
        self._check_backend()

    def _check_backend(self) -> None:
        """What the chosen one cannot do without."""
        needed = {
            "github": (self.github.repository, "github.repository"),
            "gitlab": (self.gitlab.project, "gitlab.project"),
            "buildbot": (self.buildbot.url, "buildbot.url"),
            "kubernetes": (self.kubernetes.image, "kubernetes.image"),
            "webhook": (self.webhook.url, "webhook.url"),
        }
        value, name = needed.get(self.backend, ("-", ""))
        if not value:
            raise ValueError(f"ci.backend = {self.backend!r} needs ci.{name}")
        if self.backend == "github" and not re.fullmatch(r"[\w.-]+/[\w.-]+", self.github.repository):
            raise ValueError(f"ci.github.repository must be OWNER/NAME, got {self.github.repository!r}")

    def limits(self, max_attempts: int) -> Limits:
        """What the course of a run goes by."""
        is_local = self.backend == "local"
        return Limits(
            visible_ms=_LOCAL_VISIBLE_MS if is_local else round(self.visible_within_seconds * MS_PER_SECOND),
            unseen_ms=round(self.unseen_minutes * 60 * MS_PER_SECOND),
            outcome_ms=_LOCAL_POLL_MS if is_local else round(self.outcome_minutes * 60 * MS_PER_SECOND),
            run_ms=round(self.max_run_hours * MS_PER_HOUR),
            dispatch_ms=round(self.max_dispatch_hours * MS_PER_HOUR),
            poll_ms=_LOCAL_POLL_MS if is_local else round(self.poll_seconds * MS_PER_SECOND),
            max_poll_ms=_LOCAL_POLL_MS if is_local else round(self.max_poll_seconds * MS_PER_SECOND),
            max_attempts=max_attempts,
        )


class CiSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What must not be printed; its text form shows nothing."""

    token: str = ""  # PAT, GitLab's api token, Buildbot's password, Kubernetes' token, the webhook's secret
    trigger_token: str = ""  # GitLab's
    hook_secret: str = ""  # of what the CI sends to us
    folder: Path = Path()  # that relative names of files of secrets are below

    def __repr__(self) -> str:
        return "CiSecrets(...)"
