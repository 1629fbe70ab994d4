"""Which of several monitors writes. The one that does moves a beat in the store; whoever waits takes over when it stops."""

from clipdrift_contract.clock import Clock
from clipdrift_monitor.store.store import Store, Writer

BEAT_SECONDS = 2.0
PATIENCE_SECONDS = 15.0  # several beats, and longer than any single step of a turn that does not write


class Lease:
    """The right to write to a store, held by one monitor at a time.

    No two clocks are compared: who waits measures, by a clock of its own that never jumps, for how long it has seen no beat.
    Who held the lease and comes back (a paused machine) finds the store closed to it: its next write is a `FencedError`.

    Args:
        store: The store; from `take` on, it writes for as long as nobody else takes over.
        owner: A name that no other living monitor has. A holder of the same name is an earlier life of this one and is not
            waited for.
        clock: For its monotonic seconds.

    Example:
        >>> import tempfile
        >>> from clipdrift_contract.clock import ManualClock
        >>> clock, url = ManualClock(now_ms=0), f"sqlite:///{tempfile.mkdtemp()}/store.db"
        >>> one, other = (Lease(Store(url), name, clock) for name in ("one", "other"))
        >>> one.take(), other.take()
        (True, False)
        >>> clock.advance_ms(20_000)
        >>> other.take()  # no beat was seen for twenty seconds
        True
        >>> one.take()
        False
    """

    def __init__(self, store: Store, owner: str, clock: Clock) -> None:
        if not owner:
            raise ValueError("a lease needs an owner's name")
        self._store = store
        self._owner = owner
        self._clock = clock
        self._seen: Writer | None = None
        self._seen_since = 0.0
        self._last_beat = float("-inf")

    def take(self) -> bool:
        """Try to become the writer; False while another lives.

        Raises:
            RetryableError: The store is away.
        """
        found, now = self._store.writer(), self._clock.monotonic_seconds()
        if found != self._seen:
            self._seen, self._seen_since = found, now
        is_free = found.owner in ("", self._owner) or now - self._seen_since >= PATIENCE_SECONDS
        if not is_free or not self._store.take_over(self._owner, found):
            return False
        self._last_beat = now
        return True

    def beat(self) -> None:
        """Say now and then that this monitor lives; cheap to call often.

        Raises:
            FencedError: Another has taken over.
            RetryableError: The store is away.
        """
        now = self._clock.monotonic_seconds()
        if now - self._last_beat >= BEAT_SECONDS:
            self._store.beat()
            self._last_beat = now

    def let_go(self) -> None:
        """Whoever waits may take over at once.

        Raises:
            RetryableError: The store is away.
        """
        self._store.release()
