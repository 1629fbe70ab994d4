"""The process: ends when told to, saves before it does, and is the only one that writes."""

import signal
import socket

import pytest
from dialogue import Dialogue, day_of, run_end
from monitor_process import MonitorProcess, config_of

from clipdrift_contract.errors import ClipdriftError
from clipdrift_monitor.config import MonitorConfig
from clipdrift_monitor.server import run
from clipdrift_monitor.store.store import Changes, Store


def config_struct(folder, port=0):
    given = config_of(folder, port)
    return MonitorConfig(**given | {"jobs_dir": folder / "jobs", "evidence_dir": folder / "evidence"})


@pytest.mark.system
def test_a_monitor_that_is_told_to_end_in_the_middle_of_its_work_saves_returns_and_goes_on_in_its_next_life(tmp_path):
    with Dialogue(tmp_path) as teller:
        teller.tell(run_end(), *(batch for day in range(2, 60) for batch in day_of(day)))
        first = MonitorProcess(tmp_path)
        first.until(lambda found: found["models"])
        teller.tell(*(batch for day in range(60, 120) for batch in day_of(day)))
        ended = first.end()
        second = MonitorProcess(tmp_path)
        found = second.until(lambda found: found["is_idle"])
        interrupted = second.end(signal.SIGINT)

        assert ended[0] == interrupted[0] == 0
        assert "Traceback" not in ended[1] + interrupted[1]
        assert found["models"]["pump"] == {"num_predictions": 118 * 200, "num_labels": 118 * 200}
        assert teller.store.verify_audit().is_intact
        assert len(teller.store.blocks("pump")) == 117


@pytest.mark.system
@pytest.mark.slow
def test_a_monitor_that_is_killed_in_the_middle_of_its_work_counts_the_same_in_its_next_life(tmp_path):
    with Dialogue(tmp_path) as teller:
        teller.tell(run_end())
        first = MonitorProcess(tmp_path)
        first.until(lambda found: found["models"])
        teller.tell(*(batch for day in range(2, 150) for batch in day_of(day)))
        first.until(lambda found: found["models"]["pump"]["num_labels"])
        first.end(signal.SIGKILL)
        teller.tell(*(batch for day in range(150, 200) for batch in day_of(day)))
        second = MonitorProcess(tmp_path)
        found = second.until(lambda found: found["is_idle"])
        second.end()

        assert found["models"]["pump"] == {"num_predictions": 198 * 200, "num_labels": 198 * 200}
        assert len(teller.store.blocks("pump")) == 197
        assert len(teller.store.listed("decisions", "pump", 500, 0)) == 197
        assert teller.store.verify_audit().is_intact


@pytest.mark.system
def test_a_second_monitor_of_a_project_stands_by_says_so_and_ends_when_it_is_told_to(tmp_path):
    first = MonitorProcess(tmp_path)
    first.until(lambda found: found[0] == 200, ask=lambda: first.get("/readyz"))
    second = MonitorProcess(tmp_path)
    standing = second.until(lambda found: found[0] == 503, ask=lambda: second.get("/readyz"))
    ended = second.end()

    assert "another monitor is at work; this one stands by" in standing[1]
    assert first.get("/readyz")[0] == 200
    assert ended[0] == first.end()[0] == 0
    assert "Traceback" not in ended[1]


def test_a_taken_port_ends_the_engine_too_and_lets_the_next_one_start(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for _ in range(2):  # the lock is free again
            with pytest.raises(SystemExit):
                run(config_struct(tmp_path, taken.getsockname()[1]))


def test_a_fault_of_the_engine_ends_the_process_with_its_story(tmp_path, caplog):
    store = Store(f"sqlite:///{tmp_path / 'store.db'}")
    store.commit(Changes(models={"pump": b"no state of a model"}))
    store.close()

    with pytest.raises(ClipdriftError, match=r"the monitor's engine ended by (DecodeError|ValidationError)"):
        run(config_struct(tmp_path))
    assert "the process ends with it" in caplog.text
