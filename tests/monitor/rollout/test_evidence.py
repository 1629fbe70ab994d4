"""What evidence of two versions side by side leads to, and what never does. Axes: N rows of a block."""

import math

import msgspec
import numpy as np
import pytest

from clipdrift_monitor.rollout.compared import ComparedBlock, PairedSums, Served, ServedBlock, SideSums
from clipdrift_monitor.rollout.evidence import REST, Memory, step
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig

CONFIG = EvidenceConfig()
SLICES = ("AA", "BB", "CC")
SHARES = (0.5, 0.3, 0.2)


def errors_in_runs(random, rate_N, autoregression=0.4):
    """0 or 1 a row: a row is as hard as the one before with that chance, so errors come in runs."""
    is_new_N = random.random(len(rate_N)) > autoregression
    is_new_N[0] = True
    fresh_N = random.random(len(rate_N))
    return (fresh_N[np.maximum.accumulate(np.where(is_new_N, np.arange(len(rate_N)), 0))] < rate_N).astype(float)


def rows_of(random, num_rows, worse, shares=SHARES):
    """One day: slice numbers, errors of champion and candidate. `worse` by slice; the day has its own luck, too."""
    slice_N = random.choice(len(shares), num_rows, p=shares)
    champion_N = errors_in_runs(random, np.full(num_rows, 0.2 + random.normal(0, 0.03)))
    gap_N = np.asarray(worse)[slice_N] + random.normal(0, 0.01)
    now_wrong_N = errors_in_runs(random, np.maximum(gap_N, 0.0) / 0.8 + 0.05)
    now_right_N = errors_in_runs(random, np.maximum(-gap_N, 0.0) / 0.2 + 0.2)
    return slice_N, champion_N, np.where(champion_N > 0, 1 - now_right_N, now_wrong_N)


def paired(day, slice_N, error_N, candidate_N, names=SLICES, stage="shadow"):
    gap_N = candidate_N - error_N
    pairs = [
        PairedSums(
            slice=name, num_rows=float(mask.sum()), loss_sum=0.5 * float(gap_N[mask].sum()),
            loss_sq_sum=0.25 * float(abs(gap_N[mask]).sum()), error_sum=float(gap_N[mask].sum()),
            error_sq_sum=float(abs(gap_N[mask]).sum()),
        )
        for name, mask in (("", slice_N >= 0), *((name, slice_N == one) for one, name in enumerate(names)))
        if mask.any()
    ]  # fmt: skip
    return ComparedBlock(start_ms=day, end_ms=day + 1, stage=stage, pairs=tuple(pairs))


def side(name, num_rows, error_rate):
    errors = num_rows * error_rate
    return SideSums(slice=name, num_rows=num_rows, loss_sum=errors / 2, loss_sq_sum=errors / 4, num_errors=errors)


def sides(day, candidate, champion, stage="canary 0.1"):
    return ComparedBlock(start_ms=day, end_ms=day + 1, stage=stage, candidate=tuple(candidate), champion=tuple(champion))


def course(random, num_days, worse, config=CONFIG, num_rows=2_000, shares=SHARES, names=SLICES):
    """The first verdict that is not to go on, with the finding; looked at after every day."""
    memory, finding = Memory(), None
    for day in range(num_days):
        memory, finding = step(memory, paired(day, *rows_of(random, num_rows, worse, shares), names), config)
        if finding.verdict != "go_on":
            break
    return finding


LEVEL = EvidenceConfig(wrong_promotion=0.1, wrong_rollback=0.2)
NUM_STREAMS = 60


@pytest.mark.parametrize("worse", [(0.03, 0.03, 0.03), (0.0, 0.0, 0.05)], ids=["overall", "in a slice"])
def test_what_is_worse_by_a_margin_is_promoted_at_most_at_the_level_under_looks_after_every_block(worse):
    """Errors in runs and days of their own; looked at 30 times. At a level of 10 %, so that 60 streams can tell."""
    ends = [course(np.random.default_rng([1, seed]), 30, worse, LEVEL).verdict for seed in range(NUM_STREAMS)]
    assert ends.count("promote") <= 0.1 * NUM_STREAMS + 2.3 * math.sqrt(0.1 * 0.9 * NUM_STREAMS)


def test_an_equal_one_is_rolled_back_at_most_at_the_level_under_looks_after_every_block():
    ends = []
    for seed in range(NUM_STREAMS):
        random, memory, is_back = np.random.default_rng([2, seed]), Memory(), False
        for day in range(30):
            memory, finding = step(memory, paired(day, *rows_of(random, 2_000, (0.0, 0.0, 0.0))), LEVEL)
            is_back |= finding.verdict == "roll_back"  # a promotion does not end it: every later look counts, too
        ends.append(is_back)
    assert sum(ends) <= 0.2 * NUM_STREAMS


