"""Two processes on halves of a batch (gloo), by DDP and by FSDP2, equal one process on the joined batch."""

import math

import pytest
import torch
import training_frameworks
from training_ranks import RULES, Seen, by_hand, data_parallel, run_ranks, sharded, train

pytestmark = [pytest.mark.system, pytest.mark.slow]
SAME = {"rel": 1e-5}


@pytest.fixture(scope="module")
def ddp(tmp_path_factory) -> list[Seen]:
    return run_ranks(data_parallel, tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory) -> list[Seen]:
    return run_ranks(sharded, tmp_path_factory.mktemp("fsdp"))


def alone(**settings) -> Seen:
    """One process on the joined batches."""
    return train(by_hand.make_module(), by_hand.make_batches(), **settings)


def assert_same_weights(seen: Seen, expected: Seen) -> None:
    for name, weight in expected["weights"].items():
        torch.testing.assert_close(seen["weights"][name], weight, rtol=1e-4, atol=1e-5)


def assert_same_windows(windows, expected) -> None:
    assert [(w.step_first, w.num_steps, w.num_clipped) for w in windows] == [
        (w.step_first, w.num_steps, w.num_clipped) for w in expected
    ]
    for window, other in zip(windows, expected, strict=True):
        for name in ("norm_sum", "norm_sq_sum", "norm_removed_sum", "coefficient_sum", "loss_sum", "learning_rate_sum"):
            assert getattr(window, name) == pytest.approx(getattr(other, name), rel=1e-5, abs=1e-6), name
        assert [layer.name for layer in window.layers] == [layer.name for layer in other.layers]
        assert [layer.norm_sum for layer in window.layers] == pytest.approx([one.norm_sum for one in other.layers], rel=1e-5)
        assert window.faults == other.faults == ()


@pytest.mark.parametrize(("way", "accumulate"), [("plain", 1), ("accumulated", 3)])
def test_data_parallel_training_equals_one_process_on_the_joined_batch(ddp, way, accumulate):
    expected = alone(max_norm=by_hand.MAX_NORM, accumulate=accumulate)
    for rank in ddp:
        assert rank[way]["norms"] == pytest.approx(expected["norms"], **SAME)
        assert_same_weights(rank[way], expected)
    assert_same_windows(ddp[0][way]["windows"], expected["windows"])


def test_the_first_rank_tells_the_windows_of_all_and_the_others_none(ddp):
    first, second = (rank["plain"]["windows"] for rank in ddp)
    assert [(w.rank, w.world_size, w.num_steps) for w in first] == [(0, 2, 10), (0, 2, 10), (0, 2, 4)]
    assert second == []


def test_samples_and_gradient_mass_of_slices_are_those_of_all_ranks(ddp):
    expected = alone(max_norm=by_hand.MAX_NORM, with_slices=True)["windows"]
    for window, other in zip(ddp[0]["plain"]["windows"], expected, strict=True):
        assert [(s.slice, s.num_samples, s.num_clipped) for s in window.slices] == [
            (s.slice, s.num_samples, s.num_clipped) for s in other.slices
        ]
        for name in ("grad_mass_sum", "grad_mass_removed_sum"):
            sums = [getattr(one, name) for one in window.slices]
            assert sums == pytest.approx([getattr(one, name) for one in other.slices], rel=1e-4)
        assert sum(one.num_samples for one in window.slices) == window.num_steps * by_hand.BATCH


def test_a_rank_that_lost_its_slices_holds_up_nobody(ddp):
    windows = ddp[0]["lost_slices"]["windows"]
    num_samples = [sum(one.num_samples for one in window.slices) for window in windows]
    assert num_samples == [10 * by_hand.BATCH, 10 * by_hand.BATCH // 2, 4 * by_hand.BATCH // 2]


def test_ranks_that_do_not_step_together_are_named_in_the_log(ddp):
    first, second = (rank["out_of_step"] for rank in ddp)
    assert [window.loss_sum for window in first["windows"]] == [1.5]
    assert [words.split(":")[0] for words in first["said"]] == ["the ranks do not step together"]
    assert (second["windows"], second["said"]) == ([], [])


def test_data_parallel_recording_adds_one_collective_a_window_and_none_a_step(ddp):
    assert [rank["plain"]["num_collectives"] for rank in ddp] == [3, 3]


@pytest.mark.parametrize("seen", ["ddp", "fsdp"])
def test_the_optimizer_of_every_rank_meets_what_clipping_promised(request, seen):
    windows = request.getfixturevalue(seen)[0]["at_step" if seen == "ddp" else "checked"]["windows"]
    assert sum(w.num_checked for w in windows) == by_hand.NUM_STEPS
    assert [(w.num_ineffective, w.faults) for w in windows] == [(0, ())] * 3


@pytest.mark.parametrize("rule", list(RULES))
def test_sharded_training_equals_one_process_by_every_rule(fsdp, rule):
    expected = alone(clip=RULES[rule])
    for rank in fsdp:
        assert rank[rule]["norms"] == pytest.approx(expected["norms"], **SAME)
        assert_same_weights(rank[rule], expected)
    assert_same_windows(fsdp[0][rule]["windows"], expected["windows"])


@pytest.mark.parametrize("mesh", ["replicated", "sharded_in_two_axes"])
def test_replicas_of_a_shard_count_once(fsdp, mesh):
    expected = alone(max_norm=by_hand.MAX_NORM)
    for rank in fsdp:
        assert rank[mesh]["norms"] == pytest.approx(expected["norms"], **SAME)
        assert_same_weights(rank[mesh], expected)


def test_the_norms_of_all_sharded_tensors_cost_one_collective_a_step(fsdp):
    several = {"value": 2, "agc": 3}  # the norm afterwards too; and the norms of weights
    for rank in fsdp:
        assert rank["collectives_of_a_clip"] == {name: several.get(name, 1) for name in RULES}
    assert [rank["global_norm"]["num_collectives"] for rank in fsdp] == [by_hand.NUM_STEPS + 3] * 2


def test_clipping_before_backward_is_found_out_with_shards_too(fsdp):
    (window,) = fsdp[0]["misplaced"]["windows"]
    assert window.num_ineffective == by_hand.NUM_STEPS
    assert [fault.kind for fault in window.faults] == ["clip_before_backward"]


def test_a_nan_in_one_shard_is_seen_and_zeroed_by_every_rank(fsdp):
    for rank in fsdp:
        assert math.isnan(rank["poisoned"]["norm"])
        assert rank["poisoned"]["is_zeroed"]


@pytest.fixture(scope="module")
def frameworks(tmp_path_factory) -> list[Seen]:
    return run_ranks(training_frameworks.frameworks, tmp_path_factory.mktemp("frameworks"))


@pytest.mark.parametrize("framework", ["lightning", "accelerate", "transformers"])
def test_two_processes_of_a_framework_equal_one_process_by_hand(frameworks, framework):
    reference = by_hand.make_module()
    norms = by_hand.train_by_hand(reference, by_hand.make_batches())
    for rank in frameworks:
        assert_same_weights(rank[framework], {"weights": dict(reference.named_parameters())})
    first, second = (rank[framework]["windows"] for rank in frameworks)
    total = by_hand.assert_tells(first, norms)
    assert (total.world_size, total.num_checked, second) == (2, by_hand.NUM_STEPS, [])
    assert total.loss_sum == pytest.approx(sum(w.loss_sum for w in alone(max_norm=by_hand.MAX_NORM)["windows"]), rel=1e-4)
