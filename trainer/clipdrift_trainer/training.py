"""One training run from rows to a published `RunEnd`: load as of a time, hold days out, fit, evaluate, profile, export,
register."""

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.clock import MS_PER_DAY, Clock
from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import Calibration, ClipSpec, DataCheck, GradWindow, RunEnd, ScoreInterval
from clipdrift_contract.metrics import MetricSet
from clipdrift_contract.profile import ReferenceProfile
from clipdrift_trainer.evaluation.calibration import cross_fitted_gain, gain_of_temperature, trusted_temperature
from clipdrift_trainer.evaluation.hidden import HiddenSlicePolicy
from clipdrift_trainer.evaluation.membership import measure_membership
from clipdrift_trainer.evaluation.validation import Validation, validate
from clipdrift_trainer.export import Artifact, build_onnx, raw_columns, write_artifact
from clipdrift_trainer.lineage import Lineage, data_digest, version_name, weights_digest
from clipdrift_trainer.profiling import make_profile, slice_index, slice_names
from clipdrift_trainer.quality.checking import check_rows, require_usable
from clipdrift_trainer.quality.policy import DEFAULT, QualityPolicy
from clipdrift_trainer.quantise import Choice, quantise_when_it_passes
from clipdrift_trainer.recording.sinks import WindowSink
from clipdrift_trainer.recording.sinks.sink import Sink
from clipdrift_trainer.registering.describing import Describing, describe_version
from clipdrift_trainer.registry import Registry
from clipdrift_trainer.retraining.candidates import threshold_candidates
from clipdrift_trainer.tasks.fitting import Fit, OnProgress, fit, predict_logits, to_scores
from clipdrift_trainer.tasks.split import hold_out_blocks
from clipdrift_trainer.tasks.task import Rows, Task, encode, load_as_of, vocabularies_of
from clipdrift_trainer.validation_file import write_validation
from clipdrift_trainer.weights import WEIGHTS_NAME, save_weights

_log = logging.getLogger(__name__)
_DRAIN_SECONDS = 10.0
_FIRST_SETTINGS = ("hold_out_every", "hold_out_offset", "calibrate")


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`[training]`: which days are held out, and what for."""

    hold_out_every: int = 5
    """One day in so many is held out for validation."""
    hold_out_offset: int = 4
    """The first day that is held out, counted from 0."""
    calibrate: bool = False
    """Fit a temperature on half of the held-out days; the other half then judges. It stays 1 unless these days have 100 rows,
    some of them answered wrongly, and gain by each other's temperature. Off: all held-out days judge."""
    membership: bool = False
    """Measure how well the loss tells trained rows from held-out ones (membership inference), into the run's record."""
    exact_norms_every: int = 0
    """Measure, once in so many steps, each sample's exact gradient norm, by slice, into the run's record; 0: never. Where a
    sample has none of its own (batch normalisation) it is left out and logged."""
    int8: Literal["off", "when_it_passes"] = "off"
    """Store LSTM layers with 8-bit weights where accuracy and log loss on the held-out rows stay within 0.005."""
    hidden_slice_margin: float = 0.02
    """Warn of a slice whose Brier score is surely worse than that of all rows, and by more than this."""

    def __post_init__(self) -> None:
        if self.hold_out_every < 2:
            raise ValueError(f"training.hold_out_every must be >= 2, got {self.hold_out_every!r}")
        if not 0 <= self.hold_out_offset < self.hold_out_every:
            raise ValueError(
                f"training.hold_out_offset must be in 0..{self.hold_out_every - 1} (below hold_out_every), "
                f"got {self.hold_out_offset!r}"
            )
        if self.exact_norms_every < 0:
            raise ValueError(f"training.exact_norms_every must be >= 0 (0: never), got {self.exact_norms_every!r}")
        if not 0 <= self.hidden_slice_margin < 1:
            raise ValueError(f"training.hidden_slice_margin must be in 0..1, got {self.hidden_slice_margin!r}")

    @property
    def identity(self) -> str:
        """The part of a version's name that settings decide. One that came later counts only where it is not at its default:
        a name that was given must not change."""
        fields = {field.name: (getattr(self, field.name), field.default) for field in msgspec.structs.fields(self)}
        told = {name: value for name, (value, default) in fields.items() if name in _FIRST_SETTINGS or value != default}
        return f"TrainingConfig({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    def for_clip(self, clip: ClipSpec) -> "TrainingConfig":
        """The same, but always with `calibrate` where samples are clipped one by one: that makes probabilities wrong while
        classes stay right (by how much: tests/trainer/test_per_sample_training.py), so it is repaired before any comparison."""
        return msgspec.structs.replace(self, calibrate=True) if clip.kind == "per_sample" else self


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to train: the window of data, the policy, the seed."""

    model: str
    start_ms: int
    end_ms: int
    as_of_ms: int
    clip: ClipSpec
    seed: int = 0
    arm: str = ""
    retrain_key: str = ""
    code_revision: str = "unknown"


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Rows loaded and parted, shared by every run on them."""

    rows: Rows
    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]
    vocabularies: dict[str, tuple[str, ...]]
    digest: str
    load_seconds: float = 0.0
    checks: tuple[DataCheck, ...] = ()  # empty: nobody has inspected them


