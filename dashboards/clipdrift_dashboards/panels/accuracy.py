"""Does it do what was validated? Accuracy with its interval and its n, and the slices."""

from typing import Any

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import common, dashboard, units

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import newest

_COLUMNS = ("Lost", "Live", "Low", "High", "Validated", "Labels")


def row() -> style.Row:
    """Accuracy over time beside its n; below, the slices."""
    return style.Row(
        "Does it do what was validated?",
        (
            style.Line(style.LINE_HEIGHT + 1, ((_accuracy(), 16), (_labels(), 8))),
            style.Line(style.LINE_HEIGHT, ((_slices(), 24),)),
        ),
    )


def _overall(metric: Metric) -> str:
    return newest(metric, "model", model=style.MODEL, slice="")


def _accuracy() -> Any:
    return (
        style.lines(
            "Accuracy, live and validated",
            "Live accuracy over the sliding view with its 95 % interval, and the accuracy at validation of the version in "
            "service. Live below validated is no proof of harm yet: days differ. The proof is in the next row.",
            style.SHARE,
            1,
            "No mature labels in this time range",
        )
        .with_target(style.query(_overall(metrics.MODEL_ACCURACY_LOW), "lower end", "A"))
        .with_target(style.query(_overall(metrics.MODEL_ACCURACY_HIGH), "95 % interval, upper end", "B"))
        .with_target(style.query(_overall(metrics.MODEL_ACCURACY), "live", "C"))
        .with_target(style.query(_overall(metrics.MODEL_VALIDATED_ACCURACY), "validated", "D"))
        .override_by_name(
            *style.series_style(
                "lower end",
                style.SKY,
                custom_lineWidth=0,
                custom_showPoints="never",
                custom_hideFrom={"legend": True, "tooltip": False, "viz": False},
            )
        )
        .override_by_name(
            *style.series_style(
                "95 % interval, upper end",
                style.SKY,
                custom_lineWidth=0,
                custom_showPoints="never",
                custom_fillBelowTo="lower end",
                custom_fillOpacity=30,
            )
        )
        .override_by_name(*style.series_style("live", style.BLUE))
        .override_by_name(*style.series_style("validated", style.VERMILION, (10, 6), custom_lineInterpolation="stepAfter"))
    )


def _labels() -> Any:
    return (
        style.lines(
            "Labels behind it",
            "Mature labels in the sliding view. When a new version comes into service its own labels begin to count anew.",
            units.LocaleFormat,
            0,
            "No labels in this time range",
        )
        .min(0)
        .fill_opacity(20)
        .with_target(style.query(_overall(metrics.MODEL_LABELS_IN_VIEW), "labels in view"))
        .override_by_name(*style.series_style("labels in view", style.BLUE))
    )


def _slices() -> Any:
    live, validated = _by_slice(metrics.MODEL_ACCURACY), _by_slice(metrics.MODEL_VALIDATED_ACCURACY)
    exprs = {
        "Lost": f"{validated} - {live}",
        "Live": live,
        "Low": _by_slice(metrics.MODEL_ACCURACY_LOW),
        "High": _by_slice(metrics.MODEL_ACCURACY_HIGH),
        "Validated": validated,
        "Labels": _by_slice(metrics.MODEL_LABELS_IN_VIEW),
    }
    panel = (
        table.Panel()
        .title("Slices, the greatest loss first")
        .description(
            "Accuracy by slice, now: lost is validated minus live. A slice with few labels may lose much by chance; its "
            "interval (low to high) then reaches the validated figure."
        )
        .datasource(style.SOURCE)
        .unit(style.SHARE)
        .decimals(1)
        .no_value("No mature labels yet")
    )
    for ref, expr in zip("ABCDEF", exprs.values(), strict=True):
        panel = panel.with_target(style.table_now(f'label_replace({expr}, "slice", "all", "slice", "")', ref))
    renamed = {f"Value #{ref}": name for ref, name in zip("ABCDEF", exprs, strict=True)}
    order = {"slice": 0} | {f"Value #{ref}": index for index, ref in enumerate("ABCDEF", 1)}
    assert tuple(exprs) == _COLUMNS
    return (
        panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            dashboard.DataTransformerConfig(
                id_val="organize",
                options={"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed | {"slice": "Slice"}},
            )
        )
        .override_by_name(
            "Labels",
            [
                dashboard.DynamicConfigValue(id_val="unit", value=units.LocaleFormat),
                dashboard.DynamicConfigValue(id_val="decimals", value=0),
            ],
        )
        .sort_by([common_builders.TableSortByFieldState().display_name("Lost").desc(True)])
        .cell_height(common.TableCellHeight.SM)
    )


def _by_slice(metric: Metric) -> str:
    return newest(metric, "slice", model=style.MODEL)
