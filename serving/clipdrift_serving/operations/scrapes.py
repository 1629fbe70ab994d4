"""Several processes' metrics as one: counters and histograms are summed, gauges by a rule each; no restart makes one fall."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from clipdrift_contract import metrics as names

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Series = dict[_Key, float]
_Exemplars = dict[_Key, Exemplar]
_SUMMED_GAUGES = frozenset(
    metric.name
    for metric in (
        names.SERVING_RECORDER_QUEUE,
        names.SERVING_SPOOL_BYTES,
        names.SERVING_IN_FLIGHT,
        names.SERVING_CONNECTIONS,
    )
)
_LEAST_GAUGES = frozenset({names.SERVING_GENERATION.name})  # the oldest deployment that still answers
# any other gauge is a state of which the greatest is told: 1 where one worker has refused a deployment


class Scrapes(Collector):
    """The last scrape of each worker, and what workers that have ended had counted; a collector of their sum.

    A worker that is killed takes with it what it counted after its last scrape. Of several exemplars the newest counts.

    Example:
        >>> scrapes = Scrapes()
        >>> text = "# TYPE clipdrift_serving_rows counter\\nclipdrift_serving_rows_total{{model=\\"m\\"}} {}\\n# EOF\\n"
        >>> scrapes.update(0, text.format(3))
        >>> scrapes.update(1, text.format(4))
        >>> scrapes.end(1)
        >>> scrapes.update(1, text.format(2))
        >>> [sample.value for family in scrapes.collect() for sample in family.samples]
        [9.0]
    """

    def __init__(self) -> None:
        self._families: dict[str, Family] = {}  # without samples: name, help and kind
        self._ended: _Series = {}
        self._texts: dict[int, str] = {}

    def update(self, index: int, text: str) -> None:
        """Take a worker's newest scrape, as OpenMetrics; it is read when it is asked for."""
        self._texts[index] = text

    def end(self, index: int) -> None:
        """The worker is no more: keep what it had counted, forget its gauges."""
        for family in self._read(self._texts.pop(index, "")):
            if family.type != "gauge":
                _add(self._ended, family)

    def collect(self) -> Iterator[Family]:
        sums = dict(self._ended)
        gauges: _Series = {}
        exemplars: _Exemplars = {}
        for text in self._texts.values():
            for family in self._read(text):
                if family.type != "gauge":
                    _add(sums, family)
                    _keep_newest(exemplars, family)
                else:
                    _join(gauges, family)
        made = {name: Family(one.name, one.documentation, one.type) for name, one in self._families.items()}
        for (name, labels), value in (*sums.items(), *gauges.items()):
            exemplar = exemplars.get((name, labels))
            made[_family_name(name, made)].add_sample(name, dict(labels), value, exemplar=exemplar)
        yield from (family for family in made.values() if family.samples)

    def _read(self, text: str) -> list[Family]:
        families: list[Family] = list(text_string_to_metric_families(text)) if text else []  # type: ignore[no-untyped-call]
        for family in families:
            self._families.setdefault(family.name, family)
        return families


def _family_name(sample: str, families: dict[str, Family]) -> str:
    if sample in families:
        return sample
    return next(name for end in ("_total", "_bucket", "_count", "_sum") if (name := sample.removesuffix(end)) in families)


def _add(sums: _Series, family: Family) -> None:
    for sample in family.samples:
        key = (sample.name, tuple(sample.labels.items()))
        sums[key] = sums.get(key, 0.0) + sample.value


def _keep_newest(exemplars: _Exemplars, family: Family) -> None:
    for sample in family.samples:
        key = (sample.name, tuple(sample.labels.items()))
        if sample.exemplar is not None and (key not in exemplars or _time_of(exemplars[key]) < _time_of(sample.exemplar)):
            exemplars[key] = sample.exemplar


def _time_of(exemplar: Exemplar) -> float:
    return float(exemplar.timestamp or 0.0)


def _join(gauges: _Series, family: Family) -> None:
    for sample in family.samples:
        key = (sample.name, tuple(sample.labels.items()))
        known = gauges.get(key)
        if known is None:
            gauges[key] = sample.value
        elif family.name in _SUMMED_GAUGES:
            gauges[key] = known + sample.value
        else:
            gauges[key] = (min if family.name in _LEAST_GAUGES else max)(known, sample.value)
