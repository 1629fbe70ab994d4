import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from clipdrift_trainer.recording.slices import SliceMass, head_of

NAMES = ("a", "b", "c")
HALF = torch.tensor(0.5)


def make_net(bias=True, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=bias))


def make_batch(num_rows=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_rows, 5, generator=generator)
    return x, torch.randint(0, 3, (num_rows,), generator=generator), torch.randint(0, 3, (num_rows,), generator=generator)


def norms_one_by_one(net, head, loss_of):
    """Gradient norms of the head by autograd, one sample after the other."""
    norms = []
    for loss in loss_of:
        gradients = torch.autograd.grad(loss(net), list(head.parameters()))
        norms.append(torch.cat([g.flatten() for g in gradients]).norm())
    return torch.stack(norms)


def add_and_read(mass, index):
    mass.add(index, HALF)
    return mass.sums


def by_slice(norm_B, slice_index_B, coefficient=0.5):
    mass = torch.zeros(3).index_add_(0, slice_index_B, norm_B)
    num = torch.bincount(slice_index_B, minlength=3).float()
    return torch.stack([num, mass, mass * (1 - coefficient), num * (coefficient < 1)], dim=1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_masses_equal_the_norms_of_gradients_taken_sample_by_sample(bias, reduction):
    net, (x, y, index) = make_net(bias), make_batch()
    mass = SliceMass(head_of(net), NAMES, loss_reduction=reduction)
    nn.functional.cross_entropy(net(x), y, reduction=reduction).backward()
    mass.add(index, HALF)
    alone = [lambda net, i=i: nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1]) for i in range(len(x))]
    expected = by_slice(norms_one_by_one(net, net[2], alone), index)
    torch.testing.assert_close(mass.sums, expected)


@pytest.mark.parametrize("loss", ["bce", "huber", "weighted"])
def test_masses_are_exact_for_any_loss(loss):
    net, (x, _, index) = make_net(), make_batch()
    target = torch.rand(12, 3, generator=torch.Generator().manual_seed(3))
    each = {
        "bce": lambda out, t: nn.functional.binary_cross_entropy_with_logits(out, t, reduction="none").sum(1),
        "huber": lambda out, t: nn.functional.huber_loss(out, t, reduction="none").sum(1),
        "weighted": lambda out, t: (out - t).pow(2).sum(1) * t[:, 0],
    }[loss]
    mass = SliceMass(head_of(net), NAMES)
    each(net(x), target).mean().backward()
    mass.add(index, HALF)
    alone = [lambda net, i=i: each(net(x[i : i + 1]), target[i : i + 1]).sum() for i in range(len(x))]
    torch.testing.assert_close(mass.sums, by_slice(norms_one_by_one(net, net[2], alone), index))


@pytest.mark.parametrize("num_positions", [2, 9])  # few positions: positions against positions; many: the gradients themselves
@pytest.mark.parametrize("bias", [True, False])
def test_masses_of_sequence_outputs_are_exact_over_all_positions(num_positions, bias):
    net, index = make_net(bias), torch.tensor([0, 1, 1, 2])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, num_positions, 5, generator=generator)
    y = torch.randint(0, 3, (4, num_positions), generator=generator)
    mass = SliceMass(head_of(net), NAMES)
    nn.functional.cross_entropy(net(x).flatten(0, 1), y.flatten()).backward()
    mass.add(index, HALF)
    alone = [lambda net, i=i: nn.functional.cross_entropy(net(x[i]), y[i]) for i in range(len(x))]
    torch.testing.assert_close(mass.sums, by_slice(norms_one_by_one(net, net[2], alone), index))


def test_micro_batches_of_one_step_are_taken_in_the_order_of_their_forward_passes():
    net, (x, y, index) = make_net(), make_batch()
    accumulated, together = SliceMass(net[2], NAMES, loss_reduction="sum"), []
    for part in (slice(0, 5), slice(5, 12)):
        nn.functional.cross_entropy(net(x[part]), y[part], reduction="sum").backward()
    accumulated.add(index, HALF)
    losses = [nn.functional.cross_entropy(net(x[part]), y[part], reduction="sum") for part in (slice(0, 5), slice(5, 12))]
    sum(losses).backward()  # autograd runs the later forward's part first
    together = accumulated.sums.clone()
    accumulated.reset()
    accumulated.add(index, HALF)
    torch.testing.assert_close(accumulated.sums, together)


def test_evaluation_and_forward_passes_without_backward_count_nothing_and_keep_nothing():
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    with torch.no_grad():
        net(x)
    net.eval()
    nn.functional.cross_entropy(net(x), y).backward()
    net.train()
    abandoned = weakref.ref(net(x))
    gc.collect()
    assert abandoned() is None
    nn.functional.cross_entropy(net(x), y).backward()
    mass.add(index, HALF)
    assert mass.sums[:, 0].sum() == len(x)


def test_training_past_the_recorder_keeps_a_bounded_number_of_passes(caplog):
    net = nn.Sequential(nn.Linear(2, 1))
    mass = SliceMass(net[0], NAMES)
    for _ in range(4_100):
        net(torch.ones(1, 2)).sum().backward()
    assert len(mass._waiting) <= 4_096
    assert "went by without a recorded step" in caplog.text


def test_recording_changes_no_gradient():
    watched, plain, (x, y, index) = make_net(), make_net(), make_batch()
    mass = SliceMass(watched[2], NAMES)
    for net in (watched, plain):
        nn.functional.cross_entropy(net(x), y).backward()
    mass.add(index, HALF)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))


