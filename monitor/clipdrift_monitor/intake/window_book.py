"""The vectors of windows that are being added to."""

from collections import OrderedDict
from collections.abc import Callable, Mapping

from clipdrift_monitor.windows.window import Floats, WindowKey

_MAX_WINDOWS = 2_000
Place = tuple[str, WindowKey]  # of a model


class WindowBook:
    """Vectors by (model, window). What was added to is also in `changes` until `forget_changes`, for the store.

    Args:
        load: Reads a vector from the store; None where there is none.
        max_windows: Vectors that are kept in memory between commits.
    """

    def __init__(self, load: Callable[[str, WindowKey], Floats | None], max_windows: int = _MAX_WINDOWS) -> None:
        self._load = load
        self._max_windows = max_windows
        self._vectors: OrderedDict[Place, Floats] = OrderedDict()
        self._changed: set[Place] = set()

    def add(self, model: str, key: WindowKey, sums: Floats) -> None:
        """Add `sums` to a window's vector."""
        place = (model, key)
        known = self.vector(model, key)
        self._vectors[place] = sums if known is None else known + sums
        self._vectors.move_to_end(place)
        self._changed.add(place)

    def vector(self, model: str, key: WindowKey) -> Floats | None:
        """The vector of a window; None when nothing was ever added to it. Must not be changed."""
        place = (model, key)
        if place not in self._vectors:
            found = self._load(model, key)
            if found is None:
                return None
            self._vectors[place] = found
        return self._vectors[place]

    def changes(self) -> Mapping[Place, Floats]:
        """Vectors that were added to."""
        return {place: self._vectors[place] for place in self._changed}

    def forget_changes(self) -> None:
        """The store has them now; what was not used for long is let go."""
        self._changed.clear()
        while len(self._vectors) > self._max_windows:
            self._vectors.popitem(last=False)

    def clear(self) -> None:
        """Forget everything that is not in the store."""
        self._vectors.clear()
        self._changed.clear()
