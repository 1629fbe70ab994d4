"""The numbers that panels draw and alerts compare with: one place, so that a line in a picture is the line that wakes somebody.

Those that repeat a setting of the monitor (its own default) are held to it by a test.
"""

HARM_EVIDENCE = 1.0
"""Evidence over its alarm bound: an alarm by the scale's definition."""
HARM_EVIDENCE_NEAR = 0.5
"""Half of the way to an alarm, in factors: worth a look, no reason to act."""
DRIFT_SCORE = 0.1
"""`policy.drift.min_score`: the Jensen-Shannon distance from which a proven difference is worth mentioning."""
LABEL_SHARE = 0.5
"""`monitor.min_label_share`: below, labels are missing."""
LAG_RECORDS = 10_000
"""Records on the bus that the monitor has not read. A record is a batch of up to 512 rows: so many are a backlog."""
LAG_FOR = "15m"
"""How long the monitor may be behind before somebody is told."""
RETRAIN_SECONDS = 4 * 3600
"""A retrain that takes longer does not end by itself. Raise it for models that train for hours."""
RETRAIN_START_FOR = "15m"
"""An order that has not been started after this time will not start by itself."""
FLOW_WINDOW = "15m"
"""Window over which traffic, drops and arrivals are counted."""
BLIND_FOR = "10m"
"""How long the monitor may see nothing, beyond `FLOW_WINDOW`, before somebody is woken."""
ABSENT_FOR = "10m"
"""How long the monitor may not answer: a restart takes seconds."""
WASTED_RETRAINS = 0.5
"""Share of retrains that changed nothing from which on retraining costs more than it brings."""
COMMIT_SECONDS = 1.0
"""A commit of the monitor that takes longer holds back everything behind it."""
OUTBOX_ORDERS = 10
"""Orders that wait to be carried out: more at once do not go away in seconds."""
EVENT_WINDOW = "1h"
"""How long an alert tells of what has happened once: a rollback, a retrain that failed."""
INCIDENT_BRIDGE = "5m"
"""How long an open incident stands for open while the monitor cannot be scraped: a restart ends no alert."""
APPROVAL_FOR = "4h"
"""How long a question may wait for a person before it is said aloud."""
ALERTMANAGER_SECONDS = 300
"""How long ago the monitor may have reached an Alertmanager that it tells of incidents."""
ALERTMANAGER_FOR = "5m"
"""Beyond `ALERTMANAGER_SECONDS`: a restart of Alertmanager takes seconds."""
FAILED_REQUESTS = 0.01
"""Share of the requests of 30 days that may fail by the server's fault."""
MIN_REQUESTS = 100
"""Requests in the long window below which a share says nothing."""
MIN_LABELS = 200
"""Labels in the long window below which a share of wrong answers says nothing."""
