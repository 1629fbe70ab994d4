"""The audit log's chain: each row's hash covers its content and the hash before it, so a changed or missing row is found.

A chain does not stop its owner from writing it all anew: keep the head's hash somewhere else.
"""

import hashlib
from collections.abc import Iterable

import msgspec

GENESIS = "0" * 64


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    at_ms: int
    actor: str
    action: str
    subject: str
    body: str  # canonical JSON: keys in order, no blanks
    previous: str
    hash: str


class AuditVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the chain holds; if not, the first row that does not fit and why."""

    is_intact: bool
    num_rows: int
    head: str
    broken_at: int | None = None
    reason: str = ""


def canonical(body: object) -> str:
    """JSON with keys in order.

    Example:
        >>> canonical({"b": 1, "a": [1.5, None]})
        '{"a":[1.5,null],"b":1}'
    """
    return msgspec.json.encode(body, order="sorted").decode()


def row_hash(seq: int, at_ms: int, actor: str, action: str, subject: str, body: str, previous: str) -> str:
    """SHA-256 over the row's fields, each with its length, and the hash before."""
    digest = hashlib.sha256()
    for part in (str(seq), str(at_ms), actor, action, subject, body, previous):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


def verify(rows: Iterable[AuditRow]) -> AuditVerdict:
    """Walk the chain from its beginning."""
    previous, num_rows = GENESIS, 0
    for row in rows:
        num_rows += 1
        reason = ""
        if row.seq != num_rows:
            reason = f"row {num_rows} is missing"
        elif row.previous != previous:
            reason = f"row {row.seq} does not follow row {row.seq - 1}"
        elif row.hash != row_hash(row.seq, row.at_ms, row.actor, row.action, row.subject, row.body, row.previous):
            reason = f"row {row.seq} was changed"
        if reason:
            return AuditVerdict(is_intact=False, num_rows=num_rows, head=previous, broken_at=num_rows, reason=reason)
        previous = row.hash
    return AuditVerdict(is_intact=True, num_rows=num_rows, head=previous)