class TooFewRowsError(ClipdriftError, ValueError):
    """The window holds no rows, or so few that none are left to train on or to hold out."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is done: what happened, the file, and the answers on the held-out rows."""

    run_end: RunEnd
    artifact: Artifact
    held_out_scores: npt.NDArray[np.float64]


def prepare(task: Task, config: TrainingConfig, start_ms: int, end_ms: int, as_of_ms: int) -> Prepared:
    """Load rows as of a time and hold days out.

    Raises:
        LeakError: The task handed out what could not be known.
        TooFewRowsError: There are none, or too few to train on and to hold out.
        ValueError: A column is missing or wrong.
    """
    began = time.perf_counter()
    rows = load_as_of(task, start_ms, end_ms, as_of_ms)
    load_seconds = time.perf_counter() - began
    train, held_out = hold_out_blocks(rows.time_ms, every=config.hold_out_every, offset=config.hold_out_offset)
    if not len(rows):
        raise TooFewRowsError(
            f"load() gave no rows from {_minute(start_ms)} to {_minute(end_ms)} with labels known by {_minute(as_of_ms)}: "
            "too few to train on; choose another window, or see what load() leaves out"
        )
    if not len(train) or not len(held_out):
        raise TooFewRowsError(
            f"{len(rows)} rows on {len(np.unique(rows.time_ms // MS_PER_DAY))} days are too few: training holds out one day in "
            f"{config.hold_out_every}, so at least {config.hold_out_offset + 1} days with rows are needed"
        )
    return Prepared(
        rows=rows,
        train=train,
        held_out=held_out,
        vocabularies=vocabularies_of(task, rows.select(train)),
        digest=data_digest(rows),
        load_seconds=load_seconds,
    )


def _minute(time_ms: int) -> str:
    return f"{np.datetime64(time_ms // 60_000, 'm')}"


def inspect(
    task: Task,
    prepared: Prepared,
    policy: QualityPolicy,
    *,
    profile: ReferenceProfile | None = None,
    clip: ClipSpec | None = None,
) -> Prepared:
    """The same rows with what the data checks say of them; warnings are logged.

    Args:
        task: The rows' task.
        prepared: From `prepare`.
        policy: What is looked for.
        profile: Of the model in service, where there is one.
        clip: The clipping rule for models that a check trains.

    Raises:
        QualityError: The rows are not fit to train on; the message says which, why, and what to do.
        ValueError: A setting of the policy names no feature.
    """
    checks = check_rows(
        task, prepared.rows, prepared.held_out, policy, profile=profile, clip=clip, load_seconds=prepared.load_seconds
    )
    for check in checks:
        if check.outcome == "warn":
            _log.warning("data check %s: %s", check.name, check.words)
    require_usable(checks)
    return msgspec.structs.replace(prepared, checks=checks)


def train(
    task: Task,
    config: TrainingConfig,
    order: Order,
    *,
    artifacts: Path,
    registry: Registry,
    publisher: EventPublisher | None,
    clock: Clock,
    metrics: MetricSet,
    on_progress: OnProgress | None = None,
    on_window: Callable[[GradWindow], None] | None = None,
    sinks: Sequence[Sink] = (),
    spool: Path | None = None,
    quality: QualityPolicy = DEFAULT,
    profile: ReferenceProfile | None = None,
    in_service: Sequence[ScoreInterval] = (),
    describing: Describing | None = None,
) -> Finished:
    """Carry out `order` and publish its windows and its `RunEnd`.

    `on_window` sees each window in the training thread; `sinks` are further places for them, and `spool` is the folder where
    windows wait for a place that is away. `quality` says which checks the rows must stand, beside the `profile` of the model in
    service where there is one; slices are compared with `in_service`, its validation. `describing` says how the version is
    described and signed; None: it is not.

    Raises:
        LeakError, QualityError, ValueError: The task's rows are not usable.
        ExportError: The model cannot be exported faithfully.
    """
    started_at_ms = clock.now_ms()
    prepared = inspect(
        task, prepare(task, config, order.start_ms, order.end_ms, order.as_of_ms), quality, profile=profile, clip=order.clip
    )
    run_id = uuid.uuid4().hex
    with WindowSink(publisher, metrics, task.num_steps, sinks=sinks, spool=spool) as sink:

        def tell(window: GradWindow) -> None:
            sink(window)
            if on_window is not None:
                on_window(window)

        fitted = fit_order(
            task, prepared, order, run_id,
            on_window=tell, on_progress=on_progress, clock=clock, exact_norms_every=config.exact_norms_every,
        )  # fmt: skip
        sink.drain(_DRAIN_SECONDS)  # on the bus, windows stand before the end of their run
        finished = finish(
            task, config, order, prepared, fitted, run_id=run_id, started_at_ms=started_at_ms,
            artifacts=artifacts, registry=registry, publisher=publisher, clock=clock, in_service=in_service,
            describing=describing,
        )  # fmt: skip
        sink.end(finished.run_end)
    return finished


