"""What another policy would have decided over a model's history. Pure: judged blocks, decisions and retrains in, rulings out.

The alarms are those that were raised, so what is replayed is what follows from them: cost, blocks needed, cooldown, budgets,
maturity, rollback. What a retrain that was not made would have brought nobody knows, and the replay does not pretend to.
"""

from collections.abc import Sequence

import msgspec

from clipdrift_contract.events import Action, Decision, Deployment, RetrainOutcome, RetrainRequest
from clipdrift_monitor.decisions.decide import Case, Deployed, History, Ruling, decide, noted, with_would
from clipdrift_monitor.decisions.policy import Policy
from clipdrift_monitor.decisions.worth import PastRetrains, Worth, past_retrains, rows_a_day
from clipdrift_monitor.state import JudgedBlock, counted

_RECENT_BLOCKS = 14
_BY_PERSON = "ordered: "  # how the cause of a retrain begins that a person ordered
_ORDERS: tuple[Action, ...] = ("retrain", "rollback")


class Retrained(msgspec.Struct, frozen=True, kw_only=True):
    """A retrain that was made; no outcome: it has none yet."""

    request: RetrainRequest
    outcome: RetrainOutcome | None = None


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """The history of one model, each list the oldest first."""

    model: str
    blocks: Sequence[JudgedBlock]
    decisions: Sequence[Decision]
    deployments: Sequence[Deployment] = ()
    retrains: Sequence[Retrained] = ()
    of_others: Sequence[Retrained] = ()
    """Retrains of the project's other models: the chance of success is learned from them, too."""


class ReplayedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """One block: what was done, and what the policy would have done."""

    at_ms: int
    version: str
    did: Action
    would: Action
    reasons: tuple[str, ...]
    terms: dict[str, float] = {}
    evidence: float = 0.0
    """Of the repairable test; 1 is an alarm."""
    outcome: str = ""
    """Of the retrain that was made at this block; "" where none was, or it has none yet."""

    @property
    def is_alike(self) -> bool:
        return self.did == self.would

    @property
    def is_order(self) -> bool:
        """Either side does more than tell."""
        return self.did in _ORDERS or self.would in _ORDERS


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A whole replay of one model."""

    model: str
    policy_version: str
    blocks: tuple[ReplayedBlock, ...]
    num_did: dict[str, int]
    """Decisions that were made, by action."""
    num_would: dict[str, int]
    cannot_know: tuple[str, ...] = ()
    """What no replay can tell, of this one."""


def replay(past: Past, policy: Policy, *, start_ms: int = 0, end_ms: int | None = None) -> Replay:
    """Rule on every block that was judged as `policy` would have.

    Args:
        past: Of the model. Blocks before `start_ms` are ruled on too, since cooldowns come from them, and not told.
        policy: To try. A dry run's `would` counts as done.
        start_ms: First moment to tell of.
        end_ms: First moment not to; None: to the end.
    """
    decisions = {one.decision_id: one for one in past.decisions}
    made = {one.request.decision_id: one for one in past.retrains}
    history, told, version = History(), [], ""
    num_labels = num_blocks = 0
    recent: list[int] = []
    for block in past.blocks:
        if block.version != version:
            version, num_labels, num_blocks, recent = block.version, 0, 0, []
            history = msgspec.structs.replace(history, recent=[])
        decision = decisions.get(f"{past.model}-{block.version}-{block.start_ms}")
        if decision is None or decision.diagnosis is None:
            continue
        num_labels, num_blocks = num_labels + block.view.num_labels, num_blocks + 1
        recent = [*recent, block.view.num_predictions][-_RECENT_BLOCKS:]
        history = _with_orders_of_people(history, past.retrains, decision.at_ms)
        history = noted(history, block.alarms, _open_tests(decision))
        case = Case(
            diagnosis=decision.diagnosis, alarms=block.alarms, num_labels=num_labels, at_ms=block.end_ms,
            maturity=block.view.maturity, worth=_worth(block, recent), past=_finished_before(past, decision.at_ms),
            deployed=Deployed(num_blocks=num_blocks, previous=_previous(past.deployments, block)),
        )  # fmt: skip
        ruling = decide(case, history, policy)
        action = _action(ruling)
        retrain = made.get(decision.decision_id)
        history = _with_ruling(with_would(history, ruling.would, block.end_ms), action, decision.at_ms, retrain)
        if decision.at_ms >= start_ms and (end_ms is None or decision.at_ms < end_ms):
            told.append(_told(block, decision, action, ruling, retrain))
    return Replay(
        model=past.model,
        policy_version=policy.version,
        blocks=tuple(told),
        num_did=_by_action([one.did for one in told]),
        num_would=_by_action([one.would for one in told]),
        cannot_know=_cannot_know(told),
    )


def _action(ruling: Ruling) -> Action:
    return _agreed(ruling.would if ruling.would != "none" else ruling.action)


def _agreed(action: Action) -> Action:
    """A person who is asked is taken to agree."""
    return "retrain" if action == "ask" else action


def _told(block: JudgedBlock, decision: Decision, action: Action, ruling: Ruling, retrain: Retrained | None) -> ReplayedBlock:
    outcome = retrain.outcome if retrain is not None else None
    return ReplayedBlock(
        at_ms=decision.at_ms, version=block.version, did=_agreed(decision.action), would=action, reasons=ruling.reasons,
        terms=ruling.terms, evidence=block.levels.get("repairable", 0.0), outcome=outcome.verdict if outcome else "",
    )  # fmt: skip


def _open_tests(decision: Decision) -> tuple[str, ...]:
    return ("repairable",) if any("-repairable-" in one for one in decision.signal_ids) else ()


def _worth(block: JudgedBlock, recent: Sequence[int]) -> Worth | None:
    said = next((one for one in block.statements if one.test == "repairable" and not one.slice), None)
    if said is None:
        return None
    a_day = rows_a_day(sum(recent), len(recent), block.end_ms - block.start_ms)
    return Worth(gain=said.effect, gain_low=said.effect_low, gain_high=said.effect_high, rows_a_day=a_day)


def _finished_before(past: Past, at_ms: int) -> PastRetrains:
    known = [one.outcome for one in (*past.retrains, *past.of_others) if one.outcome and one.request.as_of_ms < at_ms]
    num_by_verdict: dict[str, int] = {}
    for outcome in known:
        num_by_verdict = counted(num_by_verdict, outcome.verdict)
    timed = [outcome.cpu_seconds for outcome in known if outcome.cpu_seconds > 0]
    return past_retrains(num_by_verdict, len(timed), sum(timed))


def _previous(deployments: Sequence[Deployment], block: JudgedBlock) -> str:
    """The version that a rollback would have brought back at that time."""
    before = [one for one in deployments if one.decided_at_ms < block.end_ms]
    if not before or before[-1].champion.version != block.version:
        return ""
    return next((one.champion.version for one in reversed(before[:-1]) if one.champion.version != block.version), "")


def _with_orders_of_people(history: History, retrains: Sequence[Retrained], at_ms: int) -> History:
    """A person's order comes under any policy, and the cooldown begins with it."""
    times = [one.request.requested_at_ms for one in retrains if one.request.cause.startswith(_BY_PERSON)]
    new = [time_ms for time_ms in times if time_ms <= at_ms and time_ms not in history.retrain_times_ms]
    if not new:
        return history
    last_ms = max(new) if history.last_retrain_ms is None else max(*new, history.last_retrain_ms)
    return msgspec.structs.replace(
        history, retrain_times_ms=sorted([*history.retrain_times_ms, *new])[-50:], last_retrain_ms=last_ms
    )  # fmt: skip


