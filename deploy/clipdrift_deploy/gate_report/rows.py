"""The gate's checks as rows of a table: what was measured, what is allowed, what to do."""

from collections.abc import Sequence
from typing import NamedTuple

from clipdrift_contract.events import GateCheck

_WHAT = {
    "loss": ("loss", "Is the candidate better than the model in service?"),
    "slice": ("slice", "Is this group of rows harmed?"),
    "time_order": ("time order", "Does the same policy hold on days that come after its training?"),
    "calibration": ("calibration", "Do probabilities keep their word?"),
    "latency": ("latency, median", "Does its file answer as fast?"),
    "latency_p99": ("latency, 99 %", "Do its slowest answers come as fast?"),
    "size": ("size", "Can serving hold its file?"),
    "robustness": ("robustness (FGSM, PGD)", "Do small changes of numbers turn more of its answers?"),
    "hop_skip_jump": ("robustness (HopSkipJump)", "Do they turn more answers of the file?"),
    "membership": ("memory", "Does its loss give training rows away?"),
    "data": ("data", "Were the training rows fit to train on?"),
}
_ADVICE = {
    "loss": "wait for more labelled days, or look at what the arms have in common",
    "slice": "look at this slice's rows and labels; its margin is [training.gate] slice_margins",
    "time_order": "the policy did not hold on later days: look at what changed last, and wait for more days",
    "calibration": "set [training] calibrate = true",
    "latency": "look at what the module does for one row; the bound is [training.gate.latency] max_ratio",
    "latency_p99": "measure again on a machine without other work",
    "size": "a smaller module, or [training] int8; the bound is [training.gate.size] max_ratio",
    "robustness": "smaller weights (weight decay), or training with noise on the numbers",
    "hop_skip_jump": "as for robustness; needs the extra `robustness`",
    "membership": "fewer steps, weight decay, more rows, or private training",
    "data": "clipdrift check-data says which rows, and why",
}
TONES = {"pass": "good", "fail": "bad", "inconclusive": "busy", "unreachable": "busy"}


class CheckRow(NamedTuple):
    """One check in words."""

    name: str
    question: str
    slice: str
    outcome: str
    role: str  # "decides" or "on trial"
    value_words: str
    bound_words: str
    rows_words: str
    words: str
    advice: str  # what to do; "" where it passed
    tone: str  # class of the page's styles


def check_rows(checks: Sequence[GateCheck]) -> list[CheckRow]:
    """Each check in words: those that stop the candidate first, else in the order in which they were made.

    Example:
        >>> (row,) = check_rows([GateCheck(name="size", outcome="pass", words="small", value=1.5, bound=5.0, unit="times")])
        >>> row.name, row.value_words, row.bound_words, row.role, row.advice
        ('size', '1.50 times', '≤ 5 times', 'decides', '')
    """
    return [_row(one) for one in sorted(checks, key=lambda one: not stops(one))]


def stops(check: GateCheck) -> bool:
    """Whether this check alone keeps the candidate out."""
    return check.is_decisive and check.outcome != "pass"


def name_of(check: GateCheck) -> str:
    """What a person calls the check, with its slice."""
    name, _ = _what(check)
    return f"{name} {check.slice}" if check.slice else name


def _what(check: GateCheck) -> tuple[str, str]:
    """Its name for people, and the question that it answers."""
    return _WHAT.get(check.name, (check.name.replace("_", " "), ""))


def _row(check: GateCheck) -> CheckRow:
    name, question = _what(check)
    return CheckRow(
        name=name,
        question=question,
        slice=check.slice,
        outcome=check.outcome,
        role="decides" if check.is_decisive else "on trial",
        value_words=_value_words(check),
        bound_words=f"≤ {check.bound:g}{_unit(check)}" if check.bound is not None else "",
        rows_words=_rows_words(check),
        words=check.words,
        advice="" if check.outcome == "pass" else _ADVICE.get(check.name, ""),
        tone=TONES[check.outcome],
    )


def _value_words(check: GateCheck) -> str:
    if check.value is None:
        return "-"
    form = {"times": ".2f", "AUC": ".3f"}.get(check.unit, "+.4f")
    value = f"{check.value:{form}}{_unit(check)}"
    if check.low is None or check.high is None or check.low == check.high:
        return value
    return f"{value} [{check.low:{form}}, {check.high:{form}}]"


def _unit(check: GateCheck) -> str:
    return f" {check.unit}" if check.unit in ("times", "AUC") else ""


def _rows_words(check: GateCheck) -> str:
    if not check.num_rows:
        return ""
    blocks = "rounds" if check.name.startswith("latency") else "days"
    return f"{check.num_rows:,} rows, {check.num_blocks} {blocks}"
