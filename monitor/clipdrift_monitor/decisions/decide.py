"""One decision a block, with its reasons. First: is something broken? Then: is the harm repairable, does a repair pay, and may
we repair it now?"""

import hashlib
from collections.abc import Sequence

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import Action, Diagnosis
from clipdrift_monitor.approvals.rules import is_needed
from clipdrift_monitor.decisions.policy import MAX_OF_BLOCKS, Policy
from clipdrift_monitor.decisions.worth import PastRetrains, Weighed, Worth, weigh
from clipdrift_monitor.diagnosis.rules.broken import SKEW

_BROKEN = ("data_broken", "training_fault")
_ALARM, _OPEN, _QUIET = 2, 1, 0


class History(msgspec.Struct, kw_only=True):
    """What was done about a model before."""

    running_key: str = ""
    asked_key: str = ""  # of the retrain that a person is asked about
    last_retrain_ms: int | None = None
    retrain_times_ms: list[int] = []
    num_failures_in_a_row: int = 0
    last_failed_cause: str = ""
    would_times_ms: list[int] = []  # retrains that a dry run would have ordered: they keep the next back as an order does
    last_rollback_ms: int | None = None  # by the monitor itself, also in a dry run
    recent: list[int] = []  # of the version in service, block by block: 2 a repair was proven, 1 that was open, 0 neither
    num_timed: int = 0  # finished retrains that told how long they took
    cpu_seconds: float = 0.0  # of these together
    wall_seconds: float = 0.0  # of these together, from start to end
    rollout_id: str = ""  # of the rollout that runs


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """How the version in service came there."""

    num_blocks: int
    """Blocks since, this one counted."""
    previous: str = ""
    """The version that a rollback would bring back; "" where there is none."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one block is ruled on."""

    diagnosis: Diagnosis
    alarms: tuple[str, ...]
    """Tests that raised an alarm at this block."""
    num_labels: int
    """Mature labels of the version in service."""
    at_ms: int
    """End of the block."""
    maturity: float | None = None
    """Share of the block's predictions that have their label."""
    worth: Worth | None = None
    """Of a repair; None where the test for it has said nothing."""
    deployed: Deployed = Deployed(num_blocks=10**9)
    past: PastRetrains = PastRetrains()
    is_data_broken: bool = False
    """Something is broken for certain, or explains a harm; a suspicion that harms nobody is no reason to act."""


class Ruling(msgspec.Struct, frozen=True, kw_only=True):
    """What to do and why. `would`: what would be done were this no dry run; "none" where that is nothing, or what is done."""

    action: Action
    reasons: tuple[str, ...]
    would: Action = "none"
    terms: dict[str, float] = {}


def decide(case: Case, history: History, policy: Policy) -> Ruling:
    """Rule on one block.

    Args:
        case: What is known.
        history: Of the model, this block noted in it: see `noted`.
        policy: What is allowed.
    """
    cause = case.diagnosis.cause
    if _is_broken_by_deployment(case):
        return _ruling_on_rollback(case, history, policy)
    if cause in _BROKEN and (case.alarms or case.is_data_broken):
        return Ruling(action="alert", reasons=(case.diagnosis.words, "What is broken is mended, not learned: no retrain."))
    if not _is_repair_due(history, policy):
        if not case.alarms:
            return Ruling(action="none", reasons=("No test raised an alarm.",))
        words = "No repair is proven to help, so no retrain."
        if "repairable" in case.alarms:
            words = f"A repair is proven to help in this block; the policy wants {policy.needed_blocks} of {policy.of_blocks}."
        return Ruling(action="alert", reasons=(f"Alarm: {', '.join(case.alarms)}.", words))
    return _ruling_on_retrain(case, history, policy)


def noted(history: History, alarms: Sequence[str], open_tests: Sequence[str]) -> History:
    """The history with one more block of the version in service."""
    word = _ALARM if "repairable" in alarms else _OPEN if "repairable" in open_tests else _QUIET
    return msgspec.structs.replace(history, recent=[*history.recent, word][-MAX_OF_BLOCKS:])


def with_would(history: History, action: Action, at_ms: int) -> History:
    """The history with what a dry run would have done, so that it does not say the same of every block that follows."""
    if action == "retrain":
        return msgspec.structs.replace(history, would_times_ms=[*history.would_times_ms, at_ms][-50:])
    return msgspec.structs.replace(history, last_rollback_ms=at_ms) if action == "rollback" else history


def cause_key(model: str, champion_digest: str, cause: str, block_start_ms: int, policy: Policy) -> str:
    """The key of a retrain: the same cause at the same block under the same policy is the same order, however often it is
    reached."""
    parts = (model, champion_digest, cause, str(block_start_ms), policy.version)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def cooldown_ms(history: History, policy: Policy) -> int:
    """Doubled after each retrain in a row that did not pass."""
    doublings: int = min(history.num_failures_in_a_row, 6)
    return round(policy.cooldown_days * MS_PER_DAY) << doublings


# --- broken by a deployment ---


def _is_broken_by_deployment(case: Case) -> bool:
    """More errors than validation allows on its worst day, and not because of what comes in, which the version before would get
    too. Skew is of the new version: it was trained on something else than it is served."""
    is_data = case.diagnosis.cause == "data_broken" and case.diagnosis.fault != SKEW
    return "sudden_break" in case.alarms and not is_data and bool(case.deployed.previous)