def test_an_equal_one_is_promoted_and_one_that_is_worse_in_a_slice_is_out_with_the_slice_named():
    good = course(np.random.default_rng(3), 40, (0.0, 0.0, 0.0))
    bad = course(np.random.default_rng(4), 40, (0.0, 0.0, 0.12))
    assert good.verdict == "promote"
    assert good.words.startswith("Good enough")
    assert (bad.verdict, bad.culprit.slice) == ("roll_back", "CC")
    assert "'CC'" in bad.words


@pytest.mark.parametrize("field", ["loss_sum", "loss_sq_sum", "error_sum", "error_sq_sum", "num_rows"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_sums_that_are_no_numbers_are_refused(field, value):
    fine = {"slice": "", "num_rows": 100.0, "loss_sum": 0.0, "loss_sq_sum": 1.0, "error_sum": 0.0, "error_sq_sum": 10.0}
    PairedSums(**fine)
    with pytest.raises(ValueError, match=r"finite|exceed"):
        PairedSums(**{**fine, field: value})


@pytest.mark.parametrize("field", ["loss_sum", "num_errors"])
def test_more_errors_than_rows_or_fewer_than_none_are_refused(field):
    fine = {"slice": "", "num_rows": 100.0, "loss_sum": 10.0, "loss_sq_sum": 5.0, "num_errors": 20.0}
    for value in (-1.0, 101.0, math.nan):
        with pytest.raises(ValueError, match=r"every sum|all sums"):
            SideSums(**{**fine, field: value})


def at_rest():
    return [side("", 5_000, 0.2), *(side(name, 5_000 * share, 0.2) for name, share in zip(SLICES, SHARES, strict=True))]


NOTHING_TO_COMPARE = {
    "no rows at all": ([], []),
    "rows of the candidate alone": (at_rest(), []),
    "rows of the champion alone": ([], at_rest()),
    "no labels on either side": ([side("", 0.0, 0.0)], [side("", 0.0, 0.0)]),
}


@pytest.mark.parametrize("what", NOTHING_TO_COMPARE)
def test_traffic_that_is_empty_or_one_sided_neither_promotes_nor_rolls_back_for_ever(what):
    memory = Memory()
    candidate, champion = NOTHING_TO_COMPARE[what]
    for day in range(200):
        memory, finding = step(memory, sides(day, candidate, champion), CONFIG)
        assert finding.verdict == "go_on"
        assert finding.progress < 1.0
        assert not any(one.is_within for one in finding.shown)
        if day == 20:
            assert not any(one.num_blocks for one in finding.shown)  # so nothing of it is shown either way


def test_a_shadow_without_labels_gives_no_step():
    memory = Memory()
    for day in range(60):
        memory, finding = step(memory, ComparedBlock(start_ms=day, end_ms=day + 1, stage="shadow"), CONFIG)
        assert not finding.may_step
        assert finding.verdict == "go_on"


def test_labels_of_one_slice_that_stop_coming_hold_the_promotion():
    """All rows look fine, and the slice was tested: silence is not proof."""
    memory, random = Memory(), np.random.default_rng(5)
    for day in range(60):
        slice_N, error_N, candidate_N = rows_of(random, 2_000, (0.0, 0.0, 0.0))
        has_label_N = (slice_N != 2) if day > 1 else slice_N >= 0
        memory, finding = step(
            memory, paired(day, slice_N[has_label_N], error_N[has_label_N], candidate_N[has_label_N]), CONFIG
        )
        assert finding.verdict == "go_on"
    assert finding.slowest.slice == "CC"


def test_few_blocks_never_promote_however_many_rows_they_hold():
    memory, random = Memory(), np.random.default_rng(6)
    config = EvidenceConfig(min_blocks=6, spread=0.0, row_inflation=1.0)
    found = []
    for day in range(7):
        memory, finding = step(memory, paired(day, *rows_of(random, 200_000, (-0.1, -0.1, -0.1))), config)
        found.append(finding.verdict)
    assert found == ["go_on"] * 5 + ["promote"] * 2


def test_a_shadow_gives_way_at_its_level_and_a_promotion_needs_all():
    random, memory, found = np.random.default_rng(7), Memory(), []
    for day in range(40):
        memory, finding = step(memory, paired(day, *rows_of(random, 2_000, (0.0, 0.0, 0.0))), CONFIG)
        found.append((finding.may_step, finding.verdict, finding.progress))
    steps, promoted = ([day for day, one in enumerate(found) if is_so(one)] for is_so in (
        lambda one: one[0], lambda one: one[1] == "promote"
    ))  # fmt: skip
    assert steps[0] < promoted[0]
    assert all(may_step == (progress >= 0.5) for may_step, _, progress in found[CONFIG.min_blocks :])
    assert all((verdict == "promote") == (progress >= 1) for _, verdict, progress in found)


def test_half_the_evidence_of_harm_stops_a_canary_from_growing():
    memory, found = Memory(), []
    for day in range(12):
        memory, finding = step(memory, sides(day, [side("", 2_000, 0.245)], [side("", 20_000, 0.2)]), CONFIG)
        found.append((round(finding.harm_level, 6), finding.may_step, finding.verdict))
    assert all(may_step == (level < 0.5) for level, may_step, _ in found)
    assert any(0.5 <= level < 1 and verdict == "go_on" for level, _, verdict in found)
    assert found[-1][2] == "roll_back"


def test_a_block_counts_once_and_in_its_order():
    random = np.random.default_rng(8)
    first, second = (paired(day, *rows_of(random, 2_000, (0.0, 0.0, 0.0))) for day in (1, 2))
    memory, _ = step(Memory(), first, CONFIG)
    after, _ = step(memory, second, CONFIG)
    assert step(after, second, CONFIG)[0] == after
    assert step(after, first, CONFIG)[0] == after
    assert step(memory, second, CONFIG)[0] == after


def test_the_memory_does_not_grow_and_survives_being_written_down():
    random, memory, sizes = np.random.default_rng(9), Memory(), []
    for day in range(30):
        memory, finding = step(memory, paired(day, *rows_of(random, 2_000, (0.01, 0.01, 0.01))), CONFIG)
        written = msgspec.msgpack.encode(memory)
        sizes.append(len(written))
        memory = msgspec.msgpack.decode(written, type=Memory)
    assert sizes[-1] < 1.02 * sizes[2]
    assert finding.num_blocks == 30


def test_small_slices_are_tested_as_one_and_a_new_slice_counts_among_all_rows():
    names = tuple(f"S{number:02d}" for number in range(30))
    shares = np.array([0.6, 0.11, *([0.29 / 28] * 28)])
    random = np.random.default_rng(10)
    memory, finding = step(Memory(), paired(0, *rows_of(random, 4_000, np.zeros(30), shares), names), CONFIG)
    known = {one.slice for one in finding.shown if one.watched == "error"}
    memory, finding = step(memory, sides(1, [side("", 600, 0.1), side("new", 300, 0.1)], [side("", 600, 0.1)]), CONFIG)
    assert known == {"", "S00", "S01", REST}
    assert {one.slice for one in finding.shown if one.watched == "error"} == known


def test_values_are_tested_by_their_loss_alone():
    memory = Memory()
    fine = PairedSums(slice="", num_rows=2_000, loss_sum=0.0, loss_sq_sum=20.0)
    for day in range(12):
        block = ComparedBlock(start_ms=day, end_ms=day + 1, stage="shadow", pairs=(fine,), has_errors=False)
        memory, finding = step(memory, block, CONFIG)
    assert {one.watched for one in finding.shown} == {"loss", "failures", "latency"}
    assert finding.verdict == "promote"


def test_failed_requests_roll_back_whatever_labels_say():
    random, memory = np.random.default_rng(11), Memory()
    for day in range(12):
        memory, finding = step(memory, paired(day, *rows_of(random, 2_000, (-0.05, -0.05, -0.05))), CONFIG)
    assert finding.verdict == "promote"
    down = ServedBlock(
        start_ms=0, end_ms=1, stage="canary 0.1", candidate=Served(num_failed=400, num_answered=100),
        champion=Served(num_answered=4_000),
    )  # fmt: skip
    for hour in range(4):
        memory, finding = step(memory, msgspec.structs.replace(down, start_ms=hour, end_ms=hour + 1), CONFIG)
    assert (finding.verdict, finding.culprit.watched) == ("roll_back", "failures")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"wrong_promotion": 0.0}, "wrong_promotion"), ({"margin_error": math.nan}, "margin_error"),
        ({"shadow_level": 0.0}, "shadow_level"), ({"shadow_level": 1.1}, "shadow_level"),
        ({"slice_weight": 0.7, "served_weight": 0.3}, "leave something"), ({"min_blocks": 0}, "min_blocks"),
        ({"min_rows": 5}, "min_rows"), ({"row_inflation": 0.5}, "row_inflation"),
    ],
)  # fmt: skip
def test_settings_that_would_prove_nothing_are_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        EvidenceConfig(**changed)
