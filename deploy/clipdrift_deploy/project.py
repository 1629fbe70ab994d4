"""A user's project: the folder with `clipdrift.toml` and the task, as one checked value."""

import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import ClipSpec
from clipdrift_deploy.settings import read_section
from clipdrift_trainer.registering.card import StatedSection

FILE_NAME = "clipdrift.toml"
ENVIRONMENT_PREFIX = "CLIPDRIFT_"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")  # it becomes a folder and a part of addresses


class ProjectSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[project]`: the name and the addresses. An empty address means: embedded, below `state`."""

    name: str
    """Shown on the status page and in reports."""
    state: str = ".clipdrift"
    """Folder for everything that Clipdrift writes: bus, store, models, jobs, logs. Relative to the project."""
    bus_url: str = ""
    """`sqlite:///FILE` or `kafka://HOST:PORT`. Empty: a SQLite log below `state`."""
    store_url: str = ""
    """SQLAlchemy address of the monitor's store. Empty: SQLite below `state`."""
    registry_url: str = ""
    """MLflow address (`sqlite:///FILE` or `http://...`), or `none`. Empty: SQLite below `state`."""


class ModelSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[models.NAME]`: one model that is trained, served and watched."""

    task: str
    """Where the task class is, as `module:Class`; the module lies in the project's folder."""
    clip: ClipSpec = ClipSpec()
    """The clipping rule it is trained with, such as `{kind = "global_norm", max_norm = 1.0}`."""
    options: dict[str, Any] = {}
    """Keyword arguments for the task class."""
    seed: int = 0
    """Seed of the first training and of retrains."""
    card: StatedSection = StatedSection()
    """What only people can say of the model, for its card: see `[models.NAME.card]`."""


class ProjectFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`clipdrift.toml` as written. `serving`, `monitor`, `policy` and `training` are checked by their owners."""

    project: ProjectSection
    models: dict[str, ModelSection]
    serving: dict[str, Any] = {}
    monitor: dict[str, Any] = {}
    policy: dict[str, Any] = {}
    training: dict[str, Any] = {}


class Environment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that the environment may give, as `CLIPDRIFT_<NAME>`; each wins over the file."""

    project: str = "."
    """The project's folder, where no `--project` is given."""
    bus_url: str = ""
    """Wins over `project.bus_url`."""
    store_url: str = ""
    """Wins over `project.store_url`."""
    registry_url: str = ""
    """Wins over `project.registry_url`."""
    admin_token: str = ""
    """Bearer token of serving's admin listener. Unset: made once and kept below `state`."""
    api_token: str = ""
    """Bearer token for the monitor's writing calls. Unset: made once and kept below `state`."""
    approval_key: str = ""
    """API key of the scope `approve` that `clipdrift approvals` answers with: its name says who did. Unset: the token."""
    receipt_key: str = ""
    """Secret (64 hex digits) that signs receipts. Unset: made once and kept below `state`. To rotate: `NEW,OLD`."""
    ci_token: str = ""
    """What the monitor asks the CI with: GitHub's or GitLab's token, Buildbot's password, Kubernetes' token, the webhook's
    secret."""
    ci_trigger_token: str = ""
    """GitLab's trigger token, where `start = "trigger"`."""
    ci_hook_secret: str = ""
    """What the CI's webhooks to the monitor are signed with, or bear. Unset: they are refused; runs are polled all the same."""
    alertmanager_token: str = ""
    """What the monitor tells Alertmanager of incidents with: a bearer token, or the password of `monitor.alerting.user`."""
    monitor_url: str = ""
    """The monitor's address, for jobs that a CI runs elsewhere."""
    run_name: str = ""
    """What a job claims a retrain as; no other run may have it. Unset: as GitHub, GitLab or Kubernetes name the run."""
    run_url: str = ""
    """Where people can see the run. Unset: as GitHub or GitLab say."""
    signing_key_file: str = ""
    """Wins over `training.signing_key_file`, for a CI that has its key elsewhere."""
    log_level: Literal["", "DEBUG", "INFO", "WARNING", "ERROR"] = ""
    """Least severe level that is logged: DEBUG, INFO, WARNING or ERROR. Unset: INFO for what runs for ever, else WARNING."""

    def __repr__(self) -> str:
        return f"Environment({', '.join(name for name in self.__struct_fields__ if getattr(self, name))})"


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What must not be printed; its text form shows nothing."""

    admin_token: str
    api_token: str
    receipt_key: str

    def __repr__(self) -> str:
        return "Secrets(...)"


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A checked project with absolute paths and addresses."""

    folder: Path
    file: ProjectFile
    environment: Environment

    @property
    def name(self) -> str:
        return self.file.project.name

    @property
    def state(self) -> Path:
        return (self.folder / self.file.project.state).resolve()

    @property
    def bus_url(self) -> str:
        return self.environment.bus_url or self._rooted(self.file.project.bus_url) or f"sqlite:///{self.state / 'bus.db'}"

    @property
    def store_url(self) -> str:
        return self.environment.store_url or self._rooted(self.file.project.store_url) or f"sqlite:///{self.state / 'store.db'}"

    @property
    def registry_url(self) -> str:
        """Empty when the project wants no registry."""
        url = self.environment.registry_url or self._rooted(self.file.project.registry_url)
        return "" if url == "none" else url or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.state / "models"

    @property
    def jobs(self) -> Path:
        return self.state / "jobs"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def model(self, name: str) -> ModelSection:
        """The section of one model.

        Raises:
            ConfigError: There is no such model; the message names those there are.
        """
        if name not in self.file.models:
            raise ConfigError(f"no model {name!r} in {self.folder / FILE_NAME}; it has: {', '.join(sorted(self.file.models))}")
        return self.file.models[name]

    def untrained(self) -> tuple[str, ...]:
        """Models that have no version yet."""
        return tuple(name for name in self.file.models if not any(self.artifacts.glob(f"{name}/*/model.onnx")))

    def secrets(self) -> Secrets:
        """From the environment, else made once and kept in `state/secrets.json` (mode 0600)."""
        kept = _kept_secrets(self.state / "secrets.json")
        return Secrets(
            admin_token=self.environment.admin_token or kept.admin_token,
            api_token=self.environment.api_token or kept.api_token,
            receipt_key=self.environment.receipt_key or kept.receipt_key,
        )

    def _rooted(self, url: str) -> str:
        """A relative `sqlite:///FILE` is relative to the project's folder, wherever the command is started."""
        prefix = "sqlite:///"
        if url.startswith(prefix) and not url.startswith(prefix + "/"):
            return f"{prefix}{(self.folder / url.removeprefix(prefix)).resolve()}"
        return url


