"""A receipt is counted once, in bounded memory."""

import numpy as np

from clipdrift_serving.dataplane.redeemed import RedeemedReceipts


def test_it_says_first_exactly_as_a_set_would():
    numbers = np.random.default_rng(7).integers(0, 40_000, 20_000).tolist()
    redeemed, seen = RedeemedReceipts(), set()
    for number in numbers:
        assert redeemed.is_first("e", number) == (number not in seen)
        seen.add(number)


def test_memory_is_bounded_and_the_newest_used_stays():
    redeemed = RedeemedReceipts(max_chunks=2)
    for number in (0, 8_192, 0, 16_384):
        redeemed.is_first("e", number)
    assert not redeemed.is_first("e", 0)
    assert redeemed.is_first("e", 8_192)


def test_many_at_once_are_told_as_one_by_one():
    rng = np.random.default_rng(8)
    receipts = [
        (str(epoch), int(n)) for epoch, n in zip(rng.integers(0, 3, 20_000), rng.integers(0, 40_000, 20_000), strict=True)
    ]
    alone, together = RedeemedReceipts(), RedeemedReceipts()
    assert together.first_of(receipts[:7_000]) + together.first_of(receipts[7_000:]) == [
        alone.is_first(*one) for one in receipts
    ]
    assert together.first_of([]) == []
