"""A scrape endpoint for the time that a run lasts, so that Prometheus can watch a training."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import start_http_server

from clipdrift_contract.metrics import MetricSet


@contextmanager
def scrape_endpoint(metrics: MetricSet, port: int, address: str = "127.0.0.1") -> Iterator[int]:
    """Answer GET /metrics with `metrics` on a thread of its own until the block ends; yields the port (0: any free one).

    Raises:
        OSError: The port is taken.
    """
    server, thread = start_http_server(port, addr=address, registry=metrics.registry)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