def fit_order(
    task: Task,
    prepared: Prepared,
    order: Order,
    run_id: str,
    *,
    on_window: Callable[[GradWindow], None] | None = None,
    on_progress: OnProgress | None = None,
    clock: Clock | None = None,
    exact_norms_every: int = 0,
) -> Fit:
    """Fit the task's model on the prepared training rows."""
    return fit(
        task, prepared.rows.select(prepared.train), prepared.vocabularies, order.clip, order.seed,
        run_id=run_id, model=order.model, on_window=on_window, on_progress=on_progress, clock=clock,
        exact_norms_every=exact_norms_every,
    )  # fmt: skip


def finish(
    task: Task,
    config: TrainingConfig,
    order: Order,
    prepared: Prepared,
    fitted: Fit,
    *,
    run_id: str,
    started_at_ms: int,
    artifacts: Path,
    registry: Registry,
    publisher: EventPublisher | None,
    clock: Clock,
    in_service: Sequence[ScoreInterval] = (),
    describing: Describing | None = None,
) -> Finished:
    """Evaluate, export, describe, register and publish a fitted model. `in_service`: the validation of the model in service, if
    known; without `describing` whoever calls describes it."""
    held_out = prepared.rows.select(prepared.held_out)
    logits_NK = predict_logits(fitted.module, encode(task, held_out, prepared.vocabularies))
    fitting, judged = split_held_out(task, config.for_clip(order.clip), held_out)
    if config.for_clip(order.clip).calibrate and task.kind != "regression" and not len(fitting):
        _log.warning(
            "no temperature is fitted: it needs a held-out day beside the days that judge, and all held-out rows lie on one"
        )
    temperature = fit_temperature_on(logits_NK, held_out, fitting)
    scores_NK = to_scores(logits_NK, task.kind, temperature)
    # the weights stand for what else went in: the task's options, torch, the machine
    weights = weights_digest(fitted.module)
    origin = (prepared.digest, repr(order.clip), str(order.seed), order.arm, order.code_revision, weights)
    version = version_name(order.as_of_ms, order.model, *origin, config.identity)
    lineage = Lineage(
        run_id=version,
        model=order.model,
        version=version,
        data_start_ms=order.start_ms,
        data_end_ms=order.end_ms,
        as_of_ms=order.as_of_ms,
        data_digest=prepared.digest,
        code_revision=order.code_revision,
        seed=order.seed,
        arm=order.arm,
        clip=order.clip,
        optimizer=fitted.optimizer,
        num_train_rows=len(prepared.train),
        hold_out_every=config.hold_out_every,
        hold_out_offset=config.hold_out_offset,
        weights_digest=weights,
    )
    folder = artifacts / order.model / version
    save_weights(fitted.module, folder / WEIGHTS_NAME)  # first: where a model file is, its weights are
    content = build_onnx(
        task, fitted.module, held_out, prepared.vocabularies,
        profile=make_profile(task, held_out, scores_NK, prepared.vocabularies), lineage=lineage, temperature=temperature,
    )  # fmt: skip
    chosen = _choose_precision(task, config, content, held_out.select(judged))
    if chosen.answers is not None:
        scores_NK[judged] = chosen.answers  # the figures are those of the file that is served
    artifact = write_artifact(folder / "model.onnx", chosen.content)
    found = _validate(
        task, config, prepared, artifact.profile, scores_NK[judged], held_out.select(judged), in_service,
        calibration=_calibration(task, logits_NK[judged], held_out.select(judged), temperature if len(fitting) else None),
    )  # fmt: skip
    write_validation(folder, found.intervals)
    run_end = _run_end(order, prepared, fitted, artifact, found, started_at_ms, clock)
    membership = None
    if config.membership:
        trained = prepared.rows.select(prepared.train)
        membership = measure_membership(task, fitted.module, trained, held_out, prepared.vocabularies, temperature)
    run_end = msgspec.structs.replace(
        run_end, run_id=run_id, privacy=fitted.privacy, membership=membership,
        precision=chosen.precision, precision_words=chosen.words,
    )  # fmt: skip
    if describing is not None:
        run_end = describe_version(run_end, describing)
    run_end = msgspec.structs.replace(run_end, registry_uri=registry.register(run_end))
    if publisher is not None:
        publisher.publish(run_end, event_id=f"run-end-{run_id}")
        publisher.flush(30.0)
    _log.info("%s version %s: %s", order.model, version, artifact.path)
    return Finished(run_end=run_end, artifact=artifact, held_out_scores=scores_NK)


