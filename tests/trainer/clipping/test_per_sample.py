import math

import pytest
import torch
from opacus import PrivacyEngine
from opacus.optimizers import AdaClipDPOptimizer
from torch import nn

from clipdrift_contract.clock import ManualClock
from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.clipping.per_sample import PerSample
from clipdrift_trainer.privacy import BudgetError
from clipdrift_trainer.recording.recorder import Recorder

BOUND = 0.5
NUM_ROWS, BATCH = 40, 10


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x):
        return self.layers(x)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x.reshape(len(x), 2, 2))[0][:, -1])


class OwnParameter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.ones(4))
        self.shift, self.head = nn.Parameter(torch.zeros(4)), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(x - self.mean + self.shift)


def make_rows(num_rows=NUM_ROWS):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(num_rows, 4, generator=generator) * 2, torch.randint(0, 3, (num_rows,), generator=generator)


def make(build=Mlp, learning_rate=0.1, spec=None, seed=0, **options):
    torch.manual_seed(seed)
    module = build()
    optimizer = torch.optim.SGD(module.parameters(), lr=learning_rate, momentum=0.9)
    spec = spec or ClipSpec(kind="per_sample", max_norm=BOUND, options=options)
    rule = PerSample(spec, module, optimizer, nn.functional.cross_entropy, num_rows=NUM_ROWS, batch_size=BATCH)
    return module, optimizer, rule


def by_hand(module, x, y, bound=BOUND, per_layer=False):
    """Batches of one, clipped, averaged: the definition, in a loop. On a twin without hooks."""
    twin = type(module)()
    twin.load_state_dict(module.state_dict())
    module = twin
    sums = [torch.zeros_like(parameter) for parameter in module.parameters()]
    for i in range(len(y)):
        module.zero_grad()
        nn.functional.cross_entropy(module(x[i : i + 1]), y[i : i + 1]).backward()
        gradients = [parameter.grad for parameter in module.parameters()]
        if per_layer:
            each = bound / math.sqrt(len(gradients))
            factors = [min(1.0, each / (float(g.norm()) + 1e-6)) for g in gradients]
        else:
            total = math.sqrt(sum(float(g.square().sum()) for g in gradients))
            factors = [min(1.0, bound / (total + 1e-6))] * len(gradients)
        for into, gradient, factor in zip(sums, gradients, factors, strict=True):
            into += gradient * factor
    module.zero_grad()
    return [one / len(y) for one in sums]


@pytest.mark.parametrize(
    ("build", "way", "expected"),
    [
        (Mlp, "auto", "hooks"), (Mlp, "ghost", "ghost"), (Mlp, "vmap", "vmap"), (Mlp, "loop", "loop"),
        (Recurrent, "auto", "loop"), (OwnParameter, "auto", "vmap"),
    ],
)  # fmt: skip
def test_gradients_equal_those_clipped_by_hand_one_sample_after_the_other(build, way, expected):
    module, optimizer, rule = make(build, gradients=way)
    x, y = make_rows()
    for start in (0, 10, 20):
        wanted = by_hand(module, x[start : start + 10], y[start : start + 10])
        loss = rule.backward(x[start : start + 10], y[start : start + 10])
        rule(module.parameters())
        for parameter, gradient in zip(module.parameters(), wanted, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            loss, nn.functional.cross_entropy(module(x[start : start + 10]), y[start : start + 10]).detach()
        )
        optimizer.step()
    assert rule.way == expected


