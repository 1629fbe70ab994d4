"""The bus or the store is away for some seconds, parts are restarted, the store is lost: serving answers, nothing is lost."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_loop import NUM_REPLAY_DAYS, Loop, MakeLoop, Outcome, wait_until

from clipdrift_contract.events import LABELS

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Nobody else can write to the database."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def says(loop: Loop, component: str, words: str) -> bool:
    return words in (loop.project.logs / f"{component}.log").read_text()


def assert_all_is_counted(loop: Loop, num_rows: int) -> None:
    assert loop.client.num_errors == 0, loop.client.last_error
    assert loop.client.num_unanswered_rows == 0
    assert loop.streams["valve"].num_answered == num_rows
    assert loop.acknowledged("valve") == loop.recorded("valve")
    assert loop.recorded("valve", LABELS) <= loop.acknowledged("valve")
    progress = loop.watcher.progress()["models"]["valve"]
    assert progress == {"num_predictions": num_rows, "num_labels": loop.streams["valve"].num_labels}
    told, counted = loop.outcome("valve").accuracy[""], len(loop.recorded("valve", LABELS))
    assert told[0] == counted


def test_while_the_bus_is_locked_serving_answers_and_keeps_what_it_owes(make_loop: MakeLoop) -> None:
    loop = make_loop("valve")
    loop.run(2)

    with locked(loop.project.state / "bus.db"):
        loop.send(2)
        wait_until(lambda: says(loop, "serving", "the bus is away"), 30.0)
        loop.send(3)
        during = loop.client.num_errors, loop.watcher.progress()["models"]["valve"]["num_predictions"]
    loop.replay.settle()

    assert during == (0, 2 * 240), "the two days before the outage, and not a row of it"
    assert_all_is_counted(loop, 4 * 240)


def test_while_the_store_is_locked_events_wait_and_the_monitor_catches_up(make_loop: MakeLoop) -> None:
    loop = make_loop("valve")
    loop.run(2)

    with locked(loop.project.state / "store.db"):
        loop.send(2)
        loop.client.flush()
        wait_until(lambda: says(loop, "monitor", "the monitor waits"), 40.0)
        during = loop.recorded("valve")
    loop.replay.settle()

    assert len(during) == 3 * 240, "the bus took everything"
    assert_all_is_counted(loop, 3 * 240)


def test_parts_that_are_told_to_end_lose_nothing_also_what_is_only_in_memory(
    trained: Path, make_loop: MakeLoop, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(trained, base)
    settings = base / "clipdrift.toml"
    settings.write_text(settings.read_text().replace("record_before_answer = true", "record_before_answer = false"))
    loop = make_loop("valve", trained=base)
    statuses: list[int] = []
    loop.replay.await_first_versions(list(loop.streams))

    for day in range(5):
        loop.send(day)  # the last rows were answered some milliseconds ago and wait in memory
        statuses.append(loop.end("serving" if day % 2 == 0 else "monitor"))
        loop.recover()
    loop.replay.settle()

    assert statuses == [0] * 5
    assert_all_is_counted(loop, 5 * 240)
    assert len({epoch for epoch, _ in loop.acknowledged("valve")}) == 3


def test_a_store_that_was_lost_is_made_again_from_the_bus(make_loop: MakeLoop, reference: Outcome) -> None:
    loop = make_loop("valve")
    loop.run()
    assert loop.outcome("valve") == reference
    assert loop.end("monitor") == 0
    for path in loop.project.state.glob("store.db*"):
        path.unlink()

    loop.recover()
    loop.replay.settle()

    after = loop.outcome("valve")
    assert after.accuracy == reference.accuracy == loop.recount("valve")
    assert after.num_labels == reference.num_labels
    assert after.retrains == reference.retrains, "nothing is trained a second time"
    assert after.deployments == reference.deployments
    last_generation, _ = reference.deployments[-1]
    assert loop.client.generation("valve") == last_generation
    assert loop.get("/api/v1/models/valve")["generation"] == last_generation
    assert loop.get("/api/v1/audit/verify")["is_intact"] is True


def assert_judged_whole(loop: Loop, model: str, num_days: int) -> None:
    """All but the last two days, whose labels are not due."""
    assert loop.client.num_errors == 0, loop.client.last_error
    blocks = loop.get(f"/api/v1/models/{model}/blocks")["items"]
    assert [(one["view"]["num_predictions"], one["view"]["num_labels"]) for one in blocks] == [(240, 240)] * (num_days - 2)


def test_days_that_pass_while_the_monitor_is_dead_are_judged_whole(make_loop: MakeLoop, reference: Outcome) -> None:
    loop = make_loop("valve")
    loop.run(1)
    loop.running.kill("monitor")
    loop.client.recover = lambda: loop.recover("serving")
    for day in range(1, 6):
        loop.send(day)  # each life of the serving process has a place of its own on the bus
        loop.end("serving")
        loop.recover("serving")
    loop.recover()
    loop.replay.settle()

    assert_judged_whole(loop, "valve", 6)
    decisions = loop.outcome("valve").decisions
    assert decisions == {name: reference.decisions[name] for name in decisions}
    assert len(decisions) == 4


def test_days_that_pass_faster_than_the_monitor_reads_are_judged_whole(make_loop: MakeLoop) -> None:
    loop = make_loop("steady")
    loop.replay.await_first_versions(["steady"])
    for day in range(NUM_REPLAY_DAYS):
        loop.send(day)
    loop.replay.settle()

    assert_judged_whole(loop, "steady", NUM_REPLAY_DAYS)
