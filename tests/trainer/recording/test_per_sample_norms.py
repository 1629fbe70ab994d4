import pytest
import torch
from torch import nn

from clipdrift_trainer.recording.per_sample_norms import NormSampler, methods_for, per_sample_norms
from clipdrift_trainer.recording.slices import SliceMass

WORDS, CLASSES, LENGTH = 6, 3, 5


class Last(nn.Module):
    """The last position of what it gets."""

    def forward(self, x):
        return x[:, -1]


class Total(nn.Module):
    """The sum over the last axis."""

    def forward(self, x):
        return x.sum(2)


class First(nn.Module):
    def forward(self, x):
        return x[0]


class Swap(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)))


class Position(nn.Module):
    """A parameter that belongs to no layer."""

    def __init__(self):
        super().__init__()
        self.shift, self.head = nn.Parameter(torch.ones(4)), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(x + self.shift)


class Functional(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(nn.functional.linear(x, self.layer.weight))


class TimeFirst(nn.Module):
    """Layers that see positions on the first axis, as many as samples."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.layer(x.transpose(0, 1)))).transpose(0, 1).sum(1)


def tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, CLASSES))
    net[2].weight = net[0].weight
    return net


def frozen():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    net[0].requires_grad_(False)
    net[2].weight.requires_grad_(False)
    return net


def chain(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def head(width, **settings):
    return lambda: nn.Linear(width, CLASSES, **settings)


def layer(kind, *arguments, **settings):
    return lambda: kind(*arguments, **settings)


CONVOLUTION = {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}
NORM_OF_ALL = layer(nn.LayerNorm, (LENGTH, 5))
MODULES = {  # how to build it, the shape of a sample, the way that is expected
    "mlp": (
        chain(layer(nn.Linear, 4, 5), layer(nn.ReLU, inplace=True), layer(nn.LayerNorm, 5), head(5)),
        (4,), "ghost"),
    "positions": (
        chain(layer(nn.Linear, 4, 5), NORM_OF_ALL, layer(nn.Linear, 5, 4), layer(nn.LayerNorm, 4), Last, head(4)),
        (LENGTH, 4), "ghost"),
    "no affine": (chain(layer(nn.LayerNorm, 4, elementwise_affine=False), head(4, bias=False)), (4,), "ghost"),
    "embedding": (chain(layer(nn.Embedding, WORDS, 4, padding_idx=0), nn.Flatten, head(4 * LENGTH)), "words", "ghost"),
    "one word": (chain(layer(nn.Embedding, WORDS, 4), head(4)), "word", "ghost"),
    "convolution": (
        chain(Swap, layer(nn.Conv1d, 4, 6, 3, **CONVOLUTION), nn.Tanh, layer(nn.Conv1d, 6, CLASSES, 1, bias=False), Total),
        (LENGTH, 4), "ghost"),
    "same padding": (chain(Swap, layer(nn.Conv1d, 4, CLASSES, 3, padding="same"), Total), (LENGTH, 4), "ghost"),
    "frozen": (frozen, (4,), "ghost"),
    "called twice": (Twice, (4,), "vmap"),
    "own parameter": (Position, (4,), "vmap"),
    "functional": (Functional, (4,), "vmap"),
    "positions first": (TimeFirst, (8, 4), "vmap"),
    "tied": (tied, (4,), "vmap"),
    "attention": (
        chain(layer(nn.TransformerEncoderLayer, 4, 2, 8, dropout=0.0, batch_first=True), Last, head(4)),
        (LENGTH, 4), "vmap"),
    "gru": (chain(layer(nn.GRU, 4, 5, batch_first=True), First, Last, head(5)), (LENGTH, 4), "loop"),
    "lstm": (chain(layer(nn.LSTM, 4, 5, batch_first=True, bidirectional=True), First, Last, head(10)), (LENGTH, 4), "loop"),
}  # fmt: skip


def make(name, num_samples=8):
    build, shape, expected = MODULES[name]
    torch.manual_seed(0)
    module = build()
    generator = torch.Generator().manual_seed(1)
    if shape == "words":
        inputs = torch.randint(0, WORDS, (num_samples, LENGTH), generator=generator)
    elif shape == "word":
        inputs = torch.randint(0, WORDS, (num_samples,), generator=generator)
    else:
        inputs = torch.randn(num_samples, *shape, generator=generator)
    return module, inputs, torch.randint(0, CLASSES, (num_samples,), generator=generator), expected


def assert_norms(found, expected):
    torch.testing.assert_close(found.norm_B, expected, rtol=1e-4, atol=1e-6)


def by_autograd(module, loss, inputs, label):
    """An independent way: backward on batches of one, gradients read from the parameters."""
    norms = []
    for i in range(len(label)):
        module.zero_grad()
        loss(module(inputs[i : i + 1]), label[i : i + 1]).backward()
        squares = [p.grad.double().square().sum() for p in module.parameters() if p.grad is not None]
        norms.append(torch.stack(squares).sum().sqrt())
    module.zero_grad()
    return torch.stack(norms).float()


@pytest.mark.parametrize("name", MODULES)
def test_norms_equal_autograds_on_batches_of_one_and_the_expected_way_is_taken(name):
    module, inputs, label, expected = make(name)
    found = per_sample_norms(module, nn.functional.cross_entropy, inputs, label)
    assert found.method == expected
    torch.testing.assert_close(
        found.norm_B, by_autograd(module, nn.functional.cross_entropy, inputs, label), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("method", ["ghost", "vmap", "loop"])
def test_every_way_gives_the_same_norms_and_losses(method):
    module, inputs, label, _ = make("mlp", num_samples=130)  # more than vmap takes at a time
    found = per_sample_norms(module, nn.functional.cross_entropy, inputs, label, method=method)
    assert found.method == method
    torch.testing.assert_close(
        found.norm_B, by_autograd(module, nn.functional.cross_entropy, inputs, label), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(found.loss_B, nn.functional.cross_entropy(module(inputs), label, reduction="none"))


@pytest.mark.parametrize("method", ["ghost", "vmap", "loop"])
def test_a_loss_that_weights_the_batch_is_asked_for_one_sample_at_a_time(method):
    module, inputs, label, _ = make("mlp")
    loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 20.0]))  # divides by the weights of the batch
    found = per_sample_norms(module, loss, inputs, label, method=method)
    assert_norms(found, by_autograd(module, loss, inputs, label))


def test_a_loss_that_looks_at_values_still_works():
    def loss(output, label):
        return output.square().sum() if float(output.sum()) > 0 else output.sum()

    module, inputs, label, _ = make("mlp")
    found = per_sample_norms(module, loss, inputs, label)
    assert found.method == "ghost"
    assert_norms(found, by_autograd(module, loss, inputs, label))


def test_named_inputs_are_taken_as_tasks_have_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, CLASSES)

        def forward(self, features):
            return self.head(features["x"])

    net, x, label = Net(), torch.randn(6, 4), torch.zeros(6, dtype=torch.int64)
    ghost, vmapped, loop = (
        per_sample_norms(net, nn.functional.cross_entropy, {"x": x}, label, method=method)
        for method in ("ghost", "vmap", "loop")
    )
    torch.testing.assert_close(ghost.norm_B, loop.norm_B)
    torch.testing.assert_close(vmapped.norm_B, loop.norm_B)


def test_no_gradient_and_no_hook_is_left_behind():
    module, inputs, label, _ = make("mlp")
    per_sample_norms(module, nn.functional.cross_entropy, inputs, label)
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks for part in module.modules())


def test_what_has_no_per_sample_gradient_is_refused_with_the_reason():
    x, label = torch.randn(4, 4), torch.zeros(4, dtype=torch.int64)
    shared = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, CLASSES))
    with pytest.raises(ValueError, match="batch normalisation"):
        per_sample_norms(shared, nn.functional.cross_entropy, x, label)
    assert per_sample_norms(shared.eval(), nn.functional.cross_entropy, x, label).method == "vmap"
    with pytest.raises(ValueError, match="no sample"):
        per_sample_norms(shared, nn.functional.cross_entropy, x[:0], label[:0])
    with pytest.raises(ValueError, match="no parameter"):
        per_sample_norms(shared.requires_grad_(False), nn.functional.cross_entropy, x, label)
    with pytest.raises(ValueError, match="ghost: not all"):
        per_sample_norms(nn.GRU(4, 4), nn.functional.cross_entropy, x, label, method="ghost")


def test_a_norm_that_is_not_finite_is_told_as_it_is():
    module, inputs, label, _ = make("mlp")
    inputs[3] = float("nan")
    found = per_sample_norms(module, nn.functional.cross_entropy, inputs, label, method="loop")
    assert torch.isnan(found.norm_B).tolist() == [i == 3 for i in range(8)]


def test_the_sampler_measures_each_nth_step_and_sums_by_slice():
    module, inputs, label, _ = make("mlp")
    index, coefficient = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1]), torch.tensor(0.25)
    sampler = NormSampler(module, nn.functional.cross_entropy, ("a", "b"), every=3)
    for _ in range(4):  # steps 0 and 3 are measured
        sampler.step(inputs, label, index, coefficient)
    norms = by_autograd(module, nn.functional.cross_entropy, inputs, label)
    a, b = sampler.slices()
    assert (a.kind, a.num_samples, b.num_samples, a.num_clipped, sampler.method) == ("exact", 6, 10, 6, "ghost")
    assert a.grad_mass_sum == pytest.approx(2 * float(norms[:3].sum()), rel=1e-4)
    assert b.grad_mass_removed_sum == pytest.approx(0.75 * 2 * float(norms[3:].sum()), rel=1e-4)
    losses = nn.functional.cross_entropy(module(inputs), label, reduction="none")
    assert a.loss_sum == pytest.approx(2 * float(losses[:3].sum()), rel=1e-4)


def test_a_run_does_not_notice_that_it_is_sampled():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, CLASSES))
    inputs, label = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)
    mass = SliceMass(module[2], ("a",))
    sampler = NormSampler(module, nn.functional.cross_entropy, ("a",), every=1)
    nn.functional.cross_entropy(module(inputs), label).backward()
    before, gradient = torch.get_rng_state(), module[0].weight.grad.clone()
    sampler.step(inputs, label, torch.zeros(8, dtype=torch.int64), torch.tensor(1.0))
    mass.add(torch.zeros(8, dtype=torch.int64), torch.tensor(1.0))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(module[0].weight.grad, gradient)
    assert mass.sums[0, 0] == 8  # the watched head counted the training's pass and no other


def test_modules_with_recurrent_layers_are_looped_over():
    assert methods_for(nn.Sequential(nn.LSTM(2, 2), nn.Linear(2, 2))) == ["loop"]


@pytest.mark.parametrize("module", [TimeFirst, Functional])
def test_dropout_does_not_hide_that_the_formulas_do_not_hold(module):
    net = nn.Sequential(module(), nn.Dropout(0.5)).train()
    shape = (8, 4) if module is TimeFirst else (4,)
    inputs, label = torch.randn(8, *shape), torch.zeros(8, dtype=torch.int64)
    assert per_sample_norms(net, nn.functional.cross_entropy, inputs, label).method == "vmap"
    assert net[1].training
