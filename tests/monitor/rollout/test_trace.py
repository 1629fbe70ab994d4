"""A rollout's looks are kept in order, each once, and in bounded number."""

from clipdrift_contract.events import ServedVersion
from clipdrift_monitor.rollout.course import Rollout, Stage
from clipdrift_monitor.rollout.finding import Finding, Shown
from clipdrift_monitor.rollout.trace import MAX_POINTS, MAX_ROLLOUTS, traced

SERVED = ServedVersion(version="v", uri="", digest="")


def rollout(rollout_id="r", position=0):
    return Rollout(
        rollout_id=rollout_id, key="k", candidate=SERVED, champion=SERVED, stages=(Stage(), Stage(weight=0.1)), began_ms=0,
        position=position,
    )  # fmt: skip


def finding(num_labels):
    shown = (
        Shown(watched="loss", estimate=0.5),
        Shown(watched="error", slice="south", estimate=0.4),
        Shown(watched="error", estimate=-0.01, low=-0.02, high=0.0),
    )
    return Finding(num_labels=num_labels, shown=shown, words=f"{num_labels} labels")


def test_a_look_keeps_the_overall_difference_in_errors_and_the_newest_words():
    (trace,) = traced([], rollout(), finding(10), 1)
    point = trace.points[0]
    assert (point.watched, point.difference, point.low, point.high, point.weight) == ("error", -0.01, -0.02, 0.0, 0.0)
    assert trace.words == "10 labels"


def test_two_looks_at_one_moment_are_one_unless_the_stage_is_another():
    traces = traced(traced([], rollout(), finding(10), 1), rollout(), finding(11), 1)
    traces = traced(traces, rollout(position=1), finding(11), 1)
    assert [(one.stage, one.num_labels) for one in traces[0].points] == [("shadow", 11), ("canary 0.1", 11)]


def test_many_looks_and_many_rollouts_stay_bounded_and_keep_first_and_last():
    traces = []
    for look in range(3 * MAX_POINTS):
        traces = traced(traces, rollout(), finding(look), look)
    assert len(traces[0].points) <= MAX_POINTS
    assert (traces[0].points[0].at_ms, traces[0].points[-1].at_ms) == (0, 3 * MAX_POINTS - 1)
    assert [one.at_ms for one in traces[0].points] == sorted(one.at_ms for one in traces[0].points)
    for number in range(MAX_ROLLOUTS + 3):
        traces = traced(traces, rollout(str(number)), finding(1), 1)
    assert [one.rollout_id for one in traces] == [str(number) for number in range(3, MAX_ROLLOUTS + 3)]
