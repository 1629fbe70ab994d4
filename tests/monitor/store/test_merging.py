"""Parts of old windows are put together in one step, on every database."""

import numpy as np

from clipdrift_monitor.store.store import Changes, Store
from clipdrift_monitor.windows.span import merged
from clipdrift_monitor.windows.window import WindowKey

HOUR, DAY = 3_600_000, 86_400_000


def filled(url):
    store = Store(url)
    random = np.random.default_rng(0)
    windows = {
        (model, WindowKey(version, index, day * DAY + hour * HOUR)): random.integers(0, 9, 4).astype(float)
        for model in ("a", "b") for version in ("v1", "v2") for index in (0, 1) for day in (1, 2, 3) for hour in (0, 5, 23)
    }  # fmt: skip
    store.commit(Changes(windows=windows))
    return store


def held(store, model):
    return dict(store.windows(model, 0, 10 * DAY))


def as_days(windows):
    return {key: sums.tolist() for key, sums in merged(windows.items(), width_ms=DAY).items()}


def test_windows_before_a_moment_are_merged_and_no_others(new_store_url, store_kind):
    store = filled(new_store_url(store_kind))
    before, other = held(store, "a"), held(store, "b")

    num_gone = store.merge_windows("a", 3 * DAY, DAY, 1_000)

    found = held(store, "a")
    assert num_gone == len(before) - len(found) == 2 * 2 * 2 * 2
    assert all(key.start_ms % DAY == 0 for key in found if key.start_ms < 3 * DAY)
    assert {key: one.tolist() for key, one in found.items() if key.start_ms >= 3 * DAY} == {
        key: one.tolist() for key, one in before.items() if key.start_ms >= 3 * DAY
    }
    assert as_days(found) == as_days(before)
    assert {key: one.tolist() for key, one in held(store, "b").items()} == {key: one.tolist() for key, one in other.items()}
    assert store.merge_windows("a", 3 * DAY, DAY, 1_000) == 0


def test_a_portion_at_a_time_ends_at_the_same(new_store_url, store_kind):
    store = filled(new_store_url(store_kind))
    before, num_gone = as_days(held(store, "a")), []
    while gone := store.merge_windows("a", 4 * DAY, DAY, 1):
        num_gone.append(gone)

    assert num_gone == [8, 8, 8]
    assert as_days(held(store, "a")) == before
