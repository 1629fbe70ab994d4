"""Settings of a serving process."""

from pathlib import Path
from typing import Literal

import msgspec

from clipdrift_serving.dataplane.admission import AdmissionPolicy
from clipdrift_serving.recording.fields import FieldPolicy
from clipdrift_serving.recording.recorder import Sampling
from clipdrift_serving.recording.requests import RequestBookConfig
from clipdrift_serving.rest.logged_form import LoggedForm

_DAY_SECONDS = 86_400
_YEARS_SECONDS = 100 * 365 * _DAY_SECONDS


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
    workers: int = 1
    """Processes that share the data listener's port, one a core; more than one have a supervisor that merges their metrics."""
    log_format: Literal["text", "json"] = "text"
    """How log lines are written: for people, or one JSON object a line."""
    access_log_ratio: float = 0.0
    """Share of good answers that get a log entry; with a ratio above 0 errors get one always, up to 20 a second."""
    grpc_port: int = 0
    """Port of the same protocol over gRPC, on the data listener's address; 0: none."""
    grpc_threads: int = 4
    """Threads that read and write gRPC messages."""
    api_keys_file: str = ""
    """TOML file of API keys (their digests, with scopes and models); empty: everything on the data listener is open."""
    tls_certificate_file: str = ""
    """PEM file of the certificate chain of the data listener and gRPC; read again when it changes. Empty: no TLS."""
    tls_key_file: str = ""
    """PEM file of its private key."""
    tls_client_ca_file: str = ""
    """PEM file of the authorities whose clients are let in (mutual TLS); empty: no certificate is asked of clients."""
    event_time: Literal["server", "request"] = "server"
    """Whose clock dates a prediction: the server's, or the request's parameter `event_time_ms` (replay, backfill)."""
    record_before_answer: bool = False
    """Write each prediction to the spool before it is answered: a crash then loses none; it costs a write a request."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Larger bodies are refused with 413 before they are read."""
    max_rows: int = 4096
    """Most rows in one request."""
    max_batch_rows: int = 512
    """Requests that arrive in the same turn of the event loop run together, up to so many rows; 1 runs each alone."""
    max_in_flight: int = 2048
    """Requests that may wait for their answer; beyond, one is refused with 503 and `Retry-After` before its body is kept."""
    max_buffered_bytes: int = 256 * 1024 * 1024
    """Most bytes of bodies that are being received, over all connections; beyond, a request is refused with 503."""
    max_connections: int = 2048
    """Most open connections; beyond, a client is told 503 and hung up on."""
    max_header_bytes: int = 16 * 1024
    """Most bytes of a request's first line and headers; beyond, 431."""
    max_chunks: int = 16_384
    """Most chunks in one chunked body; beyond, 400."""
    head_seconds: float = 10.0
    """A request's head must be complete within this time from its first byte, else 408."""
    body_seconds: float = 30.0
    """A request's body must be complete within this time from its head, else 408."""
    idle_seconds: float = 75.0
    """A connection without a request is closed after this time."""
    send_seconds: float = 30.0
    """A client that does not read its answers is hung up on after this time."""
    drain_seconds: float = 10.0
    """After SIGTERM, requests that have begun get so long to be finished."""
    worker_threshold_seconds: float = 0.005
    """A model whose run on one row takes longer gets a thread of its own, so that it does not hold up the others."""
    shadow_rows: int = 8192
    """Rows that may wait for a shadow version; beyond, they are left out of the shadow and counted."""
    max_upload_rows: int = 25_000
    """Most labels in one upload or one feedback request; they are scored between two turns, so all others wait meanwhile."""
    max_label_age_seconds: int = 400 * _DAY_SECONDS
    """A receipt older than this, by event time against its label's time, is refused as expired."""
    max_spool_bytes: int = 1024 * 1024 * 1024
    """Most bytes on disk that may wait for the bus; beyond, recordings are dropped and counted."""
    max_pending_rows: int = 100_000
    """Most rows in memory that may wait to be written; beyond, recordings are dropped and counted."""
    metrics_need_token: bool = False
    """Whether `/metrics` on the admin listener needs the token too."""
    has_exemplars: bool = True
    """Whether `/metrics`, as OpenMetrics, names a request for each latency (the caller's request id, the trace's): false where
    these must not reach Prometheus."""
    fields: FieldPolicy = FieldPolicy()
    """`[serving.fields]`: what of the features is recorded."""
    sampling: Sampling = Sampling()
    """`[serving.sampling]`: which share of the predictions is recorded."""
    request_ids: RequestBookConfig = RequestBookConfig()
    """`[serving.request_ids]`: how long labels may come back under the caller's own request id."""
    logged_forms: dict[str, LoggedForm] = {}
    """`[serving.logged_forms.MODEL]`: names for V1 payloads of KServe's logger: input_name, output_name, columns."""
    admission: AdmissionPolicy = AdmissionPolicy()
    """`[serving.admission]`: what a model's file must fulfil before it serves."""
    bus_url: str = ""
    """Filled from `[project]`."""
    spool_dir: Path = Path("spool")
    """Filled from `[project]`."""
    admin_token: str = ""
    """Filled from the secrets."""
    receipt_keys: tuple[str, ...] = ()
    """Filled from the secrets: the first signs, all verify (rotation)."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if (field.name.startswith("max_") or field.name == "workers") and value < 1:
                raise ValueError(f"serving.{field.name} must be >= 1, got {value!r}")
            if field.name == "access_log_ratio" and not 0 <= value <= 1:
                raise ValueError(f"serving.access_log_ratio must be in 0..1, got {value!r}")
            if field.name.endswith("_seconds") and not 0 < value < _YEARS_SECONDS:
                raise ValueError(f"serving.{field.name} must be > 0, got {value!r}")

    def __repr__(self) -> str:
        """Holds secrets, so it shows nothing."""
        return "ServingConfig(...)"
