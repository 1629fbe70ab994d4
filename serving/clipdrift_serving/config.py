"""Settings of a serving process."""

from pathlib import Path
from typing import Literal

import msgspec

_DAY_SECONDS = 86_400


class ServingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[serving]`: listeners, limits, how predictions are dated and recorded."""

    host: str = "127.0.0.1"
    """Address of the data listener."""
    port: int = 8080
    """Port of the data listener."""
    admin_host: str = "127.0.0.1"
    """Address of the admin listener: metrics, model control."""
    admin_port: int = 8081
    """Port of the admin listener."""
    event_time: Literal["server", "request"] = "server"
    """Whose clock dates a prediction: the server's, or the request's parameter `event_time_ms` (replay, backfill)."""
    record_before_answer: bool = False
    """Write each prediction to the spool before it is answered: a crash then loses none; it costs a write a request."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Larger bodies are refused with 413 before they are read."""
    max_rows: int = 4096
    """Most rows in one request."""
    max_label_age_seconds: int = 400 * _DAY_SECONDS
    """A receipt older than this, by event time against its label's time, is refused as expired."""
    max_spool_bytes: int = 1024 * 1024 * 1024
    """Most bytes on disk that may wait for the bus; beyond, recordings are dropped and counted."""
    max_pending_rows: int = 100_000
    """Most rows in memory that may wait to be written; beyond, recordings are dropped and counted."""
    metrics_need_token: bool = False
    """Whether `/metrics` on the admin listener needs the token too."""
    bus_url: str = ""
    """Filled from `[project]`."""
    spool_dir: Path = Path("spool")
    """Filled from `[project]`."""
    admin_token: str = ""
    """Filled from the secrets."""
    receipt_keys: tuple[str, ...] = ()
    """Filled from the secrets: the first signs, all verify (rotation)."""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_rows", "max_spool_bytes", "max_pending_rows", "max_label_age_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"serving.{name} must be >= 1, got {getattr(self, name)!r}")

    def __repr__(self) -> str:
        """Holds secrets, so it shows nothing."""
        return "ServingConfig(...)"
