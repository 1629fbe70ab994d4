"""Rollouts of models that are worse, equal and better, in simulated traffic with late labels and errors in clusters.

Every rollout takes the monitor's own course: its evidence (`rollout.evidence`) and its steps (`rollout.course`) under the
default policy, from shadow over canaries of 10 and 50 % to a promotion, a rollback or a hold. Beside it, on the same traffic, a
canary of 10 % for seven days whose means are compared once, and a switch without a test. What comes out is checked against the
world's truth: harm is the number of wrong answers that users get in 40 days beyond the champion's, as the true rates have it.

Constants were chosen with --tuning: on another world (`rollout_worlds.TUNED_ON`) and on seeds from 1,000,000. The bars are of
the usual world; below it stand worlds that are harder or in which an assumption does not hold, with a tenth as many rollouts a
case. The last line is one JSON object.
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import rollout_worlds as worlds
from rollout_worlds import TUNED_ON, USUAL, Day, Traffic, World
from scipy.stats import beta

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import ServedVersion
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.rollout.course import Rollout, Stage, entered, stages_of, weigh
from clipdrift_monitor.rollout.evidence import Memory, step
from clipdrift_monitor.rollout.evidence_config import EvidenceConfig
from clipdrift_monitor.rollout.finding import Finding

CASES: dict[str, tuple[float, bool]] = {
    "equal": (0.0, False),
    "worse by 2": (0.02, False),
    "worse by 5": (0.05, False),
    "worse by 10": (0.10, False),
    "worse by 2 in a slice": (0.02, True),
    "worse by 5 in a slice": (0.05, True),
    "worse by 10 in a slice": (0.10, True),
    "better by 2": (-0.02, False),
    "better by 5": (-0.05, False),
}
_BAD = [name for name, (excess, _) in CASES.items() if excess >= 0.05]
_FEW_LABELS = RolloutPolicy(steps=(0.5,))
_STRICT = RolloutPolicy(evidence=EvidenceConfig(shadow_level=1.0, margin_error=0.02, margin_loss=0.015))
_NO_SHADOW = RolloutPolicy(has_shadow=False)
_LATE_LABELS = RolloutPolicy(steps=(0.25,), max_days=70.0)
OTHER_WORLDS: dict[str, tuple[World, RolloutPolicy]] = {
    "the usual one, shadow_level = 1, margins 0.02 and 0.015": (USUAL, _STRICT),
    "1,000 labels a day": (USUAL._replace(rows_a_day=1_000), RolloutPolicy()),
    "1,000 labels a day, steps = [0.5]": (USUAL._replace(rows_a_day=1_000), _FEW_LABELS),
    "10,000 labels a day": (USUAL._replace(rows_a_day=10_000), RolloutPolicy()),
    "days differ by 0.3 points": (USUAL._replace(own_day_sd=0.003, own_slice_day_sd=0.003), RolloutPolicy()),
    "days differ by 2 points": (USUAL._replace(own_day_sd=0.02), RolloutPolicy()),
    "days differ by 5 points (beyond `spread`)": (USUAL._replace(own_day_sd=0.05), RolloutPolicy()),
    "days hang together (the evidence takes them as independent)": (USUAL._replace(persistence=0.8), RolloutPolicy()),
    "two in five wrong answers never get a label": (USUAL._replace(labelled_wrong=0.6), RolloutPolicy()),
    "two in five right answers never get a label": (USUAL._replace(labelled_right=0.6), RolloutPolicy()),
    "two in five wrong answers never get a label, has_shadow = false": (USUAL._replace(labelled_wrong=0.6), _NO_SHADOW),
    "two in five right answers never get a label, has_shadow = false": (USUAL._replace(labelled_right=0.6), _NO_SHADOW),
    "14 days until labels": (USUAL._replace(delay_days=14), RolloutPolicy()),
    "14 days until labels, steps = [0.25], max_days = 70": (USUAL._replace(delay_days=14), _LATE_LABELS),
}
_OTHER_CASES = ("equal", "worse by 5", "worse by 5 in a slice")
_HORIZON_DAYS = 40  # harm is counted until then
_FIXED_SHARE, _FIXED_DAYS, _FIXED_BOUND = 0.1, 7, 0.02


class Ending(NamedTuple):
    """How one rollout ended, and what it cost."""

    turn: str  # promote, roll_back, hold
    days: int
    labels: int
    harm: float


def sequential(traffic: Traffic, policy: RolloutPolicy) -> tuple[Ending, list[Day]]:
    """The course of one rollout. Each morning the newest day whose labels are mature is weighed; then the day is served."""
    world = traffic.world
    started = Rollout(
        rollout_id="r", key="k", candidate=ServedVersion(version="2", uri="", digest="2"),
        champion=ServedVersion(version="1", uri="", digest="1"), stages=stages_of(policy), began_ms=0,
    )  # fmt: skip
    rollout = entered(started, generation=1, at_ms=0, is_next=False)
    memory, finding = Memory(), Finding()
    days: list[Day] = []
    served: list[tuple[int, Stage]] = []  # generation and stage of each day
    turn, due = "stay", 0
    for today in range(worlds.LONGEST_DAYS):
        if today:
            stage = served[-1][1]
            requests = worlds.served_block(world, today - 1, stage.name, stage.weight, traffic.random)
            memory, finding = step(memory, requests, policy.evidence)
        due = today - 1 - world.delay_days
        if due >= 0:
            generation, stage = served[due]
            if stage.weight:
                block = worlds.canary_block(world, days[due], due, stage.weight, traffic.random)
            else:
                block = worlds.shadow_block(world, days[due], due)
            memory, finding = step(memory, block, policy.evidence)
            turn = weigh(rollout, finding, policy, generation=generation, at_ms=(due + 1) * MS_PER_DAY).turn
        if turn == "step":
            rollout = entered(rollout, generation=rollout.generation + 1, at_ms=due)
        elif turn != "stay":
            break
        days.append(worlds.day_of(traffic, today))
        served.append((rollout.generation, rollout.stage))
    exposed = sum(stage.weight for _, stage in served) + (max(0, _HORIZON_DAYS - len(days)) if turn == "promote" else 0)
    return Ending(turn, len(days), finding.num_labels, world.rows_a_day * traffic.excess * exposed), days


def fixed_time(traffic: Traffic, days: list[Day]) -> Ending:
    """A canary for a fixed time, and one comparison of means."""
    world = traffic.world
    days = [*days, *(worlds.day_of(traffic, number) for number in range(len(days), _FIXED_DAYS))]
    blocks = [worlds.canary_block(world, day, 0, _FIXED_SHARE, traffic.random) for day in days[:_FIXED_DAYS]]
    ours, theirs = [one.candidate[0] for one in blocks], [one.champion[0] for one in blocks]
    rates = [sum(one.num_errors for one in side) / sum(one.num_rows for one in side) for side in (ours, theirs)]
    is_promoted = rates[0] - rates[1] <= _FIXED_BOUND
    num_days = _FIXED_DAYS + world.delay_days
    exposed = _FIXED_SHARE * num_days + (_HORIZON_DAYS - num_days if is_promoted else 0)
    labels = sum(round(one.num_rows) for one in ours)
    return Ending("promote" if is_promoted else "roll_back", num_days, labels, world.rows_a_day * traffic.excess * exposed)


def one_rollout(task: tuple[World, str, int, RolloutPolicy]) -> tuple[Ending, Ending, float]:
    """Ours, the canary for a fixed time, and the harm of a switch without a test."""
    world, case, seed, policy = task
    traffic = worlds.traffic_of(world, *CASES[case], np.random.default_rng([seed, list(CASES).index(case)]))
    ending, days = sequential(traffic, policy)
    return ending, fixed_time(traffic, days), world.rows_a_day * traffic.excess * _HORIZON_DAYS


def interval(num_found: int, num_all: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper and Pearson 1934)."""
    low = beta.ppf(0.025, num_found, num_all - num_found + 1) if num_found else 0.0
    high = beta.ppf(0.975, num_found + 1, num_all - num_found) if num_found < num_all else 1.0
    return round(float(low), 4), round(float(high), 4)


