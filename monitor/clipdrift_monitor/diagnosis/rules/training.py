"""R1 to R3: what the training did, and whether clipping has a part in it.

Source: docs/design/monitor.md, "diagnosis", and the experiment of 1,920 trained models that it speaks of.
"""

from clipdrift_contract.events import EvidenceRow, RuleFinding
from clipdrift_monitor.clipping.evidence import STRONG_REMOVAL, standing_of
from clipdrift_monitor.diagnosis.rules.rule import Facts, Rule, error_of, finding, probability_above

_R1, _R2, _R3 = "R1 training fault", "R2 adaptive optimizer", "R3 threshold acts as learning rate"


def _fault(facts: Facts) -> RuleFinding:
    clipping = facts.clipping
    row = EvidenceRow(name="steps checked", value=float(clipping.num_checked), unit="steps", bound=1.0)
    if clipping.has_fault:
        return finding(
            _R1, True, f"The training itself was faulty: {clipping.fault_words}.",
            "Something went wrong while this model learned. It should be trained again after that is mended.",
            confidence=1.0, would_change="A training without that fault (it was counted, not estimated).", rows=(row,),
        )  # fmt: skip
    if not clipping.num_checked:
        return finding(
            _R1, None, "No step was checked: recording the run would tell whether clipping did what it promised.",
            "Nobody wrote down whether the training went as planned.",
            would_change="A run that is recorded with `watch(model, optimizer)`.", rows=(row,),
        )  # fmt: skip
    return finding(
        _R1, False, f"All {clipping.num_checked} steps that were checked did what clipping promised.",
        "The training went as planned, as far as it was checked.",
        confidence=(clipping.num_checked + 1) / (clipping.num_checked + 2),  # rule of succession, for one more step
        would_change="One step whose gradients were not what clipping left, or were not finite.", rows=(row,),
    )  # fmt: skip


def _adaptive(facts: Facts) -> RuleFinding:
    clipping = facts.clipping
    holds = clipping.is_adaptive and clipping.is_norm_clipped and not clipping.has_fault
    if clipping.is_idle:
        words = "Clipping changed no step of this run."
    elif holds:
        words = "The optimizer rescales every step by its own size, so one factor on all gradients changes next to nothing."
    elif clipping.is_adaptive and not clipping.is_norm_clipped:
        words = "Clipping each entry changes the gradient's direction, which no optimizer makes up for."
    else:
        words = "The optimizer takes gradients at their size, so what clipping removes is missing from the step."
    plain = (
        "This training makes up for clipping by itself."
        if holds or clipping.is_idle
        else "Clipping can matter in this training."
    )
    return finding(
        _R2, holds, words, plain, confidence=1.0, would_change="Another optimizer, or another kind of clipping.",
        rows=(EvidenceRow(name="steps clipped", value=clipping.clip_rate_ratio, unit="share"),),
    )  # fmt: skip


def _learning_rate(facts: Facts) -> RuleFinding:
    clipping, contrast = facts.clipping, facts.clipping.best_contrast
    share, steps = clipping.removed_mass_ratio, clipping.clip_rate_ratio
    rows = [
        EvidenceRow(name="removed_mass_ratio", value=share, unit="share", bound=STRONG_REMOVAL),
        EvidenceRow(name="clip_rate_ratio", value=steps, unit="share", bound=0.5),
    ]
    removed = f"Clipping removed {share:.0%} of the gradient mass, on {steps:.0%} of the steps"
    if clipping.is_adaptive or not clipping.is_strong:
        why = "the optimizer makes up for it" if clipping.is_adaptive else "too little to act as a smaller learning rate"
        return finding(
            _R3, False, f"{removed}; {why}.", "Clipping did not slow this training down.", confidence=1.0,
            would_change="A run in which clipping removes three quarters of the gradient with plain SGD.", rows=rows,
        )  # fmt: skip
    if contrast is None:
        return finding(
            _R3, None, f"{removed}; only a shadow retrain with another threshold can tell whether that harms.",
            "Clipping held this training back; whether that did harm is not known.",
            would_change="A shadow retrain with another threshold, on the same data and seed.", rows=rows,
        )  # fmt: skip
    rows += [
        EvidenceRow(name="difference", value=contrast.difference, unit="Brier score", bound=-facts.margin),
        EvidenceRow(name="low", value=contrast.low, unit="Brier score"),
        EvidenceRow(name="high", value=contrast.high, unit="Brier score", bound=0.0),
    ]
    words = (
        f"{removed}. Trained again on the same data and seed with {clipping.best_arm} instead, the Brier score changes by "
        f"{contrast.difference:+.4f} [{contrast.low:+.4f}, {contrast.high:+.4f}] on {contrast.num_rows} rows of "
        f"{contrast.num_blocks} days."
    )
    better = probability_above(-contrast.difference, facts.margin, error_of(contrast.low, contrast.high))
    standing = standing_of(contrast, facts.margin)
    if standing == "better":
        return finding(
            _R3, True, words, "With a looser limit on its steps the same training gives a better model.",
            confidence=better, would_change="A shadow retrain whose interval holds 0.", rows=rows,
        )  # fmt: skip
    is_settled = standing == "not better"
    if not is_settled:
        words += " More held-out days, or more seeds, would settle it."
    return finding(
        _R3, False if is_settled else None, words,
        "A looser limit on its steps does not give a better model." if is_settled else "Whether clipping did harm is open.",
        confidence=1 - better, would_change="More held-out days or seeds.", rows=rows,
    )  # fmt: skip


_EXPERIMENT = "1,920 trained models on four data sets, docs/design/monitor.md"
RULES = (
    Rule(_R1, "counts of the run: steps not finite, or not consumed as clipped (docs/reference/training-faults.md)", _fault),
    Rule(_R2, f"Adam's update does not change with a common factor (Kingma, Ba 2015, section 2.1); {_EXPERIMENT}", _adaptive),
    Rule(_R3, f"{_EXPERIMENT}: no run lost a point of accuracy below three quarters of the gradient mass", _learning_rate),
)  # fmt: skip
