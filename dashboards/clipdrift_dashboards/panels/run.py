"""How does the training that runs now go? Figures of the trainer itself, scraped while a run lasts."""

from typing import Any

from grafana_foundation_sdk.models import units

from clipdrift_contract import metrics
from clipdrift_contract.metrics import Metric
from clipdrift_dashboards.panels import style
from clipdrift_dashboards.promql import Bucket, newest, select, total

_EMPTY = "No training ran in this time range, or it was not scraped: clipdrift run-metrics brings it in"
_RATE = "$__rate_interval"


def _rate(metric: Metric, *by: str) -> str:
    return f"sum by ({', '.join(('model', *by))}) (rate({select(metric, model=style.MODEL)}[{_RATE}]))"


def loss() -> Any:
    """Loss, and how far the run is."""
    progress = "share of the run done"
    return (
        style.lines(
            "Training loss and progress",
            "Mean training loss of the last window of steps, and the share of planned steps that are done (right axis). A loss "
            "that rises with the norms below it is a run that comes apart.",
            units.NoUnit,
            3,
            _EMPTY,
        )
        .with_target(style.query(newest(metrics.TRAINER_LOSS, "model", model=style.MODEL), "loss", "A"))
        .with_target(style.query(newest(metrics.TRAINER_PROGRESS, "model", model=style.MODEL), progress, "B"))
        .override_by_name(*style.series_style("loss", style.BLUE))
        .override_by_name(
            *style.series_style(
                progress, style.GREY, (3, 6), unit=style.SHARE, decimals=0, min=0, max=1, custom_axisPlacement="right"
            )
        )
    )


def norms() -> Any:
    """Norms beside the bound."""
    buckets = f"sum by (le) (rate({select(Bucket.of(metrics.TRAINER_GRAD_NORM), model=style.MODEL)}[{_RATE}]))"
    panel = style.lines(
        "Gradient norm before clipping",
        "Global gradient norm on a logarithmic axis: half of the steps lie below the middle line, 99 in 100 below the upper "
        "one; dashed, the bound in force. Upper line above the bound and middle one below: clipping cuts spikes, as it "
        "should. Both far above: it sets the step length. Read from buckets, four to each power of 256.",
        units.NoUnit,
        3,
        _EMPTY,
    ).scale_distribution(style.logarithmic())
    parts = ((0.99, "99 in 100", style.ORANGE, (3, 6)), (0.5, "half", style.BLUE, ()))
    for ref, (quantile, name, color, dash) in zip("AB", parts, strict=True):
        panel = panel.with_target(style.query(f"histogram_quantile({quantile}, {buckets})", name, ref))
        panel = panel.override_by_name(*style.series_style(name, color, dash))
    bound = f"{newest(metrics.TRAINER_CLIP_BOUND, 'model', model=style.MODEL)} < Inf"
    return panel.with_target(style.query(bound, "bound", "C")).override_by_name(
        *style.series_style("bound", style.VERMILION, (12, 6), custom_lineInterpolation="stepAfter")
    )


def clipped() -> Any:
    """What clipping takes, as it happens."""
    norm_sum = f"sum by (model) (rate({select(_sum_of(metrics.TRAINER_GRAD_NORM), model=style.MODEL)}[{_RATE}]))"
    mass, rate = "gradient mass removed", "steps clipped"
    return (
        style.lines(
            "What clipping takes, now",
            "Share of gradient mass that clipping removes, and share of steps that it touches, as the run goes. Few steps and "
            "little mass: spikes are cut. Nearly all steps and much mass: a larger bound with a smaller learning rate would do "
            "the same.",
            style.SHARE,
            1,
            _EMPTY,
        )
        .min(0)
        .max(1)
        .with_target(style.query(f"{_rate(metrics.TRAINER_GRAD_NORM_REMOVED)} / {norm_sum}", mass, "A"))
        .with_target(style.query(f"{_rate(metrics.TRAINER_CLIPPED_STEPS)} / {_rate(metrics.TRAINER_STEPS)}", rate, "B"))
        .override_by_name(*style.series_style(mass, style.PURPLE, custom_fillOpacity=15))
        .override_by_name(*style.series_style(rate, style.GREY, (10, 6)))
    )