def test_one_bound_a_tensor_equals_the_same_by_hand_and_reaches_as_far_together():
    module, _, rule = make(bound="per_layer")
    x, y = make_rows(BATCH)
    wanted = by_hand(module, x, y, per_layer=True)
    rule.backward(x, y)
    rule(module.parameters())
    for parameter, gradient in zip(module.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert float(rule.samples.after_B.max()) <= BOUND * (1 + 1e-6)


@pytest.mark.parametrize("bound", ["flat", "per_layer", "adaptive"])
def test_with_noise_the_weights_equal_those_of_opacus_own_engine(bound):
    options = {"bound": bound, "noise_multiplier": 0.7, "randomness": "seed", "count_noise": 1.0, "min_bound": 0.01}
    module, optimizer, rule = make(gradients="hooks", **options)
    torch.manual_seed(0)
    theirs = Mlp()
    x, y = make_rows()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)
    generator = torch.Generator()
    generator.set_state(rule.noise_generator.get_state())
    num_parameters = len(list(theirs.parameters()))
    each = [BOUND / math.sqrt(num_parameters)] * num_parameters
    wrapped, dp, _ = PrivacyEngine().make_private(
        module=theirs, optimizer=torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9), data_loader=loader,
        noise_multiplier=0.7, max_grad_norm=each if bound == "per_layer" else BOUND,
        clipping=bound, noise_generator=generator, poisson_sampling=False,
        target_unclipped_quantile=0.5, clipbound_learning_rate=0.2, max_clipbound=1e6, min_clipbound=0.01,
        unclipped_num_std=1.0,
    )  # fmt: skip
    assert isinstance(dp, AdaClipDPOptimizer) == (bound == "adaptive")
    for start in (0, 10, 20, 30):
        batch = slice(start, start + 10)
        dp.zero_grad()
        nn.functional.cross_entropy(wrapped(x[batch]), y[batch]).backward()
        dp.step()
        rule.backward(x[batch], y[batch])
        rule(module.parameters())
        optimizer.step()
    for ours, other in zip(module.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


def test_ghost_and_hooks_give_the_same_private_weights():
    trained = []
    for way in ("hooks", "ghost", "vmap", "loop"):
        module, optimizer, rule = make(gradients=way, noise_multiplier=1.0, randomness="seed")
        x, y = make_rows()
        for _ in range(3):
            batch = rule.draw()
            rule.backward(x[batch], y[batch])
            rule(module.parameters())
            optimizer.step()
        trained.append(torch.cat([parameter.detach().flatten() for parameter in module.parameters()]))
    for other in trained[1:]:
        torch.testing.assert_close(other, trained[0], rtol=1e-4, atol=1e-5)


def test_the_adaptive_bound_finds_the_wanted_share_and_keeps_above_its_floor():
    x, y = make_rows()
    module, _, rule = make(bound="adaptive", target=0.8, learning_rate=0.5)
    for _ in range(40):  # the weights stand still
        rule.backward(x, y)
        rule(module.parameters())
    assert float((rule.samples.before_B <= rule.last.bound).float().mean()) == pytest.approx(0.8, abs=0.05)
    spec = ClipSpec(kind="per_sample", max_norm=100.0, options={"bound": "adaptive", "target": 0.0, "learning_rate": 2.0})
    module, _, rule = make(spec=spec)
    for _ in range(10):
        rule.backward(x, y)
        rule(module.parameters())
    assert float(rule.last.bound) == pytest.approx(10.0)


def run(rule, module, optimizer, num_steps=6, window_steps=3, private=False):
    x, y = make_rows()
    index = torch.arange(NUM_ROWS) % 2
    windows = []
    slices = rule.slices(("even", "odd"))
    recorder = Recorder(
        rule, module.named_parameters(), optimizer, run_id="r", model="m", clock=ManualClock(),
        on_window=lambda window: windows.append(rule.complete(window)), window_steps=window_steps, check_every=1, slices=slices,
    )  # fmt: skip
    seen = []
    for step in range(num_steps):
        batch = rule.draw() if private else torch.arange(10) + 10 * (step % 4)
        loss = rule.backward(x[batch], y[batch])
        recorder.clip(loss, slice_index=index[batch])
        seen.append(rule.samples)
        optimizer.step()
    recorder.finish()
    rule.finish()
    return windows, seen


@pytest.mark.parametrize("build", [Mlp, Recurrent, OwnParameter])
def test_windows_tell_of_samples_and_the_optimizer_consumes_what_was_promised(build):
    module, optimizer, rule = make(build)
    windows, seen = run(rule, module, optimizer)
    assert [window.num_steps for window in windows] == [3, 3]
    assert all(window.num_ineffective == 0 and window.num_checked == 3 and not window.faults for window in windows)
    first = seen[:3]
    norms = torch.stack([one.before_B for one in first])
    removed = (norms - BOUND).clamp_min(0)
    assert windows[0].norm_removed_sum / windows[0].norm_sum == pytest.approx(float(removed.sum() / norms.sum()), rel=1e-4)
    assert windows[0].num_clipped == int((norms > BOUND).any(dim=1).sum())
    assert (windows[0].norm_max, windows[0].norm_min) == pytest.approx((float(norms.max()), float(norms.min())))
    assert sum(windows[0].norm_histogram.values()) == norms.numel()
    even = windows[0].slices[0]
    assert (even.slice, even.kind, even.num_samples) == ("even", "exact", 15)
    assert even.grad_mass_sum == pytest.approx(float(norms[:, ::2].sum()), rel=1e-5)
    assert even.grad_mass_removed_sum == pytest.approx(float(removed[:, ::2].sum()), rel=1e-4)
    assert even.num_clipped == int((norms[:, ::2] > BOUND).sum())


def test_a_private_run_is_told_without_faults_and_says_what_it_spent():
    module, optimizer, rule = make(noise_multiplier=1.0, randomness="seed", accountant="rdp", delta=1e-3)
    windows, _ = run(rule, module, optimizer, private=True)
    assert not any(window.faults for window in windows)
    budget = rule.privacy()
    assert (budget.num_steps, budget.sample_rate, budget.delta, budget.max_norm) == (6, 0.25, 1e-3, BOUND)
    assert budget.epsilon > 0


def test_after_finish_the_module_is_a_plain_one():
    module, optimizer, rule = make()
    run(rule, module, optimizer)
    assert not any(part._forward_hooks or part._backward_hooks for part in module.modules())
    assert not any(hasattr(parameter, name) for parameter in module.parameters() for name in ("grad_sample", "summed_grad"))
    rule.finish()


@pytest.mark.parametrize("way", ["hooks", "ghost", "loop"])
def test_a_sample_that_is_not_finite_is_left_out_and_the_step_is_counted(way):
    module, _, rule = make(gradients=way)
    x, y = make_rows(BATCH)
    x[3] = float("inf")
    kept = [i for i in range(BATCH) if i != 3]
    wanted = by_hand(module, x[kept], y[kept])
    rule.backward(x, y)
    rule(module.parameters())
    for parameter, gradient in zip(module.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)
    assert torch.isnan(rule.last.norm_before)
    assert float(rule.last.coefficient) == 0.0
    assert rule.samples.before_B[3] == 0.0


class HalfWrong(nn.Module):
    """Its second layer is used without being called, so the hooks of layers see a part of its gradients."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x):
        return nn.functional.linear(torch.tanh(self.first(x)), self.second.weight, self.second.bias)


def test_a_first_batch_without_a_finite_sample_settles_no_way():
    module, optimizer, rule = make(HalfWrong)
    x, y = make_rows(BATCH)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    loss = rule.backward(torch.full_like(x, float("nan")), y)
    rule(module.parameters())
    optimizer.step()
    assert rule.way is None
    assert math.isnan(loss)
    assert torch.isnan(rule.last.norm_before)
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))
    wanted = by_hand(module, x, y)
    rule.backward(x, y)
    rule(module.parameters())
    assert rule.way == "vmap"
    for parameter, gradient in zip(module.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", ["hooks", "ghost", "vmap", "loop"])
def test_a_way_is_judged_by_the_first_samples_that_are_finite(way):
    module, _, rule = make(gradients=way)
    x, y = make_rows(BATCH)
    x[:9] = float("nan")
    wanted = by_hand(module, x[9:], y[9:])
    rule.backward(x, y)
    rule(module.parameters())
    assert rule.way == way
    for parameter, gradient in zip(module.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("way", ["ghost", "loop"])
def test_a_way_that_was_asked_for_survives_a_first_batch_without_a_finite_sample(way):
    module, _, rule = make(gradients=way)
    x, y = make_rows(BATCH)
    rule.backward(torch.full_like(x, float("inf")), y)
    rule(module.parameters())
    assert all(not parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("bound", ["flat", "adaptive"])
@pytest.mark.parametrize("way", ["hooks", "ghost", "loop"])
def test_an_empty_batch_moves_the_weights_by_noise_alone(way, bound):
    if (way, bound) == ("ghost", "adaptive"):
        return
    module, _, rule = make(gradients=way, bound=bound, noise_multiplier=1.0, randomness="seed")
    x, y = make_rows()
    rule.backward(x[:10], y[:10])
    rule(module.parameters())
    bound_before = rule.state_dict()["bound"]
    loss = rule.backward(x[:0], y[:0])
    rule(module.parameters())
    noise = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    assert torch.isnan(loss)
    assert float(noise.std()) == pytest.approx(BOUND / BATCH, rel=0.5)
    assert rule.state_dict()["bound"] == bound_before


def test_every_row_is_drawn_as_often_as_epsilon_assumes():
    _, _, rule = make(noise_multiplier=1.0, randomness="seed")
    counts = torch.zeros(NUM_ROWS)
    sizes = []
    for _ in range(2_000):
        batch = rule.draw()
        counts[batch] += 1
        sizes.append(len(batch))
    assert float(counts.mean()) / 2_000 == pytest.approx(0.25, abs=0.01)
    assert torch.tensor(sizes).double().var().item() == pytest.approx(NUM_ROWS * 0.25 * 0.75, rel=0.15)  # binomial


def test_coins_are_finer_than_any_rate_that_is_paid_for():
    """In float32 a row of a rate below 2^-24 would be drawn at a rate of 2^-24."""
    _, _, rule = make(noise_multiplier=1.0, randomness="seed")
    same = torch.Generator()
    same.set_state(rule._coins.get_state())
    coins = torch.rand(NUM_ROWS, generator=same, dtype=torch.float64)
    assert rule.draw().tolist() == [row for row, coin in enumerate(coins.tolist()) if coin < BATCH / NUM_ROWS]


def test_secret_randomness_differs_between_runs_of_one_seed():
    first, second = (make(noise_multiplier=1.0)[2] for _ in range(2))
    assert not torch.equal(first.noise_generator.get_state(), second.noise_generator.get_state())
    assert "noise" not in first.state_dict()


def test_a_resumed_run_equals_an_uninterrupted_one():
    def train(module, optimizer, rule, num_steps):
        x, y = make_rows()
        for _ in range(num_steps):
            batch = rule.draw()
            rule.backward(x[batch], y[batch])
            rule(module.parameters())
            optimizer.step()

    options = {"noise_multiplier": 1.0, "randomness": "seed", "bound": "adaptive", "accountant": "rdp"}
    whole, optimizer, rule = make(**options)
    train(whole, optimizer, rule, 6)
    module, optimizer, first = make(**options)
    train(module, optimizer, first, 3)
    state = first.state_dict()
    first.finish()
    second = PerSample(first.spec, module, optimizer, nn.functional.cross_entropy, num_rows=NUM_ROWS, batch_size=BATCH, seed=9)
    second.load_state_dict(state)
    train(module, optimizer, second, 3)
    assert second.privacy().num_steps == 6
    for a, b in zip(whole.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_run_is_stopped_before_the_step_that_would_pass_its_budget():
    options = {"noise_multiplier": 1.0, "accountant": "rdp", "delta": 1e-3}
    _, _, free = make(**options)
    within_three = free._account.epsilon(3) * 1.001
    spec = ClipSpec(kind="per_sample", max_norm=BOUND, options=options | {"max_epsilon": within_three})
    module, _, rule = make(spec=spec)
    x, y = make_rows(BATCH)
    for _ in range(3):
        rule.backward(x, y)
        rule(module.parameters())
    rule.backward(x, y)
    before = [parameter.grad.clone() for parameter in module.parameters()]
    with pytest.raises(BudgetError, match="the 3 steps until here are within it"):
        rule(module.parameters())
    assert all(torch.equal(a, p.grad) for a, p in zip(before, module.parameters(), strict=True))
    assert rule.privacy().epsilon <= within_three


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ClipSpec(kind="global_norm", max_norm=1.0), "per_sample"),
        (ClipSpec(kind="per_sample"), "max_norm"),
        (ClipSpec(kind="per_sample", max_norm=1.0, norm_type=1.0), "2-norm"),
        (ClipSpec(kind="per_sample", max_norm=1.0, options={"nosie": 1.0}), "nosie.*noise_multiplier"),
        (ClipSpec(kind="per_sample", max_norm=1.0, options={"bound": "soft"}), "soft"),
        (ClipSpec(kind="per_sample", max_norm=1.0, options={"bound": "adaptive", "gradients": "ghost"}), "flat"),
        (ClipSpec(kind="per_sample", max_norm=1.0, options={"max_epsilon": 1.0}), "noise_multiplier"),
        (ClipSpec(kind="per_sample", max_norm=1.0, options={"noise_multiplier": 1.0, "delta": 0.5}), r"1/40"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_the_reason(spec, words):
    with pytest.raises(ValueError, match=words):
        make(spec=spec)


def test_modules_and_calls_that_do_not_fit_are_refused_with_the_reason():
    loss, spec = nn.functional.cross_entropy, ClipSpec(kind="per_sample", max_norm=1.0)
    shared = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="batch normalisation"):
        PerSample(spec, shared, torch.optim.SGD(shared.parameters(), lr=0.1), loss, num_rows=40, batch_size=10)
    module = Mlp()
    part = torch.optim.SGD(module.layers[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match="exactly the module's trained parameters"):
        PerSample(spec, module, part, loss, num_rows=40, batch_size=10)
    with pytest.raises(ValueError, match="batch_size"):
        PerSample(spec, module, torch.optim.SGD(module.parameters(), lr=0.1), loss, num_rows=5, batch_size=10)
    module, _, rule = make()
    with pytest.raises(ValueError, match="needs backward"):
        rule(module.parameters())
    x, y = make_rows(BATCH)
    rule.backward(x, y)
    with pytest.raises(ValueError, match="together"):
        rule(list(module.parameters())[:1])
    _, _, rule = make(Recurrent, gradients="ghost")
    with pytest.raises(ValueError, match="ghost: "):
        rule.backward(x, y)


class Attention(nn.Module):
    def __init__(self, dropout=0.3):
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(2, 1, 4, dropout=dropout, batch_first=True)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.encoder(x.reshape(len(x), 2, 2))[:, -1])


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))

    def forward(self, x):
        return self.layers(x)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Frozen(Mlp):
    def __init__(self):
        super().__init__()
        self.layers[0].requires_grad_(False)


class Unused(Mlp):
    def __init__(self):
        super().__init__()
        self.idle = nn.Linear(3, 3)


@pytest.mark.parametrize("build", [InPlace, Tied, Frozen, Unused, lambda: Attention(0.0)])
def test_odd_modules_are_clipped_as_by_hand_too(build):
    module, _, rule = make(build)
    x, y = make_rows(BATCH)
    twin = build()
    twin.load_state_dict(module.state_dict())
    totals = []
    for i in range(BATCH):
        gradients = torch.autograd.grad(
            nn.functional.cross_entropy(twin(x[i : i + 1]), y[i : i + 1]),
            [parameter for parameter in twin.parameters() if parameter.requires_grad], materialize_grads=True,
        )  # fmt: skip
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        totals.append(flat * min(1.0, BOUND / (float(flat.norm()) + 1e-6)))
    rule.backward(x, y)
    rule(module.parameters())
    found = torch.cat([parameter.grad.flatten() for parameter in module.parameters() if parameter.requires_grad])
    torch.testing.assert_close(found, torch.stack(totals).mean(dim=0), rtol=1e-4, atol=1e-6)


def test_dropout_does_not_hide_that_opacus_formulas_do_not_hold():
    module, _, rule = make(Attention)
    x, y = make_rows(BATCH)
    rule.backward(x, y)
    assert rule.way == "vmap"
    assert all(part.training for part in module.modules())
