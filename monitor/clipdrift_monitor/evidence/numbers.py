"""Every figure of a pack as JSON, beside its page: for scripts, and for the digest in the audit log."""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from clipdrift_monitor.evidence.order import EvidenceOrder
from clipdrift_monitor.evidence.page import Moved
from clipdrift_monitor.evidence.plots import Shape
from clipdrift_monitor.evidence.rows import Found, Side


def numbers_of(order: EvidenceOrder, found: Found, moved: Sequence[Moved], shapes: Sequence[Shape], page: bytes) -> bytes:
    """JSON with keys in order, the same for the same rows: the order with what was judged and decided, both windows, what has
    moved, and the SHA-256 of the page, so that one digest covers the whole pack. The bus's address, which may hold a password,
    is left out."""
    asked = {name: value for name, value in msgspec.to_builtins(order).items() if name not in ("bus_url", "html_path")}
    body = {
        "order": asked,
        "reference": _side(found.reference),
        "current": _side(found.current),
        "moved": [one._asdict() for one in moved],
        "shapes": shapes,
        "page_sha256": hashlib.sha256(page).hexdigest(),
    }
    return msgspec.json.encode(body, order="sorted")


def _side(side: Side) -> dict[str, Any]:
    return {"num_rows": side.num_rows, "num_sampled": side.num_sampled, "num_labelled": side.num_labelled}
