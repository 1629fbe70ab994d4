"""How requests to one version in its role fared: what a canary is watched by before any label comes."""

import numpy as np

BUCKETS_PER_OCTAVE = 4


class Tally:
    """Latencies of answered requests and the number of those that failed, since the last batch that was written. One thread
    (the event loop's) only; adding to it is all that a request pays."""

    __slots__ = ("__weakref__", "latency_ns", "num_failed")

    def __init__(self) -> None:
        self.latency_ns: list[int] = []
        self.num_failed = 0

    @property
    def is_empty(self) -> bool:
        return not self.latency_ns and not self.num_failed

    def latency_histogram(self) -> dict[int, int]:
        """Answers by bucket of their latency, as in PredictionBatch: bucket b holds [2**(b/4), 2**((b+1)/4)) microseconds.

        What took less than one microsecond is in bucket 0.

        Example:
            >>> tally = Tally()
            >>> tally.latency_ns += [1_000, 2_000, 2_000, 1_000_000]
            >>> tally.latency_histogram()
            {0: 1, 4: 2, 39: 1}
        """
        if not self.latency_ns:
            return {}
        micros_N = np.maximum(np.array(self.latency_ns, np.float64) / 1e3, 1.0)
        bucket_N = np.floor(np.log2(micros_N) * BUCKETS_PER_OCTAVE + 1e-9).astype(np.int64)
        buckets, counts = np.unique(bucket_N, return_counts=True)
        return dict(zip(buckets.tolist(), counts.tolist(), strict=True))

    def clear(self) -> None:
        """What it held was written."""
        self.latency_ns.clear()
        self.num_failed = 0
