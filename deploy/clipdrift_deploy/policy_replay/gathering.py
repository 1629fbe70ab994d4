"""Reads a project's history from its store, and a policy from a file."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from clipdrift_contract.errors import ConfigError
from clipdrift_deploy.project import FILE_NAME, Project
from clipdrift_deploy.settings import read_section
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.decisions.replay import Past, Retrained
from clipdrift_monitor.state import JudgedBlock
from clipdrift_monitor.store.store import Store

_ALL = 10_000_000
_SQLITE = "sqlite:///"


def read_policy(project: Project, path: Path | None) -> Policy:
    """The `[policy]` of a TOML file, which may be a whole `clipdrift.toml`; without a file, the project's own.

    Raises:
        ConfigError: The file cannot be read, is no TOML, has no `[policy]`, or a setting is wrong or unknown.
    """
    if path is None:
        return read_section(project.folder / FILE_NAME, "policy", project.file.policy, Policy)
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    section = table.get("policy")
    if not isinstance(section, dict):
        raise ConfigError(f"{path} has no table [policy]; there are: {', '.join(table) or 'none'}")
    return read_section(path, "policy", section, Policy)


def read_past(project: Project, models: Sequence[str] = ()) -> list[Past]:
    """The history of each model that the monitor has judged, or of those asked for.

    Raises:
        ConfigError: No monitor has run here yet, or it knows no such model.
    """
    url = project.store_url
    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists():
        raise ConfigError(f"there is no history yet: no monitor has written {url.removeprefix(_SQLITE)}")
    store = Store(url)
    try:
        known = sorted(store.models())
        for model in models:
            if model not in known:
                raise ConfigError(f"the monitor knows no model {model!r}; there are: {', '.join(known) or 'none'}")
        retrains = {
            name: [Retrained(request=row.request, outcome=row.outcome) for row in store.retrains(name)] for name in known
        }
        return [
            Past(
                model=name,
                blocks=[msgspec.msgpack.decode(body, type=JudgedBlock) for body in store.blocks(name)],
                decisions=store.listed("decisions", name, _ALL, 0)[::-1],
                deployments=store.listed("deployments", name, _ALL, 0)[::-1],
                retrains=retrains[name],
                of_others=[one for other in known if other != name for one in retrains[other]],
            )
            for name in (models or known)
        ]
    finally:
        store.close()
