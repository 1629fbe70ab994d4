"""Which versions of a model there are, where they come from, which is in service, and where the registry's aliases stand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from clipdrift_contract.errors import ConfigError
from clipdrift_contract.events import Deployment
from clipdrift_contract.version_files import CARD_NAME, MODEL_NAME, SIGNATURE_NAME
from clipdrift_deploy.project import Project
from clipdrift_trainer.registering.card import ModelCard, decode_card

if TYPE_CHECKING:
    from clipdrift_trainer.registry import AliasChange

_MOST_DEPLOYMENTS = 500  # looked back over, for the version that was in service before


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A version that lies on this machine, or that is in service."""

    model: str
    version: str
    roles: tuple[str, ...] = ()
    """champion, canary, shadow, previous; empty: it is not in service."""
    trained_at_ms: int | None = None
    retrain_key: str = ""
    """Of the retrain that made it; empty: trained by hand, or it has no card."""
    parent: str = ""
    gate: str = ""
    accuracy: float | None = None
    """On the held-out days; None: regression, or it has no card."""
    is_signed: bool = False
    is_here: bool = True


def versions_of(project: Project, model: str) -> tuple[VersionRow, ...]:
    """The versions of a model, the newest first.

    Raises:
        RetryableError: The store is away.
    """
    roles = roles_of(_deployments(project, model))
    folders = [path.parent for path in project.artifacts.glob(f"{model}/*/{MODEL_NAME}")]
    rows = [
        _row(model, folder.name, _card(folder / CARD_NAME), roles.get(folder.name, ()), (folder / SIGNATURE_NAME).exists())
        for folder in folders
    ]
    elsewhere = [
        VersionRow(model=model, version=version, roles=found, is_here=False)
        for version, found in roles.items()
        if version not in {folder.name for folder in folders}
    ]
    return tuple(sorted([*rows, *elsewhere], key=lambda row: (row.trained_at_ms or 0, row.version), reverse=True))


def roles_of(deployments: Sequence[Deployment]) -> dict[str, tuple[str, ...]]:
    """What each version does, by its name.

    Args:
        deployments: Of one model, the newest first.

    Example:
        >>> from clipdrift_contract.events import ServedVersion
        >>> a, b = (ServedVersion(version=name, uri="", digest="") for name in "ab")
        >>> before = Deployment(model="m", generation=1, champion=a, decided_at_ms=0)
        >>> after = Deployment(model="m", generation=2, champion=b, decided_at_ms=0, shadow=a)
        >>> roles_of([after, before])
        {'b': ('champion',), 'a': ('shadow', 'previous')}
    """
    told: dict[str, tuple[str, ...]] = {}
    for alias, version in aliases_of(deployments).items():
        told[version] = (*told.get(version, ()), alias)
    return told


def aliases_of(deployments: Sequence[Deployment]) -> dict[str, str]:
    """Where the registry's aliases should stand: the version of each role."""
    if not deployments:
        return {}
    newest = deployments[0]
    wanted = {"champion": newest.champion.version}
    for role, served in (("canary", newest.canary), ("shadow", newest.shadow)):
        if served is not None:
            wanted[role] = served.version
    before = next((one.champion for one in deployments if one.champion != newest.champion), None)
    return wanted | ({"previous": before.version} if before is not None else {})


def follow_deployments(project: Project) -> Iterator[tuple[str, "AliasChange"]]:
    """Move the registry's aliases to where the monitor's deployments say, model by model; what was moved.

    Raises:
        ConfigError: The project has no registry.
        RetryableError: The registry or the store is away.
    """
    if not project.registry_url:
        raise ConfigError("the project has no registry: [project] registry_url is none")
    from clipdrift_trainer.registry import MlflowRegistry  # noqa: PLC0415  who only looks needs no trainer

    registry = MlflowRegistry(project.registry_url)
    for model in sorted(project.file.models):
        deployments = _deployments(project, model)
        if deployments:
            yield from ((model, change) for change in registry.follow(model, aliases_of(deployments)))


def _deployments(project: Project, model: str) -> list[Deployment]:
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415  sqlalchemy
    from clipdrift_monitor.store.store import Store  # noqa: PLC0415

    try:
        Database(project.store_url, migrate=False, must_exist=True)
    except ConfigError:
        return []  # nothing was deployed yet
    store = Store(project.store_url)
    try:
        return store.listed("deployments", model, _MOST_DEPLOYMENTS, 0)
    finally:
        store.close()


def _card(path: Path) -> ModelCard | None:
    try:
        return decode_card(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _row(model: str, version: str, card: ModelCard | None, roles: tuple[str, ...], is_signed: bool) -> VersionRow:
    if card is None:
        return VersionRow(model=model, version=version, roles=roles, is_signed=is_signed)
    overall = card.evaluation.scores[0] if card.evaluation.scores and card.about.task != "regression" else None
    return VersionRow(
        model=model, version=version, roles=roles, is_signed=is_signed,
        trained_at_ms=card.origin.ended_at_ms, retrain_key=card.origin.retrain_key,
        parent=card.origin.parent.version if card.origin.parent is not None else "",
        gate=card.gate.verdict if card.gate is not None else "",
        accuracy=overall.num_correct / overall.num_rows if overall is not None and overall.num_rows else None,
    )  # fmt: skip
