"""Writes the files by which a CI carries out retrains, and says what is to be done by hand."""

from collections.abc import Mapping
from importlib import metadata, resources
from pathlib import Path
from typing import Literal, NamedTuple

from clipdrift_contract.errors import ConfigError

CiName = Literal["github", "gitlab", "buildbot", "kubernetes"]
REQUIREMENTS = "clipdrift-requirements.txt"
_KEY = "`clipdrift key ci --scope report` makes a key; its entry goes into the file that [monitor] api_keys_file names"


class Pipeline(NamedTuple):
    """A CI's files by their place in the project, and what they do not do."""

    files: Mapping[str, str]  # place -> template
    settings: str  # for clipdrift.toml
    steps: tuple[str, ...]
    kept: tuple[str, ...] = ()  # places that are left as they are where they exist
    where_kept: str = ""


PIPELINES: Mapping[CiName, Pipeline] = {
    "github": Pipeline(
        {".github/workflows/clipdrift-retrain.yml": "github/clipdrift-retrain.yml"},
        '[monitor.ci]\nbackend = "github"\n\n[monitor.ci.github]\nrepository = "OWNER/NAME"',
        (
            "commit the files to the default branch: a workflow on another is not found",
            f"make the environment clipdrift with the secret CLIPDRIFT_API_TOKEN ({_KEY})",
            "set the variable CLIPDRIFT_MONITOR_URL to the monitor's address, as runners reach it",
            "give the monitor CLIPDRIFT_CI_TOKEN: a fine-grained token of this repository with Actions: read and write",
        ),
    ),
    "gitlab": Pipeline(
        {".gitlab/clipdrift-retrain.yml": "gitlab/clipdrift-retrain.yml", ".gitlab-ci.yml": "gitlab/gitlab-ci.yml"},
        '[monitor.ci]\nbackend = "gitlab"\n\n[monitor.ci.gitlab]\nurl = "https://gitlab.com"\nproject = "GROUP/NAME"',
        (
            "commit the files to the default branch",
            f"set the masked, protected variable CLIPDRIFT_API_TOKEN ({_KEY}), and CLIPDRIFT_MONITOR_URL",
            "give the monitor CLIPDRIFT_CI_TOKEN: a project access token, role Developer, scope api",
            "after the first retrain set its resource group to oldest_first, so that waiting ones keep their order",
        ),
        (".gitlab-ci.yml",),
        "your .gitlab-ci.yml stays as it is: give it spec:inputs (model, key, attempt), workflow:name and the include that the "
        "template of a new project shows in docs/howto/retrain-in-your-ci.md",
    ),
    "buildbot": Pipeline(
        {"buildbot/master.cfg": "buildbot/master.cfg"},
        '[monitor.ci]\nbackend = "buildbot"\n\n[monitor.ci.buildbot]\nurl = "http://127.0.0.1:8010"',
        (
            "make a master with buildbot/master.cfg and a worker called clipdrift; the file's head says what each must be told",
            f"give the worker CLIPDRIFT_MONITOR_URL and CLIPDRIFT_API_TOKEN ({_KEY})",
            "give the monitor CLIPDRIFT_CI_TOKEN: the password of the master's user clipdrift",
        ),
    ),
    "kubernetes": Pipeline(
        {
            "kubernetes/retrain.yaml": "kubernetes/retrain.yaml",
            "kubernetes/Dockerfile": "kubernetes/Dockerfile",
            "kubernetes/Dockerfile.dockerignore": "kubernetes/dockerignore",
        },
        '[monitor.ci]\nbackend = "kubernetes"\n\n[monitor.ci.kubernetes]\nimage = "REGISTRY/NAME@sha256:..."',
        (
            "build and push the image (kubernetes/Dockerfile), then kubectl apply -f kubernetes/retrain.yaml",
            f"make the Secret clipdrift-retrain with CLIPDRIFT_MONITOR_URL and CLIPDRIFT_API_TOKEN ({_KEY})",
            "run the monitor as the service account clipdrift-monitor, or give it that account's token as CLIPDRIFT_CI_TOKEN",
        ),
    ),
}


class Written(NamedTuple):
    """What was written, and what is left to do."""

    files: tuple[Path, ...]
    steps: tuple[str, ...]
    settings: str


def write_pipeline(folder: Path, ci: CiName, *, force: bool = False) -> Written:
    """Write a CI's files into the project in `folder`.

    Raises:
        ConfigError: One is there already, and `force` was not given; then nothing is written.
    """
    pipeline = PIPELINES[ci]
    kept = tuple(place for place in pipeline.kept if (folder / place).exists())
    texts = {place: _template(name) for place, name in pipeline.files.items() if place not in kept}
    there = [place for place in texts if (folder / place).exists()]
    if there and not force:
        raise ConfigError(f"{folder.resolve()} already has {', '.join(there)}; --force overwrites")
    if not (folder / REQUIREMENTS).exists():  # once written it is the project's own
        texts[REQUIREMENTS] = f"# What a retrain needs, beside what your task imports.\n{_requirement()}\n"
    try:
        for place, text in texts.items():
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_text(text)
    except OSError as error:
        raise ConfigError(f"{error.filename} cannot be written ({error.strerror}); give another folder") from error
    steps = (*pipeline.steps, *((pipeline.where_kept,) if kept else ()))
    return Written(tuple(folder / place for place in texts), steps, pipeline.settings)


def _requirement() -> str:
    return f"clipdrift[trainer,deploy]=={metadata.version('clipdrift')}"


def _template(name: str) -> str:
    return (resources.files("clipdrift_deploy") / "template" / "ci" / name).read_text()
