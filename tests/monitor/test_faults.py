"""Whatever is done to a monitor and to what it reads, it ends where an undisturbed one ends: counts, judgements, incidents,
decisions, deployments, down to the bit but for the order in which sums were added. Turn by turn, with seeds:

- killed or cut off from store or bus: at every stage of a turn, by chance and each time at one stage
- events twice, out of order, a day late, later than their horizon, of an earlier life, of the future
- records that are cut off, of an unknown type, without an id, empty; events whose columns do not fit
- a clock that jumps back to 1970 or a hundred years ahead, and comes back
- a store that is full, or that another holds; a bus that is away
- a monitor that dies without a word, and its standby, on SQLite and on PostgreSQL

Real processes are killed by a real signal in tests/system/test_kill.py and test_server.py; bus and store are taken from them in
tests/system/test_outage.py; an error of the monitor's own at one model is test_judging_faults.py.
"""

import random
import sqlite3

import msgspec
import numpy as np
import pytest
from dialogue import DAY, TODAY, day_of, labels, predictions, rows, run_end
from final_state import after, answer, days, differences, final_state
from sqlalchemy import event

from clipdrift_contract.bus.sqlite import SqliteBus
from clipdrift_contract.clock import ManualClock
from clipdrift_contract.columns import Column
from clipdrift_contract.envelope import encode
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import (
    LABELS,
    POISON,
    PREDICTIONS,
    TRAINING,
    Deployment,
    FeatureColumn,
    RetrainRequest,
    ServedVersion,
)
from clipdrift_monitor.store.lease import PATIENCE_SECONDS
from clipdrift_monitor.store.store import Store


class Killed(BaseException):
    """The process is gone at this point."""


class Faults:
    """At each named stage of a turn something may happen, as `strike` says."""

    def __init__(self):
        self.strike = lambda stage: None
        self.stages = set()

    def at(self, stage):
        self.stages.add(stage)
        self.strike(stage)


class FaultyStore(Store):
    faults = None

    def _staged(self, stage, call):
        if self.faults is None:
            return call()
        self.faults.at(f"before {stage}")
        told = call()
        self.faults.at(f"after {stage}")
        return told

    def has_seen(self, event_ids):
        return self._staged("looking at what was polled", lambda: super(FaultyStore, self).has_seen(event_ids))

    def commit(self, changes):
        begins = any(run.state == "dispatching" for run in changes.ci_runs.values())
        stage = "the start of a job" if begins else "commit"
        return self._staged(stage, lambda: super(FaultyStore, self).commit(changes))

    def done(self, event_ids):
        return self._staged("the end of the outbox", lambda: super(FaultyStore, self).done(event_ids))

    def models(self):
        return self._staged("loading", lambda: super(FaultyStore, self).models())


class FaultyBus(SqliteBus):
    """Publishers of the monitor may fail as they flush, consumers as they poll; the first publisher is the test's own, and so
    are consumers without a group."""

    faults, num_publishers = None, 0

    def publisher(self):
        made = super().publisher()
        self.num_publishers += 1
        if self.num_publishers > 1:
            flush = made.flush

            def staged(timeout_seconds):
                self.faults.at("before the events of the outbox are sent")
                flush(timeout_seconds)
                self.faults.at("after the events of the outbox are sent")

            made.flush = staged
        return made

    def consumer(self, group, *arguments, **settings):
        made = super().consumer(group, *arguments, **settings)
        if group is not None:
            poll = made.poll

            def staged(*arguments):
                self.faults.at("before polling")
                records = poll(*arguments)
                self.faults.at("after polling")
                return records

            made.poll = staged
        return made


class JumpingClock(ManualClock):
    """A wall clock that somebody sets; seconds go on."""

    jump_ms = 0

    def now_ms(self):
        return super().now_ms() + self.jump_ms


def tell(dialogue, told):
    dialogue.tell(*(event for _, event in told), ids=[name for name, _ in told])


def settle(dialogue):
    """Turns until all is read, judged and sent; what fails is tried again, what is killed lives again. How often it was."""
    num_faults = num_quiet = 0
    for _ in range(600):
        try:
            dialogue.turn()
        except (RetryableError, Killed):
            num_faults += 1
            num_quiet = 0
            dialogue.restart()
            continue
        snapshot = dialogue.engine.snapshot
        num_quiet = num_quiet + 1 if not snapshot.lag and not snapshot.waits_for else 0
        if num_quiet == 4 and not dialogue.store.num_outbox():
            return num_faults
    pytest.fail(f"not at rest after 600 turns and {num_faults} faults: {dialogue.engine.snapshot}")


