"""Every event that crosses the bus. Flat, versioned by addition: fields are only ever added, each with a default.

Times are milliseconds since 1970 UTC and end in `_ms`. Numbers are finite (JSON has no infinity): "no bound" is None. A field
that is a sum or a count merges by addition. A golden file per version (tests/contract/golden) must parse for ever; the JSON
Schemas are in docs/reference/events.
"""

from typing import Literal

import msgspec

from clipdrift_contract.columns import Column
from clipdrift_contract.profile import ReferenceProfile

ClipKind = Literal[
    "off", "global_norm", "value", "per_tensor", "agc", "autoclip", "zclip", "adagc", "quantile", "per_sample"
]  # fmt: skip
FaultKind = Literal[
    "clip_before_backward", "clip_after_step", "clip_missing", "double_clip", "wrong_parameters", "half_overflow", "nan", "inf",
    "frozen_layer", "scaled_gradients", "not_as_promised",
]  # fmt: skip
CheckOutcome = Literal["pass", "warn", "stop", "skipped"]
Severity = Literal["page", "ticket", "note"]
Verdict = Literal["pass", "fail", "inconclusive"]
ClippingVerdict = Literal["implicated", "associated", "not_implicated", "unknown"]
Role = Literal["champion", "canary", "shadow"]
Action = Literal["none", "alert", "retrain", "ask", "canary", "promote", "rollback", "hold"]
CheckVerdict = Literal["pass", "fail", "inconclusive", "unreachable"]
SignalKind = Literal[
    "sudden_break", "worse_than_validated", "repairable", "feature_drift", "prediction_drift", "mix_drift",
    "labels_missing", "data_broken", "training_fault", "calibration_drift", "estimated_accuracy", "error_drift", "joint_drift",
    "schema", "freshness",
]  # fmt: skip
IncidentRoot = Literal["data", "labels", "training", "harm", "drift"]
IncidentChange = Literal[
    "opened", "updated", "reopened", "resolved", "acknowledged", "silenced", "feedback", "lapsed"
]  # fmt: skip
FeedbackVerdict = Literal["true", "false", "known"]


class ClipSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A clipping rule and its numbers. `max_norm` is the bound of the norm (global_norm), of each entry (value), of each tensor
    (per_tensor), of each sample (per_sample), the cap of an adaptive bound (autoclip, zclip), or what the bound starts from
    (adagc, quantile); None: no bound."""

    kind: ClipKind = "off"
    max_norm: float | None = None
    percentile: float = 10.0  # autoclip only: the percentile of all norms so far
    norm_type: float = 2.0
    options: dict[str, float | str] = {}  # what only one rule has, under the names of that rule's own settings


class LayerNorms(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    norm_sum: float
    norm_sq_sum: float
    norm_max: float


class SliceGradient(msgspec.Struct, frozen=True, kw_only=True):
    """How much gradient a slice contributed: the sum of its samples' gradient norms. By the head layer alone (`kind` "head") it
    ranks slices and is no magnitude; "exact" is over all parameters, on the steps that were measured."""

    slice: str
    num_samples: int
    grad_mass_sum: float
    loss_sum: float
    grad_mass_removed_sum: float = 0.0
    num_clipped: int = 0  # samples whose own bound held them back (per_sample), or whose step was clipped
    kind: Literal["head", "exact"] = "head"


class Spike(msgspec.Struct, frozen=True, kw_only=True):
    """One step whose norm stood out, with where to look for the reason."""

    step: int
    norm: float | None  # None: not finite
    typical_norm: float  # median of the window
    layer: str  # the tensor with the largest share
    batch_id: str = ""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something wrong in how gradients were made, clipped or consumed, named."""

    kind: FaultKind
    step: int  # the first step in the window that shows it
    num_steps: int  # how many do
    layer: str = ""
    words: str = ""


class GradWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What clipping did in one window of optimizer steps. Norms are before clipping unless they say `after`."""

    run_id: str
    model: str
    started_at_ms: int
    ended_at_ms: int
    step_first: int
    num_steps: int
    num_clipped: int
    num_nonfinite: int = 0
    num_skipped: int = 0  # AMP steps that the scaler skipped
    num_zero: int = 0  # steps whose norm was exactly 0
    num_ineffective: int = 0  # steps where the optimizer did not consume what clipping promised
    num_checked: int = 0  # steps on which that was checked
    rank: int = 0
    world_size: int = 1
    optimizer: str = ""
    clip: ClipSpec = ClipSpec()
    max_norm_last: float | None = None  # the bound in force at the last step (autoclip moves it)
    learning_rate_sum: float = 0.0
    norm_sum: float = 0.0
    norm_sq_sum: float = 0.0
    norm_min: float | None = None  # None: no finite step in the window
    norm_max: float = 0.0
    norm_removed_sum: float = 0.0  # sum of max(0, norm - bound)
    coefficient_sum: float = 0.0
    coefficient_min: float = 1.0
    norm_after_max: float = 0.0
    loss_sum: float = 0.0  # of the steps whose norm is finite
    norm_histogram: dict[int, int] = {}  # bucket b counts norms in [2**(b/4), 2**((b+1)/4)); b in -80..80
    layers: tuple[LayerNorms, ...] = ()
    slices: tuple[SliceGradient, ...] = ()
    groups: tuple[LayerNorms, ...] = ()  # layers of one block together: the norm over all their tensors
    effective_learning_rate_sum: float = 0.0  # sum of learning rate * coefficient
    spikes: tuple[Spike, ...] = ()
    faults: tuple[Fault, ...] = ()


class SliceScore(msgspec.Struct, frozen=True, kw_only=True):
    """Validation figures of one slice; the slice "" is all rows together. Sums, so they merge."""

    slice: str
    num_rows: int
    num_correct: int
    nll_sum: float
    brier_sum: float
    ece: float
    auc: float | None = None  # binary only; None where one class is absent
    num_train: int = 0  # rows of this slice that were trained on
    squared_error_sum: float = 0.0  # regression only
    absolute_error_sum: float = 0.0


class BlockScore(msgspec.Struct, frozen=True, kw_only=True):
    """Validation errors of one block of time (a day), in time order."""

    start_ms: int
    num_rows: int
    num_errors: int
    nll_sum: float
    brier_sum: float


class ErrorClustering(msgspec.Struct, frozen=True, kw_only=True):
    """How validation errors hang together in time; a test that ignores it cries wolf (research: day effects, lag 1)."""

    slice: str
    lag1_autocorrelation: float  # of the 0/1 errors, row by row in time order
    between_hour_variance: float  # of the hourly error rates, beyond binomial noise, >= 0
    between_day_variance: float
    days: tuple[BlockScore, ...] = ()


class NormQuantiles(msgspec.Struct, frozen=True, kw_only=True):
    """Of the norms before clipping in the last half of the run."""

    p10: float
    p50: float
    p90: float
    p99: float


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One clipping policy that a retrain tries, and why."""

    name: str  # same, half, q90, autoclip_p10
    clip: ClipSpec
    provenance: str = ""


class ScoreInterval(msgspec.Struct, frozen=True, kw_only=True):
    """A validation figure with its 95 % interval, by blocks of time where rows have one; the slice "" is all rows together."""

    slice: str
    metric: str  # accuracy, auc, nll, brier, ece, overconfidence; for regression rmse, mae
    value: float  # of ece without the bias of few rows; the plain one is the slice's SliceScore.ece
    low: float
    high: float
    num_rows: int
    num_blocks: int


