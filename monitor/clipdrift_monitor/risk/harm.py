"""The three harm tests of one model version, stepped once a block (a day) when its labels are mature.

Sudden break: label by label against the worst day that validation allows; for broken data and bad deployments.
Worse than validated: day by day against the validated mean of the Brier score.
Repairable: day by day against challengers that are kept up to date on production labels. Only this one justifies a retrain: a
blizzard makes every model worse, the difficulty cancels in the pair, and what remains is what a repair would bring.
"""

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.challengers import base_rate, logit, recalibration, sigmoid
from clipdrift_monitor.risk.evidence import Evidence
from clipdrift_monitor.risk.reference import Reference
from clipdrift_monitor.risk.severity import TEST_NAMES as TEST_NAMES
from clipdrift_monitor.risk.severity import TestName as TestName
from clipdrift_monitor.risk.student import t_quantile
from clipdrift_monitor.windows.window import NUM_SCORE_BINS, Floats

CHALLENGERS = {"recalibrated": 0.8, "base_rate": 0.2}  # share of the evidence that each may bring
_EXCESSES = (0.05, 0.1, 0.2, 0.3, 0.5)  # how far above the bound a break may put the error rate
_STAKES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the betting test: shares of the largest stake
_KAPPAS = (0.3, 0.6, 0.9)
_NO_ALARM = 0.9  # power of the bound: what a sum that raised no alarm is shown as, at most
_LARGEST_STAKE = 0.95  # times 1 / null: even a loss of 0 leaves a factor of 0.05


class HarmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.harm]`: what the harm tests look at."""

    history_blocks: int = 28
    """Past blocks that challengers are fitted on."""
    min_history_blocks: int = 3
    """Blocks to gather before the first is judged."""
    min_block_labels: int = 50
    """Blocks with fewer labels are added to the next one."""
    tolerance: float = 0.0
    """How much worse than validated (Brier score) is accepted."""
    max_ordered_labels: int = 20_000
    """Labels of a block that the test for sudden breaks reads, in time order."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """The labelled rows of one version in one block, as sums; `errors` holds 0/1 in time order for the first of them."""

    start_ms: int
    end_ms: int
    num_labels: float
    brier_sum: float
    labels: list[float]
    hits: list[float]
    score_sum: list[float]
    errors: bytes


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What one test says after a block."""

    test: TestName
    level: float
    bound: float
    is_alarm: bool
    effect: float
    effect_low: float | None = None
    effect_high: float | None = None
    detail: str = ""


class HarmState(msgspec.Struct, kw_only=True):
    """All that the tests remember of one version; saved and restored with the monitor's state."""

    reference: Reference
    sudden: Evidence
    worse: Evidence
    repairable: Evidence
    history: list[Block] = []
    gains: list[float] = []  # Brier score that the challenger which led before would have gained, block by block
    waiting: Block | None = None  # a block with too few labels, to be joined with the next
    last_start_ms: int = -1
    levels: dict[str, float] = {}


def start(reference: Reference, allotment: Allotment) -> HarmState:
    """The state of a version that has just come into service."""
    return HarmState(
        reference=reference,
        sudden=Evidence(sums=[0.0] * len(_EXCESSES), bound=allotment.bound("sudden_break")),
        worse=Evidence(sums=[0.0] * len(_STAKES), bound=allotment.bound("worse_than_validated")),
        repairable=Evidence(
            sums=[0.0] * (len(_KAPPAS) * len(CHALLENGERS)),
            weights=[share / len(_KAPPAS) for share in CHALLENGERS.values() for _ in _KAPPAS],
            bound=allotment.bound("repairable"),
        ),
    )


def step(state: HarmState, block: Block, config: HarmConfig) -> list[Statement]:
    """Judge one block; changes `state`. Nothing is said of a block that is too small yet, or was judged before.

    After an alarm the test that raised it begins again.
    """
    if block.start_ms <= state.last_start_ms:
        return []
    state.last_start_ms = block.start_ms
    joined = block if state.waiting is None else join(state.waiting, block)
    if joined.num_labels < config.min_block_labels:
        state.waiting = joined
        return []
    state.waiting = None
    said = [_sudden(state, joined), _worse(state, joined, config), _repairable(state, joined, config)]
    state.history = [*state.history, msgspec.structs.replace(joined, errors=b"")][-config.history_blocks :]
    state.levels = {one.test: one.level / one.bound for one in said}
    return said


def evidence_of_tests(state: HarmState) -> dict[TestName, Evidence]:
    """The sum of each test."""
    return {"sudden_break": state.sudden, "worse_than_validated": state.worse, "repairable": state.repairable}


def join(first: Block, second: Block) -> Block:
    """Two blocks as one."""
    return Block(
        start_ms=first.start_ms,
        end_ms=second.end_ms,
        num_labels=first.num_labels + second.num_labels,
        brier_sum=first.brier_sum + second.brier_sum,
        labels=(np.asarray(first.labels) + np.asarray(second.labels)).tolist(),
        hits=(np.asarray(first.hits) + np.asarray(second.hits)).tolist(),
        score_sum=(np.asarray(first.score_sum) + np.asarray(second.score_sum)).tolist(),
        errors=first.errors + second.errors,
    )


# --- sudden break ---


def _sudden(state: HarmState, block: Block) -> Statement:
    """First-order Markov likelihood ratio, label by label: P(error | last) = p + rho (last - p) under both hypotheses.

    A block counts as one step of time however many labels it has, so the budget holds in blocks at any traffic.

    Source: the ratio of Markov chains with equal lag-1 correlation; null p is the 99 % bound of one day's error rate.
    """
    errors = np.frombuffer(block.errors, np.uint8)
    null, rho = state.reference.day_error_bound, state.reference.lag1
    is_alarm = False
    if state.reference.is_usable and len(errors):
        other = np.minimum(null + np.asarray(_EXCESSES), 0.97)
        is_alarm = state.sudden.add_all(_markov_factors(errors, null, other, rho))
    level = state.sudden.level
    rate = float(errors.mean()) if len(errors) else 0.0
    # a bad evening within a day that validation allows is no break: fewer alarms than the sum alone would raise
    is_alarm = is_alarm and rate > null
    if is_alarm:
        state.sudden.restart()
    return Statement(
        test="sudden_break", bound=state.sudden.bound,
        level=max(level, state.sudden.bound) if is_alarm else min(level, state.sudden.bound**_NO_ALARM),
        is_alarm=is_alarm, effect=rate - null, detail=f"error rate {rate:.3f}, worst day that validation allows {null:.3f}",
    )  # fmt: skip


def _markov_factors(errors: npt.NDArray[np.uint8], null: float, other: Floats, rho: float) -> Floats:
    """Likelihood ratios [N, K], one row a label; the first label of a block has no predecessor."""
    last_N = np.concatenate([[null], errors[:-1].astype(float)])
    null_N = null + rho * (last_N - null)
    other_NK = other + rho * (last_N[:, None] - other)
    other_NK[0] = other
    is_error_N = errors.astype(bool)[:, None]
    return np.where(is_error_N, other_NK / null_N[:, None], (1 - other_NK) / (1 - null_N)[:, None])


# --- worse than validated ---


def _worse(state: HarmState, block: Block, config: HarmConfig) -> Statement:
    """Betting: e = 1 + stake (loss - null), stakes up to 0.95 / null; needs only that a day's expected loss is at most the
    null."""
    null = min(0.95, state.reference.mean_loss_bound + config.tolerance)
    loss = min(1.0, block.brier_sum / block.num_labels)
    is_alarm = False
    if state.reference.is_usable:
        stakes = np.asarray(_STAKES) * _LARGEST_STAKE / null
        is_alarm = state.worse.add(1.0 + stakes * (loss - null))
    level = state.worse.level
    if is_alarm:
        state.worse.restart()
    return Statement(
        test="worse_than_validated", level=level, bound=state.worse.bound, is_alarm=is_alarm, effect=loss - null,
        detail=f"Brier score {loss:.3f}, bound of the validated mean {null:.3f}",
    )  # fmt: skip


# --- repairable ---


def _repairable(state: HarmState, block: Block, config: HarmConfig) -> Statement:
    """Paired betting: e = 1 + kappa D / B, D = mean loss(model) - loss(challenger), B = mean 2 |p - q| known before the labels.

    The model's scores are those of their bins' means, so |D| <= B holds exactly and every factor is >= 1 - kappa > 0.
    """
    bound = state.repairable.bound
    if len(state.history) < config.min_history_blocks:
        return Statement(test="repairable", level=0.0, bound=bound, is_alarm=False, effect=0.0, detail="gathering labels")
    labels_B, hits_B, score_B = _binned(block)
    past_labels = np.sum([past.labels for past in state.history], axis=0)
    past_hits = np.sum([past.hits for past in state.history], axis=0)
    past_score = np.sum([past.score_sum for past in state.history], axis=0)
    past_mean = np.divide(past_score, past_labels, out=score_B.copy(), where=past_labels > 0)
    factors, gains = [], []
    for name in CHALLENGERS:
        rival_B = _rival(name, score_B, past_mean, past_labels, past_hits)
        gain, scale = paired(labels_B, hits_B, score_B, rival_B)
        ratio = gain / scale if scale > 1e-9 else 0.0
        factors.append(1.0 + np.asarray(_KAPPAS) * ratio)
        gains.append(gain)
    leader = _leader(state.repairable)
    is_alarm = state.repairable.add(np.concatenate(factors))
    level = state.repairable.level
    name = list(CHALLENGERS)[leader]
    state.gains = [*state.gains, gains[leader]][-config.history_blocks :]
    mean, low, high = _interval(state.gains)
    if is_alarm:
        state.repairable.restart()
    return Statement(
        test="repairable", level=level, bound=bound, is_alarm=is_alarm, effect=mean, effect_low=low, effect_high=high,
        detail=f"best challenger so far: {name}, in this block better by {gains[leader]:.4f} Brier score",
    )  # fmt: skip


def _leader(evidence: Evidence) -> int:
    """The challenger with the most evidence before this block: to pick by this block's labels would flatter its gain."""
    by_challenger = np.reshape(evidence.sums, (len(CHALLENGERS), len(_KAPPAS))).sum(axis=1)
    return int(np.argmax(by_challenger))


def _rival(name: str, score_B: Floats, past_score_B: Floats, past_labels_B: Floats, past_hits_B: Floats) -> Floats:
    """A challenger's scores [B] for today's bins, from past labels alone."""
    if name == "base_rate":
        return base_rate(score_B, past_labels_B, past_hits_B)
    slope, shift = recalibration(past_score_B, past_labels_B, past_hits_B)
    return sigmoid(slope * logit(score_B) + shift)


def paired(labels_B: Floats, hits_B: Floats, score_B: Floats, rival_B: Floats) -> tuple[float, float]:
    """Mean gain of the rival in Brier score over the model, and the most that it could have been.

    Example:
        >>> one = np.array([10.0]), np.array([5.0]), np.array([0.9]), np.array([0.5])
        >>> [round(x, 3) for x in paired(*one)]
        [0.16, 0.8]
    """
    num_labels = labels_B.sum()
    model = (labels_B * score_B**2 - 2 * score_B * hits_B).sum()
    rival = (labels_B * rival_B**2 - 2 * rival_B * hits_B).sum()
    scale = (2 * labels_B * np.abs(score_B - rival_B)).sum()
    return float((model - rival) / num_labels), float(scale / num_labels)


def _binned(block: Block) -> tuple[Floats, Floats, Floats]:
    labels_B, hits_B, sums_B = np.asarray(block.labels), np.asarray(block.hits), np.asarray(block.score_sum)
    centre_B = (np.arange(NUM_SCORE_BINS) + 0.5) / NUM_SCORE_BINS
    return labels_B, hits_B, np.divide(sums_B, labels_B, out=centre_B, where=labels_B > 0)


def _interval(gains: list[float]) -> tuple[float, float | None, float | None]:
    """Mean over blocks with a 95 % t interval; no interval below 5 blocks."""
    mean = float(np.mean(gains))
    if len(gains) < 5:
        return mean, None, None
    half = t_quantile(0.975, len(gains) - 1) * float(np.std(gains, ddof=1)) / float(np.sqrt(len(gains)))
    return mean, mean - half, mean + half
