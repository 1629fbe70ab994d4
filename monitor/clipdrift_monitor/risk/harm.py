"""The three harm tests of one model version and of its largest slices, stepped once a block (a day) when its labels are mature.

Sudden break (`sudden`): label by label against the worst day that validation allows; for broken data and bad deployments.
Worse than validated (`worse`): against the validated mean, label by label where days do not differ, else block by block.
Repairable (`repairable`): day by day against challengers that are kept up to date on production labels. Only this one
justifies a retrain: a blizzard makes every model worse, the difficulty cancels in the pair, and what remains is what a repair
would bring.
"""

from collections.abc import Mapping

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_monitor.risk.block import Block as Block
from clipdrift_monitor.risk.block import join as join
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.evidence import Evidence
from clipdrift_monitor.risk.reference import REST, Reference
from clipdrift_monitor.risk.repairable import start_pair, step_pair
from clipdrift_monitor.risk.severity import TEST_NAMES as TEST_NAMES
from clipdrift_monitor.risk.severity import TestName as TestName
from clipdrift_monitor.risk.sudden import NUM_ALTERNATIVES, step_sudden
from clipdrift_monitor.risk.worse import WorseMemory, start_worse, step_worse

_BINS_OF_SLICE = 4  # score bins of a slice are added up by fours: its history is kept for every slice


class HarmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.harm]`: what the harm tests look at."""

    history_blocks: int = 28
    """Past blocks that challengers are fitted on."""
    min_history_blocks: int = 3
    """Blocks to gather before the first is judged."""
    min_block_labels: int = 50
    """Blocks with fewer labels are added to the next one."""
    tolerance: float = 0.0
    """How much worse than validated (Brier score, error rate, log loss) is accepted."""
    max_ordered_labels: int = 20_000
    """Labels of a block that are read one by one, in time order."""
    max_slices: int = 8
    """Slices that are tested on their own, those with the most validated rows; the others are tested together. 0: none."""

    def __post_init__(self) -> None:
        if self.max_slices < 0:
            raise ValueError(f"max_slices must be >= 0, got {self.max_slices!r}")


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
    slice: str = ""  # empty: all rows


class HarmState(WorseMemory, kw_only=True):
    """All that the tests remember of one version, or of a slice of it; saved and restored with the monitor's state."""

    sudden: Evidence
    repairable: Evidence
    history: list[Block] = msgspec.field(default_factory=list)
    # Brier score that the challenger which led before would have gained, block by block
    gains: list[float] = msgspec.field(default_factory=list)
    waiting: Block | None = None  # a block with too few labels, to be joined with the next
    last_start_ms: int = -1
    levels: dict[str, float] = msgspec.field(default_factory=dict)
    slices: dict[str, "HarmState"] = msgspec.field(default_factory=dict)


def start(reference: Reference, allotment: Allotment, by_slice: Mapping[str, Reference] | None = None) -> HarmState:
    """The state of a version that has just come into service.

    Args:
        reference: Of all rows.
        allotment: What the version may spend of the budget.
        by_slice: Of the slices that are tested, too.
    """
    by_slice = by_slice or {}
    state = _started(reference)
    state.slices = {name: _started(one) for name, one in by_slice.items()}
    _set_bounds(state, allotment)
    return state


def rebudget(state: HarmState, allotment: Allotment) -> None:
    """Go on with another part of the budget; what was gathered keeps its worth."""
    for one, test, bound in _bounds(state, allotment):
        for evidence in _evidence(one)[test]:
            evidence.rebudget(bound)


def step(state: HarmState, block: Block, config: HarmConfig) -> list[Statement]:
    """Judge one block of all rows; changes `state`. Nothing is said of a block that is too small yet, or was judged before.

    After an alarm the test that raised it begins again.
    """
    if block.start_ms <= state.last_start_ms:
        return []
    state.last_start_ms = block.start_ms
    joined = block if state.waiting is None else join(state.waiting, block)
    is_short = joined.end_ms - joined.start_ms < state.reference.block_ms
    if joined.num_labels < config.min_block_labels or is_short:
        state.waiting = joined
        return []
    state.waiting = None
    said = [_sudden(state, joined), _worse(state, joined, config), _repairable(state, joined, config)]
    state.history = [*state.history, msgspec.structs.replace(joined, errors=b"")][-config.history_blocks :]
    state.levels = {one.test: one.level / one.bound for one in said}
    return said


def step_slices(state: HarmState, blocks: Mapping[str, Block], config: HarmConfig) -> list[Statement]:
    """Judge the same block of each slice; what is said names its slice. Slices that are not tested are left out."""
    said = []
    for name, of_slice in state.slices.items():
        if name in blocks:
            told = step(of_slice, _coarser(blocks[name]), config)
            said += [msgspec.structs.replace(one, slice=name) for one in told]
    return said


def slice_of(state: HarmState, name: str) -> str:
    """Under which name a slice is tested: its own, "(rest)", or "" for not at all."""
    return name if name in state.slices else REST if REST in state.slices else ""


def evidence_of_tests(state: HarmState) -> dict[TestName, Evidence]:
    """The sum of each test on all rows; of the one that has two, that which is added to once a block."""
    return {test: found[0] for test, found in _evidence(state).items()}


def _evidence(state: HarmState) -> dict[TestName, list[Evidence]]:
    chain = [] if state.chain is None else [state.chain]
    return {"sudden_break": [state.sudden], "worse_than_validated": [state.worse, *chain], "repairable": [state.repairable]}


def _started(reference: Reference) -> HarmState:
    worse = start_worse(reference, bound=1.0)
    return HarmState(
        reference=reference, worse=worse.worse, chain=worse.chain, spread=worse.spread, repairable=start_pair(bound=1.0),
        sudden=Evidence(sums=[0.0] * NUM_ALTERNATIVES, bound=1.0),
    )  # fmt: skip


def _set_bounds(state: HarmState, allotment: Allotment) -> None:
    for one, test, bound in _bounds(state, allotment):
        for evidence in _evidence(one)[test]:
            evidence.bound = bound


def _bounds(state: HarmState, allotment: Allotment) -> list[tuple[HarmState, TestName, float]]:
    """Of all rows and of each slice, by test. A slice counts for a test that does not rest on it."""
    found = []
    for test in TEST_NAMES:
        is_paired = test == "repairable"
        number = sum(is_paired or one.reference.is_usable for one in state.slices.values())
        found.append((state, test, _of_block(allotment, state).bound(test, num_slices=number)))
        for one in state.slices.values():
            rests = not is_paired and not one.reference.is_usable
            found.append((one, test, _of_block(allotment, one).bound(test, num_slices=number + rests, is_slice=True)))
    return found


def _of_block(allotment: Allotment, state: HarmState) -> Allotment:
    """Where errors hang together for longer than a window, a block is as long as that."""
    days = state.reference.block_ms / MS_PER_DAY
    return msgspec.structs.replace(allotment, block_days=max(allotment.block_days, days))


def _coarser(block: Block) -> Block:
    def added(values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sum(values[i : i + _BINS_OF_SLICE]) for i in range(0, len(values), _BINS_OF_SLICE))

    return msgspec.structs.replace(block, labels=added(block.labels), hits=added(block.hits), score_sum=added(block.score_sum))


# --- in words ---


def _sudden(state: HarmState, block: Block) -> Statement:
    bound = state.sudden.bound
    if state.reference.is_usable and not state.reference.has_errors:
        return Statement(
            test="sudden_break", bound=bound, level=0.0, is_alarm=False, effect=0.0,
            detail="rests: a value is neither right nor wrong",
        )  # fmt: skip
    null = state.reference.worst_day(bound)
    done = step_sudden(state.sudden, state.reference, block)
    return Statement(
        test="sudden_break", bound=bound, level=done.level, is_alarm=done.is_alarm, effect=done.rate - null,
        detail=f"error rate {done.rate:.3f}, worst day that validation allows {null:.3f}",
    )  # fmt: skip


def _worse(state: HarmState, block: Block, config: HarmConfig) -> Statement:
    null = min(0.95, state.reference.mean_loss_bound + config.tolerance)
    loss = block.brier_sum / block.num_labels
    done = step_worse(state, block, config.tolerance)
    what = "Brier score" if state.reference.has_errors else "squared miss, of the squared range,"
    return Statement(
        test="worse_than_validated", level=done.level, bound=state.worse.bound, is_alarm=done.is_alarm, effect=loss - null,
        detail=f"{what} {loss:.3g}, bound of the validated mean {null:.3g}",
    )  # fmt: skip


def _repairable(state: HarmState, block: Block, config: HarmConfig) -> Statement:
    bound = state.repairable.bound
    if len(state.history) < config.min_history_blocks:
        return Statement(test="repairable", level=0.0, bound=bound, is_alarm=False, effect=0.0, detail="gathering labels")
    done = step_pair(state.repairable, state.history, state.gains, block, config.history_blocks)
    state.gains = done.gains
    return Statement(
        test="repairable", level=done.level, bound=bound, is_alarm=done.is_alarm, effect=done.gain, effect_low=done.gain_low,
        effect_high=done.gain_high,
        detail=f"best challenger so far: {done.challenger}, in this block better by {done.gain_of_block:.4f} Brier score",
    )  # fmt: skip
