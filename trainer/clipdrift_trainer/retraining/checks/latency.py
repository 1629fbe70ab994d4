"""Does the candidate's file answer as fast as the one in service? Both run here by turns, one row at a time."""

import time
from collections.abc import Callable

import msgspec
import numpy as np

from clipdrift_contract.events import GateCheck
from clipdrift_trainer.evaluation.blocks import Interval
from clipdrift_trainer.evaluation.latency import quantile_ratio, time_by_turns
from clipdrift_trainer.export import raw_columns
from clipdrift_trainer.inference import open_session
from clipdrift_trainer.retraining.bounds import Role, against_bound, checked, interval_words, require_at_least
from clipdrift_trainer.retraining.checks.case import Case, Side, spread_over
from clipdrift_trainer.tasks.task import Rows

NAME = "latency"
_MIN_ROUNDS = 5


class LatencyPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The time for one row, candidate over the model in service, as ONNX files on one thread of this machine."""

    role: Role = "decisive"
    """Of the median: decides, is on trial (shown), or is not measured (off)."""
    max_ratio: float = 2.0
    """The candidate's median may be so many times that of the model in service."""
    p99_role: Role = "shown"
    """Of the slowest in a hundred, which other work on the machine disturbs most."""
    max_p99_ratio: float = 4.0
    """As `max_ratio`, for the 99 % quantile."""
    num_rows: int = 32
    """Rows of a round."""
    num_rounds: int = 25
    """How often all rows are asked of both."""
    budget_seconds: float = 0.5
    """No round begins after it; with fewer than 5 rounds nothing is known."""

    def __post_init__(self) -> None:
        require_at_least("latency", 1.0, max_ratio=self.max_ratio, max_p99_ratio=self.max_p99_ratio)
        require_at_least("latency", 1, num_rows=self.num_rows)
        require_at_least("latency", _MIN_ROUNDS, num_rounds=self.num_rounds)
        require_at_least("latency", 0.0, budget_seconds=self.budget_seconds)


def check_latency(
    case: Case, policy: LatencyPolicy, *, timer: Callable[[], float] = time.perf_counter
) -> tuple[GateCheck, ...]:
    """Two checks, of the median and of the 99 % quantile, each the ratio of candidate to model in service."""
    rows = spread_over(case.judged, policy.num_rows)
    if not len(rows):
        return (checked(NAME, "inconclusive", "there are no rows to answer", None, policy.max_ratio, "times", policy.role),)
    candidate_RN, champion_RN = time_by_turns(
        _answering(case.candidate, rows), _answering(case.champion, rows), len(rows), policy.num_rounds,
        budget_seconds=policy.budget_seconds, timer=timer,
    )  # fmt: skip
    wanted = ((NAME, 0.5, policy.max_ratio, policy.role), (f"{NAME}_p99", 0.99, policy.max_p99_ratio, policy.p99_role))
    return tuple(
        latency_check(name, candidate_RN, champion_RN, share, bound, role)
        for name, share, bound, role in wanted
        if role != "off"
    )


def latency_check(
    name: str, candidate_RN: np.ndarray, champion_RN: np.ndarray, share: float, bound: float, role: Role
) -> GateCheck:
    """The check of one quantile, from the seconds of both."""
    num_rounds = len(candidate_RN)
    unknown = Interval(np.nan, np.nan, np.nan)
    found = quantile_ratio(candidate_RN, champion_RN, share) if num_rounds >= _MIN_ROUNDS else unknown
    outcome = against_bound(found, bound, neutral=-np.inf)
    if outcome == "inconclusive" and not np.isfinite(found.value):
        words = f"{num_rounds} rounds were measured; {_MIN_ROUNDS} are needed"
    else:
        mine, theirs = (float(np.quantile(seconds_RN, share)) * 1e6 for seconds_RN in (candidate_RN, champion_RN))
        which = "median" if share == 0.5 else f"{share:.0%} quantile"
        words = (
            f"{which} of one row {mine:.0f} µs, the model in service {theirs:.0f} µs: {interval_words(found, 2, '')} times, "
            f"{bound:g} allowed"
        )
    return checked(name, outcome, words, found, bound, "times", role, num_rows=int(candidate_RN.size), num_blocks=num_rounds)


def _answering(side: Side, rows: Rows) -> Callable[[int], object]:
    session, columns = open_session(side.content), raw_columns(side.features, rows)
    feeds = [{name: column[at : at + 1] for name, column in columns.items()} for at in range(len(rows))]
    return lambda row: session.run(None, feeds[row])
