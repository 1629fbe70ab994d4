"""Where is it worse? Accuracy by slice."""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import Offered, newest, select

NUM_SLICES = 6
"""Lines that can still be told apart."""
_EMPTY = "No mature labels by slice yet, or no monitor answers"


def _by_slice(metric: Metric) -> str:
    return newest(metric, "slice", model=style.MODEL)


def table() -> Any:
    """All slices, now."""
    live, validated = _by_slice(metrics.MODEL_ACCURACY), _by_slice(metrics.MODEL_VALIDATED_ACCURACY)
    exprs = {
        "Lost": f"{validated} - {live}",
        "Live": live,
        "Low": _by_slice(metrics.MODEL_ACCURACY_LOW),
        "High": _by_slice(metrics.MODEL_ACCURACY_HIGH),
        "Validated": validated,
        "Labels": _by_slice(metrics.MODEL_LABELS_IN_VIEW),
    }
    columns = [
        style.Column(
            name=name,
            expr=f'label_replace({expr}, "slice", "all", "slice", "")',
            unit=units.LocaleFormat if name == "Labels" else style.SHARE,
            decimals=0 if name == "Labels" else 1,
        )
        for name, expr in exprs.items()
    ]
    return style.table_of(
        "Slices, the greatest loss first",
        "Accuracy by slice, now: lost is validated minus live. A slice with few labels may lose much by chance; its interval "
        "(low to high) then reaches the validated figure. Of very many slices those that lost most are told "
        "(`[monitor.export]`).",
        _EMPTY,
        (("slice", "Slice"),),
        columns,
        order_by="Lost",
    )


def worst_over_time() -> Any:
    """The slices that lost most."""
    live = select(metrics.MODEL_ACCURACY, model=style.MODEL)
    validated = select(metrics.MODEL_VALIDATED_ACCURACY, model=style.MODEL)
    lost = f"max by (slice) ({validated}) - max by (slice) ({live})"
    # Chosen once for the whole range, by how they stand at its end, so that lines do not come and go.
    chosen = f"topk({NUM_SLICES}, max by (slice) ({validated} @ end()) - max by (slice) ({live} @ end()))"
    return (
        style.lines(
            f"Accuracy lost (the worst {NUM_SLICES} slices)",
            "Validated minus live accuracy of the slices that have lost most at the end of the range. One line that leaves the "
            "others: something happened to these users alone. All lines together: something happened to everybody.",
            style.SHARE,
            1,
            _EMPTY,
        )
        .legend(style.ranking())
        .with_target(
            style.query(
                f'label_replace(({lost}) and on (slice) {chosen}, "slice", "all", "slice", "")',
                "{{slice}}",
            )
        )
    )


def one() -> Any:
    """One slice with its interval and what was validated; repeated for the slices that lost most."""
    panel = style.lines(
        "Slice $slice",
        "Live accuracy of the slice with its 95 % interval, and what was validated. A wide band: few labels. The slices shown "
        "are those that have lost most.",
        style.SHARE,
        1,
        "No mature labels of this slice, or no monitor answers",
    )
    parts = (
        (metrics.MODEL_ACCURACY_LOW, "lower end"), (metrics.MODEL_ACCURACY_HIGH, "95 % interval"),
        (metrics.MODEL_ACCURACY, "live"), (metrics.MODEL_VALIDATED_ACCURACY, "validated"),
    )  # fmt: skip
    for ref, (metric, name) in zip("ABCD", parts, strict=True):
        panel = panel.with_target(style.query(newest(metric, "slice", model=style.MODEL, slice=Offered("slice")), name, ref))
    return style.with_band(panel, "lower end", "95 % interval").repeat("slice").repeat_direction(style.SIDEWAYS).max_per_row(3)


def worst_query(count: int) -> str:
    """For the variable of repeated panels; the whole is no slice."""
    validated, live = _by_slice(metrics.MODEL_VALIDATED_ACCURACY), _by_slice(metrics.MODEL_ACCURACY)
    whole = newest(metrics.MODEL_ACCURACY, "slice", model=style.MODEL, slice="")
    return f"topk({count}, ({validated} - {live}) unless {whole})"
