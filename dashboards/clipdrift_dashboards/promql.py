"""Selectors made from the closed list of metrics: a query cannot name a metric or a label that does not exist."""

from typing import Protocol

import msgspec

from clipdrift_contract.metrics import Metric


class Series(Protocol):
    """What can be selected: a `Metric` or a recording rule."""

    @property
    def name(self) -> str:
        """As Prometheus knows it."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels of its own."""
        ...


class AnyOf(msgspec.Struct, frozen=True):
    """A matcher for one of several plain values."""

    values: tuple[str, ...]


class NoneOf(msgspec.Struct, frozen=True):
    """A matcher for all but some plain values."""

    values: tuple[str, ...]


class Offered(msgspec.Struct, frozen=True):
    """A matcher for what is chosen in a variable of several values."""

    variable: str


Matcher = str | AnyOf | NoneOf | Offered


class Bucket(msgspec.Struct, frozen=True):
    """The buckets of a histogram, as a series of their own."""

    name: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, metric: Metric) -> "Bucket":
        """
        Raises:
            ValueError: `metric` is no histogram.
        """
        if metric.kind != "histogram":
            raise ValueError(f"{metric.name} is a {metric.kind}, and only a histogram has buckets")
        return cls(f"{metric.name}_bucket", (*metric.labels, "le"))


def none_of(*values: str) -> NoneOf:
    """Match all but `values`."""
    return NoneOf(any_of(*values).values)


def any_of(*values: str) -> AnyOf:
    """Match one of `values`; they are words (letters, digits, underscores), so no regular expression hides in them."""
    bad = [value for value in values if not value.replace("_", "").isalnum()]
    if bad or not values:
        raise ValueError(f"values must be words, got {values!r}")
    return AnyOf(values)


def select(series: Series, **matchers: Matcher) -> str:
    """A selector of `series`.

    Raises:
        ValueError: `series` has no such label.

    Example:
        >>> from clipdrift_contract.metrics import MODEL_HARM_EVIDENCE
        >>> select(MODEL_HARM_EVIDENCE, model="$model", test=any_of("repairable", "sudden_break"))
        'clipdrift_model_harm_evidence_ratio{model="$model",test=~"repairable|sudden_break"}'
    """
    unknown = sorted(set(matchers) - set(series.labels))
    if unknown:
        raise ValueError(f"{series.name} has the labels {', '.join(series.labels) or 'none'}, not {', '.join(unknown)}")
    parts = [_matcher(label, value) for label, value in matchers.items()]
    return f"{series.name}{{{','.join(parts)}}}" if parts else series.name


def _matcher(label: str, value: Matcher) -> str:
    if isinstance(value, AnyOf):
        return f'{label}=~"{"|".join(value.values)}"'
    if isinstance(value, NoneOf):
        return f'{label}!~"{"|".join(value.values)}"'
    if isinstance(value, Offered):
        return f'{label}=~"${value.variable}"'
    return f'{label}="{value}"'


def newest(metric: Metric, *by: str, **matchers: Matcher) -> str:
    """A gauge as it was told last, without the labels that scraping adds: one series, also when the monitor has moved.

    Example:
        >>> from clipdrift_contract.metrics import MODEL_NLL
        >>> newest(MODEL_NLL, "model", model="$model")
        'max by (model) (clipdrift_model_live_nll_nats{model="$model"})'
    """
    return f"max by ({', '.join(by)}) ({select(metric, **matchers)})"


def greatest(metric: Metric, *by: str, **matchers: Matcher) -> str:
    """How high a gauge came in the dashboard's time range, for ranking: looked at each ten minutes, since every sample of a
    month of hundreds of models would take a second, and once at the end, where the range is shorter than that.

    Example:
        >>> from clipdrift_contract.metrics import MODEL_NLL
        >>> greatest(MODEL_NLL, "model")
        'max by (model) (max_over_time(clipdrift_model_live_nll_nats[$__range:10m]) or clipdrift_model_live_nll_nats)'
    """
    series = select(metric, **matchers)
    return f"max by ({', '.join(by)}) (max_over_time({series}[$__range:10m]) or {series})"


def per_hour(metric: Metric, *by: str, **matchers: Matcher) -> str:
    """How fast a counter counts, in a unit that tells a model of ten predictions an hour from one of a million.

    Example:
        >>> from clipdrift_contract.metrics import MODEL_LABELS
        >>> per_hour(MODEL_LABELS, "model")
        '3600 * sum by (model) (rate(clipdrift_model_labels_total[$__rate_interval]))'
    """
    grouped = f" by ({', '.join(by)}) " if by else ""
    return f"3600 * sum{grouped}(rate({select(metric, **matchers)}[$__rate_interval]))"


def total(metric: Metric, *by: str, **matchers: Matcher) -> str:
    """A counter summed over processes."""
    return f"sum by ({', '.join(by)}) ({select(metric, **matchers)})"
