import math

import pytest
from opacus.accountants.utils import get_noise_multiplier

from clipdrift_trainer.privacy import BudgetError, PrivacyAccount


def make_account(**settings):
    return PrivacyAccount(**{"noise_multiplier": 1.0, "sample_rate": 0.01, "delta": 1e-5, "max_norm": 1.0} | settings)


def spend(account, num_steps):
    for _ in range(num_steps):
        account.spend()


def test_one_step_on_all_rows_spends_what_the_gaussian_mechanism_does():
    """Closed form, Balle and Wang 2018 (arXiv 1805.06530), theorem 8, with sensitivity 1."""
    sigma, delta = 2.0, 1e-5

    def delta_of(epsilon):
        def normal(x):
            return 0.5 * math.erfc(-x / math.sqrt(2))

        return normal(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * normal(-0.5 / sigma - epsilon * sigma)

    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > delta else (low, middle)
    spent = make_account(noise_multiplier=sigma, sample_rate=1.0, delta=delta).epsilon(1)
    assert high <= spent <= high + 0.02  # an upper bound, at most twice the accountant's error above


def test_the_two_accountants_agree_and_the_newer_is_tighter():
    tight, loose = (make_account(accountant=name).epsilon(1_000) for name in ("prv", "rdp"))
    assert 0.8 * loose < tight < loose


def test_the_record_says_what_was_spent_on_what():
    account = make_account(accountant="rdp")
    assert account.budget().epsilon == 0.0
    spend(account, num_steps=50)
    budget = account.budget()
    assert (budget.num_steps, budget.accountant, budget.delta, budget.sample_rate) == (50, "rdp", 1e-5, 0.01)
    assert budget.epsilon == pytest.approx(account.epsilon(50))


def test_a_plan_over_the_budget_is_refused_with_what_would_fit():
    account = make_account(accountant="rdp", max_epsilon=1.5)
    with pytest.raises(BudgetError, match=r"1000 steps would spend epsilon = 2\.10 .* Within it: (\d+) steps") as caught:
        account.check_plan(1_000)
    fits = int(str(caught.value).split("Within it: ")[1].split(" ")[0])
    assert account.epsilon(fits) <= 1.5 < account.epsilon(fits + 1)
    account.check_plan(fits)
    enough = get_noise_multiplier(target_epsilon=1.5, target_delta=1e-5, sample_rate=0.01, steps=1_000, accountant="rdp")
    assert f"noise_multiplier = {enough:.2f}" in str(caught.value)


def test_the_first_step_over_the_budget_is_not_taken():
    account = make_account(accountant="rdp", max_epsilon=0.9)
    with pytest.raises(BudgetError, match="are within it"):
        spend(account, num_steps=10_000)
    assert account.epsilon(account.num_steps) <= 0.9 < account.epsilon(account.num_steps + 1)


def test_an_epsilon_that_promises_nothing_is_told_quickly_by_the_looser_bound():
    budget_of_many = make_account(noise_multiplier=0.3, sample_rate=0.1)
    spend(budget_of_many, num_steps=200)
    assert budget_of_many.budget().accountant == "rdp"
    assert budget_of_many.budget().epsilon > 20


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"noise_multiplier": 0.0}, "without noise"),
        ({"sample_rate": 1.5}, "sample_rate"),
        ({"delta": 0.0}, "delta"),
        ({"max_epsilon": 0.0}, "max_epsilon"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        make_account(**settings)
