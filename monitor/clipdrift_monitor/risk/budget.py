"""One budget of false alarms for a model, shared out between the harm tests."""

import msgspec


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.budget]`: how often a healthy model may be accused.

    With shares w and `blocks_per_false_alarm` = A, each test gets the bound A / w in blocks, so in t blocks at most
    sum_i t w_i / A = t / A false alarms are expected, whatever hangs together between the tests.
    """

    blocks_per_false_alarm: float = 250.0
    """At most one false alarm in so many blocks (days), on average, for a model that is as good as validated."""
    share_repairable: float = 0.8
    """Share of the budget for the test that may start a retrain."""
    share_worse: float = 0.1
    """Share for the test against the validated loss."""
    share_sudden: float = 0.1
    """Share for the test for sudden breaks."""

    def __post_init__(self) -> None:
        shares = (self.share_repairable, self.share_worse, self.share_sudden)
        if any(not 0 < share <= 1 for share in shares) or sum(shares) > 1 + 1e-9:
            raise ValueError(f"budget shares must be in (0, 1] and sum to at most 1, got {shares}")
        if not self.blocks_per_false_alarm >= 10:
            raise ValueError(f"blocks_per_false_alarm must be >= 10, got {self.blocks_per_false_alarm!r}")

    def bound(self, share: float) -> float:
        """The alarm bound of a test with this share.

        Example:
            >>> Budget().bound(0.1)
            2500.0
        """
        return self.blocks_per_false_alarm / share
