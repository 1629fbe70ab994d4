import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import nn

from clipdrift_trainer.evaluation.membership import infer_membership, model_losses

DAY = 86_400_000


def make_losses(shift=0.0, num=2_000, num_days=40, seed=0, day_effect=0.0):
    """Losses of members and others; each day is of one side, and days differ by `day_effect`."""
    generator = np.random.default_rng(seed)
    sides = []
    for side in range(2):
        day = np.sort(generator.integers(0, num_days, num))
        loss = generator.gamma(2.0, 0.3, num) * np.exp(day_effect * generator.normal(size=num_days))[day] + shift * side
        sides.append((loss, (2 * day + side) * DAY))
    (member, member_time), (other, other_time) = sides
    return member, other, member_time, other_time


def test_figures_equal_those_of_scikit_learns_curve():
    member, other, *times = make_losses(shift=0.3)
    found = infer_membership(member, other, *times)
    truth = np.r_[np.ones(len(member)), np.zeros(len(other))]
    likeness = -np.r_[member, other]
    assert found.auc == pytest.approx(roc_auc_score(truth, likeness))
    false_rate, true_rate, _ = roc_curve(truth, likeness, drop_intermediate=False)
    assert found.tpr_at_fpr_1 == pytest.approx(true_rate[false_rate <= 0.01].max(), abs=1e-9)
    assert found.auc_low < found.auc < found.auc_high


def test_losses_are_those_of_torch():
    logits, label = torch.randn(50, 4) * 30, torch.randint(0, 4, (50,))
    expected = nn.functional.cross_entropy(logits.double() / 1.7, label, reduction="none").numpy()
    np.testing.assert_allclose(
        model_losses(logits.numpy(), label.numpy().astype(float), "multiclass", 1.7), expected, atol=1e-9
    )
    values = torch.randn(50, 1)
    np.testing.assert_allclose(
        model_losses(values.numpy(), np.ones(50), "regression"), (values[:, 0].numpy() - 1) ** 2, rtol=1e-5
    )


@pytest.mark.parametrize("day_effect", [0.0, 0.5])
def test_where_nothing_tells_them_apart_the_interval_holds_one_half_as_often_as_it_says(day_effect):
    """Days hang together: an interval over rows would be wrong here."""
    held = 0
    for seed in range(200):
        found = infer_membership(*make_losses(num=200, num_days=20, seed=seed, day_effect=day_effect))
        held += found.auc_low <= 0.5 <= found.auc_high
    assert 0.90 <= held / 200 <= 0.99


def test_a_model_that_learned_rows_by_heart_is_found_out_and_one_that_could_not_is_not():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(400, 20, generator=generator), torch.randint(0, 2, (400,), generator=generator)  # labels at random
    time_ms = np.arange(200) // 10 * DAY
    found = {}
    for words, width, num_steps in (("by heart", 256, 300), ("too small", 1, 20)):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 2))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01 if width > 1 else 1e-4)
        for _ in range(num_steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[:200]), y[:200]).backward()
            optimizer.step()
        losses = model_losses(net(x).detach().numpy(), y.numpy().astype(float), "binary")
        found[words] = infer_membership(losses[:200], losses[200:], time_ms, time_ms + 20 * DAY)
    assert found["by heart"].auc_low > 0.7
    assert found["too small"].auc_low < 0.5 < found["too small"].auc_high


def test_as_many_rows_of_each_side_are_compared_and_the_choice_is_repeatable():
    member, other, member_time, other_time = make_losses(num=2_000)
    found = [infer_membership(member, other[:300], member_time, other_time[:300]) for _ in range(2)]
    assert (found[0].num_members, found[0].num_others) == (300, 300)
    assert found[0] == found[1]


def test_a_side_without_rows_gives_no_figure_and_one_row_a_figure_that_says_nothing():
    member, other, member_time, other_time = make_losses(num=10)
    assert infer_membership(member[:0], other, member_time[:0], other_time) is None
    one = infer_membership(member[:1], other, member_time[:1], other_time)
    assert (one.auc_low, one.auc_high, one.num_members) == (0.0, 1.0, 1)


def test_losses_that_are_all_the_same_tell_nothing():
    same, time_ms = np.ones(100), np.arange(100) * DAY
    found = infer_membership(same, same, time_ms, time_ms)
    assert (found.auc, found.tpr_at_fpr_1) == (0.5, 0.0)


def test_losses_that_are_no_numbers_are_refused():
    time_ms = np.arange(3) * DAY
    with pytest.raises(ValueError, match="1 of them NaN"):
        infer_membership(np.array([1.0, np.nan, 2.0]), np.ones(3), time_ms, time_ms)
