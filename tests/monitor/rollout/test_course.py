"""The course of a rollout over every order of what can happen: no order leads a candidate past a step, and an end is an end."""

from itertools import product

import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import ServedVersion
from clipdrift_monitor.rollout.config import RolloutPolicy
from clipdrift_monitor.rollout.course import Rollout, ended, entered, held, stages_of, weigh
from clipdrift_monitor.rollout.finding import Finding

POLICY = RolloutPolicy(steps=(0.1, 0.5), min_labels=100, max_days=10.0)
V1, V2 = (ServedVersion(version=name, uri="", digest=name) for name in ("v1", "v2"))


def begun(policy=POLICY):
    rollout = Rollout(rollout_id="r", key="k", candidate=V2, champion=V1, stages=stages_of(policy), began_ms=0)
    return entered(rollout, generation=5, at_ms=0, is_next=False)


def said(rollout, word, *, stage=None, labels=100):
    """What the evidence may say of the present stage, or of another one."""
    of = rollout.stage.name if stage is None else stage
    return {
        "nothing": Finding(stage=of),
        "few": Finding(stage=of, labels_of_stage=labels - 1, num_labels=500, may_step=True, verdict="promote"),
        "may step": Finding(stage=of, labels_of_stage=labels, num_labels=500, may_step=True),
        "good": Finding(stage=of, labels_of_stage=labels, num_labels=500, may_step=True, verdict="promote"),
        "harm": Finding(stage=of, labels_of_stage=labels, num_labels=500, verdict="roll_back", words="worse"),
    }[word]


EVENTS = [
    (word, stage, generation, day)
    for word in ("nothing", "few", "may step", "good", "harm")
    for stage in ("same", "before")
    for generation in ("same", "first", "foreign")
    for day in (1, 11)
]


def happened(rollout, event):
    """The rollout after an event, and how it ended, if it did."""
    word, stage, generation, day = event
    of_stage = rollout.stage.name if stage == "same" else "shadow"
    number = {"same": rollout.generation, "first": rollout.generations[0], "foreign": 4}[generation]
    move = weigh(rollout, said(rollout, word, stage=of_stage), POLICY, generation=number, at_ms=day * MS_PER_DAY)
    if move.turn == "step":
        return entered(rollout, generation=rollout.generation + 1, at_ms=day), None
    ends = {"promote": "promoted", "roll_back": "rolled back", "hold": "held"}
    return rollout, ends.get(move.turn)


@pytest.mark.parametrize("policy", [POLICY, RolloutPolicy(steps=(1.0,), has_shadow=False)])
def test_stages_follow_the_policy(policy):
    assert [stage.weight for stage in stages_of(policy)] == [*([0.0] if policy.has_shadow else []), *policy.steps]


def test_over_all_orders_of_three_events_every_rule_holds():
    """60 ** 3 orders; each is checked against the rules themselves, said once more in other words."""
    ends = set()
    for order in product(EVENTS, repeat=3):
        rollout, end, num_earned = begun(), None, 0
        for event in order:
            word, stage, generation, day = event
            before = rollout
            is_shadow_yet = before.position == 0
            is_of_now = (stage == "same" or is_shadow_yet) and (
                generation == "same" or (generation == "first" and is_shadow_yet)
            )
            rollout, end = happened(rollout, event)
            moved = rollout.position - before.position
            assert moved in (0, 1)
            if moved:
                num_earned += 1
                assert word in ("may step", "good")
                assert is_of_now
                assert rollout.generation == before.generation + 1
            if end == "promoted":
                assert (word, is_of_now, before.is_last) == ("good", True, True)
            if end == "rolled back":
                assert word == "harm"
                assert generation != "foreign"
            if end == "held":
                assert day > POLICY.max_days
            if generation == "foreign":
                assert (moved, end) == (0, None)
            if word == "harm" and generation != "foreign":
                assert end == "rolled back"
            assert rollout.position == num_earned
            if end is not None:
                ends.add(end)
                break
    assert ends == {"promoted", "rolled back", "held"}


def test_time_alone_never_promotes_and_never_steps():
    for word in ("nothing", "few"):
        move = weigh(begun(), said(begun(), word), POLICY, generation=5, at_ms=9 * MS_PER_DAY)
        assert move.turn == "stay"
    late = weigh(begun(), said(begun(), "few"), POLICY, generation=5, at_ms=10 * MS_PER_DAY)
    assert late.turn == "hold"


def test_a_held_rollout_moves_only_when_harm_is_shown():
    waiting = held(begun())
    turns = {word: weigh(waiting, said(waiting, word), POLICY, generation=5, at_ms=99 * MS_PER_DAY).turn
             for word in ("nothing", "few", "may step", "good", "harm")}  # fmt: skip
    assert turns == {"nothing": "stay", "few": "stay", "may step": "stay", "good": "stay", "harm": "roll_back"}


def test_harm_that_an_earlier_stages_late_labels_show_ends_a_later_stage():
    later = entered(begun(), generation=6, at_ms=0)
    move = weigh(later, said(later, "harm", stage="shadow"), POLICY, generation=5, at_ms=0)
    assert move.turn == "roll_back"


def test_what_is_remembered_names_the_stage_and_the_labels_it_ended_on():
    later = entered(begun(), generation=6, at_ms=0)
    past = ended(later, "rolled back", at_ms=7, finding=Finding(num_labels=321), reasons=("worse",))
    assert (past.stage, past.num_labels, past.candidate, past.champion, past.end) == (
        "canary 0.1",
        321,
        "v2",
        "v1",
        "rolled back",
    )


@pytest.mark.parametrize("steps", [(0.5, 0.5), (0.5, 0.1), (0.0,), (1.5,), (float("nan"),)])
def test_steps_that_do_not_grow_are_refused(steps):
    with pytest.raises(ValueError, match="steps must be shares"):
        RolloutPolicy(steps=steps)
