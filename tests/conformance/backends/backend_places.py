"""Every backend with a CI of its own to talk to."""

from pathlib import Path

from ci_fakes import TOKEN, FakeBuildbot, FakeGithub, FakeGitlab, FakeKubernetes, FakeReceiver

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec, RetrainRequest
from clipdrift_monitor.actions.backends.backend import Attempt
from clipdrift_monitor.actions.backends.connect import connect_backend
from clipdrift_monitor.actions.config import (
    BuildbotConfig,
    CiConfig,
    CiSecrets,
    GithubConfig,
    GitlabConfig,
    KubernetesConfig,
    WebhookConfig,
)

NOW_MS = 1_800_000_000_000
_SETTINGS = {
    "github": {"github": GithubConfig(repository="acme/pumps")},
    "gitlab": {"gitlab": GitlabConfig(project="group/pumps")},
    "buildbot": {"buildbot": BuildbotConfig(url="https://bb.example/")},
    "kubernetes": {"kubernetes": KubernetesConfig(image="ghcr.io/acme/pumps@sha256:1", ca_file="")},
    "webhook": {"webhook": WebhookConfig(url="https://ci.example/retrain", status_url="https://ci.example/retrain")},
}
_KINDS = {
    "github": FakeGithub, "gitlab": FakeGitlab, "buildbot": FakeBuildbot, "kubernetes": FakeKubernetes, "webhook": FakeReceiver,
}  # fmt: skip
NAMES = tuple(_SETTINGS)


def request_of(key="k1", model="pump"):
    return RetrainRequest(
        key=key, model=model, cause="drift", decision_id="d", requested_at_ms=0, as_of_ms=0, data_start_ms=0,
        champion_version="v1", champion_uri="", champion_digest="", champion_clip=ClipSpec(), generation=1, arms=(),
    )  # fmt: skip


def attempt_of(number=1, key="k1", model="pump"):
    return Attempt(request=request_of(key, model), number=number, ordered_at_ms=NOW_MS)


class Place:
    """One backend, the fake that it talks to, and the clock of both."""

    def __init__(self, name, clock=None, ci=None, secrets=None, **changed):
        self.name = name
        self.clock = clock or ManualClock(now_ms=NOW_MS)
        self.ci = ci or _KINDS[name](self.clock)
        self.config = CiConfig(backend=name, **{**_SETTINGS[name], **changed})
        secrets = secrets or CiSecrets(token=TOKEN, trigger_token=FakeGitlab.trigger_token)
        self.backend = connect_backend(
            self.config, secrets, self.clock, jobs_dir=Path("/nowhere"), command=(), transport=self.ci.transport
        )
