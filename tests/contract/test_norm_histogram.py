"""Norms counted in buckets."""

import math

import pytest

from clipdrift_contract.norm_histogram import quantile


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_quantile_is_that_of_the_norms_to_within_a_bucket(share) -> None:
    norms = sorted(math.exp(math.sin(i) * 2) for i in range(1_000))
    histogram: dict[int, int] = {}
    for norm in norms:
        bucket = math.floor(4 * math.log2(norm))
        histogram[bucket] = histogram.get(bucket, 0) + 1
    assert quantile(histogram, share) == pytest.approx(norms[int(1_000 * share)], rel=0.19)


def test_a_quantile_among_steps_of_norm_zero_is_zero() -> None:
    assert quantile({-80: 60, 4: 40}, 0.5) == 0.0
