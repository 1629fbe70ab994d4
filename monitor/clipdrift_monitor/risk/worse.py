"""Is the model worse than validated? Label by label on errors where days do not differ, else block by block on losses."""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from clipdrift_monitor.risk.block import Block
from clipdrift_monitor.risk.chain import Spread, hypotheses, log_factors, rises, spread_of, widened
from clipdrift_monitor.risk.evidence import Evidence
from clipdrift_monitor.risk.reference import Reference
from clipdrift_monitor.windows.window import Floats

STAKES = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0)  # of the betting test: shares of the largest stake
LARGEST_STAKE = 0.95  # times 1 / null: even a loss of 0 leaves a factor of 0.05
LOSS_SHARES = {"brier": 0.5, "error": 0.25, "log_loss": 0.25}  # of the bets, where a loss has a validated bound
CHAIN_SHARE = 0.9  # of all evidence that the label-by-label test may bring, where it does not rest


class WorseMemory(msgspec.Struct, kw_only=True):
    """What the test remembers."""

    reference: Reference
    worse: Evidence  # bets on the losses of a block: by loss, within it by stake
    chain: Evidence | None = None  # label by label; None where blocks differ and a label is no unit of evidence
    spread: Spread | None = None


class WorseStep(NamedTuple):
    """What a block did."""

    is_alarm: bool
    level: float  # at the alarm, or after the block
    at_label: int  # from 1: after which the bound was reached, the last where bets on the whole block reached it; 0: no alarm


def start_worse(reference: Reference, bound: float) -> WorseMemory:
    """No evidence yet."""
    names = losses_with_bound(reference)
    shares = [LOSS_SHARES[name] for name in names]
    weights = [share / sum(shares) / len(STAKES) for share in shares for _ in STAKES]
    bets = Evidence(sums=[0.0] * len(weights), weights=weights, bound=bound)
    spread = None if reference.error_rate is None else spread_of(reference.error_rate)
    rests = not reference.is_usable or spread is None or spread.is_certain
    chain = None if rests else Evidence(sums=[0.0] * len(rises(reference.error_rate)), bound=bound)  # type: ignore[arg-type]
    return WorseMemory(reference=reference, worse=bets, chain=chain, spread=spread)


def losses_with_bound(reference: Reference) -> tuple[str, ...]:
    """The losses that are bet on: the Brier score always, the others where validation bounds them."""
    has = {"brier": True, "error": reference.mean_error_bound < 1.0, "log_loss": reference.mean_log_loss_bound < float("inf")}
    return tuple(name for name in LOSS_SHARES if has[name])


def step_worse(memory: WorseMemory, block: Block, tolerance: float) -> WorseStep:
    """One block; changes `memory`. After an alarm the evidence begins again."""
    if not memory.reference.is_usable:
        return WorseStep(False, 0.0, 0)
    error_N = np.frombuffer(block.errors, np.uint8)
    _let_chain_rest(memory)
    share = 0.0 if memory.chain is None else CHAIN_SHARE
    level_N = _chain_levels(memory, error_N, tolerance) * share + memory.worse.level * (1 - share)
    memory.worse.add(_bets(memory, block, tolerance))
    level = memory.worse.level * (1 - share) + (memory.chain.level * share if memory.chain is not None else 0.0)
    bound = memory.worse.bound
    reached_N = level_N >= bound
    if memory.spread is not None and memory.reference.error_rate is not None:
        memory.spread = widened(memory.spread, memory.reference.error_rate, error_N)
    if not (reached_N.any() or level >= bound):
        return WorseStep(False, level, 0)
    memory.worse.restart()
    if memory.chain is not None:
        memory.chain.restart()
    at = int(reached_N.argmax()) + 1 if reached_N.any() else max(1, len(error_N))
    return WorseStep(True, max(level, bound), at)


def _chain_levels(memory: WorseMemory, error_N: npt.NDArray[np.uint8], tolerance: float) -> Floats:
    if memory.chain is None or memory.spread is None or memory.reference.error_rate is None:
        return np.zeros(len(error_N))
    validated = memory.reference.error_rate
    allowed = msgspec.structs.replace(validated, rate=min(0.9, validated.rate + tolerance))
    proven = memory.spread.proven
    null_K, other_K = hypotheses(allowed, proven)
    return memory.chain.add_logs(log_factors(error_N, null_K, other_K, validated.lag1) / proven)


def _let_chain_rest(memory: WorseMemory) -> None:
    """Once blocks are known to differ, the bets alone go on, with the share of the evidence that they have."""
    if memory.chain is not None and memory.spread is not None and memory.spread.is_certain:
        memory.worse.sums = [one * (1 - CHAIN_SHARE) for one in memory.worse.sums]
        memory.chain = None


def _bets(memory: WorseMemory, block: Block, tolerance: float) -> Floats:
    """Factors 1 + stake (loss - null), stakes up to 0.95 / null: by loss, within it by stake; 1 where a loss is not known.

    Labels that are still to come count as losses of 0: whatever they will be, the expected loss is no smaller.
    """
    reference, num_rows = memory.reference, block.num_labels + block.num_missing
    known = {
        "brier": (block.brier_sum, min(0.95, reference.mean_loss_bound + tolerance)),
        "error": (block.num_errors, min(0.95, reference.mean_error_bound + tolerance)),
        "log_loss": (block.log_loss_sum, reference.mean_log_loss_bound + tolerance),
    }
    stakes = np.asarray(STAKES) * LARGEST_STAKE
    factors = []
    for name in losses_with_bound(reference)[: len(memory.worse.sums) // len(STAKES)]:
        total, null = known[name]
        factors.append(1.0 + stakes * (total / num_rows / null - 1.0) if total >= 0 else np.ones(len(STAKES)))
    return np.concatenate(factors)