def _ruling_on_rollback(case: Case, history: History, policy: Policy) -> Ruling:
    since, previous = case.deployed.num_blocks, case.deployed.previous
    terms = {"blocks_since_deployment": float(since)}
    if since > policy.rollback_within_blocks:
        words = (
            "The version has served for too long to blame its deployment, and what breaks at once is not learned: no retrain."
        )
        return Ruling(action="alert", reasons=(f"Alarm: {', '.join(case.alarms)}.", words, case.diagnosis.words), terms=terms)
    reasons = (
        f"More errors at once than validation allows, {since} block{'s' if since != 1 else ''} after a deployment: {previous} "
        "served before and is at hand.",
        case.diagnosis.words,
    )  # fmt: skip
    if not policy.may_roll_back:
        words = "The policy leaves the rollback to a person: `clipdrift rollback MODEL --why ...`."
        return Ruling(action="alert", reasons=(*reasons, words), terms=terms)
    if history.last_rollback_ms is not None and case.at_ms - history.last_rollback_ms < policy.cooldown_days * MS_PER_DAY:
        words = f"The last rollback is less than {policy.cooldown_days:g} days ago: a person should look."
        return Ruling(action="alert", reasons=(*reasons, words), terms=terms)
    return _dry(Ruling(action="rollback", reasons=reasons, terms=terms), policy)


# --- repairable ---


def _is_repair_due(history: History, policy: Policy) -> bool:
    """A proof among the last M blocks, and N of them with it or with a proof that still stands."""
    last = history.recent[-policy.of_blocks :]
    return _ALARM in last and sum(word > _QUIET for word in last) >= policy.needed_blocks


def _ruling_on_retrain(case: Case, history: History, policy: Policy) -> Ruling:
    weighed = weigh(case.worth, case.past, policy.cost) if case.worth is not None else None
    obstacles = (*_does_not_pay(weighed), *_obstacles(case, history, policy))
    reasons = ("A simple repair is proven to do better than the model in service.", case.diagnosis.words)
    terms = {} if weighed is None or case.worth is None else {**weighed.terms, **_worth_terms(case.worth)}
    if obstacles:
        return Ruling(action="alert", reasons=(*reasons, *obstacles), terms=terms)
    ruling = Ruling(action="retrain", reasons=(*reasons, *_pays(weighed)), terms=terms)
    if is_needed("retrain", policy.approval) and not policy.is_dry_run:
        words = "The policy wants a person to agree first: `clipdrift approvals`."
        return msgspec.structs.replace(ruling, action="ask", reasons=(*ruling.reasons, words))
    return _dry(ruling, policy)


def _dry(ruling: Ruling, policy: Policy) -> Ruling:
    if not policy.is_dry_run:
        return ruling
    words = "This is a dry run: nothing is ordered."
    return msgspec.structs.replace(ruling, action="alert", would=ruling.action, reasons=(*ruling.reasons, words))


def _does_not_pay(weighed: Weighed | None) -> tuple[str, ...]:
    if weighed is None or weighed.pays:
        return ()
    return (f"A retrain does not pay: {_sides(weighed)}.",)


def _pays(weighed: Weighed | None) -> tuple[str, ...]:
    return () if weighed is None else (f"It pays: {_sides(weighed)}.",)


def _sides(weighed: Weighed) -> str:
    interval = ""
    if weighed.loss_low is not None and weighed.loss_high is not None:
        interval = f" [{weighed.loss_low:.3g}, {weighed.loss_high:.3g}]"
    return (
        f"waiting is expected to lose {weighed.loss:.3g}{interval}, a retrain helps with chance {weighed.chance:.2f} and costs "
        f"{weighed.cost:.3g}"
    )


def _worth_terms(worth: Worth) -> dict[str, float]:
    return {name: value for name, value in msgspec.structs.asdict(worth).items() if value is not None}


def _obstacles(case: Case, history: History, policy: Policy) -> tuple[str, ...]:
    found = []
    if not policy.may_retrain:
        found.append("The policy leaves the order to a person: `clipdrift retrain MODEL --why ...`.")
    if history.running_key:
        found.append("A retrain is running already.")
    if history.rollout_id:
        found.append("What the last retrain brought is on its way into service.")
    if history.asked_key:
        found.append("A person is asked already: `clipdrift approvals`.")
    if case.num_labels < policy.min_labels:
        found.append(f"{case.num_labels} labels so far; the policy wants {policy.min_labels}.")
    if case.maturity is not None and case.maturity < policy.min_maturity:
        found.append(f"Only {case.maturity:.0%} of this block have a label; the policy wants {policy.min_maturity:.0%}.")
    return (*found, *_too_soon(case.at_ms, history, policy))


def _too_soon(at_ms: int, history: History, policy: Policy) -> list[str]:
    found = []
    would = history.would_times_ms if policy.is_dry_run else []
    last_ms = max([one for one in (history.last_retrain_ms, *would) if one is not None], default=None)
    if last_ms is not None and at_ms - last_ms < cooldown_ms(history, policy):
        found.append(f"The last retrain is less than {cooldown_ms(history, policy) / MS_PER_DAY:.0f} days ago.")
    for days, most in ((7, policy.max_retrains_per_7_days), (30, policy.max_retrains_per_30_days)):
        recent = sum(1 for time_ms in (*history.retrain_times_ms, *would) if at_ms - time_ms < days * MS_PER_DAY)
        if recent >= most:
            found.append(f"{recent} retrains in {days} days; the policy allows {most}.")
    return found