class Share(NamedTuple):
    """Of rollouts that ended so."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.share:6.1%} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


class Summary(NamedTuple):
    """Of all rollouts of a case; days and labels at the 10th, 50th and 90th percentile."""

    promote: Share
    roll_back: Share
    hold: Share
    days: tuple[int, ...]
    labels: tuple[int, ...]
    harm: float


def summary(endings: Sequence[Ending]) -> Summary:
    shares = {}
    for turn in ("promote", "roll_back", "hold"):
        number = sum(one.turn == turn for one in endings)
        shares[turn] = Share(number / len(endings), *interval(number, len(endings)))
    days, labels = (
        tuple(round(float(one)) for one in np.percentile(counts, [10, 50, 90]))
        for counts in ([one.days for one in endings], [one.labels for one in endings])
    )
    harm = round(float(np.mean([one.harm for one in endings])), 1)
    return Summary(shares["promote"], shares["roll_back"], shares["hold"], days, labels, harm)


class Case(NamedTuple):
    """What came of one case, ours and the peers'."""

    ours: Summary
    fixed_time: Summary
    harm_at_once: float

    def told(self, name: str) -> str:
        ours, fixed = self.ours, self.fixed_time
        days, labels = ("/".join(f"{one:,}" for one in counts) for counts in (ours.days, ours.labels))
        return (
            f"{name:22} promote {ours.promote}  back {ours.roll_back}  hold {ours.hold}  days {days}  labels {labels}  "
            f"harm {ours.harm:,.0f}; fixed time: promote {fixed.promote.share:.1%}, harm {fixed.harm:,.0f}; "
            f"at once: harm {self.harm_at_once:,.0f}"
        )

    def as_json(self) -> dict[str, object]:
        fixed = {"promote": self.fixed_time.promote.share, "harm": self.fixed_time.harm, "labels": self.fixed_time.labels[1]}
        return {"ours": self.ours._asdict(), "fixed_time": fixed, "harm_at_once": self.harm_at_once}


