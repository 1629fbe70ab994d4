"""What a store promises, on every database that it may be on."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np
import pytest
from store_contents import KEY, PLACE, decision, deployment, everything, incident, outcome, request, run, seen_of, signal_of

from clipdrift_contract.bus.log import TopicPartition
from clipdrift_contract.errors import RetryableError
from clipdrift_monitor.actions.run import Run
from clipdrift_monitor.store.store import AuditEntry, Changes, OutboxEntry, Store
from clipdrift_monitor.windows.window import WindowKey


@pytest.fixture
def url(new_store_url, store_kind):
    return new_store_url(store_kind)


@pytest.fixture
def store(url):
    opened = Store(url)
    yield opened
    opened.close()


def test_everything_that_was_written_is_read_back_after_opening_again(store, url):
    store.commit(everything())
    before = seen_of(store)
    store.close()
    again = Store(url)
    assert seen_of(again) == before
    again.close()
    assert before["offsets"] == {PLACE: 41}
    assert before["seen"] == {"a", "b"}
    assert before["windows"] == [(KEY, [1.0, 0.1 + 0.2, 1e300])]
    assert (before["models"], before["harm"], before["blocks"]) == ({"m": b"state"}, b"memory", [b"block"])
    assert (before["run"], before["signals"], before["decisions"]) == (run(), [signal_of(1)], [decision(1)])
    assert before["unplaced"] == [("e1", b"headers", b"value")]
    assert before["deployments"] == [deployment(1)]
    assert before["audit"][0].body == '{"a":[null],"b":1}'


def test_an_empty_store_knows_nothing(store):
    assert store.harm("m") is None
    assert store.run("m", "v1") is None
    assert store.window("m", KEY) is None
    assert store.seen_labels("m", "e", 0) is None
    assert store.retrain("k") is None
    assert store.verify_audit().num_rows == 0
    assert Changes().is_empty
    assert not everything().is_empty


def test_a_batch_is_written_whole_or_not_at_all(store):
    """The deployment's generation is taken already: nothing else of its batch is there, whatever was written before it."""
    store.commit(Changes(deployments=[deployment(1)], models={"m": b"before"}, offsets={PLACE: 40}))
    before = seen_of(store)
    with pytest.raises(RetryableError, match="wrote to the store first"):
        store.commit(everything())
    assert seen_of(store) == before


def test_of_two_writers_of_one_generation_the_second_fails(store, url):
    other = Store(url)
    store.commit(Changes(deployments=[deployment(5, "mine")]))
    with pytest.raises(RetryableError):
        other.commit(Changes(deployments=[deployment(5, "theirs")]))
    other.commit(Changes(deployments=[deployment(6, "theirs")]))
    assert [one.champion.version for one in store.listed("deployments", "m", 9, 0)] == ["theirs", "mine"]
    other.close()


def test_the_same_batch_but_for_its_deployment_may_be_written_twice(store):
    store.commit(everything())
    before = seen_of(store)
    again = everything()
    again.deployments, again.audit = [], []
    store.commit(again)
    assert seen_of(store) == before


def test_later_state_replaces_earlier_state(store):
    store.commit(everything())
    store.commit(Changes(windows={("m", KEY): np.array([2.0])}, models={"m": b"later"}, offsets={PLACE: 42}))
    assert store.window("m", KEY).tolist() == [2.0]
    assert (store.models(), store.offsets()) == ({"m": b"later"}, {PLACE: 42})
    assert store.harm("m") == b"memory"


def test_windows_come_in_time_order_and_only_those_asked_for(store):
    keys = [WindowKey("v1", 1, 30), WindowKey("v1", 0, 20), WindowKey("v2", 0, 10), WindowKey("v1", 0, 40)]
    store.commit(Changes(windows={("m", key): np.array([float(key.start_ms)]) for key in keys} | {("n", keys[0]): np.zeros(1)}))
    found = [(key.start_ms, sums[0]) for key, sums in store.windows("m", 10, 40)]
    assert found == [(10, 10.0), (20, 20.0), (30, 30.0)]


def test_the_newest_run_of_a_version_counts(store):
    store.commit(Changes(runs=[run(run_id="old", ended_at_ms=1), run(run_id="new", ended_at_ms=2), run("v2", 3, "other")]))
    assert store.run("m", "v1").run_id == "new"


def test_lists_are_newest_first_and_in_pages(store):
    store.commit(Changes(decisions=[decision(n) for n in range(5)]))
    assert [one.at_ms for one in store.listed("decisions", "m", 2, 1)] == [3, 2]
    assert store.listed("decisions", "n", 9, 0) == []