def live(dialogue, tell=tell, settle=settle):
    """The whole life; `tell` and `settle` may disturb it. How many faults there were."""
    num_faults = 0
    for told in days():
        tell(dialogue, told)
        num_faults += settle(dialogue)
    (request,) = dialogue.published(RetrainRequest).values()
    tell(dialogue, answer(request))
    num_faults += settle(dialogue)
    told = after()
    for i in range(0, len(told), 2):
        tell(dialogue, told[i : i + 2])
        num_faults += settle(dialogue)
    return num_faults


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    from dialogue import Dialogue

    with Dialogue(tmp_path_factory.mktemp("undisturbed")) as dialogue:
        live(dialogue)
        return final_state(dialogue)


@pytest.fixture
def faulty(dialogue_of):
    """A dialogue whose store and bus strike; not before `faults.strike` is set."""
    dialogue = dialogue_of(store_type=FaultyStore, bus_type=FaultyBus)
    dialogue.faults = dialogue.store.faults = dialogue.bus.faults = Faults()
    return dialogue


def test_the_undisturbed_life_has_something_of_everything(undisturbed):
    assert [one["generation"] for one in undisturbed["deployments"]] == [2, 1]
    assert [one[1] for one in undisturbed["retrains"]] == ["finished"]
    assert len(undisturbed["blocks"]) >= 14
    assert undisturbed["incidents"]
    assert undisturbed["signals"]
    assert {one["action"] for one in undisturbed["decisions"]} >= {"none", "alert", "retrain", "promote"}


# --- kill -9 and outages at every stage ---


def striking(seed, kinds, share):
    """Now and then, by a seed, one of `kinds`."""
    chance = random.Random(seed)

    def strike(stage):
        if chance.random() < share:
            raise chance.choice(kinds)(f"the test strikes {stage}")

    return strike


@pytest.mark.parametrize(
    ("seed", "kinds"),
    [
        (1, (Killed,)),
        pytest.param(2, (RetryableError,), marks=pytest.mark.slow),
        pytest.param(3, (Killed, RetryableError), marks=pytest.mark.slow),
        pytest.param(4, (Killed, RetryableError), marks=pytest.mark.slow),
    ],
)
def test_a_monitor_that_is_killed_or_cut_off_at_any_stage_ends_the_same(faulty, undisturbed, seed, kinds):
    faulty.faults.strike = striking(seed, kinds, 0.12)
    num_faults = live(faulty)
    faulty.faults.strike = lambda stage: None

    assert num_faults > 15
    assert differences(final_state(faulty), undisturbed) == []


STAGES = [f"{when} {what}" for what in (
    "polling", "looking at what was polled", "commit", "the start of a job", "the end of the outbox", "loading",
    "the events of the outbox are sent",
) for when in ("before", "after")]  # fmt: skip


def test_the_stages_above_are_all_there_are(faulty):
    faulty.go(run_end(), *day_of(2))
    faulty.faults.at("before the start of a job")
    faulty.faults.at("after the start of a job")
    assert faulty.faults.stages == set(STAGES)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_monitor_that_is_killed_each_time_at_one_stage_ends_the_same(faulty, undisturbed, stage):
    turns = iter(range(10_000))

    def strike(reached):
        if reached == stage and next(turns) % 11 == 0:  # it comes to rest in between
            raise Killed

    faulty.faults.strike = strike
    num_faults = live(faulty)
    faulty.faults.strike = lambda stage: None

    assert num_faults > 0
    assert differences(final_state(faulty), undisturbed) == []


# --- what comes twice, late, out of order ---


def test_events_that_come_twice_and_out_of_order_end_the_same(dialogue, undisturbed):
    chance, before = random.Random(5), []

    def disordered(dialogue, told):
        nonlocal before
        again = [*told, *told, *chance.sample(before, min(3, len(before)))]
        chance.shuffle(again)
        for one in again:
            tell(dialogue, [one])
            dialogue.turn(chance.randrange(2))
        before += told

    live(dialogue, tell=disordered)
    assert differences(final_state(dialogue), undisturbed) == []


def test_labels_that_come_a_day_late_but_within_the_horizon_end_the_same(dialogue, undisturbed):
    owed = []

    def late(dialogue, told):
        nonlocal owed
        learned = [one for one in told if one[0].startswith("learned")]
        if not learned:  # a version comes into service: what is owed of the one before comes while that one is there
            tell(dialogue, owed)
            settle(dialogue)
            owed = []
        tell(dialogue, [one for one in told if one not in learned] + owed)
        owed = learned
        if told[0][0] == after()[-2][0]:
            tell(dialogue, owed)

    live(dialogue, tell=late)
    assert differences(final_state(dialogue), undisturbed) == []


