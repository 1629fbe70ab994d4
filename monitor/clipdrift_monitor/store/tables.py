"""The tables. Bodies are msgpack or JSON of contract structs; what is searched for stands in columns."""

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

SCHEMA = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))
OFFSETS = Table(
    "offsets",
    METADATA,
    Column("topic", String(200), primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False),
)
SEEN_EVENTS = Table("seen_events", METADATA, Column("id", String(200), primary_key=True))
SEEN_LABELS = Table(
    "seen_labels",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("epoch", String(32), primary_key=True),
    Column("chunk", BigInteger, primary_key=True),
    Column("bits", LargeBinary, nullable=False),
)
WINDOWS = Table(
    "windows",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("slice_index", Integer, primary_key=True),
    Column("start_ms", BigInteger, primary_key=True),
    Column("sums", LargeBinary, nullable=False),
    Index("windows_by_time", "model", "start_ms"),
)
BLOCKS = Table(
    "blocks",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("version", String(64), primary_key=True),
    Column("start_ms", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
MODELS = Table("models", METADATA, Column("model", String(64), primary_key=True), Column("body", LargeBinary, nullable=False))
HARM = Table("harm", METADATA, Column("model", String(64), primary_key=True), Column("body", LargeBinary, nullable=False))
RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", String(100), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("runs_by_version", "model", "version"),
)
UNPLACED = Table(
    "unplaced",
    METADATA,
    Column("id", String(200), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("version", String(64), nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("unplaced_by_version", "model", "version"),
)
SIGNALS = Table(
    "signals",
    METADATA,
    Column("signal_id", String(200), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("signals_by_time", "model", "at_ms"),
)
DECISIONS = Table(
    "decisions",
    METADATA,
    Column("decision_id", String(200), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("action", String(16), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("decisions_by_time", "model", "at_ms"),
)
RETRAINS = Table(
    "retrains",
    METADATA,
    Column("key", String(128), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("outcome", LargeBinary),
)
DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("model", String(64), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
OUTBOX = Table(
    "outbox",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("event_id", String(200), unique=True, nullable=False),
    Column("kind", String(40), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
)
