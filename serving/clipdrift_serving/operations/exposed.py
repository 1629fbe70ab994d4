"""The sums that serving keeps as plain ints, as Prometheus series, made at the scrape: a request only adds ints."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from clipdrift_contract import metrics as names
from clipdrift_contract.metrics import Metric
from clipdrift_serving.dataplane.usage import Usage
from clipdrift_serving.recording.requests import RequestFigures
from clipdrift_serving.rest.gate import Gate
from clipdrift_serving.rest.ingest import Pairing

_NS = 1e-9
_PER_VERSION: Mapping[Metric, Callable[[Usage], float]] = MappingProxyType(
    {
        names.SERVING_CPU_SECONDS: lambda usage: usage.cpu_ns * _NS,
        names.SERVING_QUEUE_SECONDS: lambda usage: usage.queue_ns * _NS,
        names.SERVING_COMPUTE_SECONDS: lambda usage: usage.compute_ns * _NS,
        names.SERVING_RUNS: lambda usage: usage.num_runs,
        names.SERVING_REQUEST_BYTES: lambda usage: usage.num_bytes_in,
    }
)


class ExposedUsage(Collector):
    """Series of what each version has cost, and of what one listener holds and has turned away.

    Register it once on the process's registry. A scrape must run on the event loop's thread, which alone writes the figures.

    Args:
        usage: By model and version; read at each scrape.
        gate: Of the data listener.
        pairing: Of what other servers log.
        request_ids: Figures of the book of request ids.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from clipdrift_serving.rest.gate import Limits
        >>> usage = Usage()
        >>> usage.cpu_ns = 250_000_000
        >>> registry = CollectorRegistry()
        >>> registry.register(ExposedUsage({("toy", "v1"): usage}, Gate(lambda request, reply: None, Limits()), Pairing()))
        >>> registry.get_sample_value("clipdrift_serving_cpu_seconds_total", {"model": "toy", "version": "v1"})
        0.25
    """

    def __init__(
        self,
        usage: Mapping[tuple[str, str], Usage],
        gate: Gate,
        pairing: Pairing,
        request_ids: Callable[[], RequestFigures] | None = None,
    ) -> None:
        self._usage = usage
        self._gate = gate
        self._pairing = pairing
        self._request_ids = request_ids

    def collect(self) -> Iterator[Family]:
        for metric, figure in _PER_VERSION.items():
            family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
            for labels, usage in self._usage.items():
                family.add_metric(labels, figure(usage))
            yield family
        pairing = self._pairing
        logged = {
            "paired": pairing.num_paired,
            "repeated": pairing.num_repeated,
            "misfit": pairing.num_misfits,
            **pairing.num_given_up,
        }
        yield _counter(names.SERVING_TURNED_AWAY, self._gate.num_refused)
        yield _counter(names.SERVING_LOGGED, logged)
        if self._request_ids is not None:
            ids = self._request_ids()
            lost = {"expired": ids.num_expired, "evicted": ids.num_evicted, "dropped": ids.num_dropped}
            yield _counter(names.SERVING_REQUEST_IDS_LOST, lost)
            kept = names.SERVING_REQUEST_IDS
            yield GaugeMetricFamily(kept.name, kept.help, value=ids.num_open + ids.num_waiting)
        for metric, value in (
            (names.SERVING_IN_FLIGHT, self._gate.num_in_flight),
            (names.SERVING_CONNECTIONS, self._gate.num_connections),
        ):
            yield GaugeMetricFamily(metric.name, metric.help, value=value)


def _counter(metric: Metric, numbers: Mapping[str, int]) -> CounterMetricFamily:
    """A counter with one label, by its values."""
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for label, number in numbers.items():
        family.add_metric((label,), number)
    return family
