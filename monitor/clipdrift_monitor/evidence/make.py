"""One evidence pack from its order to its file, in a process that does nothing else."""

import logging
import resource
import sys
from pathlib import Path

import msgspec

from clipdrift_contract.bus.connect import connect
from clipdrift_contract.clock import SystemClock
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.files import write_whole
from clipdrift_monitor.evidence.numbers import numbers_of
from clipdrift_monitor.evidence.order import EvidenceOrder, numbers_path, read_order
from clipdrift_monitor.evidence.page import MIN_ROWS, too_few
from clipdrift_monitor.evidence.rows import Found, read_rows

_log = logging.getLogger(__name__)


def main(order_path: Path) -> int:
    """Make the report that the order asks for; its file appears whole or not at all.

    Returns:
        The exit code. 0: the report is there. 1: the bus is away. 2: the order cannot be read, or Evidently is not installed.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    clock = SystemClock()
    began = clock.monotonic_seconds()
    try:
        order = read_order(order_path)
    except (OSError, msgspec.DecodeError) as error:
        _log.error("%s is no order: %s", order_path, error)
        return 2
    try:
        found = _read(order)
    except RetryableError as error:
        _log.error("the rows cannot be read: %s", error)
        return 1
    read_seconds = clock.monotonic_seconds() - began
    try:
        page, numbers = _pack(order, found)
    except ImportError as error:
        _log.error("Evidently cannot be imported (%s): pip install 'clipdrift[evidence]'", error)
        return 2
    html = Path(order.html_path)
    write_whole(numbers_path(html), numbers, html.with_suffix(".numbers.partial"))  # first: a page has its figures beside it
    write_whole(html, page, html.with_suffix(".html.partial"))
    _log.info(
        "%s: %.1f MB in %.1f s (%.1f s of them reading), peak memory %.0f MB", html, len(page) / 1e6,
        clock.monotonic_seconds() - began, read_seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )  # fmt: skip
    return 0


def _read(order: EvidenceOrder) -> Found:
    bus = connect(order.bus_url)
    try:
        return read_rows(bus, order)
    finally:
        bus.close()


def _pack(order: EvidenceOrder, found: Found) -> tuple[bytes, bytes]:
    """The page, and its figures."""
    if min(side.num_sampled for side in found) < MIN_ROWS:
        page = too_few(order, found).encode()
        return page, numbers_of(order, found, (), (), page)
    from clipdrift_monitor.evidence.pack import make_pack  # noqa: PLC0415  4 s that a page without a comparison can spare

    pack = make_pack(order, found)
    page = pack.page.encode()
    return page, numbers_of(order, found, pack.moved, pack.shapes, page)