class ReliabilityBin(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of about one predicted probability: what was said of them and what came. The probability is that of class 1 (binary)
    or of the predicted class (multi-class), the event that the label is that class. The slice "" is all rows together."""

    slice: str
    binning: Literal["width", "mass"]  # bins of equal width, or of about equally many rows
    num_rows: int
    num_blocks: int
    probability_mean: float
    event_rate: float
    event_rate_low: float  # 95 % interval by blocks of time
    event_rate_high: float


class HiddenSlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice that is so much worse than all rows together that the figure of all rows hides it."""

    slice: str
    metric: str
    value: float
    overall: float
    difference_low: float  # 95 % interval of value - overall, corrected for the number of slices
    difference_high: float
    share_of_rows: float
    words: str = ""
    against: Literal["all_rows", "in_service"] = "all_rows"  # in_service: `overall` is the slice's own figure in that run


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What temperature scaling gains on rows that it was not fitted on."""

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    num_rows: int


class DataCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One check of the training data, before training."""

    name: str
    outcome: CheckOutcome
    words: str
    figures: dict[str, float] = {}
    features: tuple[str, ...] = ()  # which it is about
    rows: tuple[int, ...] = ()  # some of the rows it is about, worst first
    seconds: float = 0.0


class PrivacyBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What a differentially private run spent (Opacus' accountant)."""

    epsilon: float
    delta: float
    noise_multiplier: float
    max_norm: float
    sample_rate: float
    num_steps: int
    accountant: str


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """How well the loss tells rows that were trained on from rows that were not (Yeom et al. 2018): .5 is not at all."""

    auc: float
    auc_low: float
    auc_high: float
    tpr_at_fpr_1: float  # true-positive rate at 1 % false positives
    num_members: int
    num_others: int


class ProbedSlice(msgspec.Struct, frozen=True, kw_only=True):
    """Gradient norms of batches of one slice (the slice "" is all rows), measured without an optimizer step."""

    slice: str
    num_rows: int
    num_batches: int
    norm_p10: float
    norm_p50: float
    norm_p90: float
    would_clip_ratio: float
    removed_mass_ratio: float


class GradProbe(msgspec.Struct, frozen=True, kw_only=True):
    """Which gradients training would see today, for the model in service: on recent labelled rows, and on its own data."""

    model: str
    version: str
    at_ms: int
    clip: ClipSpec
    max_norm: float | None  # the bound that was compared with
    batch_size: int
    recent: tuple[ProbedSlice, ...]
    trained: tuple[ProbedSlice, ...]
    seen_norm_p50: float | None = None  # what the first steps of the retrain that followed showed; None: none has
    seen_would_clip_ratio: float | None = None
    seen_removed_mass_ratio: float | None = None
    words: str = ""


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A finished training run: what it learned, how it clipped, where its artifact is."""

    run_id: str
    model: str
    version: str
    started_at_ms: int
    ended_at_ms: int
    data_start_ms: int  # of the rows trained on and validated with
    data_end_ms: int
    as_of_ms: int  # the run knew no label that came later than this
    data_digest: str
    code_revision: str
    seed: int
    optimizer: str
    learning_rate: float
    clip: ClipSpec
    num_steps: int
    num_parameters: int = 0
    removed_mass_ratio: float = 0.0  # sum of max(0, norm - bound) over the sum of norms
    clip_rate_ratio: float = 0.0  # share of steps that were clipped
    num_nonfinite: int = 0
    num_ineffective: int = 0
    num_checked: int = 0
    norm_quantiles: NormQuantiles | None = None
    candidates: tuple[Arm, ...] = ()  # clipping policies that a retrain would try
    validation: tuple[SliceScore, ...] = ()
    clustering: tuple[ErrorClustering, ...] = ()
    profile: ReferenceProfile | None = None
    artifact_uri: str = ""
    artifact_digest: str = ""
    temperature: float = 1.0  # scores are softmax(logits / temperature)
    registry_uri: str = ""
    retrain_key: str = ""  # of the order that this run carried out; empty: a training by hand
    arm: str = ""  # name of the arm within that order
    data_checks: tuple[DataCheck, ...] = ()
    intervals: tuple[ScoreInterval, ...] = ()
    hidden_slices: tuple[HiddenSlice, ...] = ()
    calibration: Calibration | None = None  # None: regression, or too few days to measure it on
    reliability: tuple[ReliabilityBin, ...] = ()  # by slice and binning, from the lowest probability up
    faults: tuple[Fault, ...] = ()  # of all windows, each kind and layer once
    slice_gradients: tuple[SliceGradient, ...] = ()
    privacy: PrivacyBudget | None = None
    membership: Membership | None = None
    precision: Literal["float32", "int8"] = "float32"  # of the weights in the artifact
    precision_words: str = ""  # why it is what it is, where int8 was asked for
    card_digest: str = ""  # sha256 of the version's model card as JSON
    is_signed: bool = False  # whether the version's files were signed


class FeatureColumn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    name: str
    values: Column


class PredictionBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Up to 512 predictions of one model version by one serving process, in columns of length N."""

    model: str
    version: str
    epoch: str  # identity of the serving process's life; (epoch, sequence) is the prediction's identity
    sequence: Column  # u8 [N]
    event_time_ms: Column  # i8 [N]
    slice_index: Column  # i2 [N], into the profile's slice names
    predicted: Column  # f8 [N]: class index, or the predicted value
    scores: Column  # f4 [N, K]: class probabilities; [N, 1] predicted value for regression
    features: tuple[FeatureColumn, ...] = ()
    role: Role = "champion"
    generation: int = 0  # of the deployment that was in service
    num_unrecorded: int = 0  # predictions answered but not recorded since the last batch
    num_failed: int = 0  # requests to this version that it could not answer, since the last batch
    latency_histogram: dict[int, int] = {}  # bucket b counts answers after [2**(b/4), 2**((b+1)/4)) microseconds


class LabelBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Receipts redeemed with their labels, in columns of length N. All of one model version and one serving epoch."""

    model: str
    version: str
    epoch: str  # of the process that made the predictions
    sequence: Column  # u8 [N]
    event_time_ms: Column  # i8 [N]: of the prediction
    slice_index: Column  # i2 [N]
    predicted: Column  # f8 [N]: class index, or the predicted value
    scores: Column  # f4 [N, K], as the receipt carried them (16 bits each)
    label: Column  # f8 [N]: class index, or the value
    label_time_ms: Column  # i8 [N]
    role: Role = "champion"
    generation: int = 0  # of the deployment under which the predictions were made


class FeedbackBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Labels on their way to serving, over the bus instead of over HTTP, in lists of one length N (or empty where they have a
    default). Each label comes with its receipt, or with the caller's own request id and the row within that request."""

    model: str
    labels: tuple[str | float | bool, ...]  # [N] class names, class indices or values
    receipts: tuple[str, ...] = ()  # [N], "" where the label comes with a request id
    request_ids: tuple[str, ...] = ()  # [N], "" where the label comes with a receipt
    rows: tuple[int, ...] = ()  # [N]; empty: each is row 0 of its request
    label_times_ms: tuple[int, ...] = ()  # [N]; empty: when serving reads them


class Signal(msgspec.Struct, frozen=True, kw_only=True):
    """A detector's statement, with its evidence."""

    signal_id: str
    model: str
    version: str
    kind: SignalKind
    severity: Severity
    detector: str
    window_start_ms: int
    window_end_ms: int
    statistic: float  # what the detector compares with `threshold`
    threshold: float
    slice: str = ""
    feature: str = ""
    effect: float = 0.0  # in the detector's own unit, said in `summary`
    effect_low: float | None = None
    effect_high: float | None = None
    num_labels: int = 0
    is_open: bool = True
    summary: str = ""
    evidence: dict[str, float] = {}


class EvidenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that a rule looked at, and what it was held against."""

    name: str
    value: float
    unit: str = ""
    bound: float | None = None


class RuleFinding(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of the diagnosis: whether it holds, on what evidence, and what would tell where it cannot."""

    rule: str  # "R1 training fault": its name in docs/reference/diagnosis.md
    outcome: Literal["holds", "does_not_hold", "unknown"]
    words: str  # for an engineer
    evidence: dict[str, float] = {}
    plain: str = ""  # for anybody
    confidence: float = 0.0  # that the outcome is right, 0..1; 0 where it is unknown
    would_change: str = ""  # what would turn it round, or settle it
    rows: tuple[EvidenceRow, ...] = ()


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, in numbers and in words."""

    # none, data_broken, training_fault, clipping, mix_shift, slice_drift, calibration, drift, harder_days, feedback_loop,
    # unknown
    cause: str
    clipping: ClippingVerdict
    words: str
    would_tell: str = ""  # what would settle it, where something is unknown
    accuracy_loss: float = 0.0  # validated minus live accuracy
    mix_term: float = 0.0  # sum over slices (p_train - p_live) * accuracy_validated
    within_term: float = 0.0  # sum over slices p_live * (accuracy_validated - accuracy_live)
    findings: tuple[RuleFinding, ...] = ()
    fault: str = ""  # which fault, where data or labels are broken: unit_change, labels_flipped, ...
    contributing: tuple[str, ...] = ()  # causes, or faults, beside the first
    plain: str = ""  # the words for anybody
    confidence: float = 0.0  # in the cause, 0..1
    would_change: str = ""


class Acknowledgement(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody sees to an incident, until a time: then, if it is still open, it is news again."""

    actor: str
    reason: str
    at_ms: int
    until_ms: int
    severity: Severity = "page"  # when it was acknowledged; worse than this is told all the same


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """An incident is not to be heard until a time, unless it grows worse than `severity`."""

    actor: str
    reason: str
    at_ms: int
    until_ms: int
    severity: Severity  # when it was silenced


class IncidentFeedback(msgspec.Struct, frozen=True, kw_only=True):
    """What a person found out about an incident: it was true, false, or true and known before."""

    verdict: FeedbackVerdict
    actor: str
    reason: str
    at_ms: int


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that has one cause: from its first window until it is quiet. Each change is one event of the same id."""

    incident_id: str
    model: str
    version: str  # in service when it was last seen
    root: IncidentRoot  # data (comes in), labels (come back), training, harm (the model is worse), drift (no harm is proven)
    severity: Severity  # the highest of its open signals; the last one when none is open
    is_open: bool
    change: IncidentChange  # why this event was sent
    revision: int  # 1, 2, 3, ... of this incident
    is_news: bool  # whether it should reach people: opened, come back, grown worse; never because it grew milder
    at_ms: int  # of the change: event time by which the window's labels were due; a person's change: wall time
    opened_at_ms: int
    first_window_ms: int  # start of the first window that shows it
    last_window_ms: int  # end of the last one
    resolved_at_ms: int | None = None
    resolution: str = ""  # why it is over
    worst_severity: Severity = "note"
    told_severity: Severity = "note"  # what people were told of it; only more than this is news
    cause: str = ""  # the diagnosis's cause, where it is about this incident
    fault: str = ""
    summary: str = ""  # a line
    words: str = ""  # for an engineer
    plain: str = ""  # for anybody
    slices: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    signal_ids: tuple[str, ...] = ()  # the newest 200
    open_signal_ids: tuple[str, ...] = ()
    num_signals: int = 0  # ever raised in it
    num_windows: int = 0  # in which it was seen
    num_quiet_windows: int = 0  # in a row
    num_milder_windows: int = 0  # in a row, in which it was seen, and below `told_severity`
    num_reopened: int = 0
    diagnosis: Diagnosis | None = None
    decision_id: str = ""  # the newest decision that was made on it
    evidence_uri: str = ""
    dashboard_url: str = ""
    runbook_url: str = ""
    acknowledgement: Acknowledgement | None = None
    silence: Silence | None = None
    is_held_back: bool = False  # there was news while it was silenced
    feedback: tuple[IncidentFeedback, ...] = ()  # the oldest first


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What the monitor decided, also when it decided to do nothing, and why."""

    decision_id: str
    model: str
    version: str
    at_ms: int
    action: Action
    reasons: tuple[str, ...]
    policy_version: str
    evidence_digest: str  # of what it rests on
    cause_key: str = ""  # one cause, one retrain: the same key is the same cause
    signal_ids: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    would: Action = "none"  # what would have been done, were this no dry run; "none" where nothing, or where it was done
    terms: dict[str, float] = {}  # the numbers that were weighed, under the names of docs/reference/decisions.md


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An order to retrain. The same key is the same order, however often it arrives."""

    key: str
    model: str
    cause: str
    decision_id: str
    requested_at_ms: int
    as_of_ms: int  # labels that came later than this stay out
    data_start_ms: int
    champion_version: str
    champion_uri: str
    champion_digest: str
    champion_clip: ClipSpec
    generation: int
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0,)
    policy_version: str = ""
    evidence_digest: str = ""  # of the decision that ordered it


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """A paired difference a - b of a loss on the same rows, with a 95 % interval by blocks. Negative: a is better."""

    slice: str
    num_rows: int
    num_blocks: int
    metric: str  # brier, nll, error
    difference: float
    low: float
    high: float


class ArmResult(msgspec.Struct, frozen=True, kw_only=True):
    """One arm of a shadow retrain: validation per slice, what clipping removed, and its contrasts."""

    arm: Arm
    run_id: str
    version: str
    artifact_uri: str
    artifact_digest: str
    removed_mass_ratio: float
    validation: tuple[SliceScore, ...]
    against_same: tuple[Contrast, ...] = ()  # this arm minus the arm "same", paired over seeds and blocks
    against_champion: tuple[Contrast, ...] = ()
    seeds: tuple[int, ...] = (0,)


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a candidate must show. A figure that is bad is a fail; one that nobody could measure is unreachable."""

    name: str  # loss, calibration, latency, size, robustness, membership, data, ...
    outcome: CheckVerdict
    words: str
    slice: str = ""
    value: float | None = None
    low: float | None = None  # 95 % interval
    high: float | None = None
    bound: float | None = None  # what `value` is held against
    unit: str = ""
    num_rows: int = 0
    num_blocks: int = 0
    is_decisive: bool = True  # False: shown, and changes no verdict (a check on trial)


class RetrainOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a retraining job found. Only verdict "pass" may lead to a deployment."""

    key: str
    model: str
    finished_at_ms: int
    verdict: Verdict
    reasons: tuple[str, ...]
    arms: tuple[ArmResult, ...] = ()
    winner: str = ""  # the arm's name
    candidate_version: str = ""
    candidate_uri: str = ""
    candidate_digest: str = ""
    candidate_run_id: str = ""
    attempt: int = 1
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    probe: GradProbe | None = None  # what the model in service foretold of this retrain's gradients, and what they were
    checks: tuple[GateCheck, ...] = ()  # of the gate
    run_url: str = ""  # where the CI shows the job that found this
    card_digest: str = ""  # sha256 of the candidate's model card as JSON
    is_signed: bool = False  # whether the candidate's files were signed


class ServedVersion(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    uri: str
    digest: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What should be in service. `generation` is a fence: a server ignores any generation that is not above its own."""

    model: str
    generation: int
    champion: ServedVersion
    decided_at_ms: int
    canary: ServedVersion | None = None
    canary_weight: float = 0.0  # share of requests, 0..1
    shadow: ServedVersion | None = None
    reason: str = ""
    decision_id: str = ""
    rollout_id: str = ""  # of the rollout that this is a step of
    stage: str = ""  # "shadow", "canary 0.1", ...; empty: no rollout


Event = (
    GradWindow | RunEnd | PredictionBatch | LabelBatch | FeedbackBatch | Signal | Incident | Decision | RetrainRequest
    | RetrainOutcome | Deployment
)  # fmt: skip

TRAINING = "clipdrift.training"
PREDICTIONS = "clipdrift.predictions"
LABELS = "clipdrift.labels"
FEEDBACK = "clipdrift.feedback"
SIGNALS = "clipdrift.signals"
DECISIONS = "clipdrift.decisions"
RETRAINING = "clipdrift.retraining"
DEPLOYMENTS = "clipdrift.deployments"
POISON = "clipdrift.poison"

TOPIC_OF: dict[type[msgspec.Struct], str] = {
    GradWindow: TRAINING,
    RunEnd: TRAINING,
    PredictionBatch: PREDICTIONS,
    LabelBatch: LABELS,
    FeedbackBatch: FEEDBACK,
    Signal: SIGNALS,
    Incident: SIGNALS,
    Decision: DECISIONS,
    RetrainRequest: RETRAINING,
    RetrainOutcome: RETRAINING,
    Deployment: DEPLOYMENTS,
}
TOPICS = (*dict.fromkeys(TOPIC_OF.values()), POISON)


def key_of(event: Event) -> bytes:
    """The record key: predictions and labels of one serving process share a partition number, all else goes by model.

    Predictions and their labels are keyed alike, so one monitor of a group sees both: the two topics have equally many
    partitions.
    """
    if isinstance(event, PredictionBatch | LabelBatch):
        return f"{event.model}/{event.epoch}".encode()
    return event.model.encode()
