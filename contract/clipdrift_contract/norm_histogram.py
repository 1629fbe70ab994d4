"""Norms counted in buckets of a quarter octave, as `GradWindow.norm_histogram` holds them: how they are read.

Bucket b holds the norms in [2**(b/4), 2**((b+1)/4)), b from -80 to 80; norms of exactly zero are in bucket -80.
"""

from collections.abc import Mapping

BUCKETS_PER_OCTAVE = 4
BUCKET_LIMIT = 80
ZERO_BUCKET = -BUCKET_LIMIT


def quantile(histogram: Mapping[int, int], share: float) -> float | None:
    """The norm below which `share` of the steps lie, to within its bucket (a quarter octave, 19 %): between the bucket's limits
    it is interpolated by the logarithm. None for an empty histogram, 0 where the quantile is among steps of norm zero.

    Example:
        >>> quantile({0: 100}, 0.5) == 2 ** 0.125, quantile({}, 0.5)
        (True, None)
    """
    total = sum(histogram.values())
    before = 0.0
    for bucket in sorted(histogram):
        count = histogram[bucket]
        if before + count >= share * total and count:
            if bucket == ZERO_BUCKET:
                return 0.0
            within = (share * total - before) / count
            return float(2.0 ** ((bucket + within) / BUCKETS_PER_OCTAVE))
        before += count
    return None
