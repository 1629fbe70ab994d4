"""The figures of a pack as JSON, its digest, and the limits of the process that makes it."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import msgspec

from clipdrift_contract.events import Decision, Signal
from clipdrift_monitor.evidence.numbers import numbers_of
from clipdrift_monitor.evidence.order import EvidenceOrder, course_of, order_for, read_order
from clipdrift_monitor.evidence.page import Moved
from clipdrift_monitor.evidence.rows import Found, Side
from clipdrift_monitor.evidence.starter import Finished
from clipdrift_monitor.server import audit_packs
from clipdrift_monitor.state import JudgedBlock
from clipdrift_monitor.windows.view import View

EMPTY = Found(Side(3, {}, {}), Side(5, {}, {}))
DECISION = Decision(
    decision_id="d", model="pump", version="v1", at_ms=1, action="retrain", reasons=("It pays.",), policy_version="p",
    evidence_digest="e", terms={"net": 2.5},
)  # fmt: skip
ORDER = EvidenceOrder(
    signal_id="s", model="pump", version="v1", bus_url="kafka://user:secret@host", reference_start_ms=0, reference_end_ms=1,
    current_start_ms=2, current_end_ms=3, decision=DECISION,
)  # fmt: skip

SIGNAL = Signal(
    signal_id="s", model="pump", version="v1", kind="repairable", severity="ticket", detector="repairable", window_start_ms=3,
    window_end_ms=4, statistic=1.0, threshold=1.0,
)  # fmt: skip


def test_one_digest_covers_the_page_and_every_figure_and_no_address_is_told():
    moved = [Moved("pressure", "psi", 0.3, 0.1, True, "mean 0", "mean 2")]
    body = numbers_of(ORDER, EMPTY, moved, (), b"<html>")
    told = json.loads(body)

    assert told["page_sha256"] == hashlib.sha256(b"<html>").hexdigest()
    assert told["order"]["decision"]["terms"] == {"net": 2.5}
    assert told["moved"][0]["column"] == "pressure"
    assert (told["reference"]["num_rows"], told["current"]["num_rows"]) == (3, 5)
    assert b"secret" not in body
    assert body == numbers_of(ORDER, EMPTY, moved, (), b"<html>")
    assert body != numbers_of(ORDER, EMPTY, moved, (), b"<html >")


def test_an_order_of_an_earlier_version_is_read_with_nothing_more_in_it(tmp_path):
    old = {name: value for name, value in msgspec.to_builtins(ORDER).items() if name not in ("block", "decision", "course")}
    path = tmp_path / "order.json"
    path.write_bytes(msgspec.json.encode(old))
    assert read_order(path) == msgspec.structs.replace(ORDER, decision=None)


def test_the_course_is_that_of_the_alarms_version_until_the_alarm():
    def block(day, version="v1"):
        seen = View(num_predictions=9, num_labels=9, num_correct=9, accuracy=0.5)
        return JudgedBlock(version=version, start_ms=day, end_ms=day + 1, view=seen, levels={SIGNAL.kind: day / 10})

    found = course_of([block(1, "v0"), block(2), block(3), block(99)], SIGNAL)
    assert (found.start_ms, found.evidence, found.accuracy) == ((2, 3), (0.2, 0.3), (0.5, 0.5))
    order = order_for(SIGNAL, run=None, bus_url="", in_service_since_ms=0, decision=DECISION, course=found)
    assert (order.decision, order.course) == (DECISION, found)


def test_a_process_that_wants_more_memory_than_its_limit_ends_by_itself():
    code = "from clipdrift_monitor.evidence.limits import limit\nlimit(memory_bytes=2**30)\nbytearray(2**31)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode != 0
    assert "MemoryError" in ended.stderr


def test_limits_can_be_set_twice_and_a_lower_one_stays():
    code = (
        "import resource\nfrom clipdrift_monitor.evidence.limits import limit\nlimit(cpu_seconds=9)\nlimit()\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert said == "(9, 9) (0, 0)\n"


def test_a_made_pack_is_audited_by_the_digest_of_its_figures_and_a_failed_one_with_the_reason():
    rows = []

    class Asked:
        def command(self, what):
            what(self)

        def audit(self, action, subject, body):
            rows.append((action, subject, body))

    audit_packs(Asked(), [Finished("s1", Path("evidence/s1.html"), digest="abc"), Finished("s2", None, "no memory")])
    assert rows == [
        ("evidence", "s1", {"page": "s1.html", "numbers_sha256": "abc"}),
        ("evidence failed", "s2", {"problem": "no memory"}),
    ]