def test_incidents_are_found_by_model_state_and_severity_the_last_changed_first(store):
    store.commit(Changes(incidents=[incident(1), incident(2, severity="note"), incident(3, model="n"), incident(4)]))
    store.commit(Changes(incidents=[incident(1, at_ms=9, is_open=False, revision=2), incident(1, at_ms=8, revision=3)]))

    def ids(*words, **named):
        return [one.incident_id for one in store.incidents(*words, **{"limit": 9} | named)]

    assert store.incident("i1").revision == 3
    assert store.incident("none") is None
    assert ids() == ["i1", "i4", "i3", "i2"]
    assert (ids("m"), ids("n"), ids("m", severity="note")) == (["i1", "i4", "i2"], ["i3"], ["i2"])
    assert (ids(is_open=True), ids(is_open=False)) == (["i1", "i4", "i3", "i2"], [])
    assert ids(limit=2, offset=1) == ["i4", "i3"]


def test_what_was_placed_waits_no_longer(store):
    store.commit(everything())
    store.commit(Changes(placed_ids=["e1"]))
    assert store.unplaced("m", "v9") == []


def test_more_batches_are_placed_at_once_than_a_statement_may_name(store):
    store.commit(Changes(placed_ids=[f"e{n}" for n in range(40_000)]))


def test_the_outbox_keeps_its_order_until_it_is_done(store):
    names = [f"o{n}" for n in (3, 1, 2)]
    store.commit(Changes(outbox=[OutboxEntry(event_id=name, kind="Signal", body=b"") for name in names]))
    assert [one.event_id for one in store.outbox()] == names
    assert [one.event_id for one in store.outbox(limit=1)] == names[:1]
    store.done(["o3", "o1"])
    store.done([])
    assert ([one.event_id for one in store.outbox()], store.num_outbox()) == (["o2"], 1)


def test_an_order_is_kept_once_and_goes_from_requested_to_finished(store):
    store.commit(Changes(requests=[request()]))
    begun = Run(key="k", model="m", ordered_at_ms=7, state="dispatched", attempt=2, url="https://ci.example/2")
    store.commit(Changes(ci_runs={"k": begun}))
    store.commit(Changes(requests=[request(at_ms=99)]))  # the same order again changes nothing
    assert (store.retrain("k").state, store.retrain("k").attempts, store.retrain("k").at_ms) == ("running", 2, 7)
    assert [one.key for one in store.retrains("m", unfinished=True)] == ["k"]
    assert (store.retrain("k").run, store.open_runs()) == (begun, [begun])
    store.commit(Changes(outcomes=[outcome()]))
    assert (store.retrain("k").state, store.retrain("k").outcome) == ("finished", outcome())
    assert store.retrains("m", unfinished=True) == []
    assert store.retrains("n") == []
    ended = msgspec.structs.replace(begun, state="succeeded")
    store.commit(Changes(ci_runs={"k": ended}))
    assert (store.retrain("k").state, store.retrain("k").run, store.open_runs()) == ("finished", ended, [])


# --- several at once ---


def test_many_may_open_a_new_store_at_once(url):
    with ThreadPoolExecutor(8) as pool:
        stores = list(pool.map(lambda _: Store(url), range(8)))
    stores[0].commit(Changes(models={"m": b"x"}))
    assert all(one.models() == {"m": b"x"} for one in stores)
    for one in stores:
        one.close()


def test_two_writers_append_to_one_chain(url):
    def append(name):
        store = Store(url)
        for number in range(50):
            store.commit(Changes(audit=[AuditEntry(at_ms=number, actor=name, action="a", subject="s", body={})]))
        store.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(append, ("one", "two")))
    store = Store(url)
    verdict = store.verify_audit()
    assert (verdict.is_intact, verdict.num_rows) == (True, 100)
    store.close()


WRITER = """
    import sys
    import numpy as np
    from clipdrift_contract.bus.log import TopicPartition
    from clipdrift_monitor.store.store import AuditEntry, Changes, OutboxEntry, Store
    from clipdrift_monitor.windows.window import WindowKey
    store = Store(sys.argv[1])
    for n in range(1, 10**6):
        store.commit(Changes(
            offsets={TopicPartition("t", 0): n}, seen_ids={f"e{n}": n}, models={"m": str(n).encode()},
            windows={("m", WindowKey("v", s, 0)): np.full(3000, float(n)) for s in range(20)},
            outbox=[OutboxEntry(event_id=f"o{n}", kind="Signal", body=b"")],
            audit=[AuditEntry(at_ms=n, actor="a", action="b", subject="c", body={"n": n})],
        ))
        print(n, flush=True)
"""


def test_a_writer_that_was_killed_leaves_whole_batches(url):
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WRITER), url], stdout=subprocess.PIPE, text=True)
    said = 0
    while said < 15:
        said = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    said = int(rest[-1]) if rest else said
    store = Store(url)
    reached = store.offsets()[TopicPartition("t", 0)]
    assert said <= reached <= said + 1  # what was acknowledged is there; at most one more was on its way
    assert store.models() == {"m": str(reached).encode()}
    assert {sums.tolist()[-1] for _, sums in store.windows("m", 0, 1)} == {float(reached)}
    assert store.num_outbox() == reached
    assert store.has_seen([f"e{reached}", f"e{reached + 1}"]) == {f"e{reached}"}
    assert store.verify_audit().num_rows == reached
    assert store.verify_audit().is_intact
    store.commit(Changes(models={"m": b"goes on"}))
    store.close()
