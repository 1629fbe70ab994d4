"""The model card: what was measured of a version and where it comes from, after Mitchell et al. 2019. Nothing in it is made up:
what nobody measured or stated is said to be so.

Source: Mitchell et al., Model Cards for Model Reporting, FAT* 2019, section 4.
"""

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from clipdrift_contract.events import (
    Calibration,
    ClipSpec,
    DataCheck,
    Fault,
    GateCheck,
    HiddenSlice,
    Membership,
    NormQuantiles,
    PrivacyBudget,
    RunEnd,
    ScoreInterval,
    SliceScore,
    Verdict,
)
from clipdrift_contract.profile import FeatureKind, TaskKind

FORMAT = 1
"""Of the card, and of the page that is made of it."""


class StatedSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[models.NAME.card]`: what only people can say of a model; it goes into its card as it is."""

    owners: str = ""
    """Who answers for the model."""
    intended_use: str = ""
    """What it is for."""
    out_of_scope: str = ""
    """What it must not be used for."""
    limits: str = ""
    """Known limits, and what to look out for."""
    license: str = ""
    """Under which terms it may be used."""


class CardFeature(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: FeatureKind
    nullable: bool


class CardModel(msgspec.Struct, frozen=True, kw_only=True):
    """What kind of model it is."""

    task: TaskKind
    classes: tuple[str, ...]
    features: tuple[CardFeature, ...]
    num_parameters: int
    precision: str
    precision_words: str
    temperature: float
    artifact_digest: str


class CardParent(msgspec.Struct, frozen=True, kw_only=True):
    """The version that was in service when this one was ordered."""

    version: str
    digest: str


class CardOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """Where it comes from: data, code, run, and the version that it is to take the place of."""

    run_id: str
    started_at_ms: int
    ended_at_ms: int
    data_start_ms: int
    data_end_ms: int
    as_of_ms: int
    data_digest: str
    code_revision: str
    seed: int
    retrain_key: str
    arm: str
    parent: CardParent | None


class CardTraining(msgspec.Struct, frozen=True, kw_only=True):
    """How it was trained, and what clipping did."""

    optimizer: str
    learning_rate: float
    num_steps: int
    clip: ClipSpec
    removed_mass_ratio: float
    clip_rate_ratio: float
    num_nonfinite: int
    num_ineffective: int
    num_checked: int
    norm_quantiles: NormQuantiles | None
    faults: tuple[Fault, ...]


class CardEvaluation(msgspec.Struct, frozen=True, kw_only=True):
    """How it did on the days that were held out."""

    scores: tuple[SliceScore, ...]
    intervals: tuple[ScoreInterval, ...]
    hidden_slices: tuple[HiddenSlice, ...]
    calibration: Calibration | None
    membership: Membership | None
    privacy: PrivacyBudget | None


class CardGate(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate of a retrain found, against the model in service."""

    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[GateCheck, ...]


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """The card as JSON holds it. `files` are the version's other files by name, with their SHA-256."""

    model: str
    version: str
    stated: StatedSection
    about: CardModel
    origin: CardOrigin
    data_checks: tuple[DataCheck, ...]
    training: CardTraining
    evaluation: CardEvaluation
    gate: CardGate | None
    not_known: tuple[str, ...]
    files: dict[str, str]
    format: int = FORMAT


def make_card(
    run: RunEnd,
    *,
    files: Mapping[str, str],
    stated: StatedSection | None = None,
    gate: CardGate | None = None,
    parent: CardParent | None = None,
) -> ModelCard:
    """The card of the version that `run` made.

    Args:
        run: What the run measured; it has a profile.
        files: The version's other files, by name, with their SHA-256.
        stated: What people say of the model.
        gate: What the gate found; None: it was trained by hand.
        parent: The model in service that it was trained to replace.
    """
    assert run.profile is not None
    features = tuple(
        CardFeature(name=one.spec.name, kind=one.spec.kind, nullable=one.spec.nullable) for one in run.profile.features
    )
    said = stated or StatedSection()
    return ModelCard(
        model=run.model,
        version=run.version,
        stated=said,
        about=CardModel(
            task=run.profile.task, classes=run.profile.classes, features=features, num_parameters=run.num_parameters,
            precision=run.precision, precision_words=run.precision_words, temperature=run.temperature,
            artifact_digest=run.artifact_digest,
        ),
        origin=CardOrigin(
            run_id=run.run_id, started_at_ms=run.started_at_ms, ended_at_ms=run.ended_at_ms, data_start_ms=run.data_start_ms,
            data_end_ms=run.data_end_ms, as_of_ms=run.as_of_ms, data_digest=run.data_digest, code_revision=run.code_revision,
            seed=run.seed, retrain_key=run.retrain_key, arm=run.arm, parent=parent,
        ),
        # which rows a check is about stays out: positions mean nothing without the rows
        data_checks=tuple(msgspec.structs.replace(check, rows=()) for check in run.data_checks),
        training=CardTraining(
            optimizer=run.optimizer, learning_rate=run.learning_rate, num_steps=run.num_steps, clip=run.clip,
            removed_mass_ratio=run.removed_mass_ratio, clip_rate_ratio=run.clip_rate_ratio, num_nonfinite=run.num_nonfinite,
            num_ineffective=run.num_ineffective, num_checked=run.num_checked, norm_quantiles=run.norm_quantiles,
            faults=run.faults,
        ),
        evaluation=CardEvaluation(
            scores=run.validation, intervals=run.intervals, hidden_slices=run.hidden_slices, calibration=run.calibration,
            membership=run.membership, privacy=run.privacy,
        ),
        gate=gate,
        not_known=tuple(_not_known(run, said, gate)),
        files=dict(sorted(files.items())),
    )  # fmt: skip


def encode_card(card: ModelCard) -> bytes:
    """The card as JSON, keys in order: the same card gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(card, order="sorted"), indent=1) + b"\n"


def decode_card(content: bytes) -> ModelCard:
    """Raises msgspec.DecodeError where the bytes are no card."""
    return msgspec.json.decode(content, type=ModelCard)


def card_digest(content: bytes) -> str:
    """SHA-256 of the card as JSON, as hexadecimal digits: what an approval of the version is bound to."""
    return hashlib.sha256(content).hexdigest()


def _not_known(run: RunEnd, stated: StatedSection, gate: CardGate | None) -> Sequence[str]:
    """What a reader might take for granted and nobody measured or said."""
    unsaid = [name.replace("_", " ") for name in stated.__struct_fields__ if not getattr(stated, name)]
    checks = [
        (bool(unsaid), f"Nobody stated: {', '.join(unsaid)} ([models.{run.model}.card] is where to)."),
        (gate is None, "It was trained by hand: no gate compared it with a model in service."),
        (not run.data_checks, "The data were not checked before training."),
        (len(run.validation) < 2, "No slices are declared: figures are of all rows together."),
        (not run.intervals, "The figures have no intervals: too few days were held out."),
        (run.calibration is None, "What calibration gains was not measured."),
        (run.membership is None, "Membership inference was not measured in the training ([training] membership)."),
        (run.privacy is None, "It was trained without differential privacy."),
        (not run.num_checked, "Whether the optimizer consumed what clipping promised was not checked."),
    ]
    return [words for is_so, words in checks if is_so]
