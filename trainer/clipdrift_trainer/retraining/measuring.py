"""Carries the checks beside the loss out, within their time; one that breaks says so and stops nothing."""

import logging
import time
from collections.abc import Callable

from clipdrift_contract.errors import ClipdriftError
from clipdrift_contract.events import GateCheck
from clipdrift_trainer.retraining.bounds import Role, checked
from clipdrift_trainer.retraining.checks import calibration, data, hop_skip_jump, latency, membership, robustness, size
from clipdrift_trainer.retraining.checks.case import Case
from clipdrift_trainer.retraining.gate import GatePolicy

_log = logging.getLogger(__name__)
_Measure = Callable[[], tuple[GateCheck, ...]]


def measure_checks(case: Case, policy: GatePolicy, *, timer: Callable[[], float] = time.perf_counter) -> tuple[GateCheck, ...]:
    """All checks of the policy that are not off, quick ones first; the log says how long each took.

    A check that raises, or that no time is left for, is "unreachable" with the reason: nobody knows whether its figure is bad.
    """
    began = timer()
    found: list[GateCheck] = []
    for name, role, measure in _plan(case, policy, timer):
        started = timer()
        if started - began > policy.budget_seconds:
            late = f"{name}: no time left of the {policy.budget_seconds:g} s of [training.gate] budget_seconds"
            found.append(checked(name, "unreachable", late, None, None, "", role))
            continue
        told = _carried_out(name, role, measure)
        for one in told:
            mark = "" if one.is_decisive else " (on trial)"
            _log.info("gate check %s%s: %s, %.2f s: %s", one.name, mark, one.outcome, timer() - started, one.words)
        found += told
    return tuple(found)


def _plan(case: Case, policy: GatePolicy, timer: Callable[[], float]) -> list[tuple[str, Role, _Measure]]:
    rows, days, proof = policy.min_rows, policy.min_blocks, policy.proof
    latency_role: Role = "shown" if policy.latency.role == "off" and policy.latency.p99_role != "off" else policy.latency.role
    plan: list[tuple[str, Role, _Measure]] = [
        (data.NAME, policy.data.role, lambda: data.check_data(case.data_checks, policy.data)),
        (size.NAME, policy.size.role, lambda: size.check_size(case, policy.size)),
        (
            calibration.NAME, policy.calibration.role,
            lambda: calibration.check_calibration(case, policy.calibration, min_rows=rows, min_blocks=days, proof=proof),
        ),
        (latency.NAME, latency_role, lambda: latency.check_latency(case, policy.latency, timer=timer)),
        (
            membership.NAME, policy.membership.role,
            lambda: membership.check_membership(case, policy.membership, min_rows=rows, min_blocks=days),
        ),
        (
            robustness.NAME, policy.robustness.role,
            lambda: robustness.check_robustness(case, policy.robustness, min_blocks=days, proof=proof),
        ),
        (
            hop_skip_jump.NAME, policy.hop_skip_jump.role,
            lambda: hop_skip_jump.check_hop_skip_jump(
                case, policy.hop_skip_jump, min_blocks=days, proof=proof, timer=timer
            ),
        ),
    ]  # fmt: skip
    return [one for one in plan if one[1] != "off"]


def _carried_out(name: str, role: Role, measure: _Measure) -> tuple[GateCheck, ...]:
    try:
        return measure()
    except Exception as error:  # noqa: BLE001  whatever the task's module or a library raises: it is no verdict on the candidate
        is_foreseen = isinstance(error, ClipdriftError)
        _log.warning("gate check %s was not carried out: %s", name, error, exc_info=not is_foreseen)
        words = f"{name} was not carried out: {'' if is_foreseen else f'{type(error).__name__}: '}{error}"
        return (checked(name, "unreachable", words, None, None, "", role),)
