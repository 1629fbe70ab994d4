"""What was written down with a decision is done, in order, and done once however often it is tried."""

import pytest
from dialogue import Dialogue, TestJobs, run_end

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import ClipSpec, Deployment, RetrainRequest, ServedVersion
from clipdrift_monitor.actions.outbox import Outbox, to_publish, to_start
from clipdrift_monitor.store.store import Changes

SERVED = ServedVersion(version="v1", uri="u", digest="d")


def deployment(generation):
    return Deployment(model="pump", generation=generation, champion=SERVED, decided_at_ms=0)


def request(key):
    return RetrainRequest(
        key=key, model="pump", cause="drift", decision_id="d", requested_at_ms=0, as_of_ms=0, data_start_ms=0,
        champion_version="v1", champion_uri="", champion_digest="", champion_clip=ClipSpec(), generation=1, arms=(),
    )  # fmt: skip


class Post:
    """An outbox on a real store and bus."""

    def __init__(self, dialogue: Dialogue, jobs=None):
        self.store, self.jobs = dialogue.store, jobs or TestJobs()
        self.publisher = EventPublisher(dialogue.bus.publisher(), source="monitor", clock=dialogue.clock)
        self.outbox = Outbox(self.store, self.publisher, self.jobs)


@pytest.fixture
def post(dialogue):
    post = Post(dialogue)
    yield post
    post.publisher.close()


def test_events_come_onto_the_bus_in_the_order_they_were_written_down_in(dialogue, post):
    post.store.commit(Changes(outbox=[to_publish(deployment(n), f"d-{n}") for n in range(450)]))

    assert post.outbox.carry_out() == 450
    assert list(dialogue.published()) == [f"d-{n}" for n in range(450)]
    assert post.outbox.carry_out() == 0


def test_an_event_written_down_twice_is_there_once(dialogue, post):
    post.store.commit(Changes(outbox=[to_publish(deployment(1), "d-1")]))
    post.store.commit(Changes(outbox=[to_publish(deployment(2), "d-1")]))

    assert post.outbox.carry_out() == 1
    assert dialogue.published()["d-1"].generation == 1


def test_a_retrain_is_started_after_its_events_are_on_the_bus_and_its_attempt_is_noted(dialogue, post):
    on_bus_at_start = []

    class WatchedJobs(TestJobs):
        def start(self, key):
            on_bus_at_start.extend(dialogue.published())
            super().start(key)

    watched = Post(dialogue, WatchedJobs())
    order = request("k1")
    watched.store.commit(Changes(requests=[order], outbox=[to_start(order), to_publish(order, "request-k1")]))
    watched.outbox.carry_out()
    watched.publisher.close()

    assert on_bus_at_start == ["request-k1"]
    assert watched.jobs.started == ["k1"]
    assert (watched.store.retrain("k1").state, watched.store.retrain("k1").attempts) == ("running", 1)


@pytest.mark.parametrize("state", ["running", "finished"])
def test_a_job_that_was_begun_in_an_earlier_life_is_adopted_and_not_started(post, state):
    order = request("k1")
    post.jobs.order(order)
    post.jobs.states["k1"] = state
    post.store.commit(Changes(requests=[order], outbox=[to_start(order)]))

    post.outbox.carry_out()

    assert post.jobs.started == []
    assert post.store.outbox() == []


def test_what_could_not_be_done_stays_in_the_outbox(dialogue):
    class FullDisk(TestJobs):
        is_full = True

        def order(self, order):
            if self.is_full:
                raise RetryableError("no space is left")
            super().order(order)

    post = Post(dialogue, FullDisk())
    order = request("k1")
    post.store.commit(Changes(requests=[order], outbox=[to_publish(run_end(), "r"), to_start(order)]))

    with pytest.raises(RetryableError):
        post.outbox.carry_out()
    num_waiting = post.store.num_outbox()
    post.jobs.is_full = False
    post.outbox.carry_out()
    post.publisher.close()

    assert num_waiting == 2
    assert post.jobs.started == ["k1"]
    assert list(dialogue.published()) == ["r"]