def read_environment(variables: Mapping[str, str]) -> Environment:
    """The settings among `variables`.

    Raises:
        ConfigError: A name starts with `CLIPDRIFT_` and is no setting (a typo would otherwise be silent).
    """
    known = set(Environment.__struct_fields__)
    given = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
    for name in sorted(set(given) - known):
        allowed = ", ".join(ENVIRONMENT_PREFIX + field.upper() for field in sorted(known))
        raise ConfigError(f"unknown setting {ENVIRONMENT_PREFIX}{name.upper()} in the environment; there are: {allowed}")
    try:
        return msgspec.convert(given, Environment)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        raise ConfigError(f"{ENVIRONMENT_PREFIX}{place.rstrip('`').upper()} in the environment: {words}") from error


def open_project(folder: Path, environment: Environment) -> Project:
    """Read and check `clipdrift.toml` in `folder`.

    Raises:
        ConfigError: The file is missing, is no TOML, or has a wrong or unknown setting; the message says which.
    """
    path = folder / FILE_NAME
    try:
        raw = tomllib.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(
            f"no {FILE_NAME} in {folder.resolve()}; `clipdrift init` writes one, or name the folder with --project"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    return Project(folder=folder.resolve(), file=_read_file(path, raw), environment=environment)


def _read_file(path: Path, raw: dict[str, Any]) -> ProjectFile:
    for name, table in raw.items():
        if name not in ProjectFile.__struct_fields__:
            raise ConfigError(f"{path}: {name} is no section; there are: {', '.join(ProjectFile.__struct_fields__)}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} must be a table, [{name}], got {table!r}")
    models = raw.get("models", {})
    if not models:
        raise ConfigError(f"{path}: at least one [models.NAME] is needed")
    for name, table in models.items():
        if not _MODEL_NAME.fullmatch(name):
            raise ConfigError(f"{path}: a model's name is letters, digits, - and _, at most 64 of them; got {name!r}")
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: models.{name} must be a table, [models.{name}], got {table!r}")
    rest = {name: table for name, table in raw.items() if name not in ("project", "models")}
    return ProjectFile(
        project=read_section(path, "project", raw.get("project", {}), ProjectSection),
        models={name: read_section(path, f"models.{name}", table, ModelSection) for name, table in models.items()},
        **rest,
    )


def _kept_secrets(path: Path) -> Secrets:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n")  # the project is committed for its CI, and its secrets with it otherwise
        made = {name: secrets.token_hex(32) for name in Secrets.__struct_fields__}
        partial = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(made, file)
        try:
            os.link(partial, path)  # the first of two starting processes wins, and both read the same file
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path} is damaged ({error}); delete it, new secrets are made, old receipts are then refused"
        ) from error