def learning_rates() -> Any:
    """Planned, and what clipping leaves of it."""
    return (
        style.lines(
            "Learning rate, planned and effective",
            "Mean learning rate of the last window of steps, and what clipping leaves of it: rate times clipping coefficient. "
            "The distance between the two lines is what clipping does to the step length.",
            "sci",
            1,
            _EMPTY,
        )
        .min(0)
        .with_target(style.query(newest(metrics.TRAINER_LEARNING_RATE, "model", model=style.MODEL), "planned", "A"))
        .with_target(style.query(newest(metrics.TRAINER_EFFECTIVE_LEARNING_RATE, "model", model=style.MODEL), "effective", "B"))
        .override_by_name(*style.series_style("planned", style.GREY, (10, 6)))
        .override_by_name(*style.series_style("effective", style.BLUE))
    )


def layers() -> Any:
    """Norms by group of layers."""
    return (
        style.lines(
            "Gradient norm, by group of layers",
            "Mean norm before clipping of each group of layers (12 at most), on a logarithmic axis. With one bound for all, "
            "the group with the largest norm decides how much every other group is shortened.",
            units.NoUnit,
            3,
            _EMPTY,
        )
        .scale_distribution(style.logarithmic())
        .legend(style.ranking())
        .with_target(style.query(newest(metrics.TRAINER_GROUP_NORM, "group", model=style.MODEL), "{{group}}"))
    )


def slices() -> Any:
    """Whose gradients weigh most."""
    mass = f"sum by (slice) (increase({select(metrics.TRAINER_SLICE_GRAD_MASS, model=style.MODEL)}[{_RATE}]))"
    return (
        style.lines(
            "Gradient mass, by slice (at most 6)",
            "Share of the samples' head-layer gradient norms, by slice: it ranks slices, and is no magnitude. A slice whose "
            "share is far above its share of rows pulls hardest on the weights, and loses most where clipping takes much.",
            style.SHARE,
            1,
            _EMPTY,
        )
        .min(0)
        .legend(style.ranking())
        .with_target(style.query(f"topk(6, {mass}) / on () group_left () sum ({mass})", "{{slice}}"))
    )


def faults() -> Any:
    """What must never happen."""
    kinds = (
        (metrics.TRAINER_NONFINITE_STEPS, "NaN or infinite norm"),
        (metrics.TRAINER_INEFFECTIVE_STEPS, "clipping without effect"),
        (metrics.TRAINER_SKIPPED_STEPS, "skipped by the loss scaler"),
    )  # fmt: skip
    panel = (
        style.lines(
            "Steps with a fault, so far",
            "Steps of the run in which something was wrong with how gradients are made or clipped, by kind. A training fault "
            "is mended in the code, not by a retrain. Steps that a loss scaler skips now and then are no fault.",
            units.LocaleFormat,
            0,
            _EMPTY,
        )
        .min(0)
        .axis_soft_max(3)
        .legend(style.ranking())
        .with_target(style.query(total(metrics.TRAINER_FAULTS, "kind", model=style.MODEL), "{{kind}}", "A"))
    )
    for ref, (metric, name) in zip("BCD", kinds, strict=True):
        panel = panel.with_target(style.query(total(metric, "model", model=style.MODEL), name, ref))
    return panel


def telemetry() -> Any:
    """What the record lacks."""
    return (
        style.lines(
            "Telemetry that waits, failed or is lost",
            "Windows of steps that wait for the bus, attempts to send that failed, and windows that a place will never get, "
            "since the run began. Training never waits for telemetry; what is lost is missing in the record of the run.",
            units.LocaleFormat,
            0,
            _EMPTY,
        )
        .min(0)
        .axis_soft_max(3)
        .with_target(style.query(newest(metrics.TRAINER_WINDOWS_UNSENT, "model", model=style.MODEL), "waiting", "A"))
        .with_target(style.query(total(metrics.TRAINER_SINK_FAILURES, "sink", model=style.MODEL), "failed: {{sink}}", "B"))
        .with_target(style.query(total(metrics.TRAINER_WINDOWS_LOST, "sink", model=style.MODEL), "lost: {{sink}}", "C"))
        .override_by_name(*style.series_style("waiting", style.BLUE))
    )


def _sum_of(metric: Metric) -> Metric:
    """The sum that a histogram keeps."""
    return Metric(f"{metric.name}_sum", "counter", metric.help, metric.labels)