def _with_ruling(history: History, action: Action, at_ms: int, retrain: Retrained | None) -> History:
    """What the policy's own orders leave for its next rulings; a retrain that was not made is taken to have ended at once, and
    neither well nor badly."""
    if action == "rollback":
        return msgspec.structs.replace(history, last_rollback_ms=at_ms)
    if action != "retrain":
        return history
    outcome = retrain.outcome if retrain is not None else None
    failures = history.num_failures_in_a_row
    if outcome is not None:
        failures = 0 if outcome.verdict == "pass" else failures + 1
    times = [*history.retrain_times_ms, at_ms][-50:]
    return msgspec.structs.replace(history, last_retrain_ms=at_ms, retrain_times_ms=times, num_failures_in_a_row=failures)


def _by_action(actions: Sequence[Action]) -> dict[str, int]:
    found: dict[str, int] = {}
    for action in actions:
        found = counted(found, action)
    return found


def _cannot_know(told: Sequence[ReplayedBlock]) -> tuple[str, ...]:
    words = [
        "Alarms are those that the tests raised then, under the budget and the settings in force then: what [policy.budget], "
        "[policy.severity], [policy.harm], [policy.drift] and [policy.diagnosis] of this policy would change is not replayed."
    ]
    unmade = sum(one.would in _ORDERS and not one.is_alike for one in told)
    if unmade:
        words.append(
            f"Orders of this policy that were not carried out then: {unmade}. Whether such a retrain would have passed, or "
            "such a rollback helped, is not known; cooldowns count from them all the same."
        )
    first = next((one for one in told if one.is_order and not one.is_alike), None)
    if first is not None:
        words.append(
            "From the first difference on, the blocks are of the versions that were in service, which under this policy may "
            "have been others."
        )
    return tuple(words)


def in_a_sentence(told: Replay) -> str:
    """The replay in a sentence.

    Example:
        >>> in_a_sentence(Replay(model="pump", policy_version="", blocks=(), num_did={"alert": 3}, num_would={"alert": 3}))
        'pump: retrains 0, rollbacks 0; under this policy 0 and 0; of 0 blocks 0 are ruled otherwise'
    """
    did, would = ([counts.get(action, 0) for action in _ORDERS] for counts in (told.num_did, told.num_would))
    num_other = sum(not one.is_alike for one in told.blocks)
    return (
        f"{told.model}: retrains {did[0]}, rollbacks {did[1]}; under this policy {would[0]} and {would[1]}; "
        f"of {len(told.blocks)} blocks {num_other} are ruled otherwise"
    )
