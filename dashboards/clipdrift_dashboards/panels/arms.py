"""What would other clipping have done? The arms of the newest retrain, and what the probe foretold of it."""

from typing import Any

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest

_EMPTY = "No retrain of this model has ended yet, or no monitor answers"
_BETTER = {1: ("yes", style.VERMILION), 0: ("not known", style.GREY), -1: ("no", style.BLUE)}
_CHOSEN = {0: ("not chosen", style.GREY), 1: ("chosen", style.BLUE)}


def table() -> Any:
    """One row an arm."""
    columns = [
        style.Column(name="Chosen", expr=_by_arm(metrics.MODEL_ARM_CHOSEN), words=_CHOSEN),
        style.Column(name="Removed", expr=_by_arm(metrics.MODEL_ARM_REMOVED_MASS), unit=style.SHARE, decimals=0),
        style.Column(name="Better?", expr=_by_arm(metrics.MODEL_ARM_BETTER), words=_BETTER),
        style.Column(name="Difference", expr=_by_arm(metrics.MODEL_ARM_DIFFERENCE), decimals=5),
        style.Column(name="Low", expr=_by_arm(metrics.MODEL_ARM_DIFFERENCE_LOW), decimals=5),
        style.Column(name="High", expr=_by_arm(metrics.MODEL_ARM_DIFFERENCE_HIGH), decimals=5),
    ]
    return style.table_of(
        "Arms of the newest retrain",
        "Each arm is one clipping policy, trained on the same rows. Removed: gradient mass that its clipping took. Difference: "
        "its validation Brier score minus that of the arm 'same', which keeps the clipping, with a 95 % interval. Better: by "
        "more than chance and by the margin of the policy (`policy.clipping_margin`); then the clipping in service does harm.",
        _EMPTY,
        (("arm", "Arm"),),
        columns,
        order_by="Chosen",
    )


def probe() -> Any:
    """One row a kind of rows."""
    columns = [
        style.Column(name="Median norm", expr=_by_rows(metrics.MODEL_PROBE_NORM), decimals=2),
        style.Column(name="Would be removed", expr=_by_rows(metrics.MODEL_PROBE_REMOVED_MASS), unit=style.SHARE, decimals=0),
    ]
    return style.table_of(
        "Gradients: foretold and found",
        "Gradient norms of the model in service before the newest retrain, and the share of gradient mass that its bound would "
        "remove. trained: on the rows that it was trained on. recent: on labelled rows since. retrain: in the first steps of "
        "the retrain that followed. Recent far above trained: the world asks for larger steps than the bound lets through.",
        "No retrain of this model was probed yet, or no monitor answers",
        (("rows", "Rows"),),
        columns,
        order_by="Median norm",
    )


def _by_arm(metric: Metric) -> str:
    return newest(metric, "arm", model=style.MODEL)


def _by_rows(metric: Metric) -> str:
    return newest(metric, "rows", model=style.MODEL)
