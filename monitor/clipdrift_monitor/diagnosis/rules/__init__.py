"""The rules of the diagnosis, in the order in which they are told; what each of them looks at is `Facts`."""

from clipdrift_contract.events import RuleFinding
from clipdrift_monitor.diagnosis.rules import broken, people, performance, training
from clipdrift_monitor.diagnosis.rules.rule import Approval, DiagnosisConfig, Facts, Probabilities, Rule, SliceFacts

RULES: tuple[Rule, ...] = (*training.RULES, *performance.RULES, *broken.RULES, *people.RULES)

__all__ = ["RULES", "Approval", "DiagnosisConfig", "Facts", "Probabilities", "Rule", "SliceFacts", "findings"]


def findings(facts: Facts) -> tuple[RuleFinding, ...]:
    """All rules, in their order."""
    return tuple(rule.judge(facts) for rule in RULES)