def test_labels_behind_the_horizon_change_sums_and_nothing_that_was_said(dialogue_of):
    """The accuracy is corrected; what was judged, decided and ordered stands."""
    punctual, late = dialogue_of("punctual"), dialogue_of("late")
    for told in days():
        tell(punctual, told)
        settle(punctual)
        if told[0][0] != "said-4":
            tell(late, told)
            settle(late)
    before = final_state(late)
    tell(late, [(name, event) for told in days() for name, event in told if name.endswith("-4")])
    settle(late)
    found = final_state(late)

    assert differences(found["sums"], final_state(punctual)["sums"]) == []
    for name in ("blocks", "decisions", "signals", "retrains", "deployments", "audit", "incidents"):
        assert differences(found[name], before[name]) == []


# --- what is broken ---


def broken_events(seed):
    """Records that nothing can be made of, and events whose columns do not fit: of every topic."""
    chance = random.Random(seed)
    columns = rows(chance.randrange(2, 15), 30)
    said, learned = predictions(columns, epoch="broken"), labels(columns, epoch="broken")
    headers, value = encode(said, event_id=f"cut-{seed}", source="test", time_ms=0)
    yield PREDICTIONS, {**headers, "ce_id": b"cut"}, value[: chance.randrange(len(value))]
    yield LABELS, {**headers, "ce_type": b"io.clipdrift.Nothing"}, value
    yield LABELS, {name: word for name, word in headers.items() if name != "ce_id"}, value
    yield TRAINING, {}, bytes(chance.randrange(256) for _ in range(200))
    yield TRAINING, headers, b""
    fits_not = [
        (PREDICTIONS, msgspec.structs.replace(said, sequence=Column.of(np.arange(7, dtype="u8")))),
        (PREDICTIONS, msgspec.structs.replace(said, slice_index=Column.of(np.full(30, 99, "i2")))),
        (PREDICTIONS, msgspec.structs.replace(said, scores=Column.of(np.full((30, 2), np.nan, "f4")))),
        (PREDICTIONS, msgspec.structs.replace(said, event_time_ms=Column.of(np.full(30, -5, "i8")))),
        (PREDICTIONS, msgspec.structs.replace(said, features=(FeatureColumn(name="pressure", values=Column.of(np.ones(7))),))),
        (LABELS, msgspec.structs.replace(learned, label=Column.of(np.full(30, np.inf)))),
        (LABELS, msgspec.structs.replace(learned, label_time_ms=Column(dtype="<i8", shape=(30,), data=b"short"))),
        (TRAINING, run_end("v1", artifact_digest="sha256:of-another-model")),
    ]
    for number, (topic, told) in enumerate(fits_not):
        yield topic, *encode(told, event_id=f"broken-{seed}-{number}", source="test", time_ms=0)


def test_corrupt_records_and_poison_between_the_others_end_the_same(dialogue, undisturbed):
    seeds = iter(range(1_000))

    def between(dialogue, told):
        if told[0][0] != "run-v1":
            for topic, headers, value in broken_events(next(seeds)):
                dialogue.tell_raw(topic, value, headers)
        tell(dialogue, told)

    live(dialogue, tell=between)
    assert differences(final_state(dialogue), undisturbed) == []
    assert dialogue.num_records(POISON) == 5 * next(seeds)


def test_events_of_earlier_lives_change_nothing(dialogue, undisturbed):
    """A deployment that was replaced, an outcome that nobody ordered."""

    def between(dialogue, told):
        served = ServedVersion(version="v0", uri="file:///v0", digest="d0")
        if told[0][0] != "run-v1":
            tell(dialogue, [(f"old-{told[0][0]}", Deployment(model="pump", generation=0, champion=served, decided_at_ms=0))])
        tell(dialogue, told)

    live(dialogue, tell=between)
    found = final_state(dialogue)
    found["told"]["Deployment"] = [name for name in found["told"]["Deployment"] if not name.startswith("old-")]
    assert differences(found, undisturbed) == []


# --- what time says ---


def test_events_of_the_future_are_counted_where_they_say_and_change_nothing_else(dialogue, undisturbed):
    num_future = 0

    def ahead(dialogue, told):
        nonlocal num_future
        if told[0][0].startswith("said"):
            num_future += 1
            columns = rows(TODAY + 400 * num_future, 20)
            version = told[0][1].version
            batch = {"epoch": "future", "first": 100 * num_future, "version": version}
            tell(dialogue, [(f"f{num_future}", predictions(columns, **batch)), (f"g{num_future}", labels(columns, **batch))])
        tell(dialogue, told)

    live(dialogue, tell=ahead)
    found = final_state(dialogue)
    for name in [name for name in found["sums"] if name not in undisturbed["sums"]]:
        assert int(name.split("start_ms=")[1].rstrip(")")) > TODAY * DAY
        del found["sums"][name]
    for name in ("num_predictions", "num_labels"):
        found["state"][name] -= 20 * num_future
    delays, expected = found["state"].pop("delays"), undisturbed["state"]["delays"]
    assert sum(map(sum, delays.values())) == sum(map(sum, expected.values())) + 20 * num_future
    found["state"]["delays"] = expected
    assert num_future > 10
    assert differences(found, undisturbed) == []


