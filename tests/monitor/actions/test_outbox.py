"""What was written down with a decision is done, in order, and done once however often it is tried."""

import pytest
from dialogue import Dialogue, run_end

from clipdrift_contract.bus.publishing import EventPublisher
from clipdrift_contract.errors import RetryableError
from clipdrift_contract.events import Deployment, ServedVersion
from clipdrift_monitor.actions.outbox import Outbox, to_publish
from clipdrift_monitor.store.store import Changes, OutboxEntry

SERVED = ServedVersion(version="v1", uri="u", digest="d")


def deployment(generation):
    return Deployment(model="pump", generation=generation, champion=SERVED, decided_at_ms=0)


def away(timeout_seconds):
    raise RetryableError("the bus is away")


class Post:
    """An outbox on a real store and bus."""

    def __init__(self, dialogue: Dialogue):
        self.store = dialogue.store
        self.publisher = EventPublisher(dialogue.bus.publisher(), source="monitor", clock=dialogue.clock)
        self.outbox = Outbox(self.store, self.publisher)


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


def test_what_could_not_be_done_stays_in_the_outbox(post, monkeypatch):
    post.store.commit(Changes(outbox=[to_publish(run_end(), "r")]))
    with monkeypatch.context() as patch:
        patch.setattr(post.publisher, "flush", away)
        with pytest.raises(RetryableError):
            post.outbox.carry_out()
    num_waiting = post.store.num_outbox()
    post.outbox.carry_out()

    assert num_waiting == 1
    assert post.store.num_outbox() == 0


def test_orders_of_a_store_from_before_runs_were_kept_are_let_go(dialogue, post):
    post.store.commit(Changes(outbox=[OutboxEntry(event_id="start-k1", kind="start_retrain", body=b"")]))

    assert post.outbox.carry_out() == 1
    assert (post.store.outbox(), dialogue.published()) == ([], {})
