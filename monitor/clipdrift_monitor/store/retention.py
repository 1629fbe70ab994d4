"""How long what is kept: the settings, and the moments that follow from them. Pure; the store deletes, the engine says when."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from clipdrift_contract.clock import MS_PER_DAY

_LEAST_WINDOW_DAYS = 35
_LEAST_ID_DAYS = 7


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[monitor.retention]`: days after which things are let go; 0: never. Audit log, runs, retrains and deployments stay."""

    window_days: int = 400
    """Windows and redeemed receipts, in event time of their model. Rows of a time before it are left out (`expired`)."""
    record_days: int = 800
    """Judged blocks, signals, decisions and closed incidents, in event time of their model."""
    event_id_days: int = 90
    """Ids of events, by which one that comes twice is known; longer than any sender tries again."""
    evidence_days: int = 400
    """Evidence packs, since they were written."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 0:
                raise ValueError(f"monitor.retention.{name} must be >= 0 (0: for ever), got {getattr(self, name)!r}")
        if 0 < self.window_days < _LEAST_WINDOW_DAYS:
            raise ValueError(
                f"monitor.retention.window_days must be 0 or at least {_LEAST_WINDOW_DAYS}, got {self.window_days!r}"
            )
        if self.record_days and (not self.window_days or self.record_days < self.window_days):
            raise ValueError(
                "monitor.retention.record_days must be 0 or at least window_days, got "
                f"{self.record_days!r} with window_days {self.window_days!r}"
            )
        if 0 < self.event_id_days < _LEAST_ID_DAYS:
            raise ValueError(
                f"monitor.retention.event_id_days must be 0 or at least {_LEAST_ID_DAYS}, got {self.event_id_days!r}"
            )


class Floors(NamedTuple):
    """What lies before is let go: moments in milliseconds; by model where they are of event time."""

    event_ids_ms: int = 0
    windows_ms: Mapping[str, int] = {}
    records_ms: Mapping[str, int] = {}


def event_ids_floor(retention: Retention, now_ms: int, newest_record_ms: int, known_ms: int) -> int:
    """From which moment on ids are kept; never before `known_ms`, what was said last.

    A clock that jumps ahead does not move it further than the bus has come.

    Example:
        >>> day = 86_400_000
        >>> event_ids_floor(Retention(event_id_days=10), 5_000 * day, 100 * day, 0) // day
        90
        >>> event_ids_floor(Retention(event_id_days=10), 80 * day, 100 * day, 90 * day) // day
        90
    """
    if not retention.event_id_days:
        return known_ms
    return max(known_ms, min(now_ms, newest_record_ms) - retention.event_id_days * MS_PER_DAY)


def windows_floor(retention: Retention, watermark_ms: int, oldest_kept_ms: int, needed_from_ms: int, known_ms: int) -> int:
    """From which moment of event time on windows are kept; never before `known_ms`.

    Args:
        retention: The settings.
        watermark_ms: The newest event time of the model.
        oldest_kept_ms: Start of the window that is as many windows behind the newest one as `window_days` hold: so many are
            kept whatever a wrong clock says of their age. 0: there are not so many.
        needed_from_ms: What judging reads still.
        known_ms: What was said last.
    """
    if not retention.window_days:
        return known_ms
    by_age_ms = watermark_ms - retention.window_days * MS_PER_DAY
    return max(known_ms, min(by_age_ms, oldest_kept_ms, needed_from_ms))


def records_floor(retention: Retention, watermark_ms: int, windows_floor_ms: int) -> int:
    """From which moment of event time on blocks, signals and decisions are kept: windows go first."""
    if not retention.record_days:
        return 0
    return max(0, min(watermark_ms - retention.record_days * MS_PER_DAY, windows_floor_ms))
