"""What each model may spend of the monitor's budget of false alarms, as models come and go."""

import msgspec

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.engine.draft import Draft
from clipdrift_monitor.engine.memory import Memory
from clipdrift_monitor.risk.budget import Allotment
from clipdrift_monitor.risk.harm import rebudget


class Spending:
    """Shares the budget out.

    Args:
        config: With the budget.
        memory: With the models in service and their tests.
    """

    def __init__(self, config: MonitorConfig, memory: Memory) -> None:
        self._config = config
        self._memory = memory

    def allotment(self) -> Allotment:
        """What each model may spend now: all models in service as much."""
        num_models = sum(state.in_service is not None for state in self._memory.states.values())
        policy = self._config.policy
        return Allotment(
            budget=policy.budget, severities=policy.severity, num_models=max(1, num_models),
            block_days=self._config.window_ms / MS_PER_DAY,
        )  # fmt: skip

    def share_out(self, draft: Draft | None = None) -> None:
        """Give every model's tests what they may spend now; their evidence keeps its worth.

        Without a draft nothing is saved: the same comes of what is saved at the next start.
        """
        allotment = self.allotment()
        for model, harm in self._memory.harm.items():
            before = msgspec.msgpack.encode(harm)
            rebudget(harm, allotment)
            after = msgspec.msgpack.encode(harm)
            if draft is not None and after != before:
                draft.changes.harm[model] = after