def run(pool: ProcessPoolExecutor, world: World, cases: Sequence[str], seeds: range, policy: RolloutPolicy) -> dict[str, Case]:
    results = {}
    for case in cases:
        rows = list(pool.map(one_rollout, [(world, case, seed, policy) for seed in seeds], chunksize=10))
        at_once = round(float(np.mean([row[2] for row in rows])), 1)
        results[case] = Case(summary([row[0] for row in rows]), summary([row[1] for row in rows]), at_once)
        print(results[case].told(case), flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 rollouts a case instead of 500")
    parser.add_argument("--rollouts", type=int, help="so many a case")
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--tuning", action="store_true", help="the world and the seeds on which constants were chosen")
    given = parser.parse_args()
    number = given.rollouts or (60 if given.quick else 500)
    first = given.seed + (1_000_000 if given.tuning else 0)
    policy, started = RolloutPolicy(), time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        print(f"{number} rollouts a case{' (tuning)' if given.tuning else ''}; intervals of 95 %", flush=True)
        usual = run(pool, TUNED_ON if given.tuning else USUAL, list(CASES), range(first, first + number), policy)
        others = {}
        for name, (world, suited) in ({} if given.tuning else OTHER_WORLDS).items():
            print(f"\n{name}", flush=True)
            others[name] = run(pool, world, _OTHER_CASES, range(first, first + max(20, number // 10)), suited)
    worst = max((usual[name].ours.promote for name in _BAD), key=lambda one: one.share)
    wrong, equal = usual["equal"].ours.roll_back, usual["equal"].ours
    results = {
        "bench": "rollout", "num_rollouts": number, "first_seed": first, "is_tuning": given.tuning,
        "wrong_promotions": worst.share, "wrong_promotions_interval": worst[1:],
        "wrong_rollbacks": wrong.share, "wrong_rollbacks_interval": wrong[1:],
        "promoted_equal": equal.promote.share, "labels_equal": equal.labels, "days_equal": equal.days,
        "usual": {name: case.as_json() for name, case in usual.items()},
        "others": {name: {case: found.as_json() for case, found in cases.items()} for name, cases in others.items()},
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    print(json.dumps(results))


if __name__ == "__main__":
    main()
