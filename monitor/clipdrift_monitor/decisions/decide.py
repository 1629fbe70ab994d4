"""One decision a block, with its reasons. First: is something broken? Then: is the harm repairable, and may we repair it
now?"""

import hashlib

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Action, Diagnosis
from clipdrift_monitor.decisions.policy import Policy


class History(msgspec.Struct, kw_only=True):
    """What was done about a model before."""

    running_key: str = ""
    last_retrain_ms: int | None = None
    retrain_times_ms: list[int] = []
    num_failures_in_a_row: int = 0
    last_failed_cause: str = ""


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What to do and why."""

    action: Action
    reasons: tuple[str, ...]


def decide(
    diagnosis: Diagnosis, alarms: tuple[str, ...], num_labels: int, at_ms: int, history: History, policy: Policy
) -> Ruling:
    """Rule on one block.

    Args:
        diagnosis: Of this block.
        alarms: Tests that raised an alarm at this block.
        num_labels: Mature labels of the version in service.
        at_ms: End of the block.
        history: Of the model.
        policy: What is allowed.
    """
    if diagnosis.cause in ("data_broken", "training_fault") and (alarms or diagnosis.cause == "data_broken"):
        return Ruling(action="alert", reasons=(diagnosis.words, "What is broken is mended, not learned: no retrain."))
    if not alarms:
        return Ruling(action="none", reasons=("No test raised an alarm.",))
    if "repairable" not in alarms:
        return Ruling(action="alert", reasons=(f"Alarm: {', '.join(alarms)}.", "No repair is proven to help, so no retrain."))
    obstacles = _obstacles(num_labels, at_ms, history, policy)
    reasons = ("A simple repair is proven to do better than the model in service.", diagnosis.words)
    return Ruling(action="alert" if obstacles else "retrain", reasons=(*reasons, *obstacles))


def cause_key(model: str, champion_digest: str, cause: str, block_start_ms: int, policy: Policy) -> str:
    """The key of a retrain: the same cause at the same block under the same policy is the same order, however often it is
    reached."""
    parts = (model, champion_digest, cause, str(block_start_ms), policy.version)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def cooldown_ms(history: History, policy: Policy) -> int:
    """Doubled after each retrain in a row that did not pass."""
    doublings: int = min(history.num_failures_in_a_row, 6)
    return round(policy.cooldown_days * MS_PER_DAY) << doublings


def _obstacles(num_labels: int, at_ms: int, history: History, policy: Policy) -> tuple[str, ...]:
    found = []
    if not policy.may_retrain:
        found.append("The policy leaves the order to a person: `clipdrift retrain MODEL --why ...`.")
    if history.running_key:
        found.append("A retrain is running already.")
    if num_labels < policy.min_labels:
        found.append(f"{num_labels} labels so far; the policy wants {policy.min_labels}.")
    if history.last_retrain_ms is not None and at_ms - history.last_retrain_ms < cooldown_ms(history, policy):
        days = cooldown_ms(history, policy) / MS_PER_DAY
        found.append(f"The last retrain is less than {days:.0f} days ago.")
    recent = sum(1 for time_ms in history.retrain_times_ms if at_ms - time_ms < 30 * MS_PER_DAY)
    if recent >= policy.max_retrains_per_30_days:
        found.append(f"{recent} retrains in 30 days; the policy allows {policy.max_retrains_per_30_days}.")
    return tuple(found)
