"""The real process: a report of two regimes, made by Evidently from a real bus."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from clipdrift_contract.clock import MS_PER_DAY
from clipdrift_contract.events import LABELS
from clipdrift_monitor.evidence.order import EvidenceOrder

DAY = MS_PER_DAY
ROWS_A_BATCH = 100
EVIL = "</script><script>document.title='owned'</script>"
# Tells of every address that a process looks up or connects to.
SPY = """
import os, sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto") and not isinstance(args[-1], str):
        with open(os.environ["SPY_FILE"], "a") as file:
            print(event, args[1:] if event != "socket.getaddrinfo" else args[:2], file=file)
sys.addaudithook(hook)
"""


def _start(order: EvidenceOrder, tmp_path: Path) -> "subprocess.Popen[str]":
    """The process, as the starter starts it, with a spy on its connections."""
    path = tmp_path / "order.json"
    path.write_bytes(msgspec.json.encode(order))
    return subprocess.Popen(
        (sys.executable, "-m", "clipdrift_monitor.evidence", str(path)), env=_spied(tmp_path),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def _make(order: EvidenceOrder, tmp_path: Path) -> tuple[int, str]:
    process = _start(order, tmp_path)
    log, _ = process.communicate(timeout=100)
    return process.returncode, log


def _spied(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "spy").mkdir(exist_ok=True)
    (tmp_path / "spy" / "sitecustomize.py").write_text(SPY)
    paths = (str(tmp_path / "spy"), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "SPY_FILE": str(tmp_path / "seen.txt")}


def _record(recorded: Any, kind: str, num_classes: int = 2) -> tuple[float, float]:
    """Days 0 to 9 and 20 to 21; in the latter the pressure is two higher and the model is wrong more often.

    Returns:
        The share of right answers of both, or for regression the mean absolute errors.
    """
    generator = np.random.default_rng(7)
    figures = []
    for days, shift in ((range(10), 0.0), (range(20, 22), 2.0)):
        figure = []
        for day in days:
            first = day * 1000
            time_N = day * DAY + np.sort(generator.integers(0, DAY, ROWS_A_BATCH))
            sequence_N = np.arange(first, first + ROWS_A_BATCH)
            pressure_N = generator.normal(shift, 1, ROWS_A_BATCH)
            features = {
                "pressure": pressure_N.astype("f4"),
                "flow": generator.normal(0, 1, ROWS_A_BATCH).astype("f4"),
                "site": generator.choice(np.array(["north", "south", EVIL], object), ROWS_A_BATCH),
                "history": generator.normal(0, 1, (ROWS_A_BATCH, 4, 2)).astype("f4"),
                "label": generator.normal(0, 1, ROWS_A_BATCH).astype("f4"),  # a feature may be called like one of our columns
                "airport": np.array([f"A{i:03}" for i in generator.integers(0, 300, ROWS_A_BATCH)], object),
            }
            if kind == "regression":
                predicted_N = pressure_N.astype("f8")
                scores_NK = predicted_N[:, None].astype("f4")
                label_N = predicted_N + generator.normal(shift, 0.5, ROWS_A_BATCH)
                figure.append(np.abs(label_N - predicted_N))
            else:
                scores_NK = generator.dirichlet(np.ones(num_classes), ROWS_A_BATCH).astype("f4")
                predicted_N = scores_NK.argmax(axis=1).astype("f8")
                is_right_N = generator.random(ROWS_A_BATCH) < (0.6 if shift else 0.9)
                label_N = np.where(is_right_N, predicted_N, (predicted_N + 1) % num_classes)
                figure.append(is_right_N)
            given = {"predicted": predicted_N, "scores": scores_NK}
            recorded.predictions(time_N, sequence_N, features=features, slice_index=sequence_N.astype("i2") % 2, **given)
            recorded.labels(time_N, sequence_N, label_N, **given)
        figures.append(float(np.concatenate(figure).mean()))
    recorded.flush()
    return figures[0], figures[1]


def _counters(page: str, name: str) -> list[float]:
    """The large numbers with this name in Evidently's data, the alarm's window first."""
    return [float(value) for value in re.findall(r'\{"value": "([0-9.e-]+)[^"]*", "label": "' + re.escape(name) + '"', page)]


class Pack(NamedTuple):
    folder: Path
    page: str
    right_before: float
    right_now: float

    @property
    def heading(self) -> str:
        return self.page[self.page.index('<div class="pack">') : self.page.index("Evidently's report")]


@pytest.fixture(scope="module")
def pack(open_recorded: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """One report of a binary model, made once for the tests that look at it."""
    folder = tmp_path_factory.mktemp("pack")
    recorded = open_recorded(folder / "bus.db")
    right = _record(recorded, "binary")
    code, log = _make(recorded.order(folder), folder)
    recorded.events.close()
    assert code == 0, log
    return Pack(folder, (folder / "report.html").read_text(), *right)


@pytest.mark.slow
def test_a_report_names_what_drifted(pack: Pack) -> None:
    columns = re.findall(r"<tr><td>([^<]*)</td><td>(?:mean|\S+:)[^<]*</td>.*?(far)?\">", pack.heading)

    assert columns[0] == ("pressure", "far")
    assert ("flow", "far") not in columns
    assert "label (feature)" in dict(columns)
    assert "Repairable harm: pump v1" in pack.heading


@pytest.mark.slow
def test_a_report_shows_the_accuracy_of_both_windows(pack: Pack) -> None:
    assert pack.right_before - pack.right_now > 0.2
    assert _counters(pack.page, "Accuracy") == [round(pack.right_now, 3), round(pack.right_before, 3)]


@pytest.mark.slow
def test_the_figures_lie_beside_the_report_with_its_digest_and_what_moved_most_is_drawn(pack: Pack) -> None:
    told = json.loads((pack.folder / "report.numbers").read_text())

    assert told["page_sha256"] == hashlib.sha256(pack.page.encode()).hexdigest()
    assert told["moved"][0]["column"] == "pressure"
    assert pack.heading.count('class="shape"') == len(told["shapes"]) == 4
    for shape in told["shapes"]:
        assert len(shape["bins"]) == len(shape["before"]) == len(shape["now"])
        assert sum(shape["before"]) == pytest.approx(1.0)
        assert sum(shape["now"]) == pytest.approx(1.0)


@pytest.mark.slow
def test_making_a_report_calls_nobody(pack: Pack) -> None:
    seen = pack.folder / "seen.txt"

    assert not seen.exists(), seen.read_text()


@pytest.mark.slow
def test_a_report_loads_nothing_and_holds_no_word_of_a_client_as_code(pack: Pack) -> None:
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)\s*=\s*[\"']?(https?:)?//", pack.page)
    assert "default-src 'none'" in pack.page
    assert EVIL not in pack.page
    assert r"\u2039script\u203adocument.title=" in pack.page, "the word must be in the report, made harmless"


@pytest.mark.slow
@pytest.mark.browser
def test_a_browser_draws_the_report_and_runs_no_word_of_a_client(pack: Pack) -> None:
    chromium = shutil.which("chromium")
    assert chromium, "tests/system-packages.sh installs it"

    told = subprocess.run(
        (chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--window-size=1280,4000",
         "--virtual-time-budget=10000", f"--user-data-dir={pack.folder / 'profile'}", "--dump-dom",
         (pack.folder / "report.html").as_uri()),
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip

    assert "<title>Repairable harm: pump v1 · evidence</title>" in told.stdout
    assert "Data Drift Summary" in told.stdout[told.stdout.index("Evidently's report") :]
    assert told.stdout.count("<svg") > 10
    assert not [line for line in told.stderr.splitlines() if "CONSOLE" in line and ("Refused" in line or "Error" in line)]


def test_the_spy_of_these_tests_sees_a_connection(tmp_path: Path) -> None:
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 9), 1)\nexcept OSError: pass"

    subprocess.run((sys.executable, "-c", code), env=_spied(tmp_path), check=True)

    assert "socket.connect" in (tmp_path / "seen.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "num_classes", "figure"), [("multiclass", 3, "Accuracy"), ("regression", 1, "MAE")])
def test_every_kind_of_task_has_its_quality_shown(
    recorded: Any, tmp_path: Path, kind: str, num_classes: int, figure: str
) -> None:
    expected = _record(recorded, kind, num_classes)

    code, log = _make(recorded.order(tmp_path, classes=("a", "b", "c")[: num_classes if num_classes > 1 else 0]), tmp_path)

    assert code == 0, log
    assert "left out" not in log
    page = (tmp_path / "report.html").read_text()
    assert sorted(_counters(page, figure)) == pytest.approx(sorted(expected), abs=1e-2), log


@pytest.mark.slow
def test_without_labels_the_report_is_of_drift_and_says_that_quality_is_missing(recorded: Any, tmp_path: Path) -> None:
    _record(recorded, "binary")
    order = recorded.order(tmp_path, current_start_ms=30 * DAY, current_end_ms=31 * DAY)
    sequence_N = np.arange(90_000, 90_100)
    recorded.predictions(30 * DAY + np.arange(100), sequence_N, features={"pressure": np.linspace(3, 4, 100)})
    recorded.flush()

    code, log = _make(order, tmp_path)

    assert code == 0, log
    page = (tmp_path / "report.html").read_text()
    assert "it needs 30 labelled rows in each window, there are 1000 and 0" in page
    assert not _counters(page, "Accuracy")


@pytest.mark.slow
def test_a_process_killed_while_it_writes_leaves_no_half_report_and_the_next_makes_a_whole_one(
    recorded: Any, tmp_path: Path
) -> None:
    _record(recorded, "binary")
    order, report = recorded.order(tmp_path), tmp_path / "report.html"
    pipe = tmp_path / "report.html.partial"
    os.mkfifo(pipe)  # holds 64 KB: the process is stopped in the middle of writing its megabytes
    process = _start(order, tmp_path)
    with pipe.open("rb") as reading:
        assert reading.read(1000)
        process.kill()
        process.communicate()
    assert not report.exists()
    pipe.unlink()

    code, log = _make(order, tmp_path)

    assert code == 0, log
    assert report.read_text().rstrip().endswith("</html>")


def test_too_few_rows_make_a_small_page_without_evidently(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions(np.arange(29), range(29))
    recorded.predictions(20 * DAY + np.arange(100), range(100, 200))
    recorded.flush()

    code, log = _make(recorded.order(tmp_path), tmp_path)

    assert code == 0, log
    page = (tmp_path / "report.html").read_text()
    assert "The reference window has 29 recorded rows; at least 30 are needed." in page
    assert len(page) < 10_000


def test_an_unknown_model_is_a_page_that_says_no_rows_were_found(recorded: Any, tmp_path: Path) -> None:
    recorded.predictions(np.arange(100), range(100))
    recorded.flush()

    code, _ = _make(recorded.order(tmp_path, model="ghost"), tmp_path)

    assert code == 0
    assert "window has 0 recorded rows" in (tmp_path / "report.html").read_text()


def test_an_order_that_cannot_be_read_is_said_and_no_traceback_shown(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(json.dumps({"signal_id": "a"}))

    told = subprocess.run(
        (sys.executable, "-m", "clipdrift_monitor.evidence", str(tmp_path / "order.json")), capture_output=True, text=True
    )

    assert told.returncode == 2
    assert "order.json is no order" in told.stderr
    assert "Traceback" not in told.stderr


def test_labels_alone_are_no_rows(recorded: Any, tmp_path: Path) -> None:
    recorded.labels(np.arange(100), range(100), np.zeros(100))
    recorded.flush()
    assert recorded.bus.consumer(None, (LABELS,)).poll(10, 1.0)

    assert _make(recorded.order(tmp_path), tmp_path)[0] == 0
    assert "window has 0 recorded rows" in (tmp_path / "report.html").read_text()
