import math

import pytest
from scipy import stats

from clipdrift_monitor.detectors.tails import chi_square_tail, f_tail, gamma_tail, normal_tail, with_estimated_spread

SHARES = (0.999, 0.5, 0.05, 1e-3, 1e-8, 1e-30)


@pytest.mark.parametrize("degrees", [0.3, 1, 2, 2.7, 7, 10, 31.5, 100, 1_000])
def test_the_chi_square_tail_is_scipys_far_out_too(degrees):
    for share in SHARES:
        assert chi_square_tail(stats.chi2.isf(share, degrees), degrees) == pytest.approx(share, rel=1e-7)
    assert chi_square_tail(0.0, degrees) == 1.0
    assert chi_square_tail(1e6, degrees) == 0.0


@pytest.mark.parametrize("degrees_below", [2.5, 10, 40, 1e3, 1e5, math.inf])
@pytest.mark.parametrize("degrees", [0.8, 1, 5.5, 15, 100])
def test_the_f_tail_is_scipys(degrees, degrees_below):
    for share in SHARES[:5]:
        is_limit = math.isinf(degrees_below)
        ratio = stats.chi2.isf(share, degrees) / degrees if is_limit else stats.f.isf(share, degrees, degrees_below)
        assert f_tail(ratio, degrees, degrees_below) == pytest.approx(share, rel=1e-6)
    assert f_tail(0.0, degrees, degrees_below) == 1.0


def test_the_gamma_and_normal_tails_are_scipys():
    assert gamma_tail(3.3, 2.2) == pytest.approx(stats.gamma.sf(3.3, 2.2))
    assert normal_tail(5.5) == pytest.approx(stats.norm.sf(5.5))


@pytest.mark.parametrize("degrees", [3, 14, 200])
def test_a_spread_that_was_estimated_makes_a_normal_p_value_one_of_student(degrees):
    for p_value in (0.9, 0.05, 1e-6, 1e-40):
        expected = 2 * stats.t.sf(stats.norm.isf(p_value / 2), degrees)
        assert with_estimated_spread(p_value, degrees) == pytest.approx(expected, rel=1e-6)
    assert with_estimated_spread(0.0, degrees) == 0.0
