"""The tables as the newest schema has them. Bodies are msgpack or JSON of contract structs; what is searched for stands in
columns. A store gets them by `migrations`, so a change here needs a step there."""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

METADATA = MetaData()

SCHEMA = Table("schema_version", METADATA, Column("version", Integer, primary_key=True))
WRITER = Table(  # one row: which monitor writes
    "writer",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("epoch", BigInteger, nullable=False),  # one higher each time that a monitor takes over
    Column("owner", Text, nullable=False),  # "": nobody
    Column("beat", BigInteger, nullable=False),  # moves for as long as it lives
)
FLOORS = Table("floors", METADATA, Column("name", Text, primary_key=True), Column("ms", BigInteger, nullable=False))
OFFSETS = Table(
    "offsets",
    METADATA,
    Column("topic", Text, primary_key=True),
    Column("part", Integer, primary_key=True),
    Column("next", BigInteger, nullable=False),
    Column("highest", BigInteger, nullable=False),  # what `next` ever was: below it, the bus is being read once more
)
SEEN_EVENTS = Table(
    "seen_events",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),  # of the record on the bus
    Index("seen_events_by_time", "at_ms"),
)
SEEN_LABELS = Table(
    "seen_labels",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("chunk", BigInteger, primary_key=True),
    Column("bits", LargeBinary, nullable=False),
    Column("newest_ms", BigInteger, nullable=False),  # of the predictions whose labels it has seen
    Index("seen_labels_by_time", "model", "newest_ms"),
)
WAITING_ROWS = Table(  # of versions that are compared: one half of a pair, until the other comes
    "waiting_rows",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("chunk", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
WINDOWS = Table(
    "windows",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("slice_index", Integer, primary_key=True),
    Column("start_ms", BigInteger, primary_key=True),
    Column("sums", LargeBinary, nullable=False),
    Index("windows_by_time", "model", "start_ms"),
)
BLOCKS = Table(
    "blocks",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("start_ms", BigInteger, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)
MODELS = Table("models", METADATA, Column("model", Text, primary_key=True), Column("body", LargeBinary, nullable=False))
HARM = Table("harm", METADATA, Column("model", Text, primary_key=True), Column("body", LargeBinary, nullable=False))
RUNS = Table(
    "runs",
    METADATA,
    Column("run_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("runs_by_version", "model", "version"),
)
UNPLACED = Table(
    "unplaced",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("value", LargeBinary, nullable=False),
    Index("unplaced_by_version", "model", "version"),
)
SIGNALS = Table(
    "signals",
    METADATA,
    Column("signal_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("signals_by_time", "model", "at_ms"),
)
DECISIONS = Table(
    "decisions",
    METADATA,
    Column("decision_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("decisions_by_time", "model", "at_ms"),
)
INCIDENTS = Table(
    "incidents",
    METADATA,
    Column("incident_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),  # of its last change
    Column("is_open", Boolean, nullable=False),
    Column("severity", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("incidents_by_time", "model", "at_ms"),
)
RETRAINS = Table(
    "retrains",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("request", LargeBinary, nullable=False),
    Column("outcome", LargeBinary),
)
APPROVALS = Table(
    "approvals",
    METADATA,
    Column("approval_id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),  # of its asking
    Column("state", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("approvals_by_time", "model", "at_ms"),
)
DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
CI_RUNS = Table(
    "ci_runs",
    METADATA,
    Column("key", Text, primary_key=True),  # of the retrain
    Column("is_open", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
OUTBOX = Table(
    "outbox",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("event_id", Text, unique=True, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", Integer, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)