def test_sums_do_not_depend_on_when_they_are_asked_for():
    net, (x, y, index) = make_net(), make_batch()
    often, once = SliceMass(net[2], NAMES), SliceMass(net[2], NAMES)
    for step in range(70):
        nn.functional.cross_entropy(net(x), y).backward()
        coefficient = torch.tensor(1.0 if step % 2 else 0.25)
        often.add(index, coefficient)
        once.add(index, coefficient)
        coefficient.fill_(9.0)  # what was added must not change when the caller uses its tensors again
        assert often.sums[:, 0].sum() == 12 * (step + 1)
    torch.testing.assert_close(often.sums, once.sums)
    assert once.sums[:, 3].sum() == 12 * 35


def test_a_step_that_is_not_finite_counts_samples_and_leaves_the_masses_finite():
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    (nn.functional.cross_entropy(net(x), y) * float("inf")).backward()
    mass.add(index, torch.tensor(0.0))
    assert torch.isfinite(mass.sums).all()
    assert mass.sums[:, 0].sum() == 12
    assert mass.sums[:, 1].sum() == 0


def test_the_loss_scale_of_mixed_precision_is_taken_out():
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    nn.functional.cross_entropy(net(x), y).backward()
    mass.add(index, HALF)
    plain = mass.sums.clone()
    mass.reset()
    (nn.functional.cross_entropy(net(x), y) * 1024.0).backward()
    mass.add(index, HALF, grad_scale=torch.tensor(1024.0))
    torch.testing.assert_close(mass.sums, plain)


def test_half_precision_does_not_overflow():
    head = nn.Linear(4, 2).half()
    mass = SliceMass(head, NAMES, loss_reduction="sum")
    head(torch.full((1, 4), 60_000.0, dtype=torch.float16)).backward(torch.full((1, 2), 2.0, dtype=torch.float16))
    mass.add(torch.tensor([1]), HALF)
    assert float(mass.sums[1, 1]) == pytest.approx(2 * 2**0.5 * 120_000, rel=1e-3)


def test_samples_in_no_slice_are_left_out():
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    nn.functional.cross_entropy(net(x), y).backward()
    mass.add(torch.where(index == 0, -1, index), HALF)
    assert mass.sums[0].tolist() == [0.0] * 4
    nn.functional.cross_entropy(net(x), y).backward()
    mass.add(None, HALF)
    assert mass.sums[:, 0].sum() == (index != 0).sum()


@pytest.mark.parametrize(
    ("index", "words"),
    [(torch.zeros(11, dtype=torch.int64), "11 entries.*12 samples"), (torch.full((12,), 3), r"0\.\.2 .*got 3")],
)
def test_indices_that_do_not_fit_are_refused(index, words):
    net, (x, y, _) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    nn.functional.cross_entropy(net(x), y).backward()
    with pytest.raises(ValueError, match=words):
        add_and_read(mass, index)


def test_a_head_that_took_no_part_is_named_as_the_reason():
    mass = SliceMass(nn.Linear(2, 2), NAMES)
    with pytest.raises(ValueError, match="training mode"):
        mass.add(torch.zeros(3, dtype=torch.int64), HALF)


def test_a_copy_of_the_module_feeds_nobody():
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    twin = copy.deepcopy(net)
    for module in (twin, net):
        nn.functional.cross_entropy(module(x), y).backward()
    mass.add(index, HALF)
    assert mass.sums[:, 0].sum() == 12


def test_after_remove_the_head_is_as_it_was():
    net, (x, y, _) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    mass.remove()
    mass.remove()
    nn.functional.cross_entropy(net(x), y).backward()
    assert not net[2]._forward_hooks
    assert not mass._waiting


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_under_compile_the_hook_breaks_no_graph_and_gives_the_same_masses(backend):
    torch._dynamo.reset()
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES, compiled_room=16)
    nn.functional.cross_entropy(net(x), y).backward()
    mass.add(index, HALF)
    expected = mass.sums.clone()
    mass.reset()
    compiled = torch.compile(net, backend=backend, fullgraph=True)  # a break would raise
    nn.functional.cross_entropy(compiled(x), y).backward()
    mass.add(index, HALF)
    torch.testing.assert_close(mass.sums, expected)


def test_under_compile_the_graph_is_made_once_for_equal_batches():
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    compiled = torch.compile(net, backend=counter)
    for _ in range(5):
        nn.functional.cross_entropy(compiled(x), y).backward()
        mass.add(index, HALF)
    assert counter.frame_count == 1
    assert mass.sums[:, 0].sum() == 60


def test_under_compile_micro_batches_of_different_sizes_are_refused():
    torch._dynamo.reset()
    net, (x, y, index) = make_net(), make_batch()
    mass = SliceMass(net[2], NAMES)
    compiled = torch.compile(net, backend="aot_eager")
    for part in (slice(0, 4), slice(4, 11)):
        nn.functional.cross_entropy(compiled(x[part]), y[part]).backward()
    with pytest.raises(ValueError, match="one size"):
        mass.add(index[:11], HALF)


def test_the_projection_inside_attention_is_no_head():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.attention = nn.MultiheadAttention(4, 1)

    net = Net()
    assert head_of(net) is net.head


def test_the_head_is_the_last_layer_with_as_many_outputs_as_the_task_has():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.body = nn.Linear(3, 4)

    net = Net()
    assert head_of(net, num_outputs=2) is net.head
    with pytest.raises(ValueError, match=r"no torch.nn.Linear with 5 outputs.*\[2, 4\]"):
        head_of(net, num_outputs=5)
    with pytest.raises(ValueError, match="record without slices"):
        head_of(nn.GRU(2, 2))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"names": ()}, "at least one"),
        ({"names": "abc"}, "names"),
        ({"names": ("a", "a")}, "no name twice"),
        ({"names": NAMES, "loss_reduction": "none"}, "loss_reduction"),
        ({"names": NAMES, "compiled_room": 0}, "compiled_room"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        SliceMass(nn.Linear(2, 2), **settings)
