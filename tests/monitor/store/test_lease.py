import pytest

from clipdrift_contract.clock import ManualClock
from clipdrift_monitor.store.database import FencedError
from clipdrift_monitor.store.lease import BEAT_SECONDS, PATIENCE_SECONDS, Lease
from clipdrift_monitor.store.store import Changes, Store


class Monitor:
    """A store and a lease of its own, as another process has them, with a clock that is nobody else's."""

    def __init__(self, url, owner, now_ms=0):
        self.clock = ManualClock(now_ms=now_ms)
        self.store = Store(url)
        self.lease = Lease(self.store, owner, self.clock)

    def wait(self, seconds):
        self.clock.advance_ms(round(seconds * 1000))


@pytest.fixture
def monitors(new_store_url, store_kind):
    """Makes monitors of one store."""
    url, made = new_store_url(store_kind), []

    def make(owner, **clock):
        made.append(Monitor(url, owner, **clock))
        return made[-1]

    yield make
    for one in made:
        one.store.close()


def test_of_two_monitors_one_writes_and_the_other_waits_for_as_long_as_it_beats(monitors):
    active, waiting = monitors("a"), monitors("b")
    assert active.lease.take()
    for _ in range(30):
        assert not waiting.lease.take()
        waiting.wait(BEAT_SECONDS)
        active.wait(BEAT_SECONDS)
        active.lease.beat()
    active.store.commit(Changes(models={"m": b"x"}))
    assert waiting.store.models() == {"m": b"x"}


def test_who_waits_takes_over_after_its_patience_and_not_before(monitors):
    active, waiting = monitors("a"), monitors("b")
    active.lease.take()
    assert not waiting.lease.take()
    waiting.wait(PATIENCE_SECONDS - 0.1)
    assert not waiting.lease.take()
    waiting.wait(0.2)
    assert waiting.lease.take()


def test_a_writer_that_was_taken_over_from_can_write_nothing_more(monitors):
    paused, heir = monitors("a"), monitors("b")
    paused.lease.take()
    paused.store.commit(Changes(models={"m": b"before"}))
    heir.lease.take()
    heir.wait(PATIENCE_SECONDS + 1)
    heir.lease.take()
    for write in (
        lambda: paused.store.commit(Changes(models={"m": b"stale"})),
        lambda: paused.store.done(["o"]),
        paused.store.beat,
    ):
        with pytest.raises(FencedError, match="another monitor has taken over"):
            write()
    paused.lease.let_go()  # of what it no longer holds: nothing
    heir.store.commit(Changes(offsets={}, models={"m": b"after"}))
    assert heir.store.models() == {"m": b"after"}


def test_of_two_that_wait_one_takes_over(monitors):
    dead, one, other = monitors("a"), monitors("b"), monitors("c")
    dead.lease.take()
    for waiting in (one, other):
        waiting.lease.take()
        waiting.wait(PATIENCE_SECONDS + 1)
    seen = one.store.writer()
    assert other.lease.take()
    assert not one.store.take_over("b", seen)  # it had looked before the other took over


def test_an_earlier_life_of_the_same_monitor_is_not_waited_for(monitors):
    earlier, later = monitors("a"), monitors("a")
    earlier.lease.take()
    assert later.lease.take()
    with pytest.raises(FencedError):
        earlier.store.beat()


def test_a_lease_that_was_let_go_is_free_at_once(monitors):
    first, second = monitors("a"), monitors("b")
    first.lease.take()
    first.lease.let_go()
    assert second.lease.take()


def test_clocks_of_two_machines_are_never_compared(monitors):
    active, waiting = monitors("a", now_ms=10**14), monitors("b", now_ms=-(10**9))
    active.lease.take()
    assert not waiting.lease.take()
    waiting.wait(PATIENCE_SECONDS + 1)
    active.lease.beat()
    assert waiting.lease.take(), "no beat was due, so none was seen"


def test_a_beat_is_written_only_when_it_is_due(monitors):
    active = monitors("a")
    active.lease.take()
    before = active.store.writer().beat
    for _ in range(10):
        active.lease.beat()
    assert active.store.writer().beat == before
    active.wait(BEAT_SECONDS)
    active.lease.beat()
    assert active.store.writer().beat == before + 1


def test_a_lease_needs_a_name(monitors):
    with pytest.raises(ValueError, match="owner's name"):
        Lease(monitors("a").store, "", ManualClock(now_ms=0))
