import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from clipdrift_monitor.risk.e_values import discoveries, e_of_p

e_values = st.lists(st.one_of(st.floats(0, 1e4), st.just(float("inf")), st.sampled_from([10.0, 20.0, 40.0])), max_size=12)


@given(e_values, st.floats(0.01, 1.0))
def test_e_bh_finds_the_largest_set_whose_every_member_is_large_enough_for_its_size(values, level):
    """Wang and Ramdas's self-consistency, tried for every k; ties as one."""
    found = discoveries(values, level)
    sizes = [k for k in range(1, len(values) + 1) if sum(e * k >= len(values) / level for e in values) >= k]
    allowed = len(values) / (level * max(sizes)) if sizes else None
    assert sum(found) == max(sizes, default=0)
    assert all(e >= allowed for e, is_one in zip(values, found, strict=True) if is_one)
    assert not [e for e, is_one in zip(values, found, strict=True) if not is_one and allowed is not None and e > min(
        one for one, chosen in zip(values, found, strict=True) if chosen
    )]  # fmt: skip


def test_an_e_value_that_decides_is_just_large_enough():
    assert discoveries([40.0, 0.0], 0.05) == [True, False]
    assert discoveries([39.9, 0.0], 0.05) == [False, False]
    assert discoveries([20.0, 20.0], 0.05) == [True, True]
    assert discoveries([], 0.05) == []


def test_false_discoveries_stay_within_the_level_in_the_worst_case_of_dependence():
    """All e-values have mean 1 and conspire: in a share `level` of looks k of them are just large enough for k of them. The
    chance of a false discovery is then exactly the level, and no dependence can make it larger."""
    random, level, num_tests = np.random.default_rng(1), 0.2, 10
    is_found, means = [], []
    for _ in range(6000):
        e = np.zeros(num_tests)
        if random.random() < level:
            k = random.integers(1, num_tests + 1)
            e[random.permutation(num_tests)[:k]] = num_tests / (level * k) * (1 + 1e-12)
        is_found.append(any(discoveries(e.tolist(), level)))
        means.append(e.mean())
    assert np.mean(means) == pytest.approx(1.0, abs=0.06)
    assert np.mean(is_found) == pytest.approx(level, abs=4 * np.std(is_found) / np.sqrt(len(is_found)))


@pytest.mark.parametrize("p", [0.9, 0.5, 0.05, 1e-3, 1e-6])
def test_the_calibrator_is_the_mixture_of_all_powers(p):
    assert e_of_p(p) == pytest.approx(quad(lambda k: k * p ** (k - 1), 0, 1)[0], rel=1e-6)


def test_a_uniform_p_value_is_worth_one_on_average():
    """The integral is 1 over (0, 1]; what lies below a is 1 / -ln a less a term that vanishes."""
    above = quad(e_of_p, 1e-8, 1.0, limit=500, points=[1e-6, 1e-4, 1e-2, 0.5])[0]
    assert above == pytest.approx(1 - (1 - 1e-8) / -np.log(1e-8), abs=1e-4)


def test_the_calibrator_falls_from_its_ceiling_to_a_half_without_a_break():
    p = np.concatenate([[0.0], np.logspace(-310, 0, 2000), 1 - np.logspace(-6, -2, 50)])
    values = np.array([e_of_p(float(one)) for one in np.sort(p)])
    assert np.isfinite(values).all()
    assert (np.diff(values) <= 1e-9).all()
    assert values[-1] == 0.5
    assert e_of_p(0.0) == 1e300


@pytest.mark.parametrize("wrong", [-0.1, 1.1, float("nan")])
def test_what_is_no_p_value_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        e_of_p(wrong)


@pytest.mark.parametrize(
    ("values", "level", "words"),
    [([-1.0], 0.1, "must be >= 0"), ([float("nan")], 0.1, "not NaN"), ([1.0], 0.0, "level"), ([1.0], float("nan"), "level")],
)
def test_what_are_no_e_values_is_refused(values, level, words):
    with pytest.raises(ValueError, match=words):
        discoveries(values, level)
