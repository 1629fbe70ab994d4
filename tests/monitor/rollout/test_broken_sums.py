"""Sums that are no numbers never bring a candidate into service: its rollout ends, and the model in service answers alone."""

import msgspec
import numpy as np
import pytest
from dialogue import POLICY
from traffic import actions, begun, go_days, newest

from clipdrift_monitor.rollout.comparison import blocks_until
from clipdrift_monitor.rollout.config import RolloutPolicy

CANARY = msgspec.structs.replace(POLICY, rollout=RolloutPolicy(steps=(0.2,), min_labels=100))


def broken(comparison):
    """The comparison with one more sum that is NaN in each period."""
    periods = []
    for period in comparison.periods:
        sums = np.frombuffer(period.pairs, "<f8").copy()
        sums[1] = np.nan
        periods.append(msgspec.structs.replace(period, pairs=sums.tobytes()))
    return msgspec.structs.replace(comparison, periods=tuple(periods))


def test_a_rollout_whose_sums_are_broken_is_ended_and_nothing_is_promoted(dialogue_of):
    dialogue = dialogue_of("broken", policy=CANARY)
    begun(dialogue)
    go_days(dialogue, 6, 7)
    comparison = broken(dialogue.state.comparison)
    with pytest.raises(ValueError, match="finite"):
        blocks_until(comparison, 1 << 50, 86_400_000, has_errors=True)

    dialogue.engine._memory.states["pump"].comparison = comparison
    go_days(dialogue, 7, 12, until=lambda: dialogue.state.rollout is None)

    assert [one.end for one in dialogue.state.past_rollouts] == ["held"]
    assert "cannot be weighed" in " ".join(dialogue.state.past_rollouts[0].reasons)
    assert actions(dialogue)[-1] == "hold"
    assert dialogue.state.in_service.version == "v1"
    assert newest(dialogue).shadow is newest(dialogue).canary is None
