"""What a rollout has shown by now, in figures and in words."""

from typing import Literal

import msgspec

EvidenceVerdict = Literal["go_on", "promote", "roll_back"]
Watched = Literal["error", "loss", "failures", "latency"]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is watched: the candidate minus the model in service; above 0 the candidate is worse.

    Levels are shares of the evidence that is needed, 0..1, on a logarithmic scale (half the level is the square root of the
    evidence).
    """

    watched: Watched
    slice: str = ""
    """"" is all rows together."""
    estimate: float = 0.0
    """Error rate, loss, share of failed requests, or for latency the candidate's 95th percentile over the champion's."""
    low: float | None = None
    """95 % interval that holds at every look together; None for failures and latency."""
    high: float | None = None
    margin: float | None = None
    """By which the candidate may not be worse; None where that is not to be shown."""
    num_labels: int = 0
    """The candidate's; of failures and latency its requests."""
    num_blocks: int = 0
    good_level: float = 0.0
    """How much of the evidence is there that it is within its margin; 1: shown."""
    harm_level: float = 0.0
    """The same of being worse, were it tested alone with its share of the chance of a wrong rollback."""
    more_labels: int | None = None
    """About so many more of its labels until it is shown to be within its margin, if they come as those did; None: not to be
    expected."""

    @property
    def is_within(self) -> bool:
        return self.good_level >= 1.0

    @property
    def is_worse(self) -> bool:
        return self.harm_level >= 1.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout has shown by now."""

    verdict: EvidenceVerdict = "go_on"
    may_step: bool = False
    """Whether more traffic may be given: while there is less than half the evidence of harm that a rollback needs, and after a
    shadow once enough of what a promotion needs is shown (`shadow_level`)."""
    stage: str = ""
    num_labels: int = 0
    """Mature labels of the candidate's rows, all stages."""
    num_blocks: int = 0
    labels_of_stage: int = 0
    blocks_of_stage: int = 0
    progress: float = 0.0
    """Of the least proven thing towards what a promotion needs, 0..1."""
    more_labels: int | None = None
    """About so many more labels of all rows until everything is shown that a promotion needs, if they come as those did; None:
    not to be expected, or nothing known yet."""
    harm_level: float = 0.0
    """Of all evidence of harm together towards what a rollback needs, 0..1."""
    culprit: Shown | None = None
    """What speaks most against the candidate."""
    slowest: Shown | None = None
    """What is still to be shown and is furthest from it."""
    shown: tuple[Shown, ...] = ()
    words: str = ""
    """For an engineer."""
    plain: str = ""
    """For anybody."""
