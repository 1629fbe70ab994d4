"""Settings of approvals."""

from typing import Literal

import msgspec

Needed = Literal["never", "promotions", "retrains", "both"]


class ApprovalConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[policy.approval]`: what a person must agree to before it is done."""

    needed: Needed = "never"
    """What waits for a person: "promotions" (of candidates that have passed the gate), "retrains" (their order), "both", or
    "never"."""
    expiry_days: float = 7.0
    """What nobody has answered for so long (by the wall clock) is over, and not done."""
    min_dwell_seconds: float = 60.0
    """Who approves must have opened the evidence at least so long before."""
    expectation_share: float = 0.25
    """Of so many approvals, drawn by their id, the machine's findings are shown only to who has said what they expect."""
    is_reason_needed: bool = True
    """Whether an approval needs a reason; a rejection always does."""
    is_key_needed: bool = True
    """Whether an answer must come with an API key of the scope `approve`, whose holder it is of (`monitor.api_keys_file`). Off:
    the project's token answers too, under whatever name its sender gives."""
    rubber_stamp_seconds: float = 180.0
    """An approval that came sooner after its evidence was opened counts as a rubber stamp."""
    may_break_glass: bool = True
    """Whether an emergency may pass over dwell, expectation and who ordered it; another person reviews it afterwards."""

    def __post_init__(self) -> None:
        if not 0 < self.expiry_days <= 365:
            raise ValueError(f"policy.approval.expiry_days must be above 0 and at most 365, got {self.expiry_days!r}")
        for name in ("min_dwell_seconds", "rubber_stamp_seconds"):
            if not 0 <= getattr(self, name) <= 86_400:
                raise ValueError(f"policy.approval.{name} must be in 0..86400, got {getattr(self, name)!r}")
        if not 0 <= self.expectation_share <= 1:
            raise ValueError(f"policy.approval.expectation_share must be in 0..1, got {self.expectation_share!r}")

    def check_answerable(self, api_keys_file: str) -> None:
        """Raises ValueError where people would be asked and nobody could answer."""
        if self.needed != "never" and self.is_key_needed and not api_keys_file:
            raise ValueError(
                f"policy.approval.needed is {self.needed!r}, and nobody could answer: name a file of keys in "
                "monitor.api_keys_file (`clipdrift key NAME --scope approve` makes one), or set "
                "policy.approval.is_key_needed = false"
            )
