"""The course of one rollout: from a shadow over canary steps to a promotion, a rollback, or a hold. Values in, values out.

A step is a deployment with a generation of its own. What is said of a generation that is not of this rollout moves nothing, and
what is said of an earlier stage does not lead to a later one. No step waits for a clock: it waits for mature labels; time only
ends what would go on for ever.
"""

from typing import Literal, NamedTuple

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import ServedVersion
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.rollout.finding import Finding
from clipdrift_monitor.rollout.telling import hold_words

SHADOW = "shadow"
End = Literal["promoted", "rolled back", "held", "withdrawn", "replaced"]
Turn = Literal["stay", "step", "promote", "roll_back", "hold"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the requests; 0: the candidate answers as a shadow."""

    weight: float = 0.0

    @property
    def name(self) -> str:
        """As the deployment calls it.

        Example:
            >>> Stage().name, Stage(weight=0.25).name
            ('shadow', 'canary 0.25')
        """
        return f"canary {self.weight:g}" if self.weight else SHADOW


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate on its way into service."""

    rollout_id: str
    key: str
    """Of the retrain that the candidate came of."""
    candidate: ServedVersion
    champion: ServedVersion
    """What it is compared with, and what stays where it fails."""
    stages: tuple[Stage, ...]
    began_ms: int
    position: int = 0
    generations: tuple[int, ...] = ()
    """Of the deployments of its stages until now."""
    stage_since_ms: int = 0
    is_held: bool = False
    """The longest time is over, and the policy lets the step stay."""
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    """What the retrain took that brought the candidate."""

    @property
    def stage(self) -> Stage:
        return self.stages[self.position]

    @property
    def generation(self) -> int:
        """Of the deployment of the present stage."""
        return self.generations[-1]

    @property
    def is_last(self) -> bool:
        return self.position == len(self.stages) - 1


class PastRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that is over."""

    rollout_id: str
    key: str
    candidate: str
    champion: str
    began_ms: int
    ended_at_ms: int
    end: End
    stage: str
    """In which it ended."""
    num_labels: int = 0
    """Mature labels of the candidate's rows that it ended on."""
    reasons: tuple[str, ...] = ()


class Move(NamedTuple):
    """What a rollout does next, and why."""

    turn: Turn
    reasons: tuple[str, ...] = ()


STAY = Move("stay")


def stages_of(policy: RolloutPolicy) -> tuple[Stage, ...]:
    """The stages of a rollout in order; none: candidates are promoted at once.

    Example:
        >>> [one.name for one in stages_of(RolloutPolicy(steps=(0.1, 0.5)))]
        ['shadow', 'canary 0.1', 'canary 0.5']
        >>> stages_of(RolloutPolicy(steps=()))
        ()
    """
    canary = tuple(Stage(weight=share) for share in policy.steps)
    return (Stage(), *canary) if canary and policy.has_shadow else canary


def weigh(rollout: Rollout, finding: Finding, policy: RolloutPolicy, *, generation: int, at_ms: int) -> Move:
    """What follows from the evidence.

    Args:
        rollout: That runs.
        finding: What the evidence of its rows shows by now.
        policy: In force.
        generation: Of the deployment under which the newest of the evidence was gathered. One of an earlier stage may still
            show harm, and nothing else; one that is not of this rollout moves nothing.
        at_ms: Event time up to which labels are mature.
    """
    if generation in rollout.generations and finding.verdict == "roll_back":
        return Move("roll_back", _told(finding))
    if generation not in rollout.generations or rollout.is_held:
        return STAY
    is_of_stage = generation == rollout.generation and finding.stage == rollout.stage.name
    has_labels = is_of_stage and finding.labels_of_stage >= policy.min_labels
    if has_labels and not rollout.is_last and finding.may_step:
        return Move("step", _told(finding))
    if has_labels and rollout.is_last and finding.verdict == "promote":
        return Move("promote", _told(finding))
    if at_ms - rollout.began_ms >= policy.max_days * MS_PER_DAY:
        return Move("hold", (f"The rollout was to end within {policy.max_days:g} days.", hold_words(finding)[0]))
    return STAY


def entered(rollout: Rollout, *, generation: int, at_ms: int, is_next: bool = True) -> Rollout:
    """The rollout in its next stage (its first, where not `is_next`), which the deployment of that generation is."""
    return msgspec.structs.replace(
        rollout, position=rollout.position + is_next, generations=(*rollout.generations, generation), stage_since_ms=at_ms
    )


def held(rollout: Rollout) -> Rollout:
    """The rollout, waiting for a person."""
    return msgspec.structs.replace(rollout, is_held=True)


def ended(rollout: Rollout, end: End, *, at_ms: int, finding: Finding, reasons: tuple[str, ...]) -> PastRollout:
    """What is remembered of it."""
    return PastRollout(
        rollout_id=rollout.rollout_id, key=rollout.key, candidate=rollout.candidate.version, champion=rollout.champion.version,
        began_ms=rollout.began_ms, ended_at_ms=at_ms, end=end, stage=rollout.stage.name, num_labels=round(finding.num_labels),
        reasons=reasons,
    )  # fmt: skip


def _told(finding: Finding) -> tuple[str, ...]:
    return (finding.words,) if finding.words else ()
