"""The toy task as a study, and variants of it that break. Imported by name, also by worker processes."""

import torch
from toy_task import DAY, Toy

from clipdrift_contract.events import ClipSpec
from clipdrift_trainer.ablation.run import Question
from clipdrift_trainer.ablation.trial import Study
from clipdrift_trainer.tasks.task import load_as_of
from clipdrift_trainer.training import TrainingConfig, prepare

PRESENT = ClipSpec(kind="global_norm", max_norm=0.05)


class Traced(Toy):
    """Remembers the weights that it began with and the labels of each batch."""

    def optimizer(self, module):
        self.initial = [parameter.detach().clone() for parameter in module.parameters()]
        self.batches = []
        return super().optimizer(module)

    def loss(self, output, label):
        self.batches.append(label.clone())
        return super().loss(output, label)


class Exploding(Toy):
    """Diverges unless its steps are held back."""

    def optimizer(self, module):
        return torch.optim.SGD(module.parameters(), lr=1e38)


class Moody(Toy):
    """Raises as soon as the weights are far from where they began, which only loose bounds let happen."""

    def optimizer(self, module):
        self._initial = [parameter.detach().clone() for parameter in module.parameters()]
        self._module = module
        return super().optimizer(module)

    def loss(self, output, label):
        far = max(float((a - b.detach()).abs().max()) for a, b in zip(self._initial, self._module.parameters(), strict=True))
        if far > 0.1:
            raise ArithmeticError("the weights ran off")
        return super().loss(output, label)


def make_study(task: Toy | None = None, num_days: int = 15, later_days: int = 0, num_steps: int = 15) -> Study:
    task = task or Toy()
    task.num_steps = num_steps
    end_ms = num_days * DAY
    later = load_as_of(task, end_ms, end_ms + later_days * DAY, end_ms + (later_days + 1) * DAY) if later_days else None
    return Study(task=task, training=TrainingConfig(), prepared=prepare(task, TrainingConfig(), 0, end_ms, end_ms), later=later)


def make_question(**changes) -> Question:
    given = {
        "model": "pump", "present": PRESENT, "start_ms": 0, "end_ms": 15 * DAY, "as_of_ms": 15 * DAY,
        "thresholds": (5.0,), "seeds": (0, 1),
    }  # fmt: skip
    return Question(**(given | changes))
