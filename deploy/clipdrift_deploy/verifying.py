"""Whether versions are what they were when they were made: their files against card, signature and the monitor's record, and
the record against its own audit log. Each thing that was changed is named, with what was expected and what was found."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from clipdrift_contract.errors import ClipdriftError, ConfigError
from clipdrift_contract.version_files import (
    CARD_NAME,
    CARD_PAGE_NAME,
    MODEL_NAME,
    SIGNATURE_NAME,
    is_of_version,
    sha256_of,
)
from clipdrift_deploy.project import Project
from clipdrift_deploy.wiring import serving_config
from clipdrift_trainer.registering.card import FORMAT, ModelCard, decode_card
from clipdrift_trainer.registering.card_page import card_page

if TYPE_CHECKING:
    from clipdrift_contract.signatures import PublicKey
    from clipdrift_monitor.store.store import Store

What = Literal["file", "card", "signature", "approval", "store"]
_RECORD, _CARD, _SIGNATURE = "the monitor's record", "the card", "the signature"
_PAGE_ROWS = 500


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it was."""

    what: What
    words: str


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor keeps of a version."""

    artifact_digest: str
    card_digest: str
    is_signed: bool


class VersionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one version."""

    model: str
    version: str
    num_files: int
    has_signature: bool = False
    signed_by: str = ""
    """The public key that its signature is by; empty: it is not signed, or its signature was not checked."""
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a project; nothing is wrong where no version has a problem and `problems` is empty."""

    versions: tuple[VersionReport, ...]
    audit_head: str = ""
    """Hash of the audit log's newest row: kept elsewhere, it shows later that no row was cut off since."""
    num_audit_rows: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def is_sound(self) -> bool:
        return not self.problems and not any(one.problems for one in self.versions)


class SignaturePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Whose signatures count, and whether there must be one."""

    keys: "tuple[PublicKey, ...]" = ()
    is_required: bool = False


class _Store(msgspec.Struct, frozen=True, kw_only=True):
    recorded: Mapping[tuple[str, str], Recorded] = {}
    audit_head: str = ""
    num_audit_rows: int = 0
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


def verify_project(project: Project, model: str | None = None, version: str | None = None, audit_head: str = "") -> Report:
    """Look at every version of a project that is on this machine, and at its store. Changes nothing.

    Args:
        project: The checked project.
        model: Only this one.
        version: Only this one.
        audit_head: Of an earlier look: the audit log must still lead to it.

    Raises:
        ConfigError: A setting or a key is wrong, or there is no such version.
        RetryableError: The store is away.
    """
    folders = [
        path.parent
        for path in sorted(project.artifacts.glob(f"{model or '*'}/{version or '*'}/{MODEL_NAME}"))
        if path.parent.parent.name in project.file.models
    ]
    if not folders and version is not None:
        raise ConfigError(f"no version {version} below {project.artifacts}; `clipdrift versions` names those there are")
    policy = signature_policy(project)
    kept = _look_at_store(project, model, audit_head)
    versions = [verify_version(folder, policy, kept.recorded.get((folder.parent.name, folder.name))) for folder in folders]
    return Report(
        versions=tuple(versions), audit_head=kept.audit_head, num_audit_rows=kept.num_audit_rows, notes=kept.notes,
        problems=kept.problems,
    )  # fmt: skip


def signature_policy(project: Project) -> SignaturePolicy:
    """Whose signatures the project's servers take.

    Raises:
        ConfigError: A key cannot be read, or the packages that check are missing.
    """
    admission = serving_config(project).admission
    if not admission.public_key_files:
        return SignaturePolicy()
    from clipdrift_contract.signatures import read_public_keys  # noqa: PLC0415  only who checks has its packages

    keys = read_public_keys([Path(name) for name in admission.public_key_files])
    return SignaturePolicy(keys=keys, is_required=admission.is_signature_required)


def verify_version(folder: Path, policy: SignaturePolicy, recorded: Recorded | None) -> VersionReport:
    """Look at the files of one version.

    Args:
        folder: Named as the version, below its model's.
        policy: Whose signatures count.
        recorded: What the monitor keeps of it; None: nothing.
    """
    found = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file() and is_of_version(path.name)}
    expected = _Expected()
    notes: list[str] = []
    problems: list[Problem] = []
    if recorded is not None:
        expected.add(MODEL_NAME, recorded.artifact_digest.removeprefix("sha256:"), _RECORD)
        if recorded.card_digest:
            expected.add(CARD_NAME, recorded.card_digest, _RECORD)
    card, why = _read_card(folder)
    # what a changed card says counts for nothing
    is_trusted = card is not None and (recorded is None or recorded.card_digest in ("", found[CARD_NAME]))
    if card is not None:
        problems += _card_problems(folder, card)
        if is_trusted:
            expected.add_card(card)
    elif why:
        problems.append(Problem(what="card", words=why))
    elif CARD_NAME not in expected:
        notes.append("it has no card: it was made before versions had one")
    signed_by, said, note = _signature(folder, policy, was_signed=recorded is not None and recorded.is_signed)
    notes += [note] if note else []
    if isinstance(said, Problem):
        problems.append(said)
    else:
        for name, digest in said.items():
            expected.add(name, digest, _SIGNATURE)
    problems += expected.differences(found, is_complete=is_trusted)
    return VersionReport(
        model=folder.parent.name, version=folder.name, num_files=len(found),
        has_signature=(folder / SIGNATURE_NAME).exists(), signed_by=signed_by, notes=tuple(notes), problems=tuple(problems),
    )  # fmt: skip


class _Expected:
    """The digest that each file should have, and who says so."""

    def __init__(self) -> None:
        self._files: dict[str, dict[str, list[str]]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def add(self, name: str, digest: str, source: str) -> None:
        self._files.setdefault(name, {}).setdefault(digest, []).append(source)

    def add_card(self, card: ModelCard) -> None:
        for name, digest in card.files.items():
            self.add(name, digest, _CARD)
        if card.format == FORMAT:  # a later one may word the page otherwise
            self.add(CARD_PAGE_NAME, hashlib.sha256(card_page(card).encode()).hexdigest(), _CARD)

    def differences(self, found: Mapping[str, str], *, is_complete: bool) -> Iterator[Problem]:
        """What is not as it should be; where what is expected is complete, files that are there besides, too."""
        for name, digests in sorted(self._files.items()):
            what: What = "card" if name in (CARD_NAME, CARD_PAGE_NAME) else "file"
            for digest, sources in sorted(digests.items()):
                said = f"expected sha256 {digest} (by {' and '.join(sources)})"
                if name not in found:
                    yield Problem(what=what, words=f"{name} is missing: {said}")
                elif found[name] != digest:
                    yield Problem(what=what, words=f"{name} was changed: {said}, found {found[name]}")
        if is_complete:
            # the card names all files but itself, and with it the page that is made of it
            for name in sorted(found.keys() - self._files.keys() - {CARD_NAME, CARD_PAGE_NAME}):
                yield Problem(what="file", words=f"{name} is not of this version: neither card nor signature names it")


def _read_card(folder: Path) -> tuple[ModelCard | None, str]:
    """The card, or why it is none; neither where there is no card."""
    try:
        return decode_card((folder / CARD_NAME).read_bytes()), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, msgspec.DecodeError) as error:
        return None, f"{CARD_NAME} cannot be read: {error}"


def _card_problems(folder: Path, card: ModelCard) -> Iterator[Problem]:
    if (card.model, card.version) != (folder.parent.name, folder.name):
        yield Problem(what="card", words=f"{CARD_NAME} is of {card.model} {card.version}, and not of this version")


def _signature(folder: Path, policy: SignaturePolicy, *, was_signed: bool) -> tuple[str, Mapping[str, str] | Problem, str]:
    """Whose the signature is, what it says of the files or what is wrong with it, and what else is to be told."""
    path = folder / SIGNATURE_NAME
    if not path.exists():
        why = f"; {_RECORD} says that it was" if was_signed else "; serving.admission.is_signature_required asks for it"
        return "", Problem(what="signature", words=f"it is not signed{why}") if was_signed or policy.is_required else {}, ""
    if not policy.keys:
        return "", {}, "it is signed, and no key says by whom: name one in serving.admission.public_key_files"
    from clipdrift_contract.signatures import read_signature  # noqa: PLC0415  as above

    try:
        signed = read_signature(path, policy.keys)
    except ClipdriftError as error:
        return "", Problem(what="signature", words=str(error)), ""
    if signed.version != folder.name:
        return "", Problem(what="signature", words=f"{SIGNATURE_NAME} is of version {signed.version[:100]!r}"), ""
    return signed.key.name, signed.files, ""


def _look_at_store(project: Project, model: str | None, audit_head: str) -> _Store:
    from clipdrift_monitor.store.checking import check  # noqa: PLC0415  sqlalchemy, which who only serves does not have
    from clipdrift_monitor.store.database import Database  # noqa: PLC0415
    from clipdrift_monitor.store.store import Store  # noqa: PLC0415

    try:
        database = Database(project.store_url, migrate=False, must_exist=True)
    except ConfigError as error:
        return _Store(notes=(f"nothing is known of records, approvals and audit: {error}",))
    report = check(database)
    problems = [Problem(what=_kind_of(words), words=words) for words in report.problems]
    if report.schema != report.newest_schema:
        note = f"the store has schema {report.schema} of {report.newest_schema}: `clipdrift store migrate`, then look again"
        return _Store(notes=(note,), problems=tuple(problems))
    store = Store(project.store_url)
    try:
        if audit_head and not any(row.hash == audit_head for row in store.audit()):
            problems.append(Problem(what="store", words=f"the audit log no longer leads to {audit_head}: rows were cut off"))
        models = [model] if model is not None else sorted(project.file.models)
        for name in models:
            problems += _approval_problems(store, name)
        recorded = {(name, run): told for name in models for run, told in _recorded(store, name)}
    finally:
        store.close()
    return _Store(
        recorded=recorded, audit_head=report.audit.head, num_audit_rows=report.audit.num_rows, problems=tuple(problems)
    )


def _kind_of(words: str) -> What:
    return "approval" if words.startswith("approval ") else "store"


def _recorded(store: "Store", model: str) -> Iterator[tuple[str, Recorded]]:
    """What the newest run of each version told."""
    told = set()
    for run in _pages(lambda offset: store.listed("runs", model, _PAGE_ROWS, offset)):
        if run.version not in told:
            told.add(run.version)
            kept = Recorded(artifact_digest=run.artifact_digest, card_digest=run.card_digest, is_signed=run.is_signed)
            yield run.version, kept


def _approval_problems(store: "Store", model: str) -> Iterator[Problem]:
    """Approvals of candidates that rest on something else than what people saw."""
    from clipdrift_monitor.decisions.digest import digest_of  # noqa: PLC0415  as above

    for one in _pages(lambda offset: store.approvals(model, state="approved", limit=_PAGE_ROWS, offset=offset)):
        if one.kind != "promotion":
            continue
        row, run = store.retrain(one.key), store.run(model, one.version)
        evidence = digest_of(row.outcome) if row is not None and row.outcome is not None else "nothing"
        if evidence != one.binding.evidence_digest:
            yield _unbound(one.approval_id, f"the outcome of retrain {one.key}", one.binding.evidence_digest, evidence)
        artifact = run.artifact_digest if run is not None else "nothing"
        if artifact != one.binding.candidate_digest:
            yield _unbound(one.approval_id, f"version {one.version}", one.binding.candidate_digest, artifact)


def _unbound(approval_id: str, what: str, expected: str, found: str) -> Problem:
    words = f"approval {approval_id} was given for another record of {what}: expected digest {expected}, found {found}"
    return Problem(what="approval", words=words)


def _pages(read: Callable[[int], Sequence[Any]]) -> Iterator[Any]:
    offset = 0
    while rows := read(offset):
        yield from rows
        offset += len(rows)
