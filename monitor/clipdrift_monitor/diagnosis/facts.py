"""Gathers the facts of a block that a diagnosis looks at, from sums."""

from collections.abc import Mapping

from clipdrift_contract.events import RetrainOutcome, RunEnd
from clipdrift_monitor.clipping.evidence import evidence_of
from clipdrift_monitor.detectors.window_drift import DriftReport
from clipdrift_monitor.diagnosis.rules import Facts
from clipdrift_monitor.diagnosis.split import split_loss
from clipdrift_monitor.risk.harm import Statement
from clipdrift_monitor.windows.view import View
from clipdrift_monitor.windows.window import Floats, Layout

_MIN_SLICE_LABELS = 200


def gather(
    run: RunEnd,
    layout: Layout,
    *,
    statements: Mapping[str, Statement],
    open_tests: tuple[str, ...],
    drift: DriftReport,
    live: View,
    in_view: Mapping[int, Floats],
    tried: RetrainOutcome | None,
    margin: float,
) -> Facts:
    """The facts of a block.

    Args:
        run: That made the version in service.
        layout: Of the sums.
        statements: What the harm tests say of the block, by test.
        open_tests: Harm tests whose signals are open.
        drift: Of the block.
        live: Figures over the sliding view that ends with the block.
        in_view: Sums over the same, by slice.
        tried: The last shadow retrain of this version; None where there was none.
        margin: Brier score by which another arm must beat the old policy before clipping is called harmful.
    """
    validated = {one.slice: (one.num_rows, one.num_correct) for one in run.validation if one.slice}
    names = layout.profile.slice_names
    by_slice = {
        names[index] if index < len(names) else str(index): (
            round(layout.value(sums, "num_labels")), round(layout.value(sums, "num_correct"))
        )
        for index, sums in in_view.items()
    }  # fmt: skip
    if not validated and run.validation:
        overall = run.validation[0]
        validated = {"all": (overall.num_rows, overall.num_correct)}
    return Facts(
        clipping=evidence_of(run, tried),
        split=split_loss(validated, by_slice),
        drift=drift,
        statements=statements,
        open_tests=open_tests,
        validated_ece=run.validation[0].ece if run.validation else 0.0,
        live_ece=live.ece,
        num_labels=live.num_labels,
        margin=margin,
        falls=falls_of(validated, by_slice),
    )


def falls_of(validated: Mapping[str, tuple[int, int]], live: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Validated minus live accuracy by slice, from (labels, hits), where both sides have at least 200 labels.

    Example:
        >>> falls_of({"a": (200, 180), "b": (200, 180)}, {"a": (400, 200), "b": (10, 0)})
        {'a': 0.4}
    """
    enough = [name for name in validated if min(validated[name][0], live.get(name, (0, 0))[0]) >= _MIN_SLICE_LABELS]
    return {name: validated[name][1] / validated[name][0] - live[name][1] / live[name][0] for name in enough}