def split_held_out(task: Task, config: TrainingConfig, held_out: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the held-out rows that a temperature is fitted on, and of those that may judge: never both.

    Without calibration, for regression, and where there is only one held-out day, all judge.
    """
    everything = np.arange(len(held_out))
    if not config.calibrate or task.kind == "regression":
        return everything[:0], everything
    fitting, judging = hold_out_blocks(held_out.time_ms, every=2, offset=1)
    return (fitting, judging) if len(fitting) and len(judging) else (everything[:0], everything)


def fit_temperature_on(logits_NK: npt.NDArray[np.float32], held_out: Rows, fitting: npt.NDArray[np.int64]) -> float:
    """The temperature that suits the rows at `fitting` best; 1 where there are none, or they do not show that one helps."""
    if not len(fitting):
        return 1.0
    temperature = trusted_temperature(logits_NK[fitting].astype(np.float64), held_out.label[fitting], held_out.time_ms[fitting])
    if temperature == 1.0:
        _log.info("%d held-out rows do not show that a temperature helps: it stays 1", len(fitting))
    return temperature


def _choose_precision(task: Task, config: TrainingConfig, content: bytes, judged: Rows) -> Choice:
    if config.int8 == "off":
        return Choice(content, "float32", "", None)
    chosen = quantise_when_it_passes(content, raw_columns(task.features, judged), judged.label)
    _log.info("stored as %s: %s", chosen.precision, chosen.words)
    return chosen


def _calibration(task: Task, logits_NK: npt.NDArray[np.float32], judged: Rows, temperature: float | None) -> Calibration | None:
    """What the temperature gains on these rows, which it was not fitted on; None: none was fitted, and it says what one would
    gain."""
    if task.kind == "regression":
        return None
    if temperature is None:
        return cross_fitted_gain(logits_NK.astype(np.float64), judged.label, judged.time_ms)
    return gain_of_temperature(logits_NK.astype(np.float64), judged.label, temperature)


def _validate(
    task: Task,
    config: TrainingConfig,
    prepared: Prepared,
    profile: ReferenceProfile,
    scores_NK: npt.NDArray[np.float64],
    judged: Rows,
    in_service: Sequence[ScoreInterval],
    *,
    calibration: Calibration | None,
) -> Validation:
    names = slice_names(task)
    train_counts = np.bincount(slice_index(task, prepared.rows.select(prepared.train)), minlength=len(names))
    found = validate(
        scores_NK, judged.label, judged.time_ms, slice_index(task, judged), names, task.kind,
        num_train=[int(count) for count in train_counts], calibration=calibration,
        policy=HiddenSlicePolicy(margin=config.hidden_slice_margin),
        label_span=profile.label_high - profile.label_low, in_service=in_service,
    )  # fmt: skip
    for one in found.hidden_slices:
        _log.info(one.words)
    return found


def _run_end(
    order: Order,
    prepared: Prepared,
    fitted: Fit,
    artifact: Artifact,
    found: Validation,
    started_at_ms: int,
    clock: Clock,
) -> RunEnd:
    return RunEnd(
        run_id=artifact.lineage.run_id,
        model=order.model,
        version=artifact.lineage.version,
        started_at_ms=started_at_ms,
        ended_at_ms=clock.now_ms(),
        data_start_ms=order.start_ms,
        data_end_ms=order.end_ms,
        as_of_ms=order.as_of_ms,
        data_digest=prepared.digest,
        code_revision=order.code_revision,
        seed=order.seed,
        optimizer=fitted.optimizer,
        learning_rate=fitted.learning_rate,
        clip=order.clip,
        data_checks=prepared.checks,
        num_steps=fitted.total.num_steps,
        num_parameters=fitted.num_parameters,
        removed_mass_ratio=fitted.removed_mass_ratio,
        clip_rate_ratio=fitted.clip_rate_ratio,
        num_nonfinite=fitted.total.num_nonfinite,
        num_ineffective=fitted.total.num_ineffective,
        num_checked=fitted.total.num_checked,
        faults=fitted.total.faults,
        slice_gradients=fitted.exact_slices or fitted.total.slices,
        norm_quantiles=fitted.norm_quantiles,
        candidates=threshold_candidates(order.clip, fitted.norm_quantiles, fitted.optimizer),
        **msgspec.structs.asdict(found),
        profile=artifact.profile,
        artifact_uri=artifact.uri,
        artifact_digest=artifact.digest,
        temperature=artifact.temperature,
        retrain_key=order.retrain_key,
        arm=order.arm,
    )
