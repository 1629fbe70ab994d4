"""Which rows count for which version: by the version that answered, its role and the generation of the deployment."""

from itertools import product

import numpy as np
import pytest

from clipdrift_monitor.rollout.compared import Served
from clipdrift_monitor.rollout.comparison import Comparison, blocks_until, served_block, sums_of, with_rows, with_served
from clipdrift_monitor.rollout.evidence import Memory, step
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig

STAGES = {4: "shadow", 5: "canary 0.1", 6: "canary 0.5"}
BOTH = Comparison(champion="v1", other="v2", slice_names=("AA", "BB"), stages=STAGES)
DAY = 86_400_000


def rows(num_rows, error_rate):
    """All in slice AA."""
    error_N = (np.arange(num_rows) < num_rows * error_rate).astype(float)
    return sums_of(np.zeros(num_rows, dtype=np.int64), error_N / 2, error_N, 2)


def test_of_all_versions_roles_and_generations_only_the_five_that_belong_count():
    counted = {
        (version, role, generation): BOTH.part_of(version, role, generation)
        for version, role, generation in product(("v0", "v1", "v2"), ("champion", "canary", "shadow"), (0, 3, 4, 5, 6, 7))
    }
    assert {key: part for key, part in counted.items() if part is not None} == {
        ("v1", "champion", 4): "pairs", ("v2", "shadow", 4): "pairs",
        ("v1", "champion", 5): "champion", ("v2", "canary", 5): "candidate",
        ("v1", "champion", 6): "champion", ("v2", "canary", 6): "candidate",
    }  # fmt: skip


def test_a_block_holds_the_rows_of_its_own_generation_alone():
    comparison = BOTH
    for generation, error_rate in ((5, 0.1), (6, 0.4)):
        comparison = with_rows(comparison, "candidate", generation, 0, rows(100, error_rate))
        comparison = with_rows(comparison, "champion", generation, 0, rows(300, 0.2))
    left, blocks = blocks_until(comparison, DAY, DAY, has_errors=True)

    assert [(generation, block.stage, block.candidate[0].num_errors) for generation, block in blocks] == [
        (5, "canary 0.1", 10.0), (6, "canary 0.5", 40.0),
    ]  # fmt: skip
    assert blocks[0][1].end_ms < blocks[1][1].end_ms  # so the evidence takes both, in order
    assert left.periods == ()


def test_what_the_champion_answers_never_moves_the_canarys_figures():
    """The champion's errors double, the canary's stay: the difference moves by the champion's alone."""
    found = []
    for champion_rate in (0.1, 0.2):
        comparison = with_rows(BOTH, "candidate", 5, 0, rows(2_000, 0.1))
        comparison = with_rows(comparison, "champion", 5, 0, rows(2_000, champion_rate))
        _, ((_, block),) = blocks_until(comparison, DAY, DAY, has_errors=True)
        found.append((block.candidate[0].num_errors, block.champion[0].num_errors))
        _, finding = step(Memory(), block, EvidenceConfig())
        assert finding.shown[0].estimate == pytest.approx(0.1 - champion_rate)
        assert finding.num_labels == 2_000
    assert found == [(200.0, 200.0), (200.0, 400.0)]


def test_labels_that_come_after_their_period_was_weighed_count_no_more():
    comparison = with_rows(BOTH, "candidate", 5, 0, rows(100, 0.1))
    weighed, _ = blocks_until(comparison, DAY, DAY, has_errors=True)
    assert with_rows(weighed, "candidate", 5, 0, rows(100, 1.0)) == weighed
    assert with_rows(weighed, "candidate", 5, DAY, rows(100, 1.0)) != weighed


def test_a_canary_without_labels_of_its_own_is_a_block_with_nothing_of_it():
    comparison = with_rows(BOTH, "champion", 5, 0, rows(5_000, 0.0))
    _, ((_, block),) = blocks_until(comparison, DAY, DAY, has_errors=True)
    _, finding = step(Memory(), block, EvidenceConfig())
    assert block.candidate == ()
    assert (finding.verdict, finding.num_labels) == ("go_on", 0)


def test_requests_of_another_generation_or_role_say_nothing_of_the_canary():
    down, fine = Served(num_failed=500), Served(num_answered=500)
    comparison = with_served(BOTH, 4, "shadow", down)
    comparison = with_served(comparison, 4, "canary", down)
    comparison = with_served(comparison, 6, "canary", fine)
    assert served_block(comparison, 6, DAY, 100)[1] is None  # the champion's are not there yet
    comparison, block = served_block(with_served(comparison, 6, "champion", fine), 6, DAY, 100)
    assert (block.candidate, block.champion) == (fine, fine)
    assert comparison.served == {}