@pytest.mark.parametrize("jump_days", [-TODAY + 1, 36_500], ids=["back to 1970", "a hundred years ahead"])
def test_a_clock_that_jumps_and_comes_back_ends_the_same(dialogue_of, undisturbed, jump_days):
    dialogue = dialogue_of(clock_type=JumpingClock)
    chance = random.Random(6)

    def jumping(dialogue):
        dialogue.clock.jump_ms = chance.choice((0, jump_days * DAY))
        num_faults = settle(dialogue)
        dialogue.clock.jump_ms = chance.choice((0, jump_days * DAY))
        return num_faults

    live(dialogue, settle=jumping)
    assert differences(final_state(dialogue), undisturbed) == []


# --- a store that takes nothing ---


def test_a_store_that_is_full_now_and_then_ends_the_same(dialogue, undisturbed):
    """Full for good until room is made, as a disk is: SQLite itself refuses further pages."""
    chance, num_full = random.Random(8), 0

    def limit(pages):
        with dialogue.store._database._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    def full(dialogue):
        nonlocal num_full
        if chance.random() < 0.5:
            limit(1)  # SQLite takes it for as many as there are
            for _ in range(3):
                try:
                    dialogue.turn()
                except RetryableError as error:
                    num_full += "full" in str(error)
            limit(2**30)
        return settle(dialogue)

    live(dialogue, settle=full)
    assert num_full > 5
    assert differences(final_state(dialogue), undisturbed) == []


def test_a_store_that_another_holds_now_and_then_ends_the_same(dialogue, undisturbed):
    engine, num_locked = dialogue.store._database._engine, 0
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=1"))
    engine.dispose()  # the next connections are impatient, as they are after ten seconds
    other = sqlite3.connect(engine.url.database, isolation_level=None)

    def locked(dialogue):
        nonlocal num_locked
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            try:
                dialogue.turn()
            except RetryableError as error:
                num_locked += "locked" in str(error)
        other.execute("ROLLBACK")
        return settle(dialogue)

    live(dialogue, settle=locked)
    other.close()
    assert num_locked > 10
    assert differences(final_state(dialogue), undisturbed) == []


# --- a bus that is away, a monitor that is gone ---


def test_a_bus_that_is_away_for_some_turns_and_comes_back_ends_the_same(faulty, undisturbed):
    chance = random.Random(9)
    is_away = num_away = 0

    def strike(stage):
        nonlocal num_away
        if is_away and stage in ("before polling", "before the events of the outbox are sent"):
            num_away += 1
            raise RetryableError("the bus is away")

    def away(dialogue):
        nonlocal is_away
        dialogue.turn(chance.randrange(4))
        is_away = 1
        for _ in range(3):
            with pytest.raises(RetryableError, match="the bus is away"):
                dialogue.turn()
        is_away = 0
        return settle(dialogue)

    faulty.faults.strike = strike
    live(faulty, settle=away)
    assert num_away > 10
    assert differences(final_state(faulty), undisturbed) == []


class SilentStore(Store):
    """Of a monitor that dies without a word: its lease is not let go."""

    def release(self):
        raise RetryableError("it is dead")


def test_a_standby_takes_over_from_one_that_died_and_ends_the_same(dialogue_of, undisturbed, store_kind, new_store_url):
    url = new_store_url(store_kind)
    monitors = [dialogue_of(store_type=SilentStore, store_url=url, writer=writer) for writer in ("one", "other")]
    monitors[1].jobs = monitors[0].jobs
    monitors[1].restart()
    num_deaths = 0

    def dying(teller):
        """The first of the list works, dies in the middle of it, and the other one goes on when it has waited."""
        nonlocal num_deaths
        num_deaths += 1
        dead, heir = monitors
        for _ in range(num_deaths % 4 + 1):
            dead.turn()
        dead.restart()
        with pytest.raises(RetryableError, match="stands by"):
            heir.turn()
        heir.clock.advance_ms(round(PATIENCE_SECONDS * 1000))
        num_faults = settle(heir)
        monitors.reverse()
        return num_faults

    live(monitors[0], settle=dying)
    assert num_deaths > 10
    assert differences(final_state(monitors[0]), undisturbed) == []
